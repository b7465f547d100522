/// One worker's record: its stake, its terms, its reputation, its work. What it may do follows from these alone.
///
/// Reputation is 0 to 100 and starts at 100: a served request gives 1, a missed one takes 10. The stake that
/// a worker needs grows as its reputation falls, from the minimum it staked under (at 100) to twice that
/// (at 0). A worker below it is *understaked*: it stays in the cluster and keeps its status, but the
/// scheduler does not pick it and the reward pool does not pay it until its owner adds stake or requests it
/// has already taken raise its reputation again.
///
/// Amounts in MIST, times in milliseconds of `sui::clock::Clock`.
module k3s_daas::worker;

use k3s_daas::reward_account::{Self, Account};
use k3s_daas::worker_status::{Self, Status};
use std::string::String;
use sui::balance::Balance;
use sui::sui::SUI;

// === Errors ===

#[error]
const ETooManyProposals: vector<u8> =
    b"This worker was proposed for a slash 3 times in 180 days, cancelled and lapsed ones included: no more";

// === Constants ===

const MAX_NODE_ID_BYTES: u64 = 63;
const FULL_REPUTATION: u64 = 100;
const SERVED_GAIN: u64 = 1;
const MISSED_LOSS: u64 = 10;
/// Requests a worker works on at a time. The last slot is reserved for urgent ones.
const SLOTS: u64 = 10;
const BPS: u64 = 10_000;
/// So often may one worker be proposed in `PROPOSAL_PERIOD_MS`: a stolen SlasherCap can't jail it for ever.
const MAX_PROPOSALS: u64 = 3;
/// 180 days in ms: longer than 3 proposals of the longest window can keep a worker jailed.
const PROPOSAL_PERIOD_MS: u64 = 15_552_000_000;

// === Structs ===

public struct Worker has store {
    node_id: String,
    owner: address,
    stake: Balance<SUI>,
    status: Status,
    /// Id of the one StakeProof that counts.
    proof: ID,
    withdrawal_address: address,
    registered_at_ms: u64,
    status_changed_at_ms: u64,
    min_stake: u64,
    slash_window_ms: u64,
    unbonding_window_ms: u64,
    slash_share_bps: u64,
    reputation: u64,
    /// Requests assigned to it and not finished: as many as the scheduler's table names it in.
    workload: u64,
    rewards: Account,
    /// The slash proposed against a jailed worker.
    proposal: Option<Proposal>,
    /// Proposals since `proposals_since_ms`.
    proposals: u64,
    proposals_since_ms: u64,
    /// When the stake of an unbonding worker, or the remainder of a slashed one, may be withdrawn.
    unbonding_until_ms: Option<u64>,
}

/// A slash that waits for its window; see `slashing`.
public struct Proposal has copy, drop, store {
    reason: u8,
    /// SHA-256 of the evidence.
    evidence_hash: vector<u8>,
    proposed_at_ms: u64,
    executable_at_ms: u64,
    /// Status to return to when the proposal is cancelled or lapses.
    previous: Status,
}

// === Life ===

public(package) fun new(
    node_id: String,
    owner: address,
    stake: Balance<SUI>,
    proof: ID,
    withdrawal_address: address,
    min_stake: u64,
    slash_window_ms: u64,
    unbonding_window_ms: u64,
    slash_share_bps: u64,
    now_ms: u64,
): Worker {
    Worker {
        node_id,
        owner,
        stake,
        status: worker_status::pending(),
        proof,
        withdrawal_address,
        registered_at_ms: now_ms,
        status_changed_at_ms: now_ms,
        min_stake,
        slash_window_ms,
        unbonding_window_ms,
        slash_share_bps,
        reputation: FULL_REPUTATION,
        workload: 0,
        rewards: reward_account::new_account(now_ms),
        proposal: option::none(),
        proposals: 0,
        proposals_since_ms: now_ms,
        unbonding_until_ms: option::none(),
    }
}

/// Ends a record whose money is paid out.
public(package) fun destroy_empty(worker: Worker) {
    let Worker { stake, rewards, .. } = worker;
    stake.destroy_zero();
    rewards.destroy_empty();
}

/// Sets the status; returns the old one.
public(package) fun set_status(worker: &mut Worker, status: Status, now_ms: u64): Status {
    let old = worker.status;
    worker.status = status;
    worker.status_changed_at_ms = now_ms;
    old
}

public(package) fun add_stake(worker: &mut Worker, payment: Balance<SUI>): u64 { worker.stake.join(payment) }

public(package) fun take_stake(worker: &mut Worker): Balance<SUI> { worker.stake.withdraw_all() }

