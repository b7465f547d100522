/// The reward pool: sponsors and the treasury fill it, served requests and Ready time empty it, and what a
/// worker earned is claimed to its withdrawal address. See `reward_account` for how a reward is paid.
///
/// Requests are counted by `k8s_scheduler`, Ready time is reported by the master. Amounts in MIST.
module k3s_daas::rewards;

use k3s_daas::worker_registry::{AdminCap, MasterCap, Registry};
use std::string::String;
use sui::clock::Clock;
use sui::coin::Coin;
use sui::event;
use sui::sui::SUI;

use fun credit_ready as Registry.credit_ready;

// === Errors ===

#[error]
const ENoPayment: vector<u8> = b"The payment is 0 MIST";
#[error]
const EInvalidShare: vector<u8> = b"A share of the treasury is 1 to 10,000 basis points";
#[error]
const EEmptyBatch: vector<u8> = b"A batch names at least one worker";
#[error]
const ELengthMismatch: vector<u8> = b"The vectors of a batch must have the same length";
#[error]
const ENothingToClaim: vector<u8> = b"The worker has no rewards to claim";

// === Constants ===

const BPS: u64 = 10_000;

// === Events ===

/// `pool` is what the pool holds now.
public struct RewardsFundedEvent has copy, drop { registry: ID, sponsor: address, amount: u64, pool: u64 }

/// A share of the treasury went to the pool, which holds `pool` now.
public struct TreasuryMovedEvent has copy, drop { registry: ID, amount: u64, pool: u64 }

public struct RewardRatesChangedEvent has copy, drop {
    registry: ID,
    per_request: u64,
    per_ready_hour: u64,
    cap_per_epoch: u64,
}

/// The pool paid `amount` to the worker's account for Ready time; `epoch` is Sui's.
public struct ReadyRewardedEvent has copy, drop { registry: ID, node_id: String, epoch: u64, amount: u64 }

// === Public functions ===

/// Puts the whole `payment` into the pool. Anybody may; nothing of it comes back.
public fun fund_rewards(registry: &mut Registry, payment: Coin<SUI>, ctx: &TxContext) {
    registry.assert_version();
    let amount = payment.value();
    assert!(amount > 0, ENoPayment);
    registry.pool_mut().fund(payment.into_balance());
    let pool = pool_value(registry);
    event::emit(RewardsFundedEvent { registry: object::id(registry), sponsor: ctx.sender(), amount, pool });
}

/// Moves `share_bps` of the treasury to the pool: the treasury's only way out.
public fun move_treasury(registry: &mut Registry, cap: &AdminCap, share_bps: u64) {
    registry.assert_version();
    registry.assert_admin(cap);
    assert!(share_bps > 0 && share_bps <= BPS, EInvalidShare);
    let amount = ((registry.treasury_value() as u128) * (share_bps as u128) / (BPS as u128)) as u64;
    registry.treasury_to_pool(amount);
    event::emit(TreasuryMovedEvent { registry: object::id(registry), amount, pool: pool_value(registry) });
}

/// Sets what is earned from now on: MIST for each served request, for each hour of Ready time, and at most so
/// much for one worker in one Sui epoch. All are 0 at first.
public fun set_reward_rates(
    registry: &mut Registry,
    cap: &AdminCap,
    per_request: u64,
    per_ready_hour: u64,
    cap_per_epoch: u64,
) {
    registry.assert_version();
    registry.assert_admin(cap);
    registry.pool_mut().set_rates(per_request, per_ready_hour, cap_per_epoch);
    event::emit(RewardRatesChangedEvent {
        registry: object::id(registry),
        per_request,
        per_ready_hour,
        cap_per_epoch,
    });
}

/// Reports that `node_ids[i]` was Ready for `ready_ms[i]` since the last report; more than the time that
/// passed counts as that. Workers that are jailed, slashed, leaving, understaked or gone earn nothing and
/// don't stop the others.
public fun report_ready(
    registry: &mut Registry,
    cap: &MasterCap,
    node_ids: vector<String>,
    ready_ms: vector<u64>,
    clock: &Clock,
    ctx: &TxContext,
) {
    registry.assert_version();
    registry.assert_master(cap, clock);
    assert!(!node_ids.is_empty(), EEmptyBatch);
    assert!(node_ids.length() == ready_ms.length(), ELengthMismatch);
    let (epoch, now_ms) = (ctx.epoch(), clock.timestamp_ms());
    let mut i = 0;
    while (i < node_ids.length()) {
        let node_id = node_ids[i];
        let amount = registry.credit_ready(node_id, ready_ms[i], epoch, now_ms);
        if (amount > 0) {
            event::emit(ReadyRewardedEvent { registry: object::id(registry), node_id, epoch, amount });
        };
        i = i + 1;
    };
}

/// Pays what the worker earned to its withdrawal address. Anybody may call it: it can go nowhere else.
public fun claim_rewards(registry: &mut Registry, node_id: String, clock: &Clock, ctx: &mut TxContext) {
    registry.assert_version();
    let (id, now_ms) = (object::id(registry), clock.timestamp_ms());
    let worker = registry.worker_mut(node_id);
    let recipient = worker.withdrawal_address();
    let amount = worker.rewards_mut().pay_out(id, node_id, recipient, now_ms, ctx);
    assert!(amount > 0, ENothingToClaim);
    registry.count_earned(0, amount);
}

// === Getters ===

/// What the reward pool holds, in MIST.
public fun pool_value(registry: &Registry): u64 { registry.pool().pool_value() }

/// Sum of all workers' unclaimed rewards, in MIST.
public fun unclaimed(registry: &Registry): u64 { registry.earned() }

/// Rewards that the worker can claim, in MIST.
public fun worker_rewards(registry: &Registry, node_id: String): u64 {
    registry.worker(node_id).rewards().earned()
}

// === Private ===

/// Credits Ready time to a worker in good standing and returns what the pool paid. For any other worker, and
/// for none of that name, the time passes unpaid.
fun credit_ready(registry: &mut Registry, node_id: String, ready_ms: u64, epoch: u64, now_ms: u64): u64 {
    if (!registry.worker_exists(node_id)) return 0;
    let (pool, worker) = registry.pool_and_worker_mut(node_id);
    if (!worker.status().is_in_service() || worker.is_understaked()) {
        worker.rewards_mut().skip_until(now_ms);
        return 0
    };
    let amount = worker.rewards_mut().credit_ready(pool, ready_ms, epoch, now_ms);
    registry.count_earned(amount, 0);
    amount
}
