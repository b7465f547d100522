"""A backup is made, worker-2 is slashed and doesn't obey, the backup is restored: onto the same master, in a
run that is killed and another, then onto a fresh host, for the master's is lost."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from lightkube import Client
from lightkube.models.meta_v1 import ObjectMeta
from lightkube.resources.core_v1 import ConfigMap
from testinfra.host import Host

from k3s_daas.chain import SuiClient
from k3s_daas.registry import Deployment, Worker, parse_event
from k3s_daas_master.follower import mark_of
from k3s_daas_master.store import MARKS
from pages import told
from scenario import Chain, Run, play, play_killed_at

STAYER, SLASHED = "worker-1", "worker-2"
# What the follower has done: (checkpoint, events, the sum of their marks).
HANDLED = """import json, sqlite3
db = sqlite3.connect("file:/var/lib/k3s-daas-master/master.db?mode=ro", uri=True)
query = "SELECT checkpoint, events, mark FROM cursor, handled"
print(json.dumps(db.execute(query).fetchone()))"""
# Its agent, whatever its watcher stopped it for: with the certificates that it has.
DISOBEY = "rm -f /var/lib/k3s-daas/agent-stopped && systemctl start --no-block k3s-agent"
# What k3s answers to anybody who reaches it.
PING = """/usr/bin/python3 -c 'import ssl, urllib.request
everybody = ssl._create_unverified_context()
print(urllib.request.urlopen("https://{}:6443/ping", context=everybody, timeout=3).read().decode())'"""


@dataclass(frozen=True)
class Look:
    """What is true between two runs. `agent` is the stayer's: its process, when it joined, its keys."""

    nodes: dict[str, dict[str, Any]]
    workers: dict[str, Worker]
    agent: str
    configmaps: set[str]


@dataclass(frozen=True)
class Story:
    """Each run, and what was true after it."""

    backup: tuple[Run, Look]
    backup_in_clear: bytes
    fetched: Path
    killed_nodes: str
    killed_answer: str
    open_answer: str
    same: tuple[Run, Look]
    handled_before: tuple[int, int, int]
    fresh: tuple[Run, Look]
    handled: tuple[int, int, int]


@pytest.fixture(scope="session")
def story(
    hosts: dict[str, Host],
    stage: dict[str, Any],
    chain: Chain,
    nodes: Callable[[], dict[str, dict[str, Any]]],
    renew: Callable[[str], None],
    kubernetes: Callable[[], Client],
    tmp_path_factory: pytest.TempPathFactory,
) -> Story:
    master = hosts["master"]
    folder = tmp_path_factory.mktemp("backups")
    key = folder / "age.key"
    program = Path(sys.executable).parent / "k3s-daas-master"
    subprocess.run([program, "backup", "keygen", "--key-file", key], check=True, capture_output=True)

    def done(run: Run) -> Run:
        assert run.code == 0, run.output
        return run

    def look() -> Look:
        agent = hosts[STAYER].check_output(
            "systemctl show --property=MainPID k3s-agent; stat --format=%y /var/lib/k3s-daas/agent-joined; "
            "sha256sum /etc/rancher/node/password /var/lib/rancher/k3s/agent/client-kubelet.key"
        )
        names = {one.metadata.name for one in kubernetes().list(ConfigMap, namespace="default")}
        return Look(nodes(), chain.workers(), agent, {name for name in names if name.startswith("note-")})

    def ping() -> str:
        return hosts[STAYER].run(PING.format(stage["hosts"]["master"])).stdout.strip()

    def note(name: str) -> None:
        kubernetes().create(ConfigMap(metadata=ObjectMeta(name=f"note-{name}", namespace="default")))

    def handled() -> tuple[int, int, int]:
        found = json.loads(master.check_output(f"/usr/bin/python3 -c '{HANDLED}'"))
        return found[0], found[1], found[2]

    note("before")
    command = told("docs/backup.md", "playbooks/backup.yml", "backup_key_file", backup_key_file=str(key))
    backup = done(play(*command, f"--extra-vars=backup_fetch_dir={folder}")), look()
    (fetched,) = folder.glob("*.age")
    in_clear = master.check_output(f"cat /var/lib/k3s-daas/backups/{fetched.stem}/k3s/token").encode()
    note("after")
    done(play(*told("docs/slash.md", "playbooks/slash.yml", node_id=SLASHED, confirm=SLASHED)))
    hosts[SLASHED].check_output(DISOBEY)

    restore = told("docs/backup.md", "playbooks/restore.yml", "backup_name", backup_name=fetched.stem)
    play_killed_at("TASK [backup : Wait until no slashed worker has a node", *restore)
    killed_nodes = master.run("k3s kubectl get nodes -o name").stdout
    killed_answer = ping()
    same = done(play(*restore)), look()
    before, open_answer = handled(), ping()
    renew("master")
    command = told(
        "docs/backup.md",
        "playbooks/restore.yml",
        "backup_file",
        backup_file=str(fetched),
        backup_key_file=str(key),
    )
    fresh = done(play(*command)), look()
    return Story(
        backup, in_clear, fetched, killed_nodes, killed_answer, open_answer, same, before, fresh, handled()
    )


@pytest.fixture(scope="session")
def events_between(stage: dict[str, Any], deployment: Deployment) -> Callable[[int, int], tuple[int, int]]:
    """`events_between(AFTER, UNTIL)`: (how many of the registry's events are in these checkpoints, the sum of
    their marks)."""

    def count(after: int, until: int) -> tuple[int, int]:
        async def read() -> tuple[int, int]:
            found = mark = 0
            async with await SuiClient.connect(
                [stage["rpc"]], "localnet", chain_id=stage["chain_id"]
            ) as chain:
                async for batch in chain.checkpoints(after, [deployment.types_id]):
                    if batch.sequence > until:
                        break
                    ours = [one for one in batch.events if parse_event(one, deployment) is not None]
                    found, mark = found + len(ours), mark + sum(map(mark_of, ours))
                    if batch.sequence == until:
                        break
            return found, mark % MARKS

        return asyncio.run(read())

    return count
