"""worker_registry and worker: added stake, the stake that reputation requires, terms that change, names and
stakes that are used again, and how a wallet shows a StakeProof."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from contract_ledger import CLOCK, DAY_MS, SUI, Chain, Pay, Registry, aborts, compiled, events, strings, u64

from k3s_daas.chain import bcs
from k3s_daas_localnet.ledger.effects import Executed

WINDOW_MS = 600_000


def add(registry: Registry, owner: str, node_id: str, mist: int = SUI) -> Executed:
    return registry.call(owner, "worker_registry::add_stake", Pay(mist), bcs.string(node_id), CLOCK)


def terms(registry: Registry, *values: int) -> Executed:
    return registry.call(registry.admin, "worker_registry::set_terms", registry.admin_cap, *map(u64, values))


def miss(registry: Registry, requester: str, proof: str, master: str, node_id: str, times: int = 1) -> None:
    """The worker claims requests and serves none."""
    ids = [int(registry.submit(requester, proof, [node_id])["request_id"]) for _ in range(times)]
    for each in ids:
        registry.call(master, "k8s_scheduler::claim_request", registry.master_cap, u64(each), CLOCK)
    registry.chain.clock.advance(WINDOW_MS)
    for each in ids:
        registry.time_out(requester, each)


def test_stake_is_added_by_the_owner(chain: Chain, registry: Registry, anne: str, ben: str) -> None:
    registry.stake(anne, "w")
    (event,) = events(add(registry, anne, "w", 5), "StakeDepositedEvent")
    assert (event["amount"], event["stake"], event["owner"]) == ("5", str(SUI + 5), anne)
    assert registry.worker("w")["stake"] == registry.read()["staked"] == str(SUI + 5)
    with aborts("ENotWorkerOwner"):
        add(registry, ben, "w")
    with aborts("EWorkerNotFound"):
        add(registry, anne, "absent")
    with aborts("ENoPayment"):
        add(registry, anne, "w", 0)
    registry.propose("w")
    with aborts("EWorkerJailed"):
        add(registry, anne, "w")
    registry.call(registry.admin, "slashing::cancel_slash", registry.arbiter_cap, bcs.string("w"), CLOCK)
    registry.call(anne, "worker_registry::request_unstake", bcs.string("w"), CLOCK)
    with aborts("EWorkerLeaving"):
        add(registry, anne, "w")
    registry.stake(anne, "cheat")
    registry.propose("cheat")
    registry.call(ben, "slashing::execute_slash", bcs.string("cheat"), CLOCK)
    with aborts("EWorkerSlashed"):
        add(registry, anne, "cheat")


def test_who_misses_needs_more_stake(
    chain: Chain, registry: Registry, anne: str, ben: str, master: str
) -> None:
    registry.stake(ben, "w")
    registry.activate(master, "w")
    proof = registry.stake(anne, "a")
    miss(registry, anne, proof, master, "w", 2)
    assert registry.worker("w")["reputation"] == "80"
    with aborts("ENoAvailableWorkers"):  # it needs 1.2 SUI
        registry.submit(anne, proof, ["w"])
    # It stays in the cluster, and its statuses go on.
    assert registry.worker("w")["status"] == {"@variant": "Active"}
    registry.activate(master, "w", status="offline")
    registry.activate(master, "w")
    add(registry, ben, "w", SUI // 5 - 1)
    with aborts("ENoAvailableWorkers"):
        registry.submit(anne, proof, ["w"])
    add(registry, ben, "w", 1)
    registry.submit(anne, proof, ["w"])
    done = registry.serve(master, 3)
    assert done["node_id"] == "w"
    assert registry.worker("w")["reputation"] == "81"


def test_reputation_ends_at_0_and_at_100(
    chain: Chain, registry: Registry, anne: str, ben: str, master: str
) -> None:
    registry.stake(ben, "w", 2 * SUI)
    registry.activate(master, "w")
    proof = registry.stake(anne, "a")
    registry.submit(anne, proof, ["w"])
    assert registry.serve(master, 1)
    assert registry.worker("w")["reputation"] == "100"
    miss(registry, anne, proof, master, "w", 9)
    miss(registry, anne, proof, master, "w", 3)
    assert registry.worker("w")["reputation"] == "0"
    registry.submit(anne, proof, ["w"])  # twice the minimum is enough at 0


def test_raised_parameters_touch_no_staked_worker(
    chain: Chain, make_registry: Callable[..., Registry], anne: str, ben: str, master: str
) -> None:
    registry = make_registry(slash_share_bps=1_000)
    registry.appoint(master)
    registry.stake(anne, "old", 10 * SUI)
    (event,) = events(terms(registry, 5 * SUI, 30 * DAY_MS, 30 * DAY_MS, 5_000), "TermsChangedEvent")
    assert (event["min_stake"], event["slash_share_bps"]) == (str(5 * SUI), "5000")
    with aborts("EInsufficientStake"):
        registry.stake(anne, "new", 5 * SUI - 1)
    registry.stake(anne, "new", 5 * SUI)
    old, new = registry.worker("old"), registry.worker("new")
    names = ("min_stake", "slash_window_ms", "unbonding_window_ms", "slash_share_bps")
    assert [old[name] for name in names] == [str(SUI), "0", "0", "1000"]
    assert [new[name] for name in names] == [str(5 * SUI), str(30 * DAY_MS), str(30 * DAY_MS), "5000"]
    # And it is the old ones that count: no window, 10 %.
    registry.propose("old")
    done = registry.call(ben, "slashing::execute_slash", bcs.string("old"), CLOCK)
    (slashed,) = events(done, "WorkerSlashedEvent")
    assert slashed["amount"] == str(SUI)
    registry.call(anne, "worker_registry::withdraw", bcs.string("old"), CLOCK)


@pytest.mark.parametrize(
    ("values", "error"),
    [
        ((SUI - 1, 0, 0, 0), "EMinStakeTooLow"),
        ((SUI, 30 * DAY_MS + 1, 0, 0), "EWindowTooLong"),
        ((SUI, 0, 30 * DAY_MS + 1, 0), "EWindowTooLong"),
        ((SUI, 0, 0, 5_001), "ESlashShareTooHigh"),
    ],
)
def test_terms_have_hard_maxima(registry: Registry, values: tuple[int, ...], error: str) -> None:
    with aborts(error):
        terms(registry, *values)


def test_stake_withdraw_and_use_again(chain: Chain, registry: Registry, anne: str, ben: str) -> None:
    """The same money and name, by the same owner and by another: nothing of the old record is left."""
    for owner in (anne, anne, ben):
        proof = registry.stake(owner, "w", 2 * SUI)
        worker = registry.worker("w")
        assert (worker["owner"], worker["proof"], worker["reputation"]) == (owner, proof, "100")
        assert registry.owners() == {owner: ["w"]}
        with aborts("EWorkerAlreadyExists"):
            registry.stake(ben, "w")
        commitment, until = bcs.data(proof_hash(proof)), u64(chain.now_ms + DAY_MS)
        registry.call(
            owner, "k8s_gateway::create_worker_seal_token", bcs.string("w"), commitment, until, CLOCK
        )
        registry.call(owner, "worker_registry::request_unstake", bcs.string("w"), CLOCK)
        registry.call(owner, "worker_registry::withdraw", bcs.string("w"), CLOCK)
        for function in ("withdraw", "request_unstake"):
            with aborts("EWorkerNotFound"):
                registry.call(owner, f"worker_registry::{function}", bcs.string("w"), CLOCK)
        assert registry.read()["staked"] == "0"
        assert (registry.workers(), registry.owners()) == ({}, {})


def proof_hash(proof: str) -> bytes:
    return bytes.fromhex(proof.removeprefix("0x"))


def test_an_understaked_worker_may_leave_with_all_it_has(
    chain: Chain, registry: Registry, anne: str, ben: str, master: str
) -> None:
    registry.stake(ben, "w")
    registry.activate(master, "w")
    proof = registry.stake(anne, "a")
    miss(registry, anne, proof, master, "w")
    registry.call(ben, "worker_registry::request_unstake", bcs.string("w"), CLOCK)
    done = registry.call(ben, "worker_registry::withdraw", bcs.string("w"), CLOCK)
    (event,) = events(done, "StakeWithdrawnEvent")
    assert (event["recipient"], event["amount"]) == (ben, str(SUI))


def test_a_wallet_shows_a_stake_proof(chain: Chain) -> None:
    publisher = chain.actor("publisher")
    chain.publish(publisher, compiled())
    owned = list(chain.ledger.owned_by(bytes.fromhex(publisher.removeprefix("0x"))))
    (display,) = [chain.json(item) for item in owned if item.type and item.type.name == "Display"]
    shown = {entry["key"]: entry["value"] for entry in display["fields"]["contents"]}
    assert shown["name"] == "K3s-DaaS stake of {node_id}"
    assert set(shown) == {"name", "description", "node_id", "registry", "owner"}
    assert int(display["version"]) == 1  # 0 would mean: not announced


def test_names_of_a_batch_stand_for_themselves(registry: Registry, anne: str, master: str) -> None:
    with aborts("EWorkerNotFound"):
        registry.activate(master, "absent")
    with aborts("EUnknownStatus"):
        registry.call(
            master,
            "worker_registry::set_worker_statuses",
            registry.master_cap,
            strings(["w"]),
            strings(["slashed"]),
            CLOCK,
        )