/// Starts the unbonding window; returns when it is over.
public(package) fun start_unbonding(worker: &mut Worker, now_ms: u64): u64 {
    let until_ms = now_ms + worker.unbonding_window_ms;
    worker.unbonding_until_ms = option::some(until_ms);
    until_ms
}

// === Slashing ===

/// Puts a proposal on the record; returns when it can be executed.
public(package) fun propose(
    worker: &mut Worker,
    reason: u8,
    evidence_hash: vector<u8>,
    now_ms: u64,
): u64 {
    if (now_ms - worker.proposals_since_ms >= PROPOSAL_PERIOD_MS) {
        worker.proposals = 0;
        worker.proposals_since_ms = now_ms;
    };
    assert!(worker.proposals < MAX_PROPOSALS, ETooManyProposals);
    worker.proposals = worker.proposals + 1;
    let executable_at_ms = now_ms + worker.slash_window_ms;
    let previous = worker.status;
    worker.proposal =
        option::some(Proposal { reason, evidence_hash, proposed_at_ms: now_ms, executable_at_ms, previous });
    executable_at_ms
}

/// Takes the proposal off the record; returns the status before it.
public(package) fun drop_proposal(worker: &mut Worker): Status {
    let Proposal { previous, .. } = worker.proposal.extract();
    previous
}

/// Takes the slash share out of the stake.
public(package) fun take_slash(worker: &mut Worker): Balance<SUI> {
    // 128 bits: a stake above 2^64 / 5,000 MIST would overflow otherwise
    let share = ((worker.stake.value() as u128) * (worker.slash_share_bps as u128) / (BPS as u128)) as u64;
    worker.stake.split(share)
}

// === Work ===

/// A request was served.
public(package) fun gain_reputation(worker: &mut Worker) {
    worker.reputation = (worker.reputation + SERVED_GAIN).min(FULL_REPUTATION);
}

/// A request was missed.
public(package) fun lose_reputation(worker: &mut Worker) {
    worker.reputation = worker.reputation - worker.reputation.min(MISSED_LOSS);
}

/// The stake that the worker needs at its reputation, in MIST.
public(package) fun required_stake(worker: &Worker): u64 {
    let factor = 2 * FULL_REPUTATION - worker.reputation;
    ((worker.min_stake as u128) * (factor as u128) / (FULL_REPUTATION as u128)) as u64
}

public(package) fun is_understaked(worker: &Worker): bool { worker.stake.value() < worker.required_stake() }

/// How good a choice the worker is for a request; nothing when it can't take it. An idle worker counts
/// 10 x reputation, another one reputation / (workload + 1).
public(package) fun score(worker: &Worker, urgent: bool): Option<u64> {
    let at_work = worker.status.is_active() || (urgent && worker.status.is_busy());
    let slots = if (urgent) SLOTS else SLOTS - 1;
    if (!at_work || worker.workload >= slots || worker.is_understaked()) return option::none();
    option::some(
        if (worker.workload == 0) worker.reputation * 10 else worker.reputation / (worker.workload + 1),
    )
}

public(package) fun add_work(worker: &mut Worker) { worker.workload = worker.workload + 1; }

public(package) fun end_work(worker: &mut Worker) { worker.workload = worker.workload - 1; }

// === Getters ===

public(package) fun owner(worker: &Worker): address { worker.owner }

public(package) fun stake(worker: &Worker): u64 { worker.stake.value() }

public(package) fun status(worker: &Worker): Status { worker.status }

public(package) fun proof(worker: &Worker): ID { worker.proof }

public(package) fun withdrawal_address(worker: &Worker): address { worker.withdrawal_address }

public(package) fun reputation(worker: &Worker): u64 { worker.reputation }

public(package) fun workload(worker: &Worker): u64 { worker.workload }

public(package) fun unbonding_until_ms(worker: &Worker): Option<u64> { worker.unbonding_until_ms }

public(package) fun executable_at_ms(worker: &Worker): u64 { worker.proposal.borrow().executable_at_ms }

public(package) fun rewards(worker: &Worker): &Account { &worker.rewards }

public(package) fun rewards_mut(worker: &mut Worker): &mut Account { &mut worker.rewards }

/// RFC 1123 label, checked over bytes, so that it is ASCII as well.
public(package) fun is_node_id(bytes: &vector<u8>): bool {
    let length = bytes.length();
    if (length == 0 || length > MAX_NODE_ID_BYTES) return false;
    let mut i = 0;
    while (i < length) {
        let byte = bytes[i];
        let alphanumeric = (byte >= 97 && byte <= 122) || (byte >= 48 && byte <= 57);
        let inner_hyphen = byte == 45 && i > 0 && i < length - 1;
        if (!alphanumeric && !inner_hyphen) return false;
        i = i + 1;
    };
    true
}
