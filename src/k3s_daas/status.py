"""`k3s-daas status`: one table of what the chain, the master and the cluster say about every worker.

Three sources, each shown for what it says itself: stake, status and token from the chain; readiness and
heartbeat from the master (found on-chain, over TLS with the on-chain CA); optionally readiness and version
straight from the cluster. A source that can't be read leaves its cells empty and a line below the table.
"""

from __future__ import annotations

import argparse
import asyncio
import datetime as dt
import json
import shlex
import ssl
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from k3s_daas import join
from k3s_daas.chain.errors import ChainError
from k3s_daas.chainconfig import ChainConfig, InvalidConfig, add_chain_arguments, chain_of
from k3s_daas.registry import Master, Registry, RegistryConfig, SealTokenRecord, Worker, WorkerStatus
from k3s_daas.units import format_sui

WORKERS_PATH = "/api/v1/workers"
MAX_ANSWER_BYTES = 4 * 1024 * 1024
# Of the table where it doesn't go to a terminal: what a log or Ansible's output shows without wrapping it.
WIDTH = 100

OK, INCOMPLETE, CHAIN_UNREADABLE, CONFIG = 0, 1, 10, 78


@dataclass
class Report:
    """Everything gathered. `problems` are sources that could not be read, `notices` what must be known."""

    config: ChainConfig
    registry: RegistryConfig
    workers: list[Worker]
    tokens: dict[str, SealTokenRecord]
    now_ms: int
    from_master: dict[str, dict[str, Any]] = field(default_factory=dict)
    master_well: bool = False
    from_cluster: dict[str, dict[str, Any]] | None = None
    problems: list[str] = field(default_factory=list)
    notices: list[str] = field(default_factory=list)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The command's options."""
    add_chain_arguments(parser)
    parser.add_argument("--kubeconfig", type=Path, help="also ask the cluster itself with this kubeconfig")
    parser.add_argument("--kubectl", default="kubectl", help="command to ask it with (default: %(default)s)")
    parser.add_argument("--json", action="store_true", help="one JSON object instead of a table")


def run(options: argparse.Namespace) -> int:
    """Print the status; 0 when every source could be read, 1 when one was missing, 10 without the chain."""
    try:
        config = chain_of(options)
        report = asyncio.run(gather(config, options.kubectl, options.kubeconfig))
    except InvalidConfig as error:
        print(f"k3s-daas status: {error}", file=sys.stderr)
        return CONFIG
    except ChainError as error:
        print(f"k3s-daas status: {error}", file=sys.stderr)
        return CHAIN_UNREADABLE
    if options.json:
        print(json.dumps(as_json(report), indent=2))
    else:
        print_table(report)
    return INCOMPLETE if report.problems else OK


