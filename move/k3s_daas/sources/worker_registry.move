/// Workers and the SUI they staked.
///
/// One shared `Registry` holds every worker of a fleet by its node id, with the stake as a `Balance<SUI>`
/// inside the worker's record (see `worker`). Amounts are in MIST (1 SUI = 1,000,000,000 MIST), times in
/// milliseconds of `sui::clock::Clock`.
///
/// Money rules:
/// - Held = staked + treasury + reward pool + earned rewards + deposits of open requests. `Registry.staked` is
///   the sum of all workers' stakes, slashed remainders included; `Registry.earned` that of their unclaimed
///   rewards; the deposits are `k8s_scheduler`'s.
/// - A stake leaves only by `withdraw`, to the address fixed at staking, or as a slash share to the treasury.
///   The treasury leaves only to the reward pool, the pool only to workers' accounts, and these only to the
///   withdrawal addresses.
/// - The terms (minimum, windows, slash share) are copied into the worker when it stakes.
///
/// Loops are plain: the standard library's macros are expanded from its source, which the offline compiler
/// does not have.
module k3s_daas::worker_registry;

use k3s_daas::master::{Self, Master};
use k3s_daas::reward_account::{Self, Pool};
use k3s_daas::seal_token;
use k3s_daas::worker::{Self, Worker};
use k3s_daas::worker_status::{Self, Status};
use std::string::String;
use sui::balance::{Self, Balance};
use sui::clock::Clock;
use sui::coin::Coin;
use sui::event;
use sui::sui::SUI;
use sui::table::{Self, Table};
use sui::vec_set::{Self, VecSet};

// === Errors ===

#[error]
const EWrongVersion: vector<u8> =
    b"The registry has another version than this package: call the newest package, or migrate the registry";
#[error]
const ENotUpgrade: vector<u8> = b"The registry is already at this package's version";
#[error]
const EWrongRegistry: vector<u8> = b"The capability was made for another registry";
#[error]
const EInvalidName: vector<u8> = b"A registry's name has 1 to 64 bytes";
#[error]
const EMinStakeTooLow: vector<u8> = b"The minimum stake is at least 1 SUI (1,000,000,000 MIST)";
#[error]
const EWindowTooLong: vector<u8> = b"Slash and unbonding windows are at most 30 days (2,592,000,000 ms)";
#[error]
const ESlashShareTooHigh: vector<u8> = b"The slash share is at most 5,000 basis points (50 %)";
#[error]
const EAllowListFull: vector<u8> = b"The allow-list holds at most 500 owners";
#[error]
const EOwnerNotAllowed: vector<u8> =
    b"This registry is not open and the sender is not on its list of allowed owners";
#[error]
const EInsufficientStake: vector<u8> = b"The stake is below the registry's minimum for a worker";
#[error]
const EPaymentMismatch: vector<u8> = b"The payment must be exactly the sum of the amounts";
#[error]
const EInvalidNodeId: vector<u8> =
    b"A node id is an RFC 1123 label: 1 to 63 of a-z, 0-9 and '-', with no '-' at either end";
#[error]
const EInvalidWithdrawalAddress: vector<u8> = b"The withdrawal address must not be 0x0";
#[error]
const EWorkerAlreadyExists: vector<u8> =
    b"The node id is taken: by a registered worker, or for ever by a slashed one";
#[error]
const ETooManyWorkers: vector<u8> = b"An owner has at most 1,000 workers in one registry";
#[error]
const EWorkerNotFound: vector<u8> = b"No worker with this node id is registered here";
#[error]
const ENotWorkerOwner: vector<u8> = b"Only the worker's owner may do this";
#[error]
const EEmptyBatch: vector<u8> = b"A batch names at least one worker";
#[error]
const ELengthMismatch: vector<u8> = b"The vectors of a batch must have the same length";
#[error]
const EMasterSuperseded: vector<u8> =
    b"The master capability is void: a newer master was appointed, or this one's image or appointment was ended";
#[error]
const EAttestationExpired: vector<u8> =
    b"The master's attestation is over: it must register a newer one before it may act again";
#[error]
const EInvalidStatusChange: vector<u8> =
    b"A master sets the status only of pending, active, busy and offline workers";
#[error]
const EWorkerJailed: vector<u8> =
    b"A slash of this worker is proposed: it can't leave until that is executed or cancelled";
