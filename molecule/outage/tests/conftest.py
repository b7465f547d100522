"""What an operator sees while chain, network and master are gone, each for a while, and when they are back.

The chain's process is ended, and started again on what it left. worker-1 is cut off from the other hosts by
firewall rules of its own, for at least $K3S_DAAS_OUTAGE_S seconds (and until its node is not Ready). Of the
master the two services are stopped.
"""

from __future__ import annotations

import ipaddress
import json
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest
from testinfra.host import Host

from k3s_daas.registry import Worker
from pages import told
from scenario import Chain, Run, play
from stage.stage import Stage

CUT, OTHER = "worker-1", "worker-2"
WORKERS = (CUT, OTHER)
CUT_FOR_S = float(os.environ.get("K3S_DAAS_OUTAGE_S") or 0)
# As molecule.yml says.
HEARTBEAT_S = 5
VARIABLES = f'--extra-vars={{"watcher_heartbeat_s": {HEARTBEAT_S}}}'
STRANGER = "stranger"
# What the API server is asked with: its administrator's certificate, from the file that k3s made.
ASK_API = """
import base64, json, ssl, sys, tempfile, urllib.request, yaml
config = yaml.safe_load(open("/etc/rancher/k3s/k3s.yaml"))
cluster, user = config["clusters"][0]["cluster"], config["users"][0]["user"]
context = ssl.create_default_context(cadata=base64.b64decode(cluster["certificate-authority-data"]).decode())
with tempfile.NamedTemporaryFile() as file:
    parts = [base64.b64decode(user[f"client-{part}-data"]) for part in ("certificate", "key")]
    file.write(b"\\n".join(parts))
    file.flush()
    context.load_cert_chain(file.name)
method, path, body = sys.argv[1:]
request = urllib.request.Request(cluster["server"] + path, body.encode() or None, method=method)
request.add_header("Content-Type", "application/json")
urllib.request.urlopen(request, timeout=20, context=context).read()
"""


@dataclass(frozen=True)
class Look:
    """What is true at one moment. `agents` is when each k3s agent was started, and how often by systemd."""

    wallet_mist: int
    workers: dict[str, Worker]
    nodes: dict[str, dict[str, Any]]
    agents: dict[str, str]
    overview: dict[str, Any]
    findings: list[Any]


@dataclass(frozen=True)
class Drift:
    """A run of playbooks/drift.yml, and the report that it wrote for programs."""

    run: Run
    report: dict[str, Any]

    @property
    def differences(self) -> set[tuple[str, str]]:
        return {(one["who"], one["what"]) for one in self.report["differences"]}

    @property
    def silent(self) -> set[str]:
        return {one["who"] for one in self.report["not_asked"]}


@dataclass(frozen=True)
class Story:
    """In the order in which it happened."""

    before: Look
    drift_without_chain: Drift
    status_without_chain: Run
    # The view is stale by then; worker-1 is cut off, and its node not Ready.
    readyz_when_stale: dict[str, Any]
    overview_when_stale: dict[str, Any]
    watcher_when_cut: dict[str, Any]
    drift_when_cut: Drift
    tampered_file: str
    healed: Look
    drift_without_master: Drift
    # With the master's host out of reach for ssh, too.
    status_without_master: Run
    after: Look
    drift_after: Drift


def ready(node: dict[str, Any]) -> bool:
    return any(c["type"] == "Ready" and c["status"] == "True" for c in node["status"].get("conditions", []))


def until(what: str, true: Callable[[], Any], within_s: float = 150) -> Any:
    """What `true` gave, asked every second until it is truthy; who gives no answer is asked again."""
    deadline, last = time.monotonic() + within_s, ""
    while time.monotonic() < deadline:
        try:
            if found := true():
                return found
        except (httpx.HTTPError, AssertionError, ValueError) as error:
            last = f": {error}"
        time.sleep(1)
    raise AssertionError(f"after {within_s:.0f} s still not: {what}{last}")


@pytest.fixture(scope="session")
def ask_master(stage: dict[str, Any]) -> Iterator[Callable[[str], dict[str, Any]]]:
    url = f"https://{stage['hosts']['master']}:8443"
    # Whether the certificate is the right one is the default scenario's matter.
    with httpx.Client(base_url=url, verify=False, timeout=10) as client:  # noqa: S501
        yield lambda path: client.get(path).json()


@pytest.fixture(scope="session")
def look(
    hosts: dict[str, Host], chain: Chain, nodes: Any, ask_master: Callable[[str], Any]
) -> Callable[[], Look]:
    def agent(host: Host) -> str:
        return host.check_output("systemctl show --property=ExecMainStartTimestamp,NRestarts k3s-agent")

    return lambda: Look(
        chain.balance_mist(chain.stage["operator"]),
        chain.workers(),
        nodes(),
        {name: agent(hosts[name]) for name in WORKERS},
        ask_master("/api/v1/overview"),
        ask_master("/api/v1/findings")["findings"],
    )


@pytest.fixture(scope="session")
def drift(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Drift]:
    def run(command: tuple[str, ...], *arguments: str) -> Drift:
        report: Path = tmp_path_factory.mktemp("drift") / "report.json"
        # Last, so that it is this report where the command names one, too.
        done = play(*command, VARIABLES, *arguments, f"--extra-vars=drift_report={report}")
        assert report.exists(), done.output
        return Drift(done, json.loads(report.read_text()))

    return run


