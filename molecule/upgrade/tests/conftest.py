"""An operator's runs of playbooks/upgrade.yml: two that can't go well, two that are killed, and the rest."""

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
from scenario import Chain, Run, play, play_killed_at

UPGRADE = told("docs/upgrade.md", "playbooks/upgrade.yml")
MARK = "k3s-daas-test/new-server"

# As small as can be: each says it is the wanted version, and doesn't come up. The agent dies at once. The
# server first serves, and writes to the datastore: what a new version does that breaks after it began.
AGENT_THAT_DIES = """#!/bin/sh
case $1 in
  --version) echo "k3s version VERSION (dies)" ;;
  *) echo "this k3s can't run here" >&2; exit 1 ;;
esac
"""
SERVER_THAT_DIES = """#!/bin/sh
old=/usr/local/bin/k3s.previous
case $1 in
  --version) echo "k3s version VERSION (dies)" ;;
  server)
    $old server & pid=$!
    trap 'kill $pid; wait' EXIT
    trap 'exit 1' TERM
    patch='{"metadata": {"annotations": {"MARK": "was here"}}}'
    until $old kubectl patch node worker-1 --type=merge --patch="$patch"; do sleep 1; done
    echo "this k3s can't go on" >&2; exit 1 ;;
  *) exec $old "$@" ;;
esac
"""


@dataclass(frozen=True)
class Look:
    """What is true between two runs."""

    nodes: dict[str, dict[str, Any]]
    workers: dict[str, Worker]
    # What `k3s --version` says on each host, and the names it has there.
    says: dict[str, str]
    files: dict[str, str]


@dataclass(frozen=True)
class Story:
    """Each run, and what was true after it."""

    old: str
    new: str
    before: Look
    checked: tuple[Run, Look]
    server_died: tuple[Run, Look]
    # While the server was stopped.
    killed_at_server: str
    agent_died: tuple[Run, Look]
    killed_at_agent: Look
    finished: tuple[Run, Look]
    again: tuple[Run, Look]
    back: tuple[Run, Look]
    site_back: Run


@pytest.fixture(scope="session")
def story(
    hosts: dict[str, Host],
    stage: dict[str, Any],
    chain: Chain,
    nodes: Callable[[], dict[str, dict[str, Any]]],
    tmp_path_factory: pytest.TempPathFactory,
) -> Story:
    old, new = stage["k3s_old"]["version"], stage["k3s_version"]
    folder = tmp_path_factory.mktemp("dying")

    def look() -> Look:
        return Look(
            nodes(),
            chain.workers(),
            {name: host.check_output("k3s --version") for name, host in hosts.items()},
            {name: host.check_output("cd /usr/local/bin && ls k3s*") for name, host in hosts.items()},
        )

    def with_dying(group: str, host: str, script: str) -> str:
        binary = folder / f"k3s-{host}"
        binary.write_text(script.replace("VERSION", new).replace("MARK", MARK))
        inventory = Path(f"{binary}.json")
        inventory.write_text(json.dumps({group: {"hosts": {host: {"k3s_binary_path": str(binary)}}}}))
        return f"--inventory={inventory}"

    before = look()
    checked = play(*told("docs/upgrade.md", "playbooks/upgrade.yml", "--check")), look()
    server_died = play(*UPGRADE, with_dying("k3s_daas_master", "master", SERVER_THAT_DIES)), look()
    play_killed_at("TASK [k3s_upgrade : Start the server", *UPGRADE)
    killed_at_server = hosts["master"].run("systemctl is-active k3s k3s-daas-master; k3s --version").stdout
    # Somebody has a reason of their own to keep pods from it; it is none of the upgrade's.
    hosts["master"].run("systemctl start k3s; k3s kubectl cordon worker-1")
    agent_died = play(*UPGRADE, with_dying("k3s_daas_workers", "worker-1", AGENT_THAT_DIES)), look()
    hosts["master"].check_output("k3s kubectl uncordon worker-1")
    play_killed_at("TASK [k3s_upgrade : Restart the agent", *UPGRADE)
    killed_at_agent = look()
    finished = play(*UPGRADE), look()
    again = play(*UPGRADE), look()
    older = json.dumps({"k3s_binary_path": stage["k3s_old"]["path"], "k3s_binary_version": old})
    return Story(
        old,
        new,
        before,
        checked,
        server_died,
        killed_at_server,
        agent_died,
        killed_at_agent,
        finished,
        again,
        (play(*UPGRADE, f"--extra-vars={older}"), look()),
        play("playbooks/master.yml", f"--extra-vars={older}"),
    )
