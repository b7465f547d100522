/// Who is the master. Named after Mysten's Nautilus, which the attested master follows; this project is not
/// part of it.
module k3s_daas::nautilus;

use k3s_daas::worker_registry::{OperatorCap, Registry};
use sui::clock::Clock;
use sui::event;

#[error]
const EAttestationRequired: vector<u8> =
    b"This registry takes only an attested master: an operator can't appoint one";

/// A master was appointed; every MasterCap of an earlier epoch is void.
public struct MasterAppointedEvent has copy, drop { registry: ID, epoch: u64, account: address }

/// Makes `account` the master of the next epoch and gives it the MasterCap. Nothing of what the last master
/// announced stays.
public fun appoint_master(
    registry: &mut Registry,
    cap: &OperatorCap,
    account: address,
    // a capability that expires will need it; taken now so that callers stay as they are
    _clock: &Clock,
    ctx: &mut TxContext,
) {
    registry.assert_version();
    registry.assert_operator(cap);
    assert!(!registry.require_attestation(), EAttestationRequired);
    let epoch = registry.install_master(account, ctx);
    event::emit(MasterAppointedEvent { registry: object::id(registry), epoch, account });
}