@contextmanager
def cut_off(hosts: dict[str, Host], addresses: dict[str, str]) -> Iterator[None]:
    """worker-1 and the other hosts don't hear each other; the chain and who watches the test still do."""
    rules = [
        f"{chain} {side} {addresses[name]} -j DROP"
        for name in addresses
        if name != CUT
        for chain, side in (("INPUT", "-s"), ("OUTPUT", "-d"))
    ]
    for rule in rules:
        hosts[CUT].check_output(f"iptables -I {rule}")
    try:
        yield
    finally:
        for rule in rules:
            hosts[CUT].check_output(f"iptables -D {rule}")


@contextmanager
def tampered(hosts: dict[str, Host]) -> Iterator[None]:
    """A file that no role wrote so, and a node that nobody staked for. Neither does anything to the fleet."""
    node = {"apiVersion": "v1", "kind": "Node", "metadata": {"name": STRANGER}}
    hosts[OTHER].check_output("echo >> /etc/k3s-daas/watcher.json")
    hosts["master"].check_output("python3 -c %s POST /api/v1/nodes %s", ASK_API, json.dumps(node))
    try:
        yield
    finally:
        hosts[OTHER].check_output("sed -i '$d' /etc/k3s-daas/watcher.json")
        hosts["master"].check_output(f"k3s kubectl delete node {STRANGER} --ignore-not-found")


@pytest.fixture(scope="session")
def story(
    hosts: dict[str, Host],
    stage: dict[str, Any],
    nodes: Any,
    look: Callable[[], Look],
    ask_master: Callable[[str], Any],
    drift: Callable[..., Drift],
    tmp_path_factory: pytest.TempPathFactory,
) -> Story:
    def recovered() -> bool:
        found = look()
        beats = {one["node_id"]: one["last_heartbeat_ms"] for one in found.overview["workers"]}
        return (
            found.overview["health"]["state"] == "healthy"
            and set(found.nodes) == set(WORKERS)
            and all(ready(node) for node in found.nodes.values())
            and all(beats[name] > (time.time() - 2 * HEARTBEAT_S) * 1000 for name in WORKERS)
        )

    whole = Stage(stage["name"], ipaddress.IPv4Network(stage["subnet"]), len(WORKERS))
    master = hosts["master"]
    until("all well before", recovered)
    before = look()

    whole.stop_chain()
    drift_without_chain = drift(told("docs/drift.md", "playbooks/drift.yml"))
    status_without_chain = play(*told("docs/status.md", "playbooks/status.yml"))
    with cut_off(hosts, stage["hosts"]):
        cut_at = time.monotonic()
        until("the master's view stale", lambda: not ask_master("/readyz")["ready"])
        until("the node of the cut worker not Ready", lambda: not ready(nodes()[CUT]))
        until("the cut worker's heartbeats failing", lambda: failures(hosts[CUT]) >= 3)
        readyz, overview = ask_master("/readyz"), ask_master("/api/v1/overview")
        watcher = health(hosts[CUT])
        whole.start_chain()
        until("the master's view fresh", lambda: ask_master("/readyz")["ready"])
        with tampered(hosts):
            with_lines = told("docs/drift.md", "playbooks/drift.yml", "--diff")
            drift_when_cut = drift(with_lines, "--extra-vars=contracts_registry_unbonding_window_ms=7")
            tampered_file = hosts[OTHER].run("cat /etc/k3s-daas/watcher.json").stdout
        time.sleep(max(0.0, cut_at + CUT_FOR_S - time.monotonic()))
    # One who was offline is active again 10 minutes after it went offline, and not before.
    until("all well after the cut", recovered, within_s=150 + CUT_FOR_S)
    healed = look()

    master.check_output("systemctl stop k3s-daas-master k3s")
    drift_without_master = drift(told("docs/drift.md", "playbooks/drift.yml", "drift_report"))
    # Nothing listens on that port of the host.
    lost = tmp_path_factory.mktemp("lost") / "hosts.json"
    lost.write_text(json.dumps({"k3s_daas_master": {"hosts": {"master": {"ansible_port": 1}}}}))
    status_without_master = play(*told("docs/status.md", "playbooks/status.yml"), f"--inventory={lost}")
    until("heartbeats failing", lambda: all(failures(hosts[name]) >= 3 for name in WORKERS))
    master.check_output("systemctl start k3s k3s-daas-master")
    until("all well after the master was gone", recovered)
    return Story(
        before,
        drift_without_chain,
        status_without_chain,
        readyz,
        overview,
        watcher,
        drift_when_cut,
        tampered_file,
        healed,
        drift_without_master,
        status_without_master,
        look(),
        drift(told("docs/drift.md", "playbooks/drift.yml")),
    )


def health(host: Host) -> dict[str, Any]:
    """The watcher's word on itself; it answers 503 with the same body when something is wrong."""
    asking = (
        "import urllib.request as u, urllib.error as e\ntry: a = u.urlopen('http://127.0.0.1:10280/health')"
    )
    asking += "\nexcept e.HTTPError as error: a = error\nprint(a.read().decode())"
    found: dict[str, Any] = json.loads(host.check_output("python3 -c %s", asking))
    return found


def failures(host: Host) -> int:
    """Heartbeats of a worker that failed in a row."""
    found: int = health(host)["heartbeat"]["consecutive_failures"]
    return found
