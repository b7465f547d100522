"""Comparing the cluster with the chain: who is active, who is offline, whose name is whose."""

from __future__ import annotations

import asyncio
import itertools
from typing import Any

import pytest

from k3s_daas import join
from k3s_daas.chain import InsufficientGas, MoveAbort
from k3s_daas.registry import WorkerStatus
from k3s_daas_master.fleet import rest_s


async def staked(bench: Any, node_id: str = "worker-1", **how: Any) -> str:
    token: str = bench.chain.stake(node_id, **how)
    await bench.catch_up()
    return token


async def turn(bench: Any) -> None:
    bench.chain.checkpoint()
    await bench.catch_up()
    await bench.state.fleet.reconcile()
    await bench.catch_up()


def status_of(bench: Any, node_id: str = "worker-1") -> str:
    value: str = bench.state.index.workers[node_id].status.value
    return value


# -- active -----------------------------------------------------------------------------------------------


async def test_active_needs_heartbeat_ready_node_and_fresh_lease(bench: Any) -> None:
    token = await staked(bench)
    await turn(bench)
    assert status_of(bench) == "pending"
    await bench.beat(token, "worker-1")
    await turn(bench)
    assert status_of(bench) == "pending", "no node yet"
    bench.kube.add_node("worker-1", ready=False)
    await turn(bench)
    assert status_of(bench) == "pending", "not Ready"
    bench.kube.add_node("worker-1")
    del bench.kube.leases["worker-1"]
    await turn(bench)
    assert status_of(bench) == "pending", "no lease"
    bench.kube.renew("worker-1")
    bench.clock.advance(66)
    bench.chain.checkpoint()
    await bench.catch_up()
    await bench.beat(token, "worker-1")
    await turn(bench)
    assert status_of(bench) == "pending", "a lease of long ago"
    bench.kube.renew("worker-1")
    await turn(bench)
    assert status_of(bench) == "active"


async def test_a_ready_node_without_heartbeat_is_not_active(bench: Any) -> None:
    await staked(bench)
    bench.kube.add_node("worker-1")
    await turn(bench)
    assert bench.chain.status_calls == []


async def test_many_workers_become_active_in_one_transaction(bench: Any) -> None:
    for i in range(5):
        token = await staked(bench, f"worker-{i}")
        await bench.beat(token, f"worker-{i}")
        bench.kube.add_node(f"worker-{i}")
    await turn(bench)
    assert bench.chain.status_calls == [{f"worker-{i}": WorkerStatus.ACTIVE for i in range(5)}]
    await turn(bench)
    assert len(bench.chain.status_calls) == 1, "and only once"


async def test_a_status_is_not_sent_twice_while_its_event_is_on_the_way(bench: Any) -> None:
    token = await staked(bench)
    await bench.beat(token, "worker-1")
    bench.kube.add_node("worker-1")
    bench.chain.set_status = lambda *_: None
    await turn(bench)
    await turn(bench)
    assert len(bench.chain.status_calls) == 1
    bench.clock.advance(16)
    await turn(bench)
    assert len(bench.chain.status_calls) == 2, "but it isn't forgotten either"


async def test_one_refused_worker_does_not_hold_up_the_others(bench: Any) -> None:
    for name in ("worker-1", "worker-2", "worker-3"):
        await bench.beat(await staked(bench, name), name)
        bench.kube.add_node(name)

    def refuse(statuses: Any) -> Exception | None:
        abort = MoveAbort("worker_registry", "set_worker_statuses", 7, "EWrongStatus", "no")
        return abort if "worker-2" in statuses else None

    bench.chain.refuse_statuses = refuse
    await turn(bench)
    assert [status_of(bench, f"worker-{i}") for i in (1, 2, 3)] == ["active", "pending", "active"]


async def test_without_gas_it_says_so_and_waits(bench: Any) -> None:
    token = await staked(bench)
    await bench.beat(token, "worker-1")
    bench.kube.add_node("worker-1")
    tries = 0

    def refuse(_: Any) -> Exception:
        nonlocal tries
        tries += 1
        return InsufficientGas(5, 1_000_000, bench.address)

    bench.chain.refuse_statuses = refuse
    await turn(bench)
    await turn(bench)
    assert tries == 1
    (reason,) = (await bench.api.get("/readyz")).json()["reasons"]
    assert reason.startswith("statuses: ")
    assert bench.address in reason
    bench.chain.refuse_statuses = lambda _: None
    bench.clock.advance(11)
    await turn(bench)
    assert status_of(bench) == "active"