#[error]
const EWorkerSlashed: vector<u8> = b"The worker is slashed, which is final";
#[error]
const EWorkerLeaving: vector<u8> = b"The worker is unbonding: stake can't be added to it any more";
#[error]
const ENoPayment: vector<u8> = b"The payment is 0 MIST";
#[error]
const ERequestsOpen: vector<u8> =
    b"Requests are assigned to this worker: withdraw when they are completed or timed out (10 minutes)";
#[error]
const EFleetProposalsUsed: vector<u8> =
    b"This epoch's proposals are used up: at most 3, or a tenth of the fleet if that is more";
#[error]
const EAlreadyUnbonding: vector<u8> = b"The worker is already unbonding";
#[error]
const ENotUnbonding: vector<u8> = b"Request the unstake first: the worker is not unbonding";
#[error]
const EUnbondingWindowOpen: vector<u8> = b"The unbonding window is not over yet";
#[error]
const ENothingToWithdraw: vector<u8> = b"The remainder of this slashed worker's stake is already withdrawn";

// === Constants ===

/// Version of the package's view of the registry; raised by an upgrade that changes the rules.
const VERSION: u64 = 1;
/// 1 SUI in MIST.
const MIN_STAKE_FLOOR: u64 = 1_000_000_000;
/// 30 days in ms.
const MAX_WINDOW_MS: u64 = 2_592_000_000;
/// 50 % in basis points.
const MAX_SLASH_SHARE_BPS: u64 = 5_000;
const MAX_NAME_BYTES: u64 = 64;
/// Keeps the registry object, which carries the list and is written by every transaction, small.
const MAX_ALLOWED_OWNERS: u64 = 500;
/// Keeps an owner's list of 63-byte node ids below the largest object size (250 KB).
const MAX_WORKERS_PER_OWNER: u64 = 1_000;
/// Proposals of slashes per Sui epoch: a tenth of the fleet, but so many in a small one.
const MIN_FLEET_PROPOSALS: u64 = 3;
const FLEET_PROPOSALS_DIVISOR: u64 = 10;

// === Structs ===

/// One fleet. Seal tokens are dynamic fields of its id (see `seal_token`).
public struct Registry has key {
    id: UID,
    version: u64,
    name: String,
    /// Anybody may stake; otherwise only `allowed_owners`.
    open: bool,
    allowed_owners: VecSet<address>,
    min_stake: u64,
    slash_window_ms: u64,
    unbonding_window_ms: u64,
    slash_share_bps: u64,
    /// A master is appointed by attestation only. Never turned off again.
    require_attestation: bool,
    /// Sum of all workers' balances, in MIST.
    staked: u64,
    /// Sum of all workers' unclaimed rewards, in MIST.
    earned: u64,
    /// Slash shares.
    treasury: Balance<SUI>,
    rewards: Pool,
    workers: Table<String, Worker>,
    /// Node ids by owner, for as long as the registry holds stake of that worker.
    owners: Table<address, vector<String>>,
    master: Option<Master>,
    /// Of the newest master, live or not.
    master_epoch: u64,
    /// Slashes proposed in the Sui epoch `proposals_epoch`.
    proposals: u64,
    proposals_epoch: u64,
}

/// Shows in the owner's wallet that a worker is staked. Soulbound: no `store`, so only this module could
/// transfer it. It counts only while the registry's record of `node_id` names this object's id.
public struct StakeProof has key { id: UID, registry: ID, node_id: String, owner: address }

/// Changes the allow-list, the terms and the rates of reward, requires attestation and migrates the registry.
public struct AdminCap has key, store { id: UID, registry: ID }
/// Appoints masters, lists the images that may attest as one.
public struct OperatorCap has key, store { id: UID, registry: ID }
/// Proposes slashes.
public struct SlasherCap has key, store { id: UID, registry: ID }
/// Cancels proposed slashes.
public struct ArbiterCap has key, store { id: UID, registry: ID }

/// The right of the appointed master, good while `epoch` is the registry's. Soulbound.
public struct MasterCap has key { id: UID, registry: ID, epoch: u64 }

// === Events ===

public struct RegistryCreatedEvent has copy, drop { registry: ID, name: String, creator: address }

public struct WorkerRegisteredEvent has copy, drop {
    registry: ID,
    node_id: String,
    owner: address,
    stake_amount: u64,
    withdrawal_address: address,
    timestamp_ms: u64,
}

