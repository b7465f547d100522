"""The status table's words and shape; the sources behind it are tested with the watcher, on a real chain."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from k3s_daas import status
from k3s_daas.chainconfig import ChainConfig
from k3s_daas.registry import RegistryConfig, SealTokenRecord, Worker, WorkerStatus

OWNER = "0x" + "ab" * 32
NOW_MS = 1_790_000_000_000
READY = {"ready": True, "unschedulable": False, "version": "v1.34.1+k3s1"}
SILENT = READY | {"ready": False}


def report(*names: str, state: WorkerStatus = WorkerStatus.ACTIVE) -> status.Report:
    ids = {"package_id": "0x" + "1" * 64, "registry_id": "0x" + "2" * 64}
    config = ChainConfig(network="localnet", endpoints=("http://127.0.0.1:9000",), **ids)
    registry = RegistryConfig(
        ids["registry_id"], "", 1, "demo", True, frozenset(), 10**9, 0, 0, 1000, True, 0, 0, 2, "", "", None
    )
    workers = [
        Worker(name, OWNER, 1_500_000_000, state, "0x5", OWNER, NOW_MS, NOW_MS, 10**9, 0, 0, 1000, 100)
        for name in names
    ]
    tokens = {n: SealTokenRecord("worker", n, OWNER, b"", 12, NOW_MS, NOW_MS, True) for n in names}
    found = status.Report(config, registry, workers, tokens, NOW_MS, master_well=True)
    found.from_master = {n: {"node_ready": True, "last_heartbeat_ms": NOW_MS - 1000} for n in names}
    return found


def printed(found: status.Report, capsys: pytest.CaptureFixture[str]) -> list[str]:
    status.print_table(found)
    return capsys.readouterr().out.splitlines()


@pytest.mark.parametrize(
    ("master", "cluster", "state", "shown", "ready"),
    [
        ({"node_ready": True}, None, WorkerStatus.ACTIVE, "Ready", True),
        ({"node_ready": False}, None, WorkerStatus.ACTIVE, "not Ready", False),
        ({"node_ready": None}, None, WorkerStatus.SLASHED, "gone", False),
        ({"node_ready": None}, None, WorkerStatus.PENDING, "not joined", False),
        (None, None, WorkerStatus.ACTIVE, "?", None),
        # Asked itself, the cluster knows better than the master remembers.
        ({"node_ready": True}, {}, WorkerStatus.SLASHED, "gone", False),
        ({"node_ready": True}, {"worker-1": SILENT}, WorkerStatus.ACTIVE, "not Ready", False),
        (None, {"worker-1": READY}, WorkerStatus.ACTIVE, "Ready", True),
    ],
)
def test_a_node_is_ready_or_not_or_gone(
    master: Any, cluster: Any, state: WorkerStatus, shown: str, ready: Any, capsys: Any
) -> None:
    found = report("worker-1", state=state)
    found.from_master = {} if master is None else {"worker-1": master}
    found.from_cluster = cluster
    assert status.rows(found)[0]["node_ready"] is ready
    (line,) = (line for line in printed(found, capsys) if line.startswith("worker-1"))
    assert f"{state.value} ".ljust(8) in line
    assert f"  {shown}  " in line


def test_a_master_that_cannot_see_the_cluster_calls_no_node_gone(capsys: Any) -> None:
    found = report("worker-1")
    found.from_master["worker-1"]["node_ready"] = None
    found.master_well = False
    assert status.rows(found)[0]["node_ready"] is None
    assert "  ?  " in "\n".join(printed(found, capsys))


def test_no_heartbeat_is_never_and_an_unknown_one_is_not(capsys: Any) -> None:
    found = report("worker-1", "worker-2", "worker-3")
    found.from_master["worker-1"]["last_heartbeat_ms"] = None
    del found.from_master["worker-2"]
    ends = [line.rsplit("  ", 1)[1] for line in printed(found, capsys) if line.startswith("worker-")]
    assert ends == ["never", "?", "1 s ago"]


def test_the_widest_table_fits_without_trailing_blanks(capsys: Any) -> None:
    long = "n" * 63
    found = report("worker-1", long, state=WorkerStatus.UNBONDING)
    found.from_cluster = {"worker-1": SILENT}
    found.from_master["worker-1"]["last_heartbeat_ms"] = NOW_MS - 123_456_000
    found.notices = ["STAND-IN: " + "x " * 100]
    lines = printed(found, capsys)
    assert all(len(line) <= 100 and line == line.rstrip() for line in lines), lines
    (line,) = (line for line in lines if line.startswith("worker-1"))
    assert line.split("  ")[0] == "worker-1"
    for word in ("0xabab…abab", "1.5 SUI", "unbonding", "not Ready", "gen 12 revoked", "123456 s ago"):
        assert word in line
    parts = [line.split()[0] for line in lines if line.startswith("nn")]
    assert "".join(parts) == long


def test_names_from_the_chain_are_text_and_not_markup(capsys: Any) -> None:
    assert any(line.startswith("[red]x[/]  ") for line in printed(report("[red]x[/]"), capsys))


def test_an_expiry_is_a_day_and_when_it_is_near_a_time(capsys: Any) -> None:
    found = report("worker-1", "worker-2")
    found.tokens["worker-2"] = replace(found.tokens["worker-2"], expires_at_ms=NOW_MS + 90 * 86_400_000)
    near, far = (line for line in printed(found, capsys) if line.startswith("worker-"))
    assert "  09-21 14:13Z  " in near
    assert "  2026-12-20  " in far