async def test_a_master_that_is_not_appointed_writes_nothing(bench: Any) -> None:
    token = await staked(bench)
    await bench.beat(token, "worker-1")
    bench.kube.add_node("worker-1")
    bench.chain.emit("nautilus::MasterAppointedEvent", epoch="2", account="0x" + "dd" * 32)
    await turn(bench)
    assert bench.chain.status_calls == []


# -- offline ----------------------------------------------------------------------------------------------


async def test_five_minutes_of_silence_are_offline_and_a_heartbeat_ends_it(bench: Any) -> None:
    token = await bench.join("worker-1")
    bench.clock.advance(300)
    await turn(bench)
    assert status_of(bench) == "active"
    bench.clock.advance(1)
    await turn(bench)
    assert status_of(bench) == "active", "its last change was not 10 minutes ago"
    bench.clock.advance(299)
    await turn(bench)
    assert status_of(bench) == "offline"
    bench.clock.advance(599)
    await beat(bench, token)
    await turn(bench)
    assert status_of(bench) == "offline"
    bench.clock.advance(1)
    await beat(bench, token)
    await turn(bench)
    assert status_of(bench) == "active"


async def beat(bench: Any, token: str, node_id: str = "worker-1") -> None:
    """A sign of life of both the watcher and the kubelet."""
    assert (await bench.beat(token, node_id)).status_code == 200
    bench.kube.renew(node_id)


async def test_a_worker_that_comes_and_goes_changes_once_in_ten_minutes(bench: Any) -> None:
    token = await bench.join("worker-1")
    written = [bench.clock.ms]
    for _ in range(40):
        # Heard just once every 5 min and a bit: by itself offline and back each time.
        bench.clock.advance(302)
        await turn(bench)
        if len(bench.chain.status_calls) > len(written):
            written.append(bench.clock.ms)
        await beat(bench, token)
        await turn(bench)
        if len(bench.chain.status_calls) > len(written):
            written.append(bench.clock.ms)
        if len(written) == 3:
            await bench.restart()
            await bench.state.fleet.reconcile()
    assert len(written) > 5
    assert min(b - a for a, b in itertools.pairwise(written)) >= 600_000


async def test_first_activations_never_wait_and_others_are_gathered(bench: Any) -> None:
    for name in ("worker-1", "worker-2"):
        await bench.join(name)
    calls = len(bench.chain.status_calls)
    assert calls == 2, "joined a second apart, both written at once"
    bench.clock.advance(700)
    await turn(bench)
    assert bench.chain.status_calls[calls:] == [
        {"worker-1": WorkerStatus.OFFLINE, "worker-2": WorkerStatus.OFFLINE}
    ]


async def test_a_name_staked_anew_is_activated_at_once(bench: Any) -> None:
    await bench.join("worker-1")
    bench.chain.withdraw("worker-1")
    bench.clock.advance(16)
    token = await staked(bench)
    await beat(bench, token)
    await turn(bench)
    assert status_of(bench) == "active"


# -- gas --------------------------------------------------------------------------------------------------


async def test_low_gas_is_an_alert_until_it_is_topped_up(bench: Any) -> None:
    bench.chain.balance_mist = 99_999_999
    bench.clock.advance(60)
    await turn(bench)
    ready = await bench.api.get("/readyz")
    assert ready.status_code == 200
    (alert,) = ready.json()["alerts"]
    assert alert.startswith(f"gas: wallet {bench.address} holds 0.099999999 SUI, wanted at least 0.1 SUI.")
    text = (await bench.api.get("/metrics")).text
    assert "\nk3s_daas_gas_low 1.0\n" in text
    assert "\nk3s_daas_gas_mist 9.9999999e+07\n" in text
    bench.chain.balance_mist = 5 * 10**8
    bench.clock.advance(60)
    await turn(bench)
    assert (await bench.api.get("/readyz")).json()["alerts"] == []


async def test_the_last_gas_is_kept_for_what_cannot_wait(bench: Any) -> None:
    token = await bench.join("worker-1")
    bench.chain.balance_mist = 19_999_999
    bench.clock.advance(700)
    await turn(bench)
    assert status_of(bench) == "active"
    assert (
        "Statuses aren't written any more, nor Ready time reported"
        in (await bench.api.get("/readyz")).json()["alerts"][0]
    )
    bench.chain.balance_mist = 20_000_000
    bench.clock.advance(60)
    await turn(bench)
    assert status_of(bench) == "offline"
    assert token not in (await bench.api.get("/metrics")).text


