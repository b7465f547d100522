/// Compiled into a copy of the package by the tests: asserts what the getters answer, each with its own code.
module k3s_daas::probe;

use k3s_daas::k8s_gateway;
use k3s_daas::worker_registry::{Registry, StakeProof};
use std::string::String;

public fun check_worker(
    registry: &Registry,
    node_id: String,
    owner: address,
    status: String,
    stake: u64,
    active: bool,
) {
    assert!(registry.worker_exists(node_id), 1);
    assert!(registry.is_worker_owner(node_id, owner), 2);
    assert!(!registry.is_worker_owner(node_id, @0x0), 3);
    assert!(registry.worker_owner(node_id) == owner, 4);
    assert!(registry.worker_status(node_id).status_name() == status, 5);
    assert!(registry.worker_stake(node_id) == stake, 6);
    assert!(registry.is_worker_active(node_id) == active, 7);
    assert!(registry.owner_workers(owner).contains(&node_id), 8);
}

public fun check_unknown(registry: &Registry, node_id: String, nobody: address) {
    assert!(!registry.worker_exists(node_id), 1);
    assert!(!registry.is_worker_owner(node_id, nobody), 2);
    assert!(!registry.is_worker_active(node_id), 3);
    assert!(registry.owner_workers(nobody).is_empty(), 4);
    assert!(k8s_gateway::worker_seal_token(registry, node_id).is_none(), 5);
    assert!(k8s_gateway::owner_seal_token(registry, nobody).is_none(), 6);
}

public fun check_registry(registry: &Registry, staked: u64, treasury: u64, attested: bool, mastered: bool) {
    assert!(registry.staked() == staked, 1);
    assert!(registry.treasury_value() == treasury, 2);
    assert!(registry.require_attestation() == attested, 3);
    assert!(registry.master().is_some() == mastered, 4);
}

public fun check_proof(registry: &Registry, proof: &StakeProof, live: bool) {
    assert!(registry.is_proof_live(proof) == live, 1);
}

public fun check_worker_token(
    registry: &Registry,
    node_id: String,
    commitment: vector<u8>,
    generation: u64,
    expires_at_ms: u64,
    revoked: bool,
) {
    let token = k8s_gateway::worker_seal_token(registry, node_id).destroy_some();
    assert!(token.commitment() == commitment, 1);
    assert!(token.generation() == generation, 2);
    assert!(token.expires_at_ms() == expires_at_ms, 3);
    assert!(token.issued_at_ms() < expires_at_ms, 4);
    assert!(token.is_revoked() == revoked, 5);
}

public fun check_owner_token(registry: &Registry, owner: address, generation: u64) {
    assert!(k8s_gateway::owner_seal_token(registry, owner).destroy_some().generation() == generation, 1);
}
