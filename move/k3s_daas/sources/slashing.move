/// Taking a cheater's stake, in two steps: a proposal that jails the worker, and its execution by anybody
/// once the worker's slash window is over. Until it is executed the arbiter can cancel it, and 7 days after the
/// window it lapses. A jailed worker can't withdraw, so an exit does not outrun a proposal.
///
/// Caps count proposals, whatever became of them: at most 3 against one worker in 180 days, and in one Sui
/// epoch at most 3 in the fleet, or a tenth of its workers if that is more.
///
/// The share goes to the registry's treasury; the remainder stays the owner's and can be withdrawn after the
/// unbonding window. Amounts are in MIST, times in milliseconds of `sui::clock::Clock`.
///
/// # Offences and their evidence
/// The chain keeps the SHA-256 of the evidence; who proposes publishes the evidence itself, so that the owner
/// can appeal and the arbiter can judge. It is the BCS of the struct given, which makes it the same bytes for
/// everybody. Silence is no offence: a silent worker is `offline`.
///
/// 1. Conflicting heartbeats, signed by one worker: two heartbeats of the same sequence with unlike bodies.
///    `ConflictingHeartbeats { registry: address, node_id: String, generation: u64, public_key: vector<u8>,
///    first: Signed, second: Signed }` with `Signed { body: vector<u8>, signature: vector<u8> }`: `body` is the
///    heartbeat's JSON as it was sent, `signature` the Ed25519 signature over it by the worker's key
///    `public_key`, which was registered under seal token `generation`. Proven when both signatures verify, both
///    bodies carry the same `timestamp_ms`, and the bodies differ.
/// 2. Refused drain: `RefusedDrain { registry: address, node_id: String, requested_at_ms: u64, deadline_ms: u64,
///    observations: vector<Observation> }` with `Observation { at_ms: u64, pod_uid: String, node_ready: bool }`.
///    Proven when at least 3 observations, each after `deadline_ms` and a minute or more apart, show the same
///    pods still running on a Ready node.
/// 3. Proven wrong result: `WrongResult { registry: address, node_id: String, request_id: u64, payload:
///    vector<u8>, result: vector<u8>, expected: vector<u8> }`. Proven when SHA-256 of `payload` and `result` are
///    the hashes in the request's scheduled and completed events, and running the payload gives `expected`
///    instead.
/// 4. Operator decision: any bytes, such as a ticket's text. For fleets whose operator owns the workers; an
///    arbiter of anybody else's cancels it.
module k3s_daas::slashing;

use k3s_daas::worker_registry::{ArbiterCap, Registry, SlasherCap};
use k3s_daas::worker_status;
use std::string::String;
use sui::clock::Clock;
use sui::event;

use fun release as Registry.release;

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
#[error]
const ESlashLapsed: vector<u8> = b"Nobody executed the proposal within 7 days: it lapsed";
#[error]
const ENotLapsed: vector<u8> = b"The proposal can be executed until 7 days after its window";

// === Constants ===

/// Reasons are 1 conflicting heartbeats, 2 refused drain, 3 proven wrong result, 4 operator decision.
const FIRST_REASON: u8 = 1;
const LAST_REASON: u8 = 4;
const HASH_BYTES: u64 = 32;
/// 7 days in ms, from the end of the slash window.
const LAPSE_MS: u64 = 604_800_000;

// === Events ===

public struct SlashProposedEvent has copy, drop {
    registry: ID,
    node_id: String,
    reason: u8,
    evidence_hash: vector<u8>,
    executable_at_ms: u64,
}

public struct SlashCancelledEvent has copy, drop { registry: ID, node_id: String, timestamp_ms: u64 }

/// Nobody executed the proposal in time; the worker has the status it had before.
public struct SlashLapsedEvent has copy, drop { registry: ID, node_id: String, timestamp_ms: u64 }

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
    ctx: &TxContext,
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
        assert!(now_ms < *registry.worker(node_id).unbonding_until_ms().borrow(), EUnbondingOver);
    };
    registry.count_proposal(ctx.epoch());
    let executable_at_ms = registry.worker_mut(node_id).propose(reason, evidence_hash, now_ms);
    registry.set_status(node_id, worker_status::jailed(), now_ms);
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

/// Ends a proposal that nobody executed within 7 days after its window; the worker gets back the status it had.
/// Anybody may.
public fun lapse_slash(registry: &mut Registry, node_id: String, clock: &Clock) {
    registry.assert_version();
    assert!(registry.worker_status(node_id).is_jailed(), ENoProposal);
    let now_ms = clock.timestamp_ms();
    assert!(now_ms >= registry.worker(node_id).executable_at_ms() + LAPSE_MS, ENotLapsed);
    registry.release(node_id, now_ms);
    event::emit(SlashLapsedEvent { registry: object::id(registry), node_id, timestamp_ms: now_ms });
}

/// Executes a proposal whose window is over, for 7 days. Anybody may.
public fun execute_slash(registry: &mut Registry, node_id: String, clock: &Clock) {
    registry.assert_version();
    assert!(registry.worker_status(node_id).is_jailed(), ENoProposal);
    let now_ms = clock.timestamp_ms();
    let executable_at_ms = registry.worker(node_id).executable_at_ms();
    assert!(now_ms >= executable_at_ms, ESlashWindowOpen);
    assert!(now_ms < executable_at_ms + LAPSE_MS, ESlashLapsed);
    let owner = registry.worker_owner(node_id);
    let (amount, remaining) = registry.slash_stake(node_id);
    let worker = registry.worker_mut(node_id);
    worker.drop_proposal();
    worker.start_unbonding(now_ms);
    registry.set_status(node_id, worker_status::slashed(), now_ms);
    event::emit(WorkerSlashedEvent {
        registry: object::id(registry),
        node_id,
        owner,
        amount,
        remaining,
        timestamp_ms: now_ms,
    });
}

// === Private ===

/// Drops the proposal against a jailed worker, which gets back the status it had.
fun release(registry: &mut Registry, node_id: String, now_ms: u64) {
    let previous = registry.worker_mut(node_id).drop_proposal();
    registry.set_status(node_id, previous, now_ms);
}