async def test_busy_workers_fall_silent_too(bench: Any) -> None:
    await staked(bench, status=WorkerStatus.BUSY)
    bench.clock.advance(601)
    await turn(bench)
    assert status_of(bench) == "offline"


@pytest.mark.parametrize("status", ["pending", "jailed", "unbonding", "slashed"])
async def test_other_statuses_are_left_alone(bench: Any, status: str) -> None:
    await staked(bench, status=WorkerStatus(status))
    bench.clock.advance(3600)
    await turn(bench)
    assert bench.chain.status_calls == []


async def test_a_master_that_was_down_punishes_nobody(bench: Any) -> None:
    await bench.join("worker-1")
    bench.clock.advance(3600)
    bench.chain.checkpoint()
    await bench.restart()
    await turn(bench)
    assert status_of(bench) == "active"
    bench.clock.advance(301)
    await turn(bench)
    assert status_of(bench) == "offline", "but it isn't forgiven for ever"


async def test_on_a_stale_view_nothing_is_written(bench: Any) -> None:
    await bench.join("worker-1")
    calls = len(bench.chain.status_calls)
    bench.clock.advance(301)
    await bench.state.fleet.reconcile()
    assert len(bench.chain.status_calls) == calls


# -- bootstrap tokens -------------------------------------------------------------------------------------


async def test_the_bootstrap_token_goes_when_the_node_is_active(bench: Any) -> None:
    token = await staked(bench)
    await bench.register(token, "worker-1")
    await turn(bench)
    assert len(bench.kube.bootstrap_tokens()) == 1
    bench.clock.advance(1)
    bench.kube.add_node("worker-1")
    await bench.beat(token, "worker-1")
    await turn(bench)
    await turn(bench)
    assert status_of(bench) == "active"
    assert bench.kube.bootstrap_tokens() == []


async def test_a_rebuilt_host_keeps_its_new_token_until_it_joined(bench: Any) -> None:
    token = await bench.join("worker-1")
    await turn(bench)
    bench.clock.advance(5)
    assert (await bench.register(token, "worker-1")).status_code == 200
    await turn(bench)
    assert len(bench.kube.bootstrap_tokens()) == 1, "the old node still looks Ready"
    bench.clock.advance(5)
    bench.kube.renew("worker-1")
    await turn(bench)
    assert bench.kube.bootstrap_tokens() == []


async def test_unused_tokens_expire(bench: Any) -> None:
    await bench.register(await staked(bench), "worker-1")
    bench.clock.advance(601)
    await turn(bench)
    assert bench.kube.bootstrap_tokens() == []


async def test_a_jailed_workers_token_goes_at_once(bench: Any) -> None:
    await bench.register(await staked(bench), "worker-1")
    bench.chain.set_status("worker-1", WorkerStatus.JAILED)
    await turn(bench)
    assert bench.kube.bootstrap_tokens() == []


async def test_bootstrap_tokens_of_others_are_left_alone(bench: Any) -> None:
    bench.kube.secrets["bootstrap-token-aaaaaa"] = {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {"name": "bootstrap-token-aaaaaa", "namespace": "kube-system"},
        "type": "bootstrap.kubernetes.io/token",
        "data": {},
    }
    await turn(bench)
    assert "bootstrap-token-aaaaaa" in bench.kube.secrets


# -- node passwords ---------------------------------------------------------------------------------------


async def test_every_registered_name_is_taken_before_anybody_registers(bench: Any) -> None:
    await staked(bench, "worker-1")
    await staked(bench, "worker-2", status=WorkerStatus.JAILED)
    await turn(bench)
    assert bench.kube.password_hash("worker-1")
    assert bench.kube.password_hash("worker-2")


async def test_what_k3s_removes_is_put_back_unchanged_in_meaning(bench: Any) -> None:
    token = await staked(bench)
    password = (await bench.register(token, "worker-1")).json()["node_password"]
    del bench.kube.secrets["worker-1.node-password.k3s"]
    await turn(bench)
    assert join.verify_node_password(bench.kube.password_hash("worker-1"), password)


