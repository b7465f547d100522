"""The overview, the statistics, the alerts and the metrics: each figure against what made it."""

from __future__ import annotations

import asyncio
import re
from dataclasses import replace
from typing import Any

import pytest

from k3s_daas.chain import ChainUnreachable
from k3s_daas.registry import WorkerStatus
from k3s_daas.status.report import Overview
from k3s_daas_master.traffic import Traffic
from k3s_daas_master.vitals import Rate

DAY_MS = 86_400_000


async def overview(bench: Any) -> dict[str, Any]:
    answer = await bench.api.get("/api/v1/overview")
    assert answer.status_code == 200, answer.text
    assert answer.headers["cache-control"] == "no-store"
    found: dict[str, Any] = answer.json()
    return found


async def texts(bench: Any) -> list[str]:
    return [f"{a['severity']} {a['what']}: {a['text']}" for a in (await overview(bench))["alerts"]]


async def metrics(bench: Any) -> dict[str, float]:
    text = (await bench.api.get("/metrics")).text
    return {
        name: float(value) for name, value in re.findall(r"^(k3s_daas_\S+|process_\S+) (\S+)$", text, re.M)
    }


async def test_the_pool_in_figures(bench: Any) -> None:
    for name, status in (
        ("a", "active"),
        ("b", "busy"),
        ("c", "offline"),
        ("d", "pending"),
        ("e", "slashed"),
    ):
        bench.chain.stake(name, status=WorkerStatus(status))
    bench.chain.deposit("a", 5)
    await bench.catch_up()
    figures = (await overview(bench))["statistics"]["workers"]
    assert (figures["total"], figures["active"], figures["offline"]) == (5, 2, 1)
    assert figures["stake_total_mist"] == 5 * 10**9 + 5
    assert figures["stake_average_mist"] == 10**9 + 1
    assert figures["by_status"] == {
        **dict.fromkeys(("pending", "active", "busy", "offline", "slashed"), 1),
        "jailed": 0,
        "unbonding": 0,
    }
    assert (await bench.api.get("/api/v1/workers")).json()["statistics"]["workers"] == figures


async def test_the_status_command_reads_it(bench: Any) -> None:
    bench.chain.stake("worker-1")
    await bench.catch_up()
    said = Overview.model_validate(await overview(bench))
    (worker,) = said.workers
    assert (worker.node_id, worker.status, worker.node_ready) == ("worker-1", "pending", None)
    assert (said.tee.mode, said.slashing.mode, said.slashing.findings) == ("simulated", "observe", 0)


async def test_an_empty_pool_divides_by_nothing(bench: Any) -> None:
    found = await overview(bench)
    assert found["statistics"]["workers"]["stake_average_mist"] == 0
    assert found["resources"]["cpu_percent"] is None
    assert found["health"] == {"state": "healthy", "summary": "No worker has staked yet", "ready": True}


async def test_requests_of_the_chain_are_counted_for_the_worker_and_the_pool(bench: Any) -> None:
    bench.chain.stake("worker-1")
    bench.chain.stake("worker-2")
    await bench.catch_up()
    bench.end_request(1, "worker-1")
    bench.end_request(2, "worker-1", missed=True)
    bench.end_request(3, "worker-2")
    found = await overview(bench)
    first = found["workers"][0]
    assert (first["requests_succeeded"], first["requests_failed"], first["requests_missed"]) == (1, 0, 1)
    assert first["request_mean_ms"] == 40
    figures = found["statistics"]["requests"]
    assert (figures["chain_succeeded"], figures["chain_failed"], figures["chain_missed"]) == (2, 0, 1)


async def test_a_name_that_changes_hands_starts_anew(bench: Any) -> None:
    bench.chain.stake("worker-1")
    await bench.catch_up()
    bench.end_request(1, "worker-1")
    await bench.restart()
    assert (await overview(bench))["workers"][0]["requests_succeeded"] == 1
    bench.chain.withdraw("worker-1")
    bench.clock.advance(1)
    bench.chain.stake("worker-1", bench.owner_b)
    await bench.catch_up()
    assert (await overview(bench))["workers"][0]["requests_succeeded"] == 0


async def test_reputation_follows_the_chain(bench: Any) -> None:
    bench.chain.stake("worker-1")
    await bench.catch_up()
    assert (await overview(bench))["workers"][0]["reputation"] == 100
    bench.chain.emit(
        "k8s_scheduler::WorkerReputationChangedEvent", node_id="worker-1", reputation="90", required_stake="0"
    )
    await bench.catch_up()
    assert (await overview(bench))["workers"][0]["reputation"] == 90


