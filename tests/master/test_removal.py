"""Slashed workers leave the cluster in the right order, once, and nobody else does."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from k3s_daas import join
from k3s_daas.chain import ChainUnreachable
from k3s_daas.registry import WorkerStatus
from k3s_daas_master.cluster import ClusterError

NODE = "/api/v1/nodes/worker-1"
PODS = "/api/v1/namespaces/default/pods"


async def slashed(bench: Any, node_id: str = "worker-1") -> str:
    """A joined worker, slashed on-chain and known to be."""
    token: str = await bench.join(node_id)
    bench.chain.slash(node_id)
    await bench.catch_up()

    async def tick(seconds: float) -> None:
        bench.clock.advance(seconds)

    bench.state.remover._sleep = tick
    bench.kube.requests.clear()
    return token


async def test_lock_cordon_drain_delete_in_this_order(bench: Any) -> None:
    password = join.verify_node_password
    token = await slashed(bench)
    bench.kube.add_pod("app", "worker-1")
    bench.kube.add_pod("elsewhere", "worker-2")
    bench.kube.add_pod("agent", "worker-1", owner_kind="DaemonSet")
    bench.kube.add_pod("static", "worker-1", mirror=True)
    # Refused before anything else has happened.
    bench.clock.advance(1)
    assert bench.refusal(await bench.register(token, "worker-1")) == (403, "worker_slashed")
    await bench.state.remover.sweep()
    secrets = "/api/v1/namespaces/kube-system/secrets"
    (bootstrap,) = (line for line in bench.kube.asked("DELETE") if "bootstrap-token-" in line)
    assert bench.kube.asked("POST", "PUT", "PATCH", "DELETE") == [
        f"POST {secrets}",
        f"PUT {secrets}/worker-1.node-password.k3s",
        bootstrap,
        f"PATCH {NODE}",
        f"POST {PODS}/app/eviction",
        f"DELETE {NODE}",
        f"POST {secrets}",
    ]
    assert "worker-1" not in bench.kube.nodes
    assert set(bench.kube.pods) == {"elsewhere", "agent", "static"}
    assert bench.kube.locked("worker-1"), "the name is taken for good, k3s having removed its password"
    assert not password(bench.kube.password_hash("worker-1"), "0" * 32)
    assert bench.state.store.open_removals() == []
    assert bench.state.remover.finished == 1


async def test_the_old_password_no_longer_opens_the_name(bench: Any) -> None:
    token = bench.chain.stake("worker-1")
    await bench.catch_up()
    password = (await bench.register(token, "worker-1")).json()["node_password"]
    bench.chain.slash("worker-1")
    await bench.catch_up()
    await bench.state.remover.sweep()
    assert bench.kube.locked("worker-1")
    assert not join.verify_node_password(bench.kube.password_hash("worker-1"), password)
    assert bench.kube.bootstrap_tokens() == [], "its unused bootstrap token is dead too"


async def test_it_happens_by_itself_within_a_turn(bench: Any) -> None:
    await bench.join("worker-1")
    task = asyncio.create_task(bench.state.remover.run())
    bench.chain.slash("worker-1")
    async with asyncio.timeout(10):
        while "worker-1" in bench.kube.nodes or bench.state.store.open_removals():
            await asyncio.sleep(0.001)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


@pytest.mark.parametrize("eviction", ["stuck", "refused"])
async def test_a_drain_ends_after_its_time(bench: Any, eviction: str) -> None:
    await slashed(bench)
    bench.kube.eviction = eviction
    bench.kube.add_pod("app", "worker-1")
    started = bench.clock.elapsed
    await bench.state.remover.sweep()
    assert 15 <= bench.clock.elapsed - started < 17
    assert "worker-1" not in bench.kube.nodes
    assert bench.kube.pods == {}
    assert bench.kube.asked("DELETE")[-2:] == [f"DELETE {PODS}/app", f"DELETE {NODE}"]
    evictions = bench.kube.asked("POST").count(f"POST {PODS}/app/eviction")
    assert evictions == 1 if eviction == "stuck" else evictions > 5


async def test_nothing_unslashed_is_removed_on_the_lists_word_alone(bench: Any) -> None:
    await bench.join("worker-1")
    bench.kube.add_pod("app", "worker-1")
    before = {name: dict(secret) for name, secret in bench.kube.secrets.items()}
    bench.state.store.request_removal("worker-1", bench.clock.ms)
    bench.state.store.request_removal("never-staked", bench.clock.ms)
    bench.kube.add_node("never-staked")
    bench.kube.requests.clear()
    await bench.state.remover.sweep()
    assert bench.kube.requests == []
    assert set(bench.kube.nodes) == {"worker-1", "never-staked"}
    assert bench.kube.secrets == before
    assert not bench.kube.nodes["worker-1"]["spec"].get("unschedulable")


async def test_every_other_status_keeps_its_node(bench: Any) -> None:
    for status in WorkerStatus:
        if status is WorkerStatus.SLASHED:
            continue
        name = f"w-{status.value}"
        bench.chain.stake(name, status=status)
        bench.kube.add_node(name)
    bench.kube.add_node("master")
    await bench.catch_up()
    await bench.state.fleet.reconcile()
    await bench.state.remover.sweep()
    assert len(bench.kube.nodes) == len(WorkerStatus)
    assert not [line for line in bench.kube.asked("DELETE") if "/nodes/" in line]


async def test_when_the_chain_is_dark_it_waits(bench: Any) -> None:
    await slashed(bench)
    bench.chain.refuse_reads = ChainUnreachable({})
    await bench.state.remover.sweep()
    assert bench.kube.asked("PUT", "PATCH", "DELETE") == []
    bench.chain.refuse_reads = None
    await bench.state.remover.sweep()
    assert "worker-1" not in bench.kube.nodes


async def test_a_broken_api_server_delays_and_a_restart_resumes(bench: Any) -> None:
    await slashed(bench)
    bench.kube.broken = True
    await bench.state.remover.sweep()
    assert bench.state.store.open_removals() == ["worker-1"]
    await bench.restart()
    assert bench.state.store.open_removals() == ["worker-1"]
    bench.kube.broken = False
    await bench.state.remover.sweep()
    assert "worker-1" not in bench.kube.nodes
    assert bench.state.store.open_removals() == []


@pytest.mark.parametrize("step", ["cordon", "pods_to_drain", "delete_node"])
async def test_killed_at_any_step_it_goes_on(bench: Any, step: str, monkeypatch: pytest.MonkeyPatch) -> None:
    await slashed(bench)
    bench.kube.add_pod("app", "worker-1")

    async def killed(*_: object) -> None:
        raise ClusterError("killed here")

    monkeypatch.setattr(bench.state.remover._cluster, step, killed)
    await bench.state.remover.sweep()
    assert "worker-1" in bench.kube.nodes
    assert bench.kube.locked("worker-1")
    await bench.restart()
    await bench.state.remover.sweep()
    assert "worker-1" not in bench.kube.nodes
    assert bench.state.store.open_removals() == []


async def test_the_name_is_taken_when_what_the_node_owned_is_collected(bench: Any) -> None:
    await slashed(bench)
    bench.kube.prompt_garbage_collection = False
    await bench.state.remover.sweep()
    assert "worker-1" not in bench.kube.nodes
    bench.kube.collect_garbage()
    assert bench.kube.locked("worker-1"), "not free until the next reconcile"


async def test_killed_after_the_deletion_the_name_is_taken_too(
    bench: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    await slashed(bench)
    bench.kube.prompt_garbage_collection = False
    delete = bench.state.remover._cluster.delete_node

    async def killed(node_id: str) -> None:
        await delete(node_id)
        raise ClusterError("killed here")

    monkeypatch.setattr(bench.state.remover._cluster, "delete_node", killed)
    await bench.state.remover.sweep()
    assert "worker-1" not in bench.kube.nodes
    await bench.restart()
    await bench.state.remover.sweep()
    bench.kube.collect_garbage()
    assert bench.kube.locked("worker-1")


async def test_slashed_while_the_master_was_down(bench: Any) -> None:
    await bench.join("worker-1")
    bench.chain.stake("worker-2")
    bench.chain.slash("worker-1")
    await bench.restart()
    await bench.state.remover.sweep()
    assert "worker-1" not in bench.kube.nodes


async def test_doing_it_again_is_harmless(bench: Any) -> None:
    await slashed(bench)
    await bench.state.remover.sweep()
    bench.kube.requests.clear()
    assert await bench.state.remover.remove("worker-1")
    # It tries to cordon what isn't there and locks the name once more: nothing else.
    secrets = "/api/v1/namespaces/kube-system/secrets"
    assert bench.kube.asked("POST", "PUT", "PATCH", "DELETE") == [
        f"PATCH {NODE}",
        f"POST {secrets}",
        f"PUT {secrets}/worker-1.node-password.k3s",
    ]


async def test_a_slashed_node_that_comes_back_goes_again(bench: Any) -> None:
    await slashed(bench)
    await bench.state.remover.sweep()
    bench.kube.add_node("worker-1")
    await bench.state.fleet.reconcile()
    assert bench.state.store.open_removals() == ["worker-1"]
    await bench.state.remover.sweep()
    assert "worker-1" not in bench.kube.nodes


async def test_one_that_hangs_holds_up_no_other(bench: Any) -> None:
    await slashed(bench, "worker-1")
    await slashed(bench, "worker-2")
    bench.kube.eviction = "stuck"
    bench.kube.add_pod("app", "worker-1")
    order: list[str] = []
    original = bench.state.remover._cluster.delete_node

    async def delete(node_id: str) -> None:
        order.append(node_id)
        await original(node_id)

    async def tick(seconds: float) -> None:
        # worker-1's drain gets nowhere; time goes on only once worker-2 is done.
        async with asyncio.timeout(10):
            while "worker-2" not in order:
                await asyncio.sleep(0.001)
        bench.clock.advance(seconds)

    bench.state.remover._sleep = tick
    bench.state.remover._cluster.delete_node = delete
    await bench.state.remover.sweep()
    assert order == ["worker-2", "worker-1"]


async def test_the_others_stay(bench: Any) -> None:
    await slashed(bench, "worker-2")
    await bench.join("worker-1")
    await bench.state.remover.sweep()
    await bench.state.fleet.reconcile()
    assert set(bench.kube.nodes) == {"worker-1"}
    assert bench.state.index.workers["worker-1"].status is WorkerStatus.ACTIVE
    assert not bench.kube.locked("worker-1")