async def test_a_squatter_is_thrown_out_also_from_an_immutable_secret(bench: Any) -> None:
    token = await staked(bench)
    password = (await bench.register(token, "worker-1")).json()["node_password"]
    bench.kube.put_immutable_password("worker-1", "squatter")
    await turn(bench)
    assert join.verify_node_password(bench.kube.password_hash("worker-1"), password)


async def test_the_same_password_set_by_k3s_is_kept(bench: Any) -> None:
    token = await staked(bench)
    password = (await bench.register(token, "worker-1")).json()["node_password"]
    bench.kube.put_immutable_password("worker-1", password)
    before = bench.kube.password_hash("worker-1")
    await turn(bench)
    assert bench.kube.password_hash("worker-1") == before


async def test_a_name_whose_worker_left_is_locked_and_opens_for_its_next_stake(bench: Any) -> None:
    token = await staked(bench)
    await bench.register(token, "worker-1")
    bench.chain.withdraw("worker-1")
    await bench.restart()
    await turn(bench)
    assert bench.kube.locked("worker-1")
    again = await staked(bench, owner=bench.owner_b)
    bench.clock.advance(1)
    password = (await bench.register(again, "worker-1")).json()["node_password"]
    assert not bench.kube.locked("worker-1")
    assert join.verify_node_password(bench.kube.password_hash("worker-1"), password)


