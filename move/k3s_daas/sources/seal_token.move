/// Records of seal tokens, as dynamic fields of a registry's id.
///
/// A seal token is this project's bearer secret for joining a fleet. It has nothing to do with Mysten's Seal
/// (secrets management). The chain knows only its SHA-256, the commitment. Rights are checked by
/// `k8s_gateway`; this module stands beside `worker_registry`, below it, because a worker that leaves takes
/// its token with it. Times are in milliseconds of `sui::clock::Clock`.
module k3s_daas::seal_token;

use std::string::String;
use sui::dynamic_field as field;

// === Errors ===

#[error]
const EInvalidSealToken: vector<u8> = b"A seal token's commitment is its SHA-256: 32 bytes";
#[error]
const ECommitmentReused: vector<u8> = b"This commitment was used before: make a new secret";
#[error]
const EAlreadyExpired: vector<u8> = b"The seal token must expire in the future";
#[error]
const ELifetimeTooLong: vector<u8> = b"A seal token lives at most 365 days (31,536,000,000 ms)";
#[error]
const ESealTokenExists: vector<u8> = b"There is a seal token already: rotate it";
#[error]
const ENoSealToken: vector<u8> = b"There is no seal token yet: create one";
#[error]
const ESealTokenRevoked: vector<u8> = b"The seal token is revoked already";

// === Constants ===

const COMMITMENT_BYTES: u64 = 32;
/// 365 days in ms.
const MAX_LIFETIME_MS: u64 = 31_536_000_000;

// === Structs ===

/// What the chain knows of a seal token. `generation` counts from 1.
public struct SealToken has copy, drop, store {
    /// SHA-256 of the secret, 32 bytes.
    commitment: vector<u8>,
    generation: u64,
    issued_at_ms: u64,
    expires_at_ms: u64,
    revoked: bool,
}

/// Node id -> `SealToken` for the worker's registration and heartbeats.
public struct WorkerTokenKey(String) has copy, drop, store;
/// Owner -> `SealToken` for kubectl.
public struct OwnerTokenKey(address) has copy, drop, store;
/// Commitment -> true, kept for ever: a commitment is used once.
public struct CommitmentKey(vector<u8>) has copy, drop, store;

// === Getters ===

public fun commitment(token: &SealToken): vector<u8> { token.commitment }

public fun generation(token: &SealToken): u64 { token.generation }

public fun issued_at_ms(token: &SealToken): u64 { token.issued_at_ms }

public fun expires_at_ms(token: &SealToken): u64 { token.expires_at_ms }

public fun is_revoked(token: &SealToken): bool { token.revoked }

// === For the package's other modules ===

public(package) fun worker_key(node_id: String): WorkerTokenKey { WorkerTokenKey(node_id) }

public(package) fun owner_key(owner: address): OwnerTokenKey { OwnerTokenKey(owner) }

/// Stores the first token under `key`.
public(package) fun create<K: copy + drop + store>(
    registry: &mut UID,
    key: K,
    commitment: vector<u8>,
    expires_at_ms: u64,
    now_ms: u64,
): SealToken {
    assert!(!field::exists_(registry, key), ESealTokenExists);
    let token = new(registry, commitment, 1, expires_at_ms, now_ms);
    field::add(registry, key, token);
    token
}

/// Replaces the token under `key`, live or not, by one of the next generation.
public(package) fun rotate<K: copy + drop + store>(
    registry: &mut UID,
    key: K,
    commitment: vector<u8>,
    expires_at_ms: u64,
    now_ms: u64,
): SealToken {
    assert!(field::exists_(registry, key), ENoSealToken);
    let old: &SealToken = field::borrow(registry, key);
    let generation = old.generation + 1;
    let token = new(registry, commitment, generation, expires_at_ms, now_ms);
    *field::borrow_mut(registry, key) = token;
    token
}

/// Marks the token under `key` as revoked; returns its generation.
public(package) fun revoke<K: copy + drop + store>(registry: &mut UID, key: K): u64 {
    assert!(field::exists_(registry, key), ENoSealToken);
    let token: &mut SealToken = field::borrow_mut(registry, key);
    assert!(!token.revoked, ESealTokenRevoked);
    token.revoked = true;
    token.generation
}

public(package) fun read<K: copy + drop + store>(registry: &UID, key: K): Option<SealToken> {
    if (field::exists_(registry, key)) option::some(*field::borrow(registry, key)) else option::none()
}

/// Removes a worker's token, if it has one.
public(package) fun remove_worker_token(registry: &mut UID, node_id: String) {
    let key = WorkerTokenKey(node_id);
    if (field::exists_(registry, key)) { let _: SealToken = field::remove(registry, key); }
}

// === Private ===

fun new(
    registry: &mut UID,
    commitment: vector<u8>,
    generation: u64,
    expires_at_ms: u64,
    now_ms: u64,
): SealToken {
    assert!(commitment.length() == COMMITMENT_BYTES, EInvalidSealToken);
    assert!(expires_at_ms > now_ms, EAlreadyExpired);
    assert!(expires_at_ms - now_ms <= MAX_LIFETIME_MS, ELifetimeTooLong);
    let used = CommitmentKey(commitment);
    assert!(!field::exists_(registry, used), ECommitmentReused);
    field::add(registry, used, true);
    SealToken { commitment, generation, issued_at_ms: now_ms, expires_at_ms, revoked: false }
}