async def gather(config: ChainConfig, kubectl: str = "kubectl", kubeconfig: Path | None = None) -> Report:
    """Ask everybody. Raises ChainError when the chain can't be read; the others only leave a problem."""
    from k3s_daas.chain import SuiClient

    async with await SuiClient.connect(
        list(config.endpoints), config.network, chain_id=config.chain_id
    ) as chain:
        registry = Registry(chain, config.deployment)
        record, workers = await asyncio.gather(registry.config(), registry.workers())
        tokens = await registry.worker_tokens([worker.node_id for worker in workers])
    report = Report(config, record, workers, tokens, time.time_ns() // 1_000_000)
    if not record.require_attestation:
        report.notices.append(
            "SIMULATED: this registry takes a master without attestation; its trusted execution environment "
            "is simulated and proves nothing."
        )
    tasks = [asyncio.to_thread(_ask_master, report, record.master)]
    if kubeconfig is not None:
        tasks.append(asyncio.to_thread(_ask_cluster, report, kubectl, kubeconfig))
    await asyncio.gather(*tasks)
    return report


def _ask_master(report: Report, master: Master | None) -> None:
    if master is None or not master.endpoint:
        report.problems.append("no master is announced on-chain yet: run playbooks/master.yml")
        return
    try:
        ca = join.fetch_cacerts(master.api_server, master.ca_hash)
        answer = _get_workers(master.endpoint, ca)
    except (join.JoinError, httpx.HTTPError, ValueError) as error:
        report.problems.append(f"master {master.endpoint}: {error or type(error).__name__}")
        return
    entries = answer.get("workers")
    for entry in entries if isinstance(entries, list) else []:
        if isinstance(entry, dict) and isinstance(entry.get("node_id"), str):
            report.from_master[entry["node_id"]] = entry
    about = answer.get("master")
    problems = about.get("problems") if isinstance(about, dict) else None
    report.master_well = not problems
    for problem in problems if isinstance(problems, list) else []:
        # The master works, and says itself what it can't do at the moment.
        report.notices.append(f"master: {problem!s:.300}")


def _get_workers(endpoint: str, ca: bytes) -> dict[str, Any]:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.load_verify_locations(cadata=ca.decode("ascii"))
    raw = b""
    with (
        httpx.Client(verify=context, timeout=10, trust_env=False) as client,
        client.stream("GET", endpoint.rstrip("/") + WORKERS_PATH) as response,
    ):
        response.raise_for_status()
        for chunk in response.iter_bytes():
            raw += chunk
            if len(raw) > MAX_ANSWER_BYTES:
                raise ValueError(f"more than {MAX_ANSWER_BYTES} bytes came from {WORKERS_PATH}")
    answer = json.loads(raw)
    if not isinstance(answer, dict):
        raise ValueError(f"{WORKERS_PATH} answered without a JSON object")
    return answer


def _ask_cluster(report: Report, kubectl: str, kubeconfig: Path) -> None:
    command = [*shlex.split(kubectl), "--kubeconfig", str(kubeconfig), "get", "nodes", "--output=json"]
    try:
        done = subprocess.run(command, check=False, capture_output=True, text=True, timeout=20)
        if done.returncode != 0:
            raise ValueError(done.stderr.strip()[:300])
        nodes = json.loads(done.stdout)["items"]
        report.from_cluster = {node["metadata"]["name"]: _node(node) for node in nodes}
    except (OSError, ValueError, KeyError, TypeError, subprocess.TimeoutExpired) as error:
        report.problems.append(f"cluster ({kubectl}): {error}")
        return
    for node in report.from_cluster.values():
        _note_stand_in(report, node["version"])


def _node(node: dict[str, Any]) -> dict[str, Any]:
    conditions = {c["type"]: c["status"] for c in node.get("status", {}).get("conditions", [])}
    return {
        "ready": conditions.get("Ready") == "True",
        "unschedulable": bool(node.get("spec", {}).get("unschedulable")),
        "version": str(node.get("status", {}).get("nodeInfo", {}).get("kubeletVersion", "")),
    }


def _note_stand_in(report: Report, text: str) -> None:
    notice = "STAND-IN: k3s here is a stand-in for tests; it runs no pods."
    if "stand-in" in text.lower() and notice not in report.notices:
        report.notices.append(notice)


def rows(report: Report) -> list[dict[str, Any]]:
    """One entry per worker on-chain. `node` is ready, not_ready, not_joined (never was), gone, or None."""
    result = []
    for worker in report.workers:
        token = report.tokens.get(worker.node_id)
        seen = report.from_master.get(worker.node_id)
        heartbeat = (seen or {}).get("last_heartbeat_ms")
        node = _node_state(report, worker, seen)
        result.append(
            {
                "node_id": worker.node_id,
                "owner": worker.owner,
                "stake_mist": str(worker.stake_mist),
                "status": worker.status.value,
                "node": node,
                "node_ready": None if node is None else node == "ready",
                "token_generation": token.generation if token else None,
                "token_expires_at_ms": token.expires_at_ms if token else None,
                "token_revoked": token.revoked if token else None,
                "known_to_master": seen is not None,
                "last_heartbeat_ms": heartbeat if isinstance(heartbeat, int) else None,
                "last_heartbeat_age_s": (
                    round(max(0, report.now_ms - heartbeat) / 1000, 1) if isinstance(heartbeat, int) else None
                ),
            }
        )
    return result


def _node_state(report: Report, worker: Worker, seen: dict[str, Any] | None) -> str | None:
    if report.from_cluster is not None:
        node = report.from_cluster.get(worker.node_id)
        ready = None if node is None else node["ready"]
    elif seen is not None and (report.master_well or seen.get("node_ready") is not None):
        ready = seen.get("node_ready")
    else:
        return None
    if ready is None:
        return "not_joined" if worker.status is WorkerStatus.PENDING else "gone"
    return "ready" if ready else "not_ready"


def as_json(report: Report) -> dict[str, Any]:
    """The report for programs. Amounts in MIST as text, times in ms since 1970, ages in seconds."""
    master = report.registry.master
    return {
        "network": report.config.network,
        "registry_id": report.config.registry_id,
        "registry": report.registry.name,
        "staked_mist": str(report.registry.staked_mist),
        "simulated": not report.registry.require_attestation,
        "stand_in": any(notice.startswith("STAND-IN") for notice in report.notices),
        "master": None
        if master is None
        else {
            "epoch": master.epoch,
            "endpoint": master.endpoint,
            "api_server": master.api_server,
            "ca_hash": master.ca_hash.hex(),
        },
        "workers": rows(report),
        "notices": report.notices,
        "problems": report.problems,
    }


def print_table(report: Report) -> None:
    """Print the report for people."""
    terminal = sys.stdout.isatty()
    console = Console(width=None if terminal else WIDTH)
    with console.capture() as capture:
        console.print(_table(report))
        for notice in report.notices:
            console.print(Text(notice, style="bold magenta"))
        for problem in report.problems:
            console.print(Text(f"not read: {problem}", style="red"))
    # Without the blanks that fill up the lines: Ansible shows text that has none as it is, other text quoted.
    print("\n".join(line.rstrip() for line in capture.get().splitlines()))


_STATUS_STYLES = {"active": "green", "busy": "green", "slashed": "red", "jailed": "red"}
_NODES = {
    "ready": Text("Ready", style="green"),
    "not_ready": Text("not Ready", style="red"),
    "not_joined": Text("not joined", style="yellow"),
    "gone": Text("gone", style="red"),
    None: Text("?"),
}


def _table(report: Report) -> Table:
    table = Table(
        title=Text(f"K3s-DaaS · {report.registry.name} · {report.config.network}"),
        title_justify="left",
        box=box.SIMPLE_HEAD,
        show_edge=False,
        padding=(0, 1, 0, 0),
    )
    # The one column whose text may be long (63 characters) goes on in a second line.
    table.add_column("node id", overflow="fold", min_width=8)
    for name in ("owner", "stake", "on-chain", "node", "token", "token expires", "heartbeat"):
        table.add_column(name, no_wrap=True)
    for row in rows(report):
        # Text, not markup: names come from a chain where anybody may write.
        table.add_row(
            Text(row["node_id"]),
            Text(short(row["owner"])),
            format_sui(int(row["stake_mist"])),
            Text(row["status"], style=_STATUS_STYLES.get(row["status"], "yellow")),
            _NODES[row["node"]],
            _token(row),
            _date(row["token_expires_at_ms"], report.now_ms),
            _heartbeat(row),
        )
    return table


def _token(row: dict[str, Any]) -> str:
    if row["token_generation"] is None:
        return "-"
    return f"gen {row['token_generation']}" + (" revoked" if row["token_revoked"] else "")


def _heartbeat(row: dict[str, Any]) -> str:
    if row["last_heartbeat_age_s"] is not None:
        return f"{row['last_heartbeat_age_s']:.0f} s ago"
    return "never" if row["known_to_master"] else "?"


def short(address: str) -> str:
    """0x1234…abcd: enough to tell owners apart in a table."""
    return address if len(address) <= 14 else f"{address[:6]}…{address[-4:]}"


def _date(ms: int | None, now_ms: int) -> str:
    """The day, and within two days of it the time."""
    if ms is None:
        return "-"
    shape = "%m-%d %H:%MZ" if abs(ms - now_ms) < 2 * 86_400_000 else "%Y-%m-%d"
    try:
        return dt.datetime.fromtimestamp(ms / 1000, dt.UTC).strftime(shape)
    except (OverflowError, ValueError, OSError):
        return f"{ms} ms"