/// Stake came in: with a worker's registration, or added later. `stake` is what the worker has now.
public struct StakeDepositedEvent has copy, drop {
    registry: ID,
    node_id: String,
    owner: address,
    amount: u64,
    stake: u64,
    timestamp_ms: u64,
}

/// Terms for workers that stake from now on.
public struct TermsChangedEvent has copy, drop {
    registry: ID,
    min_stake: u64,
    slash_window_ms: u64,
    unbonding_window_ms: u64,
    slash_share_bps: u64,
}

public struct WorkerStatusChangedEvent has copy, drop {
    registry: ID,
    node_id: String,
    old_status: Status,
    new_status: Status,
    timestamp_ms: u64,
}

public struct UnstakeRequestedEvent has copy, drop {
    registry: ID,
    node_id: String,
    owner: address,
    unbonding_until_ms: u64,
    timestamp_ms: u64,
}

public struct StakeWithdrawnEvent has copy, drop {
    registry: ID,
    node_id: String,
    recipient: address,
    amount: u64,
    timestamp_ms: u64,
}

// === Registry ===

/// Creates and shares a registry and gives its four capabilities to the sender.
///
/// `min_stake` in MIST, at least 1 SUI; windows in ms, at most 30 days; `slash_share_bps` at most 5,000.
#[allow(lint(self_transfer))]
public fun create_registry(
    name: String,
    open: bool,
    min_stake: u64,
    slash_window_ms: u64,
    unbonding_window_ms: u64,
    slash_share_bps: u64,
    require_attestation: bool,
    ctx: &mut TxContext,
) {
    assert!(name.length() > 0 && name.length() <= MAX_NAME_BYTES, EInvalidName);
    assert_terms(min_stake, slash_window_ms, unbonding_window_ms, slash_share_bps);

    let creator = ctx.sender();
    let registry = Registry {
        id: object::new(ctx),
        version: VERSION,
        name,
        open,
        allowed_owners: vec_set::empty(),
        min_stake,
        slash_window_ms,
        unbonding_window_ms,
        slash_share_bps,
        require_attestation,
        staked: 0,
        earned: 0,
        treasury: balance::zero(),
        rewards: reward_account::new_pool(),
        workers: table::new(ctx),
        owners: table::new(ctx),
        master: option::none(),
        master_epoch: 0,
        proposals: 0,
        proposals_epoch: 0,
    };
    let id = object::id(&registry);
    transfer::transfer(AdminCap { id: object::new(ctx), registry: id }, creator);
    transfer::transfer(OperatorCap { id: object::new(ctx), registry: id }, creator);
    transfer::transfer(SlasherCap { id: object::new(ctx), registry: id }, creator);
    transfer::transfer(ArbiterCap { id: object::new(ctx), registry: id }, creator);
    event::emit(RegistryCreatedEvent { registry: id, name, creator });
    transfer::share_object(registry);
}

/// Lets `owner` stake in a registry that is not open. Allowing twice changes nothing.
public fun allow_owner(registry: &mut Registry, cap: &AdminCap, owner: address) {
    registry.assert_version();
    registry.assert_bound(cap.registry);
    if (registry.allowed_owners.contains(&owner)) return;
    assert!(registry.allowed_owners.length() < MAX_ALLOWED_OWNERS, EAllowListFull);
    registry.allowed_owners.insert(owner);
}

/// Takes `owner` off the allow-list; workers it already has stay. Taking off twice changes nothing.
public fun disallow_owner(registry: &mut Registry, cap: &AdminCap, owner: address) {
    registry.assert_version();
    registry.assert_bound(cap.registry);
    if (registry.allowed_owners.contains(&owner)) registry.allowed_owners.remove(&owner);
}

/// Sets the terms for workers that stake from now on; the others keep those they staked under. Limits as in
/// `create_registry`.
public fun set_terms(
    registry: &mut Registry,
    cap: &AdminCap,
    min_stake: u64,
    slash_window_ms: u64,
    unbonding_window_ms: u64,
    slash_share_bps: u64,
) {
    registry.assert_version();
    registry.assert_bound(cap.registry);
    assert_terms(min_stake, slash_window_ms, unbonding_window_ms, slash_share_bps);
    registry.min_stake = min_stake;
    registry.slash_window_ms = slash_window_ms;
    registry.unbonding_window_ms = unbonding_window_ms;
    registry.slash_share_bps = slash_share_bps;
    let registry = object::id(registry);
    event::emit(TermsChangedEvent { registry, min_stake, slash_window_ms, unbonding_window_ms, slash_share_bps });
}

