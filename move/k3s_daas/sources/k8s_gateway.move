/// What the cluster's gate needs from the chain: who may hold which seal token, and where the master is.
///
/// Two scopes: *worker* (registration and heartbeats of one node) and *owner* (kubectl). Only commitments
/// come here, never secrets. Times are in milliseconds of `sui::clock::Clock`.
module k3s_daas::k8s_gateway;

use k3s_daas::seal_token::{Self, SealToken};
use k3s_daas::worker_registry::{MasterCap, Registry};
use std::string::String;
use sui::clock::Clock;
use sui::event;

use fun assert_may_hold_token as Registry.assert_may_hold_token;
use fun assert_owner as Registry.assert_owner;
use fun create_worker_seal_token as Registry.create_worker_seal_token;
use fun emit_created as Registry.emit_created;
use fun emit_revoked as Registry.emit_revoked;

// === Errors ===

#[error]
const EUnauthorizedRequest: vector<u8> = b"Only the worker's owner may do this";
#[error]
const ENotAnOwner: vector<u8> = b"The sender owns no worker in this registry";
#[error]
const EWorkerNotEligible: vector<u8> = b"A slashed or unbonding worker gets no seal token";
#[error]
const EEmptyBatch: vector<u8> = b"A batch names at least one worker";
#[error]
const ELengthMismatch: vector<u8> = b"The vectors of a batch must have the same length";
#[error]
const EInvalidEndpoint: vector<u8> =
    b"An endpoint is https://host:port of at most 256 bytes, without path, user or query";
#[error]
const EInvalidCaHash: vector<u8> = b"The CA hash is a SHA-256: 32 bytes";
#[error]
const EInvalidPublicKey: vector<u8> = b"The master's public key is an Ed25519 key: 32 bytes";
#[error]
const EOtherCa: vector<u8> = b"An attested master announces the CA that its attestation names, and no other";
#[error]
const EKeyIsAttested: vector<u8> = b"An attested master's public key is the attestation's and can't be set";

// === Constants ===

const HASH_BYTES: u64 = 32;
const MAX_ENDPOINT_BYTES: u64 = 256;
const HTTPS: vector<u8> = b"https://";

// === Events ===

/// A token was created or rotated. `scope` is "worker" or "owner"; `node_id` is empty for an owner's.
public struct SealTokenCreatedEvent has copy, drop {
    registry: ID,
    scope: String,
    node_id: String,
    owner: address,
    commitment: vector<u8>,
    generation: u64,
    expires_at_ms: u64,
}

public struct SealTokenRevokedEvent has copy, drop {
    registry: ID,
    scope: String,
    node_id: String,
    owner: address,
    generation: u64,
}

public struct MasterAnnouncedEvent has copy, drop {
    registry: ID,
    epoch: u64,
    endpoint: String,
    api_server: String,
    ca_hash: vector<u8>,
    public_key: vector<u8>,
    attestation_expires_at_ms: u64,
}

/// A master without attestation told its public key.
public struct MasterKeyAnnouncedEvent has copy, drop { registry: ID, epoch: u64, public_key: vector<u8> }

// === Worker tokens ===

/// Commits to the first seal token of the sender's worker.
public fun create_worker_seal_token(
    registry: &mut Registry,
    node_id: String,
    commitment: vector<u8>,
    expires_at_ms: u64,
    clock: &Clock,
    ctx: &TxContext,
) {
    registry.assert_may_hold_token(node_id, ctx);
    let key = seal_token::worker_key(node_id);
    let token = seal_token::create(registry.uid_mut(), key, commitment, expires_at_ms, clock.timestamp_ms());
    registry.emit_created(b"worker", node_id, &token, ctx);
}

/// The same for many workers of the sender, for all of them or for none.
public fun create_worker_seal_tokens(
    registry: &mut Registry,
    node_ids: vector<String>,
    commitments: vector<vector<u8>>,
    expires_at_ms: vector<u64>,
    clock: &Clock,
    ctx: &TxContext,
) {
    assert!(!node_ids.is_empty(), EEmptyBatch);
    assert!(node_ids.length() == commitments.length(), ELengthMismatch);
    assert!(node_ids.length() == expires_at_ms.length(), ELengthMismatch);
    let mut i = 0;
    while (i < node_ids.length()) {
        registry.create_worker_seal_token(node_ids[i], commitments[i], expires_at_ms[i], clock, ctx);
        i = i + 1;
    };
}

/// Replaces the seal token of the sender's worker, be it live, expired or revoked.
public fun rotate_worker_seal_token(
    registry: &mut Registry,
    node_id: String,
    commitment: vector<u8>,
    expires_at_ms: u64,
    clock: &Clock,
    ctx: &TxContext,
) {
    registry.assert_may_hold_token(node_id, ctx);
    let key = seal_token::worker_key(node_id);
    let token = seal_token::rotate(registry.uid_mut(), key, commitment, expires_at_ms, clock.timestamp_ms());
    registry.emit_created(b"worker", node_id, &token, ctx);
}

/// Revokes the seal token of the sender's worker, whatever its status.
public fun revoke_worker_seal_token(registry: &mut Registry, node_id: String, ctx: &TxContext) {
    registry.assert_version();
    assert!(registry.worker_owner(node_id) == ctx.sender(), EUnauthorizedRequest);
    let generation = seal_token::revoke(registry.uid_mut(), seal_token::worker_key(node_id));
    registry.emit_revoked(b"worker", node_id, generation, ctx);
}

// === Owner tokens ===

/// Commits to the sender's first kubectl token.
public fun create_owner_seal_token(
    registry: &mut Registry,
    commitment: vector<u8>,
    expires_at_ms: u64,
    clock: &Clock,
    ctx: &TxContext,
) {
    registry.assert_owner(ctx);
    let key = seal_token::owner_key(ctx.sender());
    let token = seal_token::create(registry.uid_mut(), key, commitment, expires_at_ms, clock.timestamp_ms());
    registry.emit_created(b"owner", b"".to_string(), &token, ctx);
}