async def test_slashing_and_tenants_are_told(bench: Any) -> None:
    found = await overview(bench)
    assert found["slashing"] == {
        "mode": "observe",
        "held_back": bench.state.policy.held_back(),
        "findings": 0,
        "disruptions": 0,
    }
    assert found["tenants"] == 0
    bench.state.disruption.count = 2
    bench.state.tenants._given = dict.fromkeys((bench.owner_a, bench.owner_b), frozenset())
    found = await overview(bench)
    assert (found["slashing"]["disruptions"], found["tenants"]) == (2, 2)


async def test_what_readyz_alerts_of_is_a_warning(bench: Any) -> None:
    bench.state.policy.problem = "no cap"
    assert "warning slashing: no cap" in await texts(bench)


async def test_health_is_the_worst_of_what_is_so(bench: Any) -> None:
    await bench.join("worker-1")
    assert (await overview(bench))["health"]["state"] == "healthy"
    bench.chain.set_status("worker-1", WorkerStatus.JAILED)
    await bench.catch_up()
    assert (await overview(bench))["health"]["state"] == "degraded"
    bench.clock.advance(61)
    found = await overview(bench)
    assert (found["health"]["state"], found["health"]["ready"]) == ("down", False)
    assert found["alerts"][0] == {
        "severity": "critical",
        "what": "chain",
        "text": "view is 61 s old, wanted at most 60 s",
    }


async def test_a_token_that_expires_soon_is_told_but_is_no_trouble_yet(bench: Any) -> None:
    await bench.join("worker-1")
    bench.chain.mint("worker-1", days=13.9)
    await bench.catch_up()
    found = await overview(bench)
    assert (found["health"]["state"], found["seal"]["expiring"], found["seal"]["expired"]) == (
        "healthy",
        1,
        0,
    )
    assert "info seal tokens: 1 expire within 14 days: worker-1" in (await texts(bench))[0]
    bench.chain.mint("worker-1", days=-1)
    await bench.catch_up()
    found = await overview(bench)
    assert (found["health"]["state"], found["seal"]["expiring"], found["seal"]["expired"]) == (
        "degraded",
        0,
        1,
    )
    bench.chain.revoke("worker-1")
    await bench.catch_up()
    assert (await overview(bench))["seal"]["expired"] == 0, "a revoked one was meant to end"


async def test_every_alert_names_who(bench: Any) -> None:
    for i in range(7):
        bench.chain.stake(f"worker-{i}", status=WorkerStatus.OFFLINE)
    bench.chain.stake("nodeless", status=WorkerStatus.ACTIVE)
    bench.chain.stake("cheat")
    bench.chain.slash("cheat")
    bench.kube.add_node("stranger")
    bench.chain.balance_mist = 49_999_999
    bench.clock.advance(60)
    bench.chain.checkpoint()
    await bench.catch_up()
    await bench.state.fleet.reconcile()
    bench.chain.endpoints[0].behind_ms = 31_000
    await bench.state.vitals.look()
    assert await texts(bench) == [
        f"warning gas: wallet {bench.address} holds 0.049999999 SUI, wanted at least 0.1 SUI. Run "
        "playbooks/master.yml: it fills the wallet up to master_gas.",
        "warning Sui RPC: fullnode.invalid:443 lags 31 s behind.",
        "warning workers: 7 offline: worker-0, worker-1, worker-2, worker-3, worker-4 and 2 more",
        "warning nodes: 1 active without a Ready node: nodeless",
        "warning nodes: 1 in the cluster that no worker staked for: stranger",
        "warning removals: 1 slashed still to be removed: cheat",
    ]
    found = await overview(bench)
    assert found["nodes"]["unregistered"] == 1
    assert found["gas"] == {"price_mist": 750, "balance_mist": 49_999_999, "low": True}
    assert found["health"]["summary"].startswith("6 things to look at")


async def test_an_endpoint_that_is_down_is_named_and_the_last_gas_price_kept(bench: Any) -> None:
    await bench.state.vitals.look()
    (endpoint,) = (await overview(bench))["chain"]["endpoints"]
    assert endpoint == {
        "name": "fullnode.invalid:443",
        "ok": True,
        "checkpoint": bench.chain.log[-1].sequence,
        "age_ms": 0,
        "latency_ms": 0.0,
        "error": None,
    }
    bench.chain.endpoints[0].error = ChainUnreachable({"https://fullnode.invalid:443": "refused"})
    bench.chain.refuse_reads = ChainUnreachable({"https://fullnode.invalid:443": "refused"})
    await bench.state.vitals.look()
    found = await overview(bench)
    assert found["chain"]["endpoints"][0]["ok"] is False
    assert "refused" in found["chain"]["endpoints"][0]["error"]
    assert found["gas"] == {"price_mist": 750, "balance_mist": 10**9, "low": False}
    gauges = await metrics(bench)
    assert gauges['k3s_daas_endpoint_up{endpoint="fullnode.invalid:443"}'] == 0


