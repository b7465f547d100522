"""The doctor on real hosts: two that are well, and one whose worker was slashed."""

from __future__ import annotations

import json
from typing import Any

import pytest
from testinfra.host import Host

from pages import told
from scenario import play


def examine(host: Host) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(host.run("/opt/k3s-daas/venv/bin/k3s-daas doctor --json").stdout)
    return found


@pytest.mark.parametrize(("name", "role"), [("master", "master"), ("worker-1", "worker")])
def test_it_finds_nothing_wrong_where_all_is_well(hosts: dict[str, Host], name: str, role: str) -> None:
    report = examine(hosts[name])
    assert report["role"] == role
    assert [finding for finding in report["findings"] if finding["level"] == "error"] == []
    seen = {finding["check"] for finding in report["findings"]}
    assert seen >= {"clock", "network", "registry", "port", "ca", "master-api", "interface", "units", "disk"}


def test_it_says_that_the_slashed_worker_is_slashed(hosts: dict[str, Host]) -> None:
    report = examine(hosts["worker-2"])
    assert report["code"] == 2
    errors = {
        finding["check"]: finding["found"] for finding in report["findings"] if finding["level"] == "error"
    }
    assert errors["status"] == "worker-2 is slashed on-chain"
    assert "stopped for good" in errors["units"]


def test_the_playbook_prints_one_table_of_all_and_changes_nothing() -> None:
    run = play(*told("docs/doctor.md", "playbooks/doctor.yml"))
    assert run.code == 0, run.output
    assert set(run.changed.values()) == {0}
    assert "worker-2 is slashed on-chain" in run.words
