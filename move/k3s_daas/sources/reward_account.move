/// The reward pool and what each worker earned of it. Amounts in MIST.
///
/// A reward leaves the pool for the worker's account in the moment it is earned, so that no debt can grow: an
/// empty pool pays nothing, and blocks nothing. What a worker earns of the pool in one Sui epoch is capped.
/// Rights are checked by the modules above; this one stands below `worker_registry`, which keeps both structs.
module k3s_daas::reward_account;

use std::string::String;
use sui::balance::{Self, Balance};
use sui::event;
use sui::sui::SUI;

const MS_PER_HOUR: u128 = 3_600_000;

/// What sponsors and the treasury put in, and how it is paid out.
public struct Pool has store {
    balance: Balance<SUI>,
    /// For each served request, MIST.
    per_request: u64,
    /// For each hour of Ready time, MIST.
    per_ready_hour: u64,
    /// The most that one worker earns of the pool in one Sui epoch, MIST.
    cap_per_epoch: u64,
}

/// What a worker earned and did not claim yet, and its figures of the newest epoch in which it earned.
public struct Account has store {
    balance: Balance<SUI>,
    epoch: u64,
    /// Earned of the pool in `epoch`, MIST.
    earned_in_epoch: u64,
    /// Requests served in `epoch`.
    served: u64,
    /// Ready time in `epoch`, ms.
    ready_ms: u64,
    /// Until when Ready time is accounted for.
    reported_until_ms: u64,
}

/// The earnings of a worker were paid to its withdrawal address.
public struct RewardsPaidEvent has copy, drop {
    registry: ID,
    node_id: String,
    recipient: address,
    amount: u64,
    timestamp_ms: u64,
}

public(package) fun new_pool(): Pool {
    Pool { balance: balance::zero(), per_request: 0, per_ready_hour: 0, cap_per_epoch: 0 }
}

public(package) fun new_account(now_ms: u64): Account {
    Account {
        balance: balance::zero(),
        epoch: 0,
        earned_in_epoch: 0,
        served: 0,
        ready_ms: 0,
        reported_until_ms: now_ms,
    }
}

public(package) fun pool_value(pool: &Pool): u64 { pool.balance.value() }

public(package) fun fund(pool: &mut Pool, payment: Balance<SUI>) { pool.balance.join(payment); }

public(package) fun set_rates(pool: &mut Pool, per_request: u64, per_ready_hour: u64, cap_per_epoch: u64) {
    pool.per_request = per_request;
    pool.per_ready_hour = per_ready_hour;
    pool.cap_per_epoch = cap_per_epoch;
}

public(package) fun earned(account: &Account): u64 { account.balance.value() }

/// A requester's deposit, which the worker got for serving the request. Not capped: it is not the pool's.
public(package) fun deposit(account: &mut Account, payment: Balance<SUI>) { account.balance.join(payment); }

/// Credits one served request; returns what the pool paid.
public(package) fun credit_served(account: &mut Account, pool: &mut Pool, epoch: u64): u64 {
    account.enter(epoch);
    account.served = account.served + 1;
    let wanted = pool.per_request as u128;
    account.credit(pool, wanted)
}

/// Credits Ready time, at most the time since the last report; returns what the pool paid.
public(package) fun credit_ready(
    account: &mut Account,
    pool: &mut Pool,
    ready_ms: u64,
    epoch: u64,
    now_ms: u64,
): u64 {
    account.enter(epoch);
    // A master that errs, or lies, can't make more than one hour out of an hour.
    let ready_ms = ready_ms.min(account.skip_until(now_ms));
    account.ready_ms = account.ready_ms + ready_ms;
    let wanted = (ready_ms as u128) * (pool.per_ready_hour as u128) / MS_PER_HOUR;
    account.credit(pool, wanted)
}

/// Takes the time up to now as accounted for; returns how long that was, in ms.
public(package) fun skip_until(account: &mut Account, now_ms: u64): u64 {
    let passed_ms = now_ms - account.reported_until_ms;
    account.reported_until_ms = now_ms;
    passed_ms
}

/// Pays everything to `recipient`; returns how much that was.
public(package) fun pay_out(
    account: &mut Account,
    registry: ID,
    node_id: String,
    recipient: address,
    now_ms: u64,
    ctx: &mut TxContext,
): u64 {
    let earnings = account.balance.withdraw_all();
    let amount = earnings.value();
    if (amount == 0) {
        earnings.destroy_zero();
        return 0
    };
    transfer::public_transfer(earnings.into_coin(ctx), recipient);
    event::emit(RewardsPaidEvent { registry, node_id, recipient, amount, timestamp_ms: now_ms });
    amount
}

public(package) fun destroy_empty(account: Account) {
    let Account { balance, .. } = account;
    balance.destroy_zero();
}

fun enter(account: &mut Account, epoch: u64) {
    if (account.epoch == epoch) return;
    account.epoch = epoch;
    account.earned_in_epoch = 0;
    account.served = 0;
    account.ready_ms = 0;
}

/// `wanted`, but not above the cap and not more than the pool has.
fun credit(account: &mut Account, pool: &mut Pool, wanted: u128): u64 {
    // The cap may have been lowered below what was earned already.
    let left = pool.cap_per_epoch - pool.cap_per_epoch.min(account.earned_in_epoch);
    let most = left.min(pool.balance.value());
    let amount = if (wanted < (most as u128)) (wanted as u64) else most;
    account.earned_in_epoch = account.earned_in_epoch + amount;
    account.balance.join(pool.balance.split(amount));
    amount
}