async def test_figures_of_workers_that_fell_silent_are_left_out(bench: Any) -> None:
    first, second = bench.chain.stake("worker-1"), bench.chain.stake("worker-2")
    await bench.catch_up()
    usage = {"cpu_percent": 80, "network_received_bytes": 7, "network_sent_bytes": 1}
    await bench.beat(first, "worker-1", resource_usage=usage)
    bench.clock.advance(91)
    usage = {
        "cpu_percent": 20,
        "disk_percent": 999,
        "network_received_bytes": 5,
        "network_sent_bytes": "many",
    }
    await bench.beat(second, "worker-2", resource_usage=usage)
    found = (await overview(bench))["resources"]
    assert (found["reporting"], found["cpu_percent"], found["running_pods"]) == (1, 20, 3)
    assert (found["disk_percent"], found["disk_percent_max"]) == (100, 100)
    assert (found["network_received_bytes"], found["network_sent_bytes"]) == (5, None)


async def test_only_a_nitro_master_with_a_live_attestation_is_attested(bench: Any) -> None:
    def master(**changes: Any) -> None:
        bench.state.index.master = replace(bench.state.index.master, **changes)

    good = {"pcr0": b"\xab" * 48, "attestation_expires_at_ms": bench.clock.ms + 1}
    master(**good)
    assert (await overview(bench))["tee"]["attested"] is False, "simulated, whatever the chain holds"
    bench.state.config = bench.state.config.model_copy(update={"tee_mode": "nitro"})
    found = (await overview(bench))["tee"]
    assert (found["attested"], found["mode"], found["pcr0"]) == (True, "nitro", "ab" * 48)
    for bad in ({"pcr0": b""}, {"attestation_expires_at_ms": bench.clock.ms}, {"account": "0x1"}):
        before = bench.state.index.master
        master(**bad)
        assert (await overview(bench))["tee"]["attested"] is False
        bench.state.index.master = before


async def test_an_attestation_event_is_taken_in_for_its_epoch_alone(bench: Any) -> None:
    event = {
        "account": bench.address,
        "public_key": "",
        "pcr0": "q6ur",
        "pcr3": "",
        "attested_at_ms": "1",
        "expires_at_ms": str(bench.clock.ms + DAY_MS),
        "chain_id": "",
        "ca_hash": "",
        "config_hash": "",
    }
    bench.chain.emit("nautilus::MasterAttestedEvent", epoch="7", **event)
    await bench.catch_up()
    assert (await overview(bench))["tee"]["pcr0"] is None
    bench.chain.emit("nautilus::MasterAttestedEvent", epoch="1", **event)
    await bench.catch_up()
    assert (await overview(bench))["tee"]["pcr0"] == "ababab"


async def test_token_checks_are_counted_and_rated(bench: Any) -> None:
    bench.chain.stake("worker-1")
    owner = bench.chain.mint("")
    await bench.catch_up()
    await bench.state.vitals.sample()
    for _ in range(30):
        assert (await bench.review(owner))["authenticated"]
    for _ in range(10):
        assert not (await bench.review("nonsense"))["authenticated"]
    bench.clock.advance(10)
    await bench.state.vitals.sample()
    seal = (await overview(bench))["seal"]
    assert (seal["checks"], seal["refused"], seal["tokens"], seal["owner_tokens"]) == (40, 10, 2, 1)
    assert (seal["checks_per_s"], seal["refused_per_s"]) == (4.0, 1.0)


async def test_a_rate_forgets_what_is_over_a_minute_old(clock: Any) -> None:
    total = 0.0
    rate = Rate(lambda: total, clock)
    assert rate.per_s() == 0
    rate.sample()
    assert rate.per_s() == 0
    total = 6000
    for _ in range(12):
        clock.advance(5)
        rate.sample()
    assert rate.per_s() == 100
    for _ in range(12):
        clock.advance(5)
        rate.sample()
    assert rate.per_s() == 0


async def test_answers_are_counted_by_outcome(bench: Any) -> None:
    before = (await overview(bench))["statistics"]["requests"]
    assert (await bench.api.get("/nothing")).status_code == 404
    assert (await bench.api.get("/healthz")).status_code == 200
    bench.kube.broken = True
    await bench.state.fleet.reconcile()
    assert (await bench.api.get("/readyz")).status_code == 503
    after = (await overview(bench))["statistics"]["requests"]
    grown = {key: after[key] - before[key] for key in ("succeeded", "refused", "failed")}
    # The overview itself is among them.
    assert grown == {"succeeded": 2, "refused": 1, "failed": 1}
    assert 0 < after["median_ms"] <= after["p99_ms"]