/// Brings the registry to this package's version after an upgrade; older packages can't use it any more.
public fun migrate(registry: &mut Registry, cap: &AdminCap) {
    registry.assert_bound(cap.registry);
    assert!(registry.version < VERSION, ENotUpgrade);
    registry.version = VERSION;
}

// === Staking ===

/// Stakes the whole `payment` for a new worker of the sender and registers it as pending.
/// The stake will only ever be paid out to `withdrawal_address`.
public fun stake_and_register_worker(
    registry: &mut Registry,
    payment: Coin<SUI>,
    node_id: String,
    withdrawal_address: address,
    clock: &Clock,
    ctx: &mut TxContext,
) {
    registry.assert_may_stake(withdrawal_address, ctx);
    registry.register(payment.into_balance(), node_id, withdrawal_address, clock.timestamp_ms(), ctx);
}

/// Stakes `amounts[i]` MIST of `payment` for a new worker `node_ids[i]`, for all of them or for none.
/// `payment` is exactly the sum of the amounts.
public fun stake_and_register_workers(
    registry: &mut Registry,
    payment: Coin<SUI>,
    node_ids: vector<String>,
    amounts: vector<u64>,
    withdrawal_address: address,
    clock: &Clock,
    ctx: &mut TxContext,
) {
    registry.assert_may_stake(withdrawal_address, ctx);
    assert!(!node_ids.is_empty(), EEmptyBatch);
    assert!(node_ids.length() == amounts.length(), ELengthMismatch);
    let now_ms = clock.timestamp_ms();
    let mut rest = payment.into_balance();
    let mut i = 0;
    while (i < node_ids.length()) {
        assert!(rest.value() >= amounts[i], EPaymentMismatch);
        registry.register(rest.split(amounts[i]), node_ids[i], withdrawal_address, now_ms, ctx);
        i = i + 1;
    };
    assert!(rest.value() == 0, EPaymentMismatch);
    rest.destroy_zero();
}

/// Adds the whole `payment` to the stake of the sender's worker, so that it meets what its reputation
/// requires. Not while a slash is proposed, and not on the way out.
public fun add_stake(
    registry: &mut Registry,
    payment: Coin<SUI>,
    node_id: String,
    clock: &Clock,
    ctx: &TxContext,
) {
    registry.assert_version();
    let amount = payment.value();
    assert!(amount > 0, ENoPayment);
    let worker = registry.worker_mut(node_id);
    let (owner, status) = (worker.owner(), worker.status());
    assert!(owner == ctx.sender(), ENotWorkerOwner);
    assert!(!status.is_jailed(), EWorkerJailed);
    assert!(!status.is_slashed(), EWorkerSlashed);
    assert!(!status.is_unbonding(), EWorkerLeaving);
    let stake = worker.add_stake(payment.into_balance());
    registry.staked = registry.staked + amount;
    event::emit(StakeDepositedEvent {
        registry: object::id(registry),
        node_id,
        owner,
        amount,
        stake,
        timestamp_ms: clock.timestamp_ms(),
    });
}

/// Asks to leave: the worker is unbonding, and its stake can be withdrawn when the window is over.
public fun request_unstake(registry: &mut Registry, node_id: String, clock: &Clock, ctx: &TxContext) {
    registry.assert_version();
    let now_ms = clock.timestamp_ms();
    let worker = registry.worker_mut(node_id);
    let (owner, status) = (worker.owner(), worker.status());
    assert!(owner == ctx.sender(), ENotWorkerOwner);
    assert!(!status.is_jailed(), EWorkerJailed);
    assert!(!status.is_slashed(), EWorkerSlashed);
    assert!(!status.is_unbonding(), EAlreadyUnbonding);
    let unbonding_until_ms = worker.start_unbonding(now_ms);
    registry.set_status(node_id, worker_status::unbonding(), now_ms);
    event::emit(UnstakeRequestedEvent {
        registry: object::id(registry),
        node_id,
        owner,
        unbonding_until_ms,
        timestamp_ms: now_ms,
    });
}

