/// Requests to run something on the fleet, paid from a deposit.
///
/// Any owner whose StakeProof is live submits one: the hash of its payload, a deposit, and up to 32 candidate
/// workers, anybody's, that it chose off-chain. The contract checks them and picks the best: idle first
/// (reputation x 10), else reputation / (workload + 1); of equals the first named. A worker has 10 slots, the
/// last of which only a request of priority 8 or more may take; such a request also goes to a `busy` worker.
///
/// A StakeProof has at most 10 open requests: who occupies a worker's slots has staked for a worker of its own,
/// since a deposit alone, which comes back when nobody claims the request, would make slots free of charge.
///
/// The master claims the request when it starts it and completes it with the hash of the result, which pays
/// the deposit to the worker's rewards account. 10 minutes after its submission anybody may time it out, which
/// refunds the deposit; a worker loses reputation for that only when the request was claimed.
///
/// A request names its worker until it ends, and a worker's record stays for so long: `workload` is always the
/// number of requests that name it.
module k3s_daas::k8s_scheduler;

use k3s_daas::worker_registry::{MasterCap, Registry, StakeProof};
use std::string::String;
use sui::balance::Balance;
use sui::clock::Clock;
use sui::coin::Coin;
use sui::dynamic_field as field;
use sui::event;
use sui::sui::SUI;
use sui::table::{Self, Table};

use fun book_mut as Registry.book_mut;
use fun emit_reputation as Registry.emit_reputation;
use fun finish_served as Registry.finish_served;
use fun finish_unserved as Registry.finish_unserved;
use fun pick as Registry.pick;
use fun take as Registry.take;

// === Errors ===

#[error]
const EStaleStakeProof: vector<u8> =
    b"The StakeProof counts no more: its worker left, or it is another registry's";
#[error]
const EUnauthorizedRequest: vector<u8> = b"The StakeProof's worker is jailed, slashed or leaving";
#[error]
const EInvalidPayloadHash: vector<u8> = b"The payload hash is a SHA-256: 32 bytes";
#[error]
const EInvalidPriority: vector<u8> = b"A priority is 0 to 10";
#[error]
const EDepositTooSmall: vector<u8> = b"A deposit is at least 0.001 SUI (1,000,000 MIST)";
#[error]
const ENoCandidates: vector<u8> = b"Name at least one candidate worker";
#[error]
const ETooManyCandidates: vector<u8> = b"Name at most 32 candidate workers";
#[error]
const ENoAvailableWorkers: vector<u8> =
    b"No candidate is active with a free slot and the stake that its reputation requires";
#[error]
const ETooManyOpenRequests: vector<u8> =
    b"10 requests of this StakeProof are open: wait until one ends, or submit with another worker's proof";
#[error]
const ERequestNotFound: vector<u8> = b"No open request has this id: it never existed, or it ended";
#[error]
const ERequestClaimed: vector<u8> = b"The request is claimed already";
#[error]
const ERequestNotClaimed: vector<u8> = b"Claim the request first";
#[error]
const ERequestExpired: vector<u8> = b"The request's 10 minutes are over: it can only be timed out";
#[error]
const ERequestNotExpired: vector<u8> = b"The request's 10 minutes are not over yet";
#[error]
const EInvalidResultHash: vector<u8> = b"The result hash is a SHA-256: 32 bytes";
#[error]
const EWorkerSlashed: vector<u8> =
    b"The worker was slashed: its results count no more, and the request times out";

// === Constants ===

const HASH_BYTES: u64 = 32;
const MAX_CANDIDATES: u64 = 32;
const MAX_PRIORITY: u8 = 10;
const URGENT_PRIORITY: u8 = 8;
/// Of one StakeProof: as many as its worker has slots.
const MAX_OPEN_REQUESTS: u64 = 10;
/// In MIST; slots are not for free.
const MIN_DEPOSIT: u64 = 1_000_000;
/// 10 minutes in ms.
const REQUEST_WINDOW_MS: u64 = 600_000;

// === Structs ===

/// Key of the registry's one `Book`.
public struct BookKey() has copy, drop, store;

/// Open requests by id; ids count from 1 and are never used again.
public struct Book has store {
    last_id: u64,
    /// Sum of the open requests' deposits, in MIST.
    deposits: u64,
    requests: Table<u64, Request>,
    /// How many of them were submitted with each StakeProof; none where that is 0.
    by_proof: Table<ID, u64>,
}

public struct Request has store {
    requester: address,
    /// The StakeProof it was submitted with. It may be stale by now.
    proof: ID,
    node_id: String,
    payload_hash: vector<u8>,
    priority: u8,
    deposit: Balance<SUI>,
    claimed: bool,
    submitted_at_ms: u64,
    deadline_ms: u64,
}

// === Events ===

public struct K8sAPIRequestScheduledEvent has copy, drop {
    registry: ID,
    request_id: u64,
    requester: address,
    node_id: String,
    payload_hash: vector<u8>,
    priority: u8,
    deposit: u64,
    deadline_ms: u64,
}

public struct K8sAPIRequestClaimedEvent has copy, drop { registry: ID, request_id: u64, node_id: String }

