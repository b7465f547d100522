"""An operator's runs of playbooks/promote.yml and rollback.yml, the checkouts being copies of this one.

The first two have a defect each; both are real ones, a line of their code.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from testinfra.host import Host

from k3s_daas.registry import Worker
from pages import told
from scenario import STAGE, Chain, Run, checkout, play, play_killed_at

PROMOTE = told("docs/promote.md", "playbooks/promote.yml")
CHECK = told("docs/promote.md", "playbooks/promote.yml", "--check")
ROLLBACK = told("docs/promote.md", "playbooks/rollback.yml")
HEALTH = told("docs/promote.md", "playbooks/health.yml")
# It ends at once, and systemd says so to whoever starts it.
MASTER_THAT_ENDS = (
    "roles/master/templates/k3s-daas-master.service.j2",
    "k3s-daas-master serve --config /etc/k3s-daas/master.json",
    "k3s-daas-master serve --config /etc/k3s-daas/master.yaml",
)
# It starts, and its heartbeats go where nobody hears them.
WATCHER_UNHEARD = (
    "roles/watcher/files/k3s_daas_watcher/master_client.py",
    "/api/v1/nodes/heartbeat",
    "/api/v2/nodes/heartbeat",
)
# As molecule.yml says: a watcher that isn't heard at once is heard soon.
BEATS_S = 5
# What a release writes, and what is in it.
FILES = (
    "sha256sum /etc/systemd/system/k3s* /etc/k3s-daas/*.json /etc/rancher/k3s/config.yaml; "
    "readlink /opt/k3s-daas/venv; k3s --version | head -1"
)


@dataclass(frozen=True)
class Look:
    """What is true between two runs."""

    files: dict[str, str]
    release: dict[str, dict[str, str]]
    nodes: dict[str, dict[str, Any]]
    workers: dict[str, Worker]
    operator_mist: int
    # What the state directories hold that no release may lose.
    cursor: int
    registrations: str
    # The watcher's word, which is "ok" when the master takes its heartbeats with this seal token.
    watcher: str
    recorded: str


@dataclass(frozen=True)
class Story:
    """Each run, and what was true after it."""

    old: str
    new: str
    before: Look
    master_ends: tuple[Run, Look]
    unheard: tuple[Run, Look]
    checked: Run
    killed: Look
    good: tuple[Run, Look]
    again: tuple[Run, Look]
    health: Run
    refused: Run
    back: tuple[Run, Look]


@pytest.fixture(scope="session")
def story(
    hosts: dict[str, Host],
    stage: dict[str, Any],
    chain: Chain,
    nodes: Callable[[], dict[str, dict[str, Any]]],
    tmp_path_factory: pytest.TempPathFactory,
) -> Story:
    records = STAGE / "releases"
    common = (
        "--extra-vars",
        json.dumps(
            {
                "release_records_dir": str(records),
                "release_health_timeout_s": 20,
                "watcher_heartbeat_s": BEATS_S,
            }
        ),
    )
    old = json.dumps(
        {"k3s_binary_path": stage["k3s_old"]["path"], "k3s_binary_version": stage["k3s_old"]["version"]}
    )

    def look() -> Look:
        master, worker = hosts["master"], hosts["worker-1"]
        store = (
            'python3 -c "import sqlite3; '
            "db = sqlite3.connect('/var/lib/k3s-daas-master/master.db'); print({})\""
        )
        cursor = master.check_output(
            store.format("db.execute('SELECT checkpoint FROM cursor').fetchone()[0]")
        )
        registered = master.check_output(store.format("db.execute('SELECT * FROM registrations').fetchall()"))
        health = worker.run("curl --silent http://127.0.0.1:10280/health").stdout
        return Look(
            {name: host.check_output(FILES) for name, host in hosts.items()},
            {
                name: json.loads(host.check_output("cat /etc/k3s-daas/release.json"))
                for name, host in hosts.items()
            },
            nodes(),
            chain.workers(),
            chain.balance_mist(stage["operator"]),
            int(cursor),
            registered,
            json.loads(health or '{"status": "down"}')["status"],
            json.loads((records / "local.json").read_text())["release"],
        )

    def bad(defect: tuple[str, str, str]) -> Path:
        return checkout(tmp_path_factory.mktemp("release"), defect)

    before = look()
    master_ends = play(*PROMOTE, *common, f"--extra-vars={old}", project=bad(MASTER_THAT_ENDS)), look()
    unheard = play(*PROMOTE, *common, project=bad(WATCHER_UNHEARD)), look()
    checked = play(*CHECK, *common)
    play_killed_at("TASK [watcher : Write its configuration", *PROMOTE, *common)
    killed = look()
    return Story(
        stage["k3s_old"]["version"],
        stage["k3s_version"],
        before,
        master_ends,
        unheard,
        checked,
        killed,
        (play(*PROMOTE, *common), look()),
        (play(*PROMOTE, *common), look()),
        play(*HEALTH),
        play(*ROLLBACK, *common),
        (play(*ROLLBACK, *common, "--extra-vars=confirm=local"), look()),
    )
