/// Compiled into a copy of the package by the tests: what only the package's own code can call.
module k3s_daas::hooks;

use k3s_daas::k8s_scheduler;
use k3s_daas::nautilus;
use k3s_daas::rewards;
use k3s_daas::worker_registry::{Registry, StakeProof};
use std::string::String;
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

/// Asserts what the getters of a worker and the money answer, each with its own code.
public fun check_worker(
    registry: &Registry,
    node_id: String,
    owner: address,
    reputation: u64,
    required_stake: u64,
    understaked: bool,
    workload: u64,
    earned: u64,
) {
    assert!(k8s_scheduler::worker_reputation(registry, node_id) == reputation, 1);
    assert!(k8s_scheduler::required_stake(registry, node_id) == required_stake, 2);
    assert!(k8s_scheduler::is_understaked(registry, node_id) == understaked, 3);
    assert!(k8s_scheduler::worker_workload(registry, node_id) == workload, 4);
    assert!(rewards::worker_rewards(registry, node_id) == earned, 5);
    assert!(registry.is_owner(owner) && !registry.is_owner(@0x0), 6);
}

public fun check_money(registry: &Registry, pool: u64, unclaimed: u64, deposits: u64, open: u64) {
    assert!(rewards::pool_value(registry) == pool, 1);
    assert!(rewards::unclaimed(registry) == unclaimed, 2);
    assert!(k8s_scheduler::deposits(registry) == deposits, 3);
    assert!(k8s_scheduler::open_requests(registry) == open, 4);
}

public fun check_proof(proof: &StakeProof, node_id: String) {
    assert!(proof.proof_node_id() == node_id, 1);
}

public fun check_master(
    registry: &Registry,
    account: address,
    public_key: vector<u8>,
    pcr0: vector<u8>,
    pcr3: vector<u8>,
    attested_at_ms: u64,
    expires_at_ms: u64,
    chain_id: vector<u8>,
    ca_hash: vector<u8>,
    config_hash: vector<u8>,
) {
    let master = registry.master().destroy_some();
    assert!(master.epoch() == 1, 1);
    assert!(master.account() == account, 2);
    assert!(master.endpoint() == b"https://m:8443".to_string(), 3);
    assert!(master.api_server() == b"https://m:6443".to_string(), 4);
    assert!(master.ca_hash().length() == 32, 5);
    assert!(master.public_key() == public_key, 6);
    assert!(master.pcr0() == pcr0 && master.pcr3() == pcr3, 7);
    assert!(master.attested_at_ms() == attested_at_ms, 8);
    assert!(master.attestation_expires_at_ms() == expires_at_ms, 9);
    let binding = master.binding();
    assert!(binding.chain_id() == chain_id && binding.attested_ca_hash() == ca_hash, 13);
    assert!(binding.config_hash() == config_hash, 14);
    assert!(master.is_attested() && !master.is_expired(attested_at_ms), 10);
    assert!(nautilus::is_image_allowed(registry, pcr0, pcr3), 11);
    assert!(!nautilus::is_image_allowed(registry, pcr3, pcr0), 12);
}