/// Replaces the sender's kubectl token, be it live, expired or revoked.
public fun rotate_owner_seal_token(
    registry: &mut Registry,
    commitment: vector<u8>,
    expires_at_ms: u64,
    clock: &Clock,
    ctx: &TxContext,
) {
    registry.assert_owner(ctx);
    let key = seal_token::owner_key(ctx.sender());
    let token = seal_token::rotate(registry.uid_mut(), key, commitment, expires_at_ms, clock.timestamp_ms());
    registry.emit_created(b"owner", b"".to_string(), &token, ctx);
}

/// Revokes the sender's kubectl token, even when it owns no worker any more.
public fun revoke_owner_seal_token(registry: &mut Registry, ctx: &TxContext) {
    registry.assert_version();
    let generation = seal_token::revoke(registry.uid_mut(), seal_token::owner_key(ctx.sender()));
    registry.emit_revoked(b"owner", b"".to_string(), generation, ctx);
}

// === Master ===

/// Tells the fleet where the live master is reached and which CA its API server has.
///
/// `endpoint` (the master's service) and `api_server` are `https://host:port`; `ca_hash` is the 32-byte
/// SHA-256 that k3s puts into its full token format, the attestation's where there is one.
public fun announce_master(
    registry: &mut Registry,
    cap: &MasterCap,
    endpoint: String,
    api_server: String,
    ca_hash: vector<u8>,
    clock: &Clock,
) {
    registry.assert_version();
    registry.assert_master(cap, clock);
    assert!(is_endpoint(endpoint.as_bytes()) && is_endpoint(api_server.as_bytes()), EInvalidEndpoint);
    assert!(ca_hash.length() == HASH_BYTES, EInvalidCaHash);
    let id = object::id(registry);
    let master = registry.master_mut();
    assert!(!master.is_attested() || ca_hash == master.binding().attested_ca_hash(), EOtherCa);
    master.announce(endpoint, api_server, ca_hash, clock.timestamp_ms());
    event::emit(MasterAnnouncedEvent {
        registry: id,
        epoch: master.epoch(),
        endpoint,
        api_server,
        ca_hash,
        public_key: master.public_key(),
        attestation_expires_at_ms: master.attestation_expires_at_ms(),
    });
}

/// Tells the public key of a master without attestation: 32 bytes, Ed25519.
public fun announce_master_key(
    registry: &mut Registry,
    cap: &MasterCap,
    public_key: vector<u8>,
    clock: &Clock,
) {
    registry.assert_version();
    registry.assert_master(cap, clock);
    assert!(public_key.length() == HASH_BYTES, EInvalidPublicKey);
    let id = object::id(registry);
    let master = registry.master_mut();
    assert!(!master.is_attested(), EKeyIsAttested);
    master.set_public_key(public_key);
    event::emit(MasterKeyAnnouncedEvent { registry: id, epoch: master.epoch(), public_key });
}

// === Getters ===

public fun worker_seal_token(registry: &Registry, node_id: String): Option<SealToken> {
    seal_token::read(registry.uid(), seal_token::worker_key(node_id))
}

public fun owner_seal_token(registry: &Registry, owner: address): Option<SealToken> {
    seal_token::read(registry.uid(), seal_token::owner_key(owner))
}

// === Private ===

fun assert_may_hold_token(registry: &Registry, node_id: String, ctx: &TxContext) {
    registry.assert_version();
    assert!(registry.worker_owner(node_id) == ctx.sender(), EUnauthorizedRequest);
    let status = registry.worker_status(node_id);
    assert!(!status.is_slashed() && !status.is_unbonding(), EWorkerNotEligible);
}

fun assert_owner(registry: &Registry, ctx: &TxContext) {
    registry.assert_version();
    assert!(registry.is_owner(ctx.sender()), ENotAnOwner);
}

fun emit_created(
    registry: &Registry,
    scope: vector<u8>,
    node_id: String,
    token: &SealToken,
    ctx: &TxContext,
) {
    event::emit(SealTokenCreatedEvent {
        registry: object::id(registry),
        scope: scope.to_string(),
        node_id,
        owner: ctx.sender(),
        commitment: token.commitment(),
        generation: token.generation(),
        expires_at_ms: token.expires_at_ms(),
    });
}

fun emit_revoked(registry: &Registry, scope: vector<u8>, node_id: String, generation: u64, ctx: &TxContext) {
    event::emit(SealTokenRevokedEvent {
        registry: object::id(registry),
        scope: scope.to_string(),
        node_id,
        owner: ctx.sender(),
        generation,
    });
}

/// https:// and then only what a host name, an address or a port is made of, so that what clients read from
/// the chain can carry no path, credentials, template or shell syntax.
fun is_endpoint(bytes: &vector<u8>): bool {
    let (length, https) = (bytes.length(), HTTPS);
    if (length <= https.length() || length > MAX_ENDPOINT_BYTES) return false;
    let mut i = 0;
    while (i < length) {
        let byte = bytes[i];
        if (i < https.length()) {
            if (byte != https[i]) return false
        } else if (!is_host_byte(byte)) return false;
        i = i + 1;
    };
    true
}

/// A-Z, a-z, 0-9 and - . : [ ]
fun is_host_byte(byte: u8): bool {
    let alphanumeric =
        (byte >= 97 && byte <= 122) || (byte >= 65 && byte <= 90) || (byte >= 48 && byte <= 57);
    alphanumeric || byte == 45 || byte == 46 || byte == 58 || byte == 91 || byte == 93
}
