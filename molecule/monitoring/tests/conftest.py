"""Prometheus is set up before the tests look: an operator's runs of its playbook, one of them killed."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import httpx
import pytest
from testinfra.host import Host

from pages import told
from scenario import Run, play, play_killed_at

GRAFANA = "/etc/grafana"
# A rate wants two looks.
INTERVAL_S = 2
_DEADLINE_S = 120


@dataclass(frozen=True)
class Prometheus:
    """The real one, on the host monitor."""

    url: str

    def get(self, path: str, **parameters: str) -> Any:
        answer = httpx.get(f"{self.url}/api/v1/{path}", params=parameters, timeout=10, trust_env=False)
        assert answer.status_code == 200, answer.text
        return answer.json()["data"]

    def ask(self, query: str) -> list[dict[str, Any]]:
        """The series that a query has now."""
        found: list[dict[str, Any]] = self.get("query", query=query)["result"]
        return found

    def silent(self, queries: set[str]) -> set[str]:
        """Those that have no data. What is counted over time gets a while."""
        deadline = time.monotonic() + _DEADLINE_S
        while (
            without := {query for query in queries if not self.ask(query)}
        ) and time.monotonic() < deadline:
            time.sleep(INTERVAL_S)
        return without


@dataclass(frozen=True)
class Story:
    """Each run."""

    checked: Run
    made: Run
    again: Run
    checked_again: Run
    prometheus: Prometheus


@pytest.fixture(scope="session")
def story(stage: dict[str, Any]) -> Story:
    # What is tested is asked from this machine; otherwise it listens on loopback.
    listen = f"{stage['hosts']['monitor']}:9090"
    wanted = {
        "monitoring_listen": listen,
        "monitoring_interval_s": INTERVAL_S,
        "monitoring_grafana_dir": GRAFANA,
    }
    extra = f"--extra-vars={json.dumps(wanted)}"
    command = (*told("docs/monitoring.md", "playbooks/monitoring.yml"), extra)
    check = (*told("docs/monitoring.md", "playbooks/monitoring.yml", "--check"), extra)
    checked = play(*check)
    # Everything is written, and the Prometheus that the package started runs with what it came with.
    play_killed_at("TASK [monitoring : See whether it runs with these files]", *command)
    made = play(*command)
    assert made.code == 0, made.output
    return Story(checked, made, play(*command), play(*check), Prometheus(f"http://{listen}"))


@pytest.fixture
def prometheus(story: Story) -> Prometheus:
    return story.prometheus


@pytest.fixture(scope="session")
def dashboards(story: Story, hosts: dict[str, Host]) -> dict[str, dict[str, Any]]:
    """Grafana's JSON models as they are on the host, by file."""
    paths = hosts["monitor"].check_output(f"ls {GRAFANA}/k3s-daas/*.json").split()
    return {path: json.loads(hosts["monitor"].check_output(f"cat {path}")) for path in paths}


@pytest.fixture
def eventually() -> Callable[[Callable[[], bool]], bool]:
    """`eventually(condition)`: whether it came true in time."""

    def wait(condition: Callable[[], bool]) -> bool:
        deadline = time.monotonic() + _DEADLINE_S
        while not (met := condition()) and time.monotonic() < deadline:
            time.sleep(INTERVAL_S)
        return met

    return wait