/// Pays stake and rewards to the address fixed at staking, once the unbonding window is over. The owner or
/// that address may call it.
///
/// An unbonding worker is removed with its seal token, and its node id is free again. A slashed worker's
/// remainder is paid likewise, but its record stays, so that its node id is never used again.
public fun withdraw(registry: &mut Registry, node_id: String, clock: &Clock, ctx: &mut TxContext) {
    registry.assert_version();
    let now_ms = clock.timestamp_ms();
    let id = object::id(registry);
    let worker = registry.worker_mut(node_id);
    let (owner, recipient, status) = (worker.owner(), worker.withdrawal_address(), worker.status());
    assert!(ctx.sender() == owner || ctx.sender() == recipient, ENotWorkerOwner);
    assert!(!status.is_jailed(), EWorkerJailed);
    assert!(status.is_unbonding() || status.is_slashed(), ENotUnbonding);
    assert!(worker.stake() > 0, ENothingToWithdraw);
    assert!(now_ms >= *worker.unbonding_until_ms().borrow(), EUnbondingWindowOpen);
    // A request must not outlive its worker's record. A leaving worker gets no new ones, and anybody may time
    // the old ones out, so nobody can hold up an exit.
    assert!(status.is_slashed() || worker.workload() == 0, ERequestsOpen);

    let stake = worker.take_stake();
    let amount = stake.value();
    let rewards = worker.rewards_mut().pay_out(id, node_id, recipient, now_ms, ctx);
    registry.staked = registry.staked - amount;
    registry.earned = registry.earned - rewards;
    registry.forget_of_owner(owner, &node_id);
    if (status.is_unbonding()) {
        registry.workers.remove(node_id).destroy_empty();
        // Otherwise the old owner's token would be good for the next worker of that name.
        seal_token::remove_worker_token(&mut registry.id, node_id);
    };
    transfer::public_transfer(stake.into_coin(ctx), recipient);
    event::emit(StakeWithdrawnEvent { registry: id, node_id, recipient, amount, timestamp_ms: now_ms });
}

// === Statuses ===

/// Sets `node_ids[i]` to `statuses[i]` ("active", "busy" or "offline"), for all of them or for none. Only
/// pending, active, busy and offline workers can be set. A worker that already has the status is left as it
/// is, without an event.
public fun set_worker_statuses(
    registry: &mut Registry,
    cap: &MasterCap,
    node_ids: vector<String>,
    statuses: vector<String>,
    clock: &Clock,
) {
    registry.assert_version();
    registry.assert_master(cap, clock);
    assert!(!node_ids.is_empty(), EEmptyBatch);
    assert!(node_ids.length() == statuses.length(), ELengthMismatch);
    let now_ms = clock.timestamp_ms();
    let mut i = 0;
    while (i < node_ids.length()) {
        let new_status = worker_status::settable(&statuses[i]);
        let old_status = registry.worker(node_ids[i]).status();
        assert!(old_status.is_in_service(), EInvalidStatusChange);
        if (old_status != new_status) registry.set_status(node_ids[i], new_status, now_ms);
        i = i + 1;
    };
}

// === Getters ===

/// Whether `node_id` is registered and belongs to `owner`.
public fun is_worker_owner(registry: &Registry, node_id: String, owner: address): bool {
    registry.worker_exists(node_id) && registry.worker(node_id).owner() == owner
}

/// Whether `node_id` is registered and works: active, or busy.
public fun is_worker_active(registry: &Registry, node_id: String): bool {
    if (!registry.worker_exists(node_id)) return false;
    let status = registry.worker(node_id).status();
    status.is_active() || status.is_busy()
}

/// Node ids of `owner`'s workers whose stake, or what a slash left of it, the registry still holds.
public fun owner_workers(registry: &Registry, owner: address): vector<String> {
    if (registry.owners.contains(owner)) registry.owners[owner] else vector[]
}

/// Whether `owner_workers` names any, without reading them.
public fun is_owner(registry: &Registry, owner: address): bool { registry.owners.contains(owner) }

/// Whether `node_id` has a record, be it a slashed worker's.
public fun worker_exists(registry: &Registry, node_id: String): bool {
    registry.workers.contains(node_id)
}

public fun worker_status(registry: &Registry, node_id: String): Status { registry.worker(node_id).status() }

/// Stake held for the worker, in MIST.
public fun worker_stake(registry: &Registry, node_id: String): u64 { registry.worker(node_id).stake() }

