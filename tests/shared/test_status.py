"""The status table's words and shape; tests/watcher has the sources behind it, on a real chain."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest

from k3s_daas.chainconfig import ChainConfig
from k3s_daas.registry import Master, RegistryConfig, SealTokenRecord, Worker, WorkerStatus
from k3s_daas.status.report import Node, OnChain, Overview, Report
from k3s_daas.status.show import as_json, print_table, rows

OWNER = "0x" + "ab" * 32
NOW_MS = 1_790_000_000_000
READY = Node(ready=True, unschedulable=False, version="v1.34.1+k3s1")
SILENT = replace(READY, ready=False)
CORDONED = replace(READY, unschedulable=True)


def seen(name: str, **changes: Any) -> dict[str, Any]:
    """A worker in the master's overview."""
    found = {
        "node_id": name,
        "owner": OWNER,
        "stake_mist": 1_500_000_000,
        "status": "active",
        "reputation": 100,
        "node_ready": True,
        "cordoned": False,
        "generation": 12,
        "expires_at_ms": NOW_MS,
        "revoked": True,
        "last_heartbeat_ms": NOW_MS - 1000,
    }
    return found | changes


def overview(*workers: dict[str, Any], **changes: Any) -> Overview:
    said: dict[str, Any] = {
        "version": "0.1.0",
        "health": {"state": "healthy", "summary": "1 of 1 workers active, 1 nodes ready"},
        "alerts": [],
        "tee": {"mode": "simulated", "attested": False},
        "master": {"problems": []},
        "slashing": {"mode": "observe", "findings": 0, "held_back": None},
        "gas": {"balance_mist": 400_000_000, "low": False},
        "chain": {"checkpoint": 7, "age_ms": 90_000},
        "workers": list(workers),
    }
    return Overview.model_validate(said | changes)


def report(*names: str, state: WorkerStatus = WorkerStatus.ACTIVE) -> Report:
    ids = {"package_id": "0x" + "1" * 64, "registry_id": "0x" + "2" * 64}
    config = ChainConfig(network="localnet", endpoints=("http://127.0.0.1:9000",), **ids)
    master = Master(1, "0x7", "https://10.0.0.11:8443", "https://10.0.0.11:6443", b"\1" * 32, NOW_MS)
    registry = RegistryConfig(
        ids["registry_id"], "", 1, "demo", True, frozenset(), 10**9, 0, 0, 1000, True, 0, 0, 2, "", "", master
    )
    workers = [
        Worker(name, OWNER, 1_500_000_000, state, "0x5", OWNER, NOW_MS, NOW_MS, 10**9, 0, 0, 1000, 97)
        for name in names
    ]
    tokens = {n: SealTokenRecord("worker", n, OWNER, b"", 12, NOW_MS, NOW_MS, True) for n in names}
    chain = OnChain(registry, workers, tokens, 490_000_000, 42, 1_500)
    said = overview(*(seen(name) for name in names))
    return Report(config, NOW_MS, chain, said, "https://10.0.0.11:8443")


def printed(found: Report, capsys: pytest.CaptureFixture[str]) -> list[str]:
    print_table(found)
    return capsys.readouterr().out.splitlines()


def line_of(found: Report, word: str, capsys: pytest.CaptureFixture[str]) -> str:
    (line,) = (line for line in printed(found, capsys) if line.startswith(word))
    return line


@pytest.mark.parametrize(
    ("master", "cluster", "state", "shown"),
    [
        (seen("worker-1"), None, WorkerStatus.ACTIVE, "Ready"),
        (seen("worker-1", node_ready=False), None, WorkerStatus.ACTIVE, "not Ready"),
        (seen("worker-1", cordoned=True), None, WorkerStatus.ACTIVE, "cordoned"),
        (seen("worker-1", node_ready=None), None, WorkerStatus.SLASHED, "gone"),
        (seen("worker-1", node_ready=None), None, WorkerStatus.PENDING, "not joined"),
        (None, None, WorkerStatus.ACTIVE, "?"),
        # Asked itself, the cluster knows better than the master remembers.
        (seen("worker-1"), {}, WorkerStatus.SLASHED, "gone"),
        (seen("worker-1"), {"worker-1": SILENT}, WorkerStatus.ACTIVE, "not Ready"),
        (seen("worker-1"), {"worker-1": CORDONED}, WorkerStatus.ACTIVE, "cordoned"),
        (None, {"worker-1": READY}, WorkerStatus.ACTIVE, "Ready"),
    ],
)
def test_a_node_is_ready_or_not_or_gone(
    master: Any, cluster: Any, state: WorkerStatus, shown: str, capsys: Any
) -> None:
    found = report("worker-1", state=state)
    found.master = overview(*([master] if master else []))
    found.nodes = cluster
    line = line_of(found, "worker-1", capsys)
    assert f"{state.value} ".ljust(8) in line
    assert f"  {shown}  " in line
    ready = {"?": None, "Ready": True, "cordoned": True}.get(shown, False)
    assert as_json(found)["workers"][0]["node_ready"] is ready


def test_a_master_that_cannot_see_the_cluster_calls_no_node_gone(capsys: Any) -> None:
    found = report("worker-1")
    found.master = overview(seen("worker-1", node_ready=None), master={"problems": ["cluster: no answer"]})
    assert rows(found)[0].node is None
    assert "  ?  " in line_of(found, "worker-1", capsys)


