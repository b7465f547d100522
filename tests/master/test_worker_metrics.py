"""What Prometheus is told of each worker, and of the certificates: against what made it."""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from prometheus_client.parser import text_string_to_metric_families

from k3s_daas.registry import WorkerStatus
from k3s_daas_master.certificate import issue
from k3s_daas_master.identity import issue_kubeconfig

SUI = 10**9


async def metrics(bench: Any) -> dict[tuple[str, ...], float]:
    """(name, *values of its labels) → value, as Prometheus would read them."""
    text = (await bench.api.get("/metrics")).text
    return {
        (sample.name, *sample.labels.values()): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


async def test_each_worker_in_figures(bench: Any) -> None:
    token = await bench.join("worker-1")
    bench.chain.deposit("worker-1", 5)
    bench.clock.advance(1)
    await bench.catch_up()
    usage = {"cpu_percent": 250.0, "memory_percent": 40, "network_sent_bytes": 7, "note": "text"}
    await bench.beat(token, "worker-1", resource_usage=usage, running_pods=3)
    found = await metrics(bench)
    now = bench.clock.now_ms() / 1000
    of = {
        key[0].removeprefix("k3s_daas_worker_"): value
        for key, value in found.items()
        if key[1:2] == ("worker-1",)
    }
    assert found["k3s_daas_worker_status", "worker-1", "active"] == 1
    assert (of["stake_mist"], of["stake_headroom_mist"], of["reputation"]) == (SUI + 5, 5, 100)
    assert (of["node_ready"], of["heartbeat_timestamp_seconds"]) == (1, now)
    assert of["token_expiry_timestamp_seconds"] > now
    reported = {key[2]: value for key, value in found.items() if key[0] == "k3s_daas_worker_reported"}
    assert reported == {
        "cpu_percent": 100, "memory_percent": 40, "network_sent_bytes": 7, "running_pods": 3
    }  # fmt: skip


async def test_what_is_not_known_is_not_made_up(bench: Any) -> None:
    bench.chain.stake("worker-1")
    await bench.catch_up()
    found = await metrics(bench)
    names = {key[0] for key in found if key[1:2] == ("worker-1",)}
    assert names == {
        "k3s_daas_worker_status",
        "k3s_daas_worker_stake_mist",
        "k3s_daas_worker_stake_headroom_mist",
        "k3s_daas_worker_reputation",
        "k3s_daas_worker_token_expiry_timestamp_seconds",
    }


async def test_an_old_report_is_left_out(bench: Any) -> None:
    token = await bench.join("worker-1")
    await bench.beat(token, "worker-1")
    assert ("k3s_daas_worker_reported", "worker-1", "cpu_percent") in await metrics(bench)
    bench.clock.advance(91)
    found = await metrics(bench)
    assert "k3s_daas_worker_reported" not in {key[0] for key in found}
    assert (
        found["k3s_daas_worker_heartbeat_timestamp_seconds", "worker-1"] == bench.clock.now_ms() / 1000 - 91
    )


@pytest.mark.parametrize("value", ["nan", "5", -1])
async def test_what_is_no_figure_is_left_out(bench: Any, value: Any) -> None:
    token = await bench.join("worker-1")
    bench.clock.advance(1)
    assert (await bench.beat(token, "worker-1", resource_usage={"cpu_percent": value})).status_code == 200
    found = await metrics(bench)
    assert ("k3s_daas_worker_reported", "worker-1", "cpu_percent") not in found


async def test_the_headroom_follows_the_reputation(bench: Any) -> None:
    bench.chain.stake("worker-1")
    await bench.catch_up()
    needed = {"reputation": "80", "required_stake": str(12 * SUI // 10)}
    bench.chain.emit("k8s_scheduler::WorkerReputationChangedEvent", node_id="worker-1", **needed)
    await bench.catch_up()
    assert (await metrics(bench))["k3s_daas_worker_stake_headroom_mist", "worker-1"] == -SUI // 5


async def test_who_registers_after_the_terms_changed_needs_what_they_say(bench: Any) -> None:
    bench.chain.stake("before")
    terms = {
        "min_stake": str(3 * SUI),
        "slash_window_ms": "0",
        "unbonding_window_ms": "0",
        "slash_share_bps": "0",
    }
    bench.chain.emit("worker_registry::TermsChangedEvent", **terms)
    bench.chain.stake("after")
    await bench.catch_up()
    found = await metrics(bench)
    # The fake chain stakes 1 SUI whatever the terms.
    assert found["k3s_daas_worker_stake_headroom_mist", "before"] == 0
    assert found["k3s_daas_worker_stake_headroom_mist", "after"] == -2 * SUI


async def test_a_slashed_worker_has_no_headroom_and_no_token_to_warn_of(bench: Any) -> None:
    bench.chain.stake("worker-1", status=WorkerStatus.ACTIVE)
    bench.chain.slash("worker-1")
    await bench.catch_up()
    found = await metrics(bench)
    assert found["k3s_daas_worker_status", "worker-1", "slashed"] == 1
    assert ("k3s_daas_worker_stake_headroom_mist", "worker-1") not in found
    assert ("k3s_daas_worker_token_expiry_timestamp_seconds", "worker-1") not in found


async def test_a_disruption_shows_while_it_lasts(bench: Any) -> None:
    assert (await metrics(bench))["k3s_daas_disruption",] == 0
    bench.state.disruption._since = bench.clock.monotonic()
    assert (await metrics(bench))["k3s_daas_disruption",] == 1


async def test_the_end_of_each_certificate(bench: Any, ca_files: tuple[Path, Path], tmp_path: Path) -> None:
    api = issue(*ca_files, tmp_path / "tls", ["10.0.0.1"])
    kubeconfig = tmp_path / "kubernetes"
    identity = issue_kubeconfig(*ca_files, ca_files[0], "https://127.0.0.1:6443", kubeconfig)
    bench.state.config = bench.config.model_copy(update={"tls_cert": api.cert, "kubeconfig": kubeconfig})
    found = await metrics(bench)
    ca = x509.load_pem_x509_certificate(ca_files[0].read_bytes())
    ends = {key[1]: value for key, value in found.items() if "certificate_expiry" in key[0]}
    assert ends == {
        "api": api.not_after.timestamp(),
        "kubernetes": identity.not_after.timestamp(),
        "server_ca": ca.not_valid_after_utc.timestamp(),
    }


@pytest.mark.parametrize(
    "content",
    [
        "",
        "{}",
        '{"users": []}',
        json.dumps({"users": [{"user": {"client-certificate-data": "?"}}]}),
        json.dumps({"users": [{"user": {"client-certificate-data": base64.b64encode(b"text").decode()}}]}),
    ],
)
async def test_a_certificate_that_cant_be_read_is_absent(bench: Any, content: str, tmp_path: Path) -> None:
    bench.config.kubeconfig.write_text(content)
    (tmp_path / "broken.crt").write_text(content)
    bench.state.config = bench.config.model_copy(update={"tls_cert": tmp_path / "broken.crt"})
    found = await metrics(bench)
    assert {key[1] for key in found if "certificate_expiry" in key[0]} == {"server_ca"}