public fun worker_owner(registry: &Registry, node_id: String): address { registry.worker(node_id).owner() }

/// Whether `proof` is the one the worker's record names.
public fun is_proof_live(registry: &Registry, proof: &StakeProof): bool {
    proof.registry == object::id(registry) && registry.worker_exists(proof.node_id) &&
    registry.worker(proof.node_id).proof() == object::id(proof)
}

/// Sum of all stake held, in MIST.
public fun staked(registry: &Registry): u64 { registry.staked }

/// Slash shares held, in MIST.
public fun treasury_value(registry: &Registry): u64 { registry.treasury.value() }

public fun require_attestation(registry: &Registry): bool { registry.require_attestation }

public fun master(registry: &Registry): Option<Master> { registry.master }

/// The worker that a StakeProof is about, if the proof is live.
public fun proof_node_id(proof: &StakeProof): String { proof.node_id }

// === For the package's other modules ===

public(package) fun assert_version(registry: &Registry) {
    assert!(registry.version == VERSION, EWrongVersion);
}

public(package) fun assert_admin(registry: &Registry, cap: &AdminCap) { registry.assert_bound(cap.registry); }

public(package) fun assert_operator(registry: &Registry, cap: &OperatorCap) {
    registry.assert_bound(cap.registry);
}

public(package) fun assert_slasher(registry: &Registry, cap: &SlasherCap) {
    registry.assert_bound(cap.registry);
}

public(package) fun assert_arbiter(registry: &Registry, cap: &ArbiterCap) {
    registry.assert_bound(cap.registry);
}

/// The cap is this registry's and the live master's, whose attestation, if it has one, is not over.
public(package) fun assert_master(registry: &Registry, cap: &MasterCap, clock: &Clock) {
    registry.assert_bound(cap.registry);
    assert!(registry.master.is_some(), EMasterSuperseded);
    let master = registry.master.borrow();
    assert!(master.epoch() == cap.epoch, EMasterSuperseded);
    assert!(!master.is_expired(clock.timestamp_ms()), EAttestationExpired);
}

public(package) fun uid(registry: &Registry): &UID { &registry.id }

public(package) fun uid_mut(registry: &mut Registry): &mut UID { &mut registry.id }

/// Makes `account` the master of a new epoch, gives it the capability and returns the epoch. What the last
/// master announced is forgotten, so that nobody trusts its CA any more.
public(package) fun install_master(registry: &mut Registry, account: address, ctx: &mut TxContext): u64 {
    let epoch = registry.master_epoch + 1;
    registry.master_epoch = epoch;
    registry.master = option::some(master::new(epoch, account));
    transfer::transfer(MasterCap { id: object::new(ctx), registry: object::id(registry), epoch }, account);
    epoch
}

/// Ends the live master: there is none until the next is installed.
public(package) fun remove_master(registry: &mut Registry) { registry.master = option::none(); }

/// The live master; call only where there is one.
public(package) fun master_mut(registry: &mut Registry): &mut Master { registry.master.borrow_mut() }

public(package) fun set_require_attestation(registry: &mut Registry) { registry.require_attestation = true; }

/// Counts a proposal of a slash in Sui's `epoch`.
public(package) fun count_proposal(registry: &mut Registry, epoch: u64) {
    if (registry.proposals_epoch != epoch) {
        registry.proposals_epoch = epoch;
        registry.proposals = 0;
    };
    let most = MIN_FLEET_PROPOSALS.max(registry.workers.length() / FLEET_PROPOSALS_DIVISOR);
    assert!(registry.proposals < most, EFleetProposalsUsed);
    registry.proposals = registry.proposals + 1;
}

/// Moves a worker's slash share to the treasury; returns (share, remainder) in MIST.
public(package) fun slash_stake(registry: &mut Registry, node_id: String): (u64, u64) {
    let worker = registry.worker_mut(node_id);
    let taken = worker.take_slash();
    let (share, remaining) = (taken.value(), worker.stake());
    registry.treasury.join(taken);
    registry.staked = registry.staked - share;
    (share, remaining)
}

/// Moves `amount` MIST of the treasury to the reward pool.
public(package) fun treasury_to_pool(registry: &mut Registry, amount: u64) {
    registry.rewards.fund(registry.treasury.split(amount));
}

public(package) fun pool(registry: &Registry): &Pool { &registry.rewards }