def test_no_heartbeat_is_never_and_an_unknown_one_is_not(capsys: Any) -> None:
    found = report("worker-1", "worker-2", "worker-3")
    found.master = overview(seen("worker-1", last_heartbeat_ms=None), seen("worker-3"))
    ends = [line.rsplit("  ", 1)[1] for line in printed(found, capsys) if line.startswith("worker-")]
    assert ends == ["never", "?", "1 s ago"]


def test_the_widest_table_fits_without_trailing_blanks(capsys: Any) -> None:
    long = "n" * 63
    found = report("worker-1", long, state=WorkerStatus.UNBONDING)
    found.nodes = {"worker-1": SILENT}
    found.master = overview(
        seen("worker-1", last_heartbeat_ms=NOW_MS - 123_456_000),
        alerts=[{"severity": "warning", "what": "workers", "text": "x " * 100}],
    )
    found.notices = ["STAND-IN: " + "x " * 100]
    lines = printed(found, capsys)
    assert all(len(line) <= 108 and line == line.rstrip() for line in lines), lines
    (line,) = (line for line in lines if line.startswith("worker-1"))
    assert line.split("  ")[0] == "worker-1"
    for word in ("0xabab…abab", "1.5 SUI", "unbonding", "97", "not Ready", "gen 12 revoked", "123456 s ago"):
        assert word in line
    parts = [line.split()[0] for line in lines if line.startswith("nn")]
    assert "".join(parts) == long


def test_names_from_the_chain_are_text_and_not_markup(capsys: Any) -> None:
    assert any(line.startswith("[red]x[/]  ") for line in printed(report("[red]x[/]"), capsys))


def test_an_expiry_is_a_day_and_when_it_is_near_a_time(capsys: Any) -> None:
    found = report("worker-1", "worker-2")
    assert found.chain is not None
    found.chain.tokens["worker-2"] = replace(
        found.chain.tokens["worker-2"], expires_at_ms=NOW_MS + 90 * 86_400_000
    )
    near, far = (line for line in printed(found, capsys) if line.startswith("worker-"))
    assert "  09-21 14:13Z  " in near
    assert "  2026-12-20  " in far


class TestTheSummary:
    def test_says_how_chain_master_and_nodes_are(self, capsys: Any) -> None:
        found = report("worker-1", "worker-2")
        found.nodes = {"worker-1": READY, "worker-2": SILENT}
        assert "checkpoint 42, 2 s old" in line_of(found, "chain", capsys)
        master = line_of(found, "master", capsys)
        assert "https://10.0.0.11:8443, SIMULATED, healthy: 1 of 1 workers active" in master
        assert line_of(found, "gas", capsys).endswith("0.49 SUI")
        assert "1 of 2 Ready, v1.34.1+k3s1" in line_of(found, "nodes", capsys)
        assert "0 (observe)" in line_of(found, "findings", capsys)
        assert line_of(found, "alarms", capsys).endswith("none")

    def test_says_that_a_master_is_attested(self, capsys: Any) -> None:
        found = report("worker-1")
        found.master = overview(tee={"mode": "nitro", "attested": True})
        assert ", attested, " in line_of(found, "master", capsys)
        assert as_json(found)["simulated"] is False
        found.master = overview(tee={"mode": "nitro", "attested": False})
        assert ", not attested, " in line_of(found, "master", capsys)

    def test_shows_every_alarm_and_what_holds_proposals_back(self, capsys: Any) -> None:
        found = report("worker-1")
        found.master = overview(
            alerts=[
                {"severity": "critical", "what": "chain", "text": "old"},
                {"severity": "warning", "what": "nodes", "text": "1 not Ready: worker-1\x1b[2J"},
            ],
            slashing={"mode": "armed", "findings": 2, "held_back": "a disruption"},
            gas={"balance_mist": 1, "low": True},
        )
        text = "\n".join(printed(found, capsys))
        assert "critical: chain: old" in text
        assert "warning: nodes: 1 not Ready: worker-1?[2J" in text
        assert "2 (armed, held back: a disruption)" in text
        assert "0.49 SUI, low" in text
        assert as_json(found)["alarms"][0]["severity"] == "critical"


class TestWithoutTheChain:
    def test_the_master_s_last_view_is_shown_and_called_that(self, capsys: Any) -> None:
        found = report("worker-1")
        found.chain, found.problems = None, ["chain: no endpoint answered"]
        found.master = overview(seen("worker-1", status="offline"))
        lines = printed(found, capsys)
        (chain,) = (line for line in lines if line.startswith("chain"))
        assert "no answer; the master saw checkpoint 7, 90 s ago" in chain
        (worker,) = (line for line in lines if line.startswith("worker-1"))
        assert "offline" in worker
        assert "0.4 SUI" in "\n".join(lines)
        assert "not read: chain: no endpoint answered" in lines
        assert as_json(found)["registry"] is None

    def test_nobody_s_word_is_an_empty_table(self, capsys: Any) -> None:
        found = report()
        found.chain = found.master = None
        text = "\n".join(printed(found, capsys))
        assert "no answer" in text
        assert "unknown" in text
        assert json.dumps(as_json(found))


def test_without_the_master_the_chain_still_speaks(capsys: Any) -> None:
    found = report("worker-1")
    found.master = None
    assert "https://10.0.0.11:8443, no answer" in line_of(found, "master", capsys)
    assert "0.49 SUI" in line_of(found, "gas", capsys)
    assert line_of(found, "worker-1", capsys).endswith("?")