/// The worker got `deposit`, and `reward` of the pool.
public struct K8sAPIRequestCompletedEvent has copy, drop {
    registry: ID,
    request_id: u64,
    node_id: String,
    payload_hash: vector<u8>,
    result_hash: vector<u8>,
    deposit: u64,
    reward: u64,
}

/// The requester got `refund` back.
public struct K8sAPIRequestTimedOutEvent has copy, drop {
    registry: ID,
    request_id: u64,
    node_id: String,
    requester: address,
    refund: u64,
    missed: bool,
}

/// A served or missed request changed the reputation, and with it the stake that the worker needs.
public struct WorkerReputationChangedEvent has copy, drop {
    registry: ID,
    node_id: String,
    reputation: u64,
    required_stake: u64,
}

// === Public functions ===

/// Submits a request and returns its id. `deposit` is what the worker gets, at least 0.001 SUI.
public fun submit_k8s_request(
    registry: &mut Registry,
    proof: &StakeProof,
    deposit: Coin<SUI>,
    payload_hash: vector<u8>,
    priority: u8,
    candidates: vector<String>,
    clock: &Clock,
    ctx: &mut TxContext,
): u64 {
    registry.assert_version();
    assert!(registry.is_proof_live(proof), EStaleStakeProof);
    assert!(registry.worker_status(proof.proof_node_id()).is_in_service(), EUnauthorizedRequest);
    assert!(payload_hash.length() == HASH_BYTES, EInvalidPayloadHash);
    assert!(priority <= MAX_PRIORITY, EInvalidPriority);
    assert!(deposit.value() >= MIN_DEPOSIT, EDepositTooSmall);
    assert!(!candidates.is_empty(), ENoCandidates);
    assert!(candidates.length() <= MAX_CANDIDATES, ETooManyCandidates);

    let node_id = registry.pick(candidates, priority >= URGENT_PRIORITY);
    registry.worker_mut(node_id).add_work();
    let (id, requester, deposit) = (object::id(registry), ctx.sender(), deposit.into_balance());
    let (amount, now_ms) = (deposit.value(), clock.timestamp_ms());
    let deadline_ms = now_ms + REQUEST_WINDOW_MS;
    let request = Request {
        requester,
        proof: object::id(proof),
        node_id,
        payload_hash,
        priority,
        deposit,
        claimed: false,
        submitted_at_ms: now_ms,
        deadline_ms,
    };
    if (!field::exists_(registry.uid(), BookKey())) {
        let book = Book { last_id: 0, deposits: 0, requests: table::new(ctx), by_proof: table::new(ctx) };
        field::add(registry.uid_mut(), BookKey(), book);
    };
    let book = registry.book_mut();
    book.count_in(object::id(proof));
    let request_id = book.last_id + 1;
    book.last_id = request_id;
    book.deposits = book.deposits + amount;
    book.requests.add(request_id, request);
    event::emit(K8sAPIRequestScheduledEvent {
        registry: id,
        request_id,
        requester,
        node_id,
        payload_hash,
        priority,
        deposit: amount,
        deadline_ms,
    });
    request_id
}

/// The master starts the request.
public fun claim_request(registry: &mut Registry, cap: &MasterCap, request_id: u64, clock: &Clock) {
    registry.assert_version();
    registry.assert_master(cap, clock);
    let id = object::id(registry);
    let book = registry.book_mut();
    assert!(book.requests.contains(request_id), ERequestNotFound);
    let request = &mut book.requests[request_id];
    assert!(!request.claimed, ERequestClaimed);
    assert!(clock.timestamp_ms() < request.deadline_ms, ERequestExpired);
    request.claimed = true;
    event::emit(K8sAPIRequestClaimedEvent { registry: id, request_id, node_id: request.node_id });
}

/// The worker served the claimed request in time: `result_hash` is the SHA-256 of what came out.
public fun complete_request(
    registry: &mut Registry,
    cap: &MasterCap,
    request_id: u64,
    result_hash: vector<u8>,
    clock: &Clock,
    ctx: &TxContext,
) {
    registry.assert_version();
    registry.assert_master(cap, clock);
    assert!(result_hash.length() == HASH_BYTES, EInvalidResultHash);
    let Request { requester, node_id, payload_hash, deposit, claimed, deadline_ms, .. } =
        registry.take(request_id);
    assert!(claimed, ERequestNotClaimed);
    assert!(clock.timestamp_ms() < deadline_ms, ERequestExpired);
    assert!(!registry.worker_status(node_id).is_slashed(), EWorkerSlashed);
    let amount = deposit.value();
    let reward = registry.finish_served(node_id, requester, deposit, ctx.epoch());
    event::emit(K8sAPIRequestCompletedEvent {
        registry: object::id(registry),
        request_id,
        node_id,
        payload_hash,
        result_hash,
        deposit: amount,
        reward,
    });
}

