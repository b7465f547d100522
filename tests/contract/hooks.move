/// Compiled into a copy of the package by the tests: what only the package's own code can call.
module k3s_daas::hooks;

use k3s_daas::nautilus;
use k3s_daas::worker_registry::Registry;
use sui::clock::Clock;

/// `nautilus::register_master` without the document, which only AWS can make.
public fun admit_master(
    registry: &mut Registry,
    pcr0: vector<u8>,
    pcr3: vector<u8>,
    timestamp_ms: u64,
    public_key: vector<u8>,
    user_data: vector<u8>,
    clock: &Clock,
    ctx: &mut TxContext,
) {
    nautilus::admit_master(registry, pcr0, pcr3, timestamp_ms, public_key, user_data, clock, ctx);
}
