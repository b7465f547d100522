/// Taking a cheater's stake, in two steps: a proposal that jails the worker, and its execution by anybody
/// once the worker's slash window is over. Until then the arbiter can cancel it.
///
/// The share goes to the registry's treasury; the remainder stays the owner's and can be withdrawn after the
/// unbonding window. Amounts are in MIST, times in milliseconds of `sui::clock::Clock`.
module k3s_daas::slashing;

use k3s_daas::worker_registry::{ArbiterCap, Registry, SlasherCap};
use std::string::String;
use sui::clock::Clock;
use sui::event;

// === Errors ===

#[error]
const EUnknownReason: vector<u8> =
    b"A reason is 1 conflicting heartbeats, 2 refused drain, 3 proven wrong result or 4 operator decision";
#[error]
const EInvalidEvidence: vector<u8> = b"The evidence hash is a SHA-256: 32 bytes";
#[error]
const EProposalPending: vector<u8> = b"A slash of this worker is proposed already";
#[error]
const EWorkerSlashed: vector<u8> = b"The worker is slashed already";
#[error]
const EUnbondingOver: vector<u8> =
    b"The worker's unbonding window is over: its stake can't be slashed any more";
#[error]
const ENoProposal: vector<u8> = b"No slash of this worker is proposed";
#[error]
const ESlashWindowOpen: vector<u8> = b"The slash window is not over yet";

// === Constants ===

/// Reasons are 1 conflicting heartbeats, 2 refused drain, 3 proven wrong result, 4 operator decision.
const FIRST_REASON: u8 = 1;
const LAST_REASON: u8 = 4;
const HASH_BYTES: u64 = 32;

// === Events ===

public struct SlashProposedEvent has copy, drop {
    registry: ID,
    node_id: String,
    reason: u8,
    evidence_hash: vector<u8>,
    executable_at_ms: u64,
}

public struct SlashCancelledEvent has copy, drop { registry: ID, node_id: String, timestamp_ms: u64 }

/// `amount` went to the treasury, `remaining` is left to the owner.
public struct WorkerSlashedEvent has copy, drop {
    registry: ID,
    node_id: String,
    owner: address,
    amount: u64,
    remaining: u64,
    timestamp_ms: u64,
}

// === Public functions ===

/// Proposes a slash and jails the worker. An unbonding worker can be proposed until its window is over.
/// `reason` is 1 to 4 (see above), `evidence_hash` the 32-byte SHA-256 of the evidence.
public fun propose_slash(
    registry: &mut Registry,
    cap: &SlasherCap,
    node_id: String,
    reason: u8,
    evidence_hash: vector<u8>,
    clock: &Clock,
) {
    registry.assert_version();
    registry.assert_slasher(cap);
    assert!(reason >= FIRST_REASON && reason <= LAST_REASON, EUnknownReason);
    assert!(evidence_hash.length() == HASH_BYTES, EInvalidEvidence);
    let now_ms = clock.timestamp_ms();
    let status = registry.worker_status(node_id);
    assert!(!status.is_jailed(), EProposalPending);
    assert!(!status.is_slashed(), EWorkerSlashed);
    if (status.is_unbonding()) {
        assert!(now_ms < *registry.unbonding_until_ms(node_id).borrow(), EUnbondingOver);
    };
    let executable_at_ms = registry.jail(node_id, reason, evidence_hash, now_ms);
    event::emit(SlashProposedEvent {
        registry: object::id(registry),
        node_id,
        reason,
        evidence_hash,
        executable_at_ms,
    });
}

/// Cancels a proposal; the worker gets back the status it had.
public fun cancel_slash(registry: &mut Registry, cap: &ArbiterCap, node_id: String, clock: &Clock) {
    registry.assert_version();
    registry.assert_arbiter(cap);
    assert!(registry.worker_status(node_id).is_jailed(), ENoProposal);
    let now_ms = clock.timestamp_ms();
    registry.release(node_id, now_ms);
    event::emit(SlashCancelledEvent { registry: object::id(registry), node_id, timestamp_ms: now_ms });
}

/// Executes a proposal whose window is over. Anybody may.
public fun execute_slash(registry: &mut Registry, node_id: String, clock: &Clock) {
    registry.assert_version();
    assert!(registry.worker_status(node_id).is_jailed(), ENoProposal);
    let now_ms = clock.timestamp_ms();
    assert!(now_ms >= registry.executable_at_ms(node_id), ESlashWindowOpen);
    let owner = registry.worker_owner(node_id);
    let (amount, remaining) = registry.slash(node_id, now_ms);
    event::emit(WorkerSlashedEvent {
        registry: object::id(registry),
        node_id,
        owner,
        amount,
        remaining,
        timestamp_ms: now_ms,
    });
}