/// Ends a request whose 10 minutes are over and refunds its deposit to the requester. Anybody may.
public fun time_out_request(registry: &mut Registry, request_id: u64, clock: &Clock, ctx: &mut TxContext) {
    registry.assert_version();
    let Request { requester, node_id, deposit, claimed, deadline_ms, .. } = registry.take(request_id);
    assert!(clock.timestamp_ms() >= deadline_ms, ERequestNotExpired);
    // Nobody can make another's worker miss: its own owner's requests don't count either way.
    let missed = claimed && registry.worker_owner(node_id) != requester;
    registry.finish_unserved(node_id, missed);
    let refund = deposit.value();
    transfer::public_transfer(deposit.into_coin(ctx), requester);
    event::emit(K8sAPIRequestTimedOutEvent {
        registry: object::id(registry),
        request_id,
        node_id,
        requester,
        refund,
        missed,
    });
}

// === Getters ===

/// Sum of the open requests' deposits, in MIST.
public fun deposits(registry: &Registry): u64 {
    if (!field::exists_(registry.uid(), BookKey())) return 0;
    let book: &Book = field::borrow(registry.uid(), BookKey());
    book.deposits
}

/// How many requests are open.
public fun open_requests(registry: &Registry): u64 {
    if (!field::exists_(registry.uid(), BookKey())) return 0;
    let book: &Book = field::borrow(registry.uid(), BookKey());
    book.requests.length()
}

/// Requests assigned to the worker and not finished.
public fun worker_workload(registry: &Registry, node_id: String): u64 { registry.worker(node_id).workload() }

/// 0 to 100.
public fun worker_reputation(registry: &Registry, node_id: String): u64 {
    registry.worker(node_id).reputation()
}

/// Stake that the worker needs at its reputation, in MIST; see `worker`.
public fun required_stake(registry: &Registry, node_id: String): u64 {
    registry.worker(node_id).required_stake()
}

/// Whether the worker has less than `required_stake`: it is not picked, and the pool does not pay it.
public fun is_understaked(registry: &Registry, node_id: String): bool {
    registry.worker(node_id).is_understaked()
}

// === Private ===

fun book_mut(registry: &mut Registry): &mut Book {
    assert!(field::exists_(registry.uid(), BookKey()), ERequestNotFound);
    field::borrow_mut(registry.uid_mut(), BookKey())
}

/// Takes the request out of the book.
fun take(registry: &mut Registry, request_id: u64): Request {
    let book = registry.book_mut();
    assert!(book.requests.contains(request_id), ERequestNotFound);
    let request = book.requests.remove(request_id);
    book.deposits = book.deposits - request.deposit.value();
    book.count_out(request.proof);
    request
}

/// Counts one more open request of the StakeProof.
fun count_in(book: &mut Book, proof: ID) {
    if (!book.by_proof.contains(proof)) book.by_proof.add(proof, 0);
    let count = &mut book.by_proof[proof];
    assert!(*count < MAX_OPEN_REQUESTS, ETooManyOpenRequests);
    *count = *count + 1;
}

fun count_out(book: &mut Book, proof: ID) {
    let count = &mut book.by_proof[proof];
    *count = *count - 1;
    if (*count == 0) { book.by_proof.remove(proof); };
}

/// The best candidate that can take a request.
fun pick(registry: &Registry, candidates: vector<String>, urgent: bool): String {
    let mut best = option::none();
    let mut best_score = 0;
    let mut i = 0;
    while (i < candidates.length()) {
        if (registry.worker_exists(candidates[i])) {
            let score = registry.worker(candidates[i]).score(urgent);
            if (score.is_some() && (best.is_none() || *score.borrow() > best_score)) {
                best_score = *score.borrow();
                best = option::some(candidates[i]);
            };
        };
        i = i + 1;
    };
    assert!(best.is_some(), ENoAvailableWorkers);
    best.destroy_some()
}

/// A request of `requester` is served: the worker gets the deposit. For somebody else's request also
/// reputation and the pool's reward (returned), which an owner must not be able to make for itself.
fun finish_served(
    registry: &mut Registry,
    node_id: String,
    requester: address,
    deposit: Balance<SUI>,
    epoch: u64,
): u64 {
    let amount = deposit.value();
    let (pool, worker) = registry.pool_and_worker_mut(node_id);
    worker.end_work();
    worker.rewards_mut().deposit(deposit);
    let before = worker.reputation();
    let mut reward = 0;
    if (worker.owner() != requester) {
        if (!worker.is_understaked()) reward = worker.rewards_mut().credit_served(pool, epoch);
        worker.gain_reputation();
    };
    registry.count_earned(amount + reward, 0);
    registry.emit_reputation(node_id, before);
    reward
}

/// A request ended unserved; with `missed`, the worker is to blame.
fun finish_unserved(registry: &mut Registry, node_id: String, missed: bool) {
    let worker = registry.worker_mut(node_id);
    worker.end_work();
    let before = worker.reputation();
    if (missed) worker.lose_reputation();
    registry.emit_reputation(node_id, before);
}

fun emit_reputation(registry: &Registry, node_id: String, before: u64) {
    let worker = registry.worker(node_id);
    let reputation = worker.reputation();
    if (reputation == before) return;
    event::emit(WorkerReputationChangedEvent {
        registry: object::id(registry),
        node_id,
        reputation,
        required_stake: worker.required_stake(),
    });
}