async def test_a_restart_verifies_no_password_a_second_time_but_every_changed_one(
    bench: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("worker-1", "worker-2"):
        await bench.register(await staked(bench, name), name)
    asked: list[str] = []

    def verify(password_hash: str, password: str) -> bool:
        asked.append(password_hash)
        return join.verify_node_password(password_hash, password)

    monkeypatch.setattr("k3s_daas_master.nodepasswords.verify_node_password", verify)
    bench.kube.put_immutable_password("worker-2", "squatter")
    forged = bench.kube.password_hash("worker-2")
    await bench.restart()
    await turn(bench)
    assert asked == [forged]
    assert bench.kube.password_hash("worker-2") != forged


async def test_a_quiet_fleet_writes_nothing(bench: Any) -> None:
    await bench.join("worker-1")
    await turn(bench)
    bench.kube.requests.clear()
    await turn(bench)
    assert bench.kube.asked("POST", "PUT", "PATCH", "DELETE") == []


async def test_names_never_registered_here_are_left_alone(bench: Any) -> None:
    bench.kube.put_immutable_password("master", "its own")
    before = bench.kube.password_hash("master")
    await turn(bench)
    assert bench.kube.password_hash("master") == before


# -- jailed -----------------------------------------------------------------------------------------------


async def test_a_jailed_node_is_cordoned_and_freed_with_its_worker(bench: Any) -> None:
    await bench.join("worker-1")
    bench.chain.set_status("worker-1", WorkerStatus.JAILED)
    await turn(bench)
    assert bench.kube.nodes["worker-1"]["spec"]["unschedulable"] is True
    bench.chain.set_status("worker-1", WorkerStatus.ACTIVE)
    await turn(bench)
    assert not bench.kube.nodes["worker-1"]["spec"].get("unschedulable")


async def test_an_operators_cordon_is_not_undone(bench: Any) -> None:
    await bench.join("worker-1")
    bench.kube.nodes["worker-1"]["spec"]["unschedulable"] = True
    await turn(bench)
    assert bench.kube.nodes["worker-1"]["spec"]["unschedulable"] is True


# -- announcement, readiness, status, metrics -------------------------------------------------------------


async def test_the_master_announces_itself_once(bench: Any) -> None:
    wanted = ("https://10.0.0.1:8443", "https://10.0.0.1:6443", join.ca_hash(bench.kube.ca_pem))
    assert bench.chain.announcements == [wanted]
    await turn(bench)
    await bench.restart()
    await turn(bench)
    assert bench.chain.announcements == [wanted]


async def test_a_new_ca_is_announced(bench: Any) -> None:
    bench.kube.ca_pem = bench.kube.ca_pem + bench.kube.ca_pem.replace(b"\n-----END", b"\n-----END")
    bench.clock.advance(61)
    await turn(bench)
    assert bench.chain.announcements[-1][2] == join.ca_hash(bench.kube.ca_pem)
    assert len(bench.chain.announcements) == 2


async def test_readyz_names_what_is_missing(bench: Any) -> None:
    ready = await bench.api.get("/readyz")
    assert (ready.status_code, ready.json()) == (200, {"ready": True, "reasons": [], "alerts": []})
    bench.kube.broken = True
    bench.clock.advance(61)
    await bench.state.fleet.reconcile()
    answer = await bench.api.get("/readyz")
    assert answer.status_code == 503
    reasons = " ".join(answer.json()["reasons"])
    assert "chain: view is 61 s old" in reasons
    assert "nodes: list nodes: the API server answered 500" in reasons
    assert (await bench.api.get("/healthz")).status_code == 200


async def test_workers_shows_the_registry_and_no_token(bench: Any) -> None:
    token = await bench.join("worker-1")
    await staked(bench, "worker-2", owner=bench.owner_b)
    response = await bench.api.get("/api/v1/workers")
    body = response.json()
    first, second = body["workers"]
    assert first["node_id"] == "worker-1"
    assert first["owner"] == bench.owner_a
    assert first["stake_mist"] == 10**9
    assert first["status"] == "active"
    assert first["node_ready"] is True
    assert first["generation"] == 1
    assert first["expires_at_ms"] > bench.clock.ms
    assert second["node_ready"] is None
    assert second["last_heartbeat_ms"] is None
    assert body["master"]["tee"] == "SIMULATED"
    assert body["master"]["announced"] is True
    assert body["chain"]["age_ms"] >= 0
    assert token not in response.text
    assert bench.state.index.worker_token("worker-1").commitment.hex() not in response.text


async def test_metrics(bench: Any) -> None:
    token = await bench.join("worker-1")
    await bench.beat(token, "worker-2")
    await bench.review("nonsense")
    bench.kube.add_node("stranger")
    await turn(bench)
    text = (await bench.api.get("/metrics")).text
    for line in (
        'k3s_daas_workers{status="active"} 1.0',
        "k3s_daas_nodes_ready 1.0",
        "k3s_daas_nodes_unregistered 1.0",
        "k3s_daas_ready 1.0",
        'k3s_daas_registrations_total{outcome="ok"} 1.0',
        'k3s_daas_heartbeats_total{outcome="node_mismatch"} 1.0',
        'k3s_daas_token_reviews_total{outcome="refused"} 1.0',
        "k3s_daas_status_changes_total 1.0",
        "k3s_daas_removals_open 0.0",
    ):
        assert f"\n{line}\n" in text, line
    assert token not in text


async def test_a_step_that_breaks_does_not_stop_the_others(
    bench: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def broken() -> None:
        raise ZeroDivisionError

    monkeypatch.setattr(bench.state.fleet, "_cordon_jailed", broken)
    token = await staked(bench)
    await bench.beat(token, "worker-1")
    bench.kube.add_node("worker-1")
    await turn(bench)
    assert status_of(bench) == "active"
    assert "ZeroDivisionError" in bench.state.fleet.problems["jailed"]


async def test_a_node_without_its_first_lease_is_looked_at_again_at_once(bench: Any) -> None:
    token = await staked(bench)
    await bench.beat(token, "worker-1")
    bench.kube.add_node("worker-1")
    del bench.kube.leases["worker-1"]
    task = asyncio.create_task(bench.state.fleet.run(3600))
    async with asyncio.timeout(10):
        while bench.state.fleet.passes < 3:
            await asyncio.sleep(0.01)
        bench.kube.renew("worker-1")
        while status_of(bench) != "active":
            await asyncio.sleep(0.01)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


async def test_a_large_fleet_is_read_in_pages(bench: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("k3s_daas_master.cluster._PAGE", 2)
    for number in range(5):
        await bench.join(f"worker-{number}")
    bench.kube.requests.clear()
    await bench.state.fleet.reconcile()
    assert len(bench.state.fleet.nodes) == 5
    assert all(node.ready and node.lease_renewed_ms for node in bench.state.fleet.nodes.values())
    assert bench.kube.asked("GET").count("GET /api/v1/nodes") == 3


@pytest.mark.parametrize(
    ("took_s", "every_s", "wanted"),
    [(0.01, 5, 0.2), (0.3, 5, 1.2), (60, 5, 2.0), (0.3, 0.05, 1.2), (0, 0.05, 0.05)],
)
def test_a_pass_is_followed_by_a_rest(took_s: float, every_s: float, wanted: float) -> None:
    assert rest_s(took_s, every_s) == pytest.approx(wanted)