async def test_a_handler_that_breaks_counts_as_failed(bench: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(_: Any) -> None:
        raise RuntimeError("a mistake of ours")

    monkeypatch.setattr("k3s_daas_master.statuspage.overview", broken)
    assert (await bench.api.get("/api/v1/overview")).status_code == 500
    assert bench.state.metrics.traffic.failed == 1


def test_quantiles_of_no_answer_are_none() -> None:
    from prometheus_client import CollectorRegistry

    traffic = Traffic(CollectorRegistry())
    assert traffic.took().median_ms is None
    traffic.answered("/x", 200, 0.5)
    assert (traffic.took().median_ms, traffic.took().p99_ms) == (500, 500)


async def test_the_metrics_tell_the_same(bench: Any) -> None:
    token = await bench.join("worker-1")
    bench.chain.stake("worker-2", status=WorkerStatus.JAILED)
    await bench.catch_up()
    await bench.state.vitals.look()
    bench.clock.advance(1)
    assert (await bench.beat(None, "worker-1")).status_code == 400
    assert (await bench.beat(token, "worker-1")).status_code == 200
    await bench.review(token)
    await bench.api.get("/no/such/path")
    found = await metrics(bench)
    assert found['k3s_daas_workers{status="active"}'] == 1
    assert found['k3s_daas_workers{status="jailed"}'] == 1
    assert found["k3s_daas_stake_mist"] == 2 * 10**9
    assert found["k3s_daas_nodes_ready"] == 1
    assert found['k3s_daas_heartbeats_total{outcome="ok"}'] == 2
    assert found['k3s_daas_heartbeats_total{outcome="token_malformed"}'] == 1
    assert found['k3s_daas_registrations_total{outcome="ok"}'] == 1
    assert found['k3s_daas_token_reviews_total{outcome="refused"}'] == 1
    assert found["k3s_daas_gas_mist"] == bench.chain.balance_mist
    assert found["k3s_daas_gas_price_mist"] == 750
    assert found['k3s_daas_endpoint_up{endpoint="fullnode.invalid:443"}'] == 1
    assert found["k3s_daas_chain_age_seconds"] == 1
    assert found["k3s_daas_replay_gaps_total"] == 0
    assert found["k3s_daas_seal_tokens"] == 2
    assert found["k3s_daas_announced"] == 1
    assert found["k3s_daas_ready"] == 1
    assert found['k3s_daas_alerts{severity="warning"}'] == 1
    assert found["k3s_daas_connections"] == 0
    path = 'path="/api/v1/nodes/heartbeat"'
    assert found[f'k3s_daas_http_request_seconds_count{{{path},status="2xx"}}'] == 2
    assert found[f'k3s_daas_http_request_seconds_count{{{path},status="4xx"}}'] == 1
    assert found['k3s_daas_http_request_seconds_count{path="other",status="4xx"}'] == 1
    assert found["process_resident_memory_bytes"] > 10**6


async def test_a_failing_step_is_a_metric(bench: Any) -> None:
    bench.kube.broken = True
    await bench.state.fleet.reconcile()
    found = await metrics(bench)
    assert found['k3s_daas_reconcile_problem{step="nodes"}'] == 1
    assert found["k3s_daas_ready"] == 0


async def test_no_part_of_a_token_is_shown_anywhere(bench: Any) -> None:
    token = await bench.join("worker-1")
    owner = bench.chain.mint("")
    await bench.catch_up()
    await bench.review(owner)
    await bench.beat(token, "worker-9")
    for path in ("/api/v1/overview", "/api/v1/workers", "/metrics", "/readyz", "/", "/api/v1/openapi.json"):
        text = (await bench.api.get(path)).text
        for secret in (token, owner):
            assert secret[5:17] not in text, path
            assert bench.state.index.find(secret).commitment.hex()[:16] not in text, path


async def test_what_is_only_for_show_never_ends_the_service(
    bench: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("k3s_daas_master.vitals.LOOK_S", 0)
    bench.chain.endpoints[0].error = RuntimeError("a mistake of ours")
    vitals = bench.state.vitals
    task = asyncio.create_task(vitals.run())
    await asyncio.sleep(0.01)
    bench.chain.endpoints[0].error = None
    async with asyncio.timeout(10):
        while not vitals.endpoints:
            await asyncio.sleep(0)
    assert not task.done()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