public(package) fun pool_mut(registry: &mut Registry): &mut Pool { &mut registry.rewards }

public(package) fun pool_and_worker_mut(registry: &mut Registry, node_id: String): (&mut Pool, &mut Worker) {
    (&mut registry.rewards, &mut registry.workers[node_id])
}

/// Sum of all unclaimed rewards, in MIST.
public(package) fun earned(registry: &Registry): u64 { registry.earned }

/// Workers' accounts got so much more, and so much was paid out of them.
public(package) fun count_earned(registry: &mut Registry, gained: u64, paid: u64) {
    registry.earned = registry.earned + gained - paid;
}

public(package) fun worker(registry: &Registry, node_id: String): &Worker {
    assert!(registry.workers.contains(node_id), EWorkerNotFound);
    &registry.workers[node_id]
}

public(package) fun worker_mut(registry: &mut Registry, node_id: String): &mut Worker {
    assert!(registry.workers.contains(node_id), EWorkerNotFound);
    &mut registry.workers[node_id]
}

public(package) fun set_status(registry: &mut Registry, node_id: String, new_status: Status, now_ms: u64) {
    let old_status = registry.workers[node_id].set_status(new_status, now_ms);
    event::emit(WorkerStatusChangedEvent {
        registry: object::id(registry),
        node_id,
        old_status,
        new_status,
        timestamp_ms: now_ms,
    });
}

// === Private ===

fun assert_bound(registry: &Registry, cap_registry: ID) {
    assert!(cap_registry == object::id(registry), EWrongRegistry);
}

fun assert_terms(
    min_stake: u64,
    slash_window_ms: u64,
    unbonding_window_ms: u64,
    slash_share_bps: u64,
) {
    assert!(min_stake >= MIN_STAKE_FLOOR, EMinStakeTooLow);
    assert!(slash_window_ms <= MAX_WINDOW_MS && unbonding_window_ms <= MAX_WINDOW_MS, EWindowTooLong);
    assert!(slash_share_bps <= MAX_SLASH_SHARE_BPS, ESlashShareTooHigh);
}

fun assert_may_stake(registry: &Registry, withdrawal_address: address, ctx: &TxContext) {
    registry.assert_version();
    assert!(registry.open || registry.allowed_owners.contains(&ctx.sender()), EOwnerNotAllowed);
    assert!(withdrawal_address != @0x0, EInvalidWithdrawalAddress);
}

fun register(
    registry: &mut Registry,
    stake: Balance<SUI>,
    node_id: String,
    withdrawal_address: address,
    now_ms: u64,
    ctx: &mut TxContext,
) {
    assert!(worker::is_node_id(node_id.as_bytes()), EInvalidNodeId);
    assert!(!registry.workers.contains(node_id), EWorkerAlreadyExists);
    let amount = stake.value();
    assert!(amount >= registry.min_stake, EInsufficientStake);

    let owner = ctx.sender();
    let id = object::id(registry);
    let proof = StakeProof { id: object::new(ctx), registry: id, node_id, owner };
    let worker = worker::new(
        node_id,
        owner,
        stake,
        object::id(&proof),
        withdrawal_address,
        registry.min_stake,
        registry.slash_window_ms,
        registry.unbonding_window_ms,
        registry.slash_share_bps,
        now_ms,
    );
    registry.workers.add(node_id, worker);
    registry.staked = registry.staked + amount;
    if (!registry.owners.contains(owner)) registry.owners.add(owner, vector[]);
    let node_ids = &mut registry.owners[owner];
    assert!(node_ids.length() < MAX_WORKERS_PER_OWNER, ETooManyWorkers);
    node_ids.push_back(node_id);
    transfer::transfer(proof, owner);

    event::emit(WorkerRegisteredEvent {
        registry: id,
        node_id,
        owner,
        stake_amount: amount,
        withdrawal_address,
        timestamp_ms: now_ms,
    });
    event::emit(StakeDepositedEvent {
        registry: id,
        node_id,
        owner,
        amount,
        stake: amount,
        timestamp_ms: now_ms,
    });
}

fun forget_of_owner(registry: &mut Registry, owner: address, node_id: &String) {
    let node_ids = &mut registry.owners[owner];
    let (found, i) = node_ids.index_of(node_id);
    if (found) { node_ids.swap_remove(i); };
    if (node_ids.is_empty()) { registry.owners.remove(owner); };
}
