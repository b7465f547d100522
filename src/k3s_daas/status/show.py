"""The report as a table for people and as JSON for programs."""

from __future__ import annotations

import datetime as dt
import sys
from dataclasses import dataclass
from typing import Any, Literal

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from k3s_daas.status.report import Report, WorkerSeen
from k3s_daas.units import format_sui

# Of the table where it doesn't go to a terminal: what a log or Ansible's output shows without wrapping it.
WIDTH = 108

NodeState = Literal["ready", "cordoned", "not_ready", "not_joined", "gone"]


@dataclass(frozen=True)
class Row:
    """One worker. `node` is not_joined when it never was there, None when nobody knows."""

    node_id: str
    owner: str
    stake_mist: int
    status: str
    reputation: int
    node: NodeState | None
    token_generation: int | None
    token_expires_at_ms: int | None
    token_revoked: bool | None
    known_to_master: bool
    last_heartbeat_ms: int | None


def rows(report: Report) -> list[Row]:
    """One entry per worker: as the chain has it, or as the master last had it where the chain is silent."""
    if report.chain is None:
        return [_of_master(report, one) for one in (report.master.workers if report.master else ())]
    found = []
    for worker in report.chain.workers:
        token = report.chain.tokens.get(worker.node_id)
        seen = report.seen(worker.node_id)
        found.append(
            Row(
                worker.node_id,
                worker.owner,
                worker.stake_mist,
                worker.status.value,
                worker.reputation,
                _node_state(report, worker.node_id, worker.status.value, seen),
                token.generation if token else None,
                token.expires_at_ms if token else None,
                token.revoked if token else None,
                seen is not None,
                seen.last_heartbeat_ms if seen else None,
            )
        )
    return found


def _of_master(report: Report, seen: WorkerSeen) -> Row:
    return Row(
        seen.node_id,
        seen.owner,
        seen.stake_mist,
        seen.status,
        seen.reputation,
        _node_state(report, seen.node_id, seen.status, seen),
        seen.generation,
        seen.expires_at_ms,
        seen.revoked,
        True,
        seen.last_heartbeat_ms,
    )


def _node_state(report: Report, node_id: str, status: str, seen: WorkerSeen | None) -> NodeState | None:
    ready: bool | None
    if report.nodes is not None:
        node = report.nodes.get(node_id)
        ready, cordoned = (None, False) if node is None else (node.ready, node.unschedulable)
    elif seen is not None and (
        seen.node_ready is not None or (report.master and not report.master.master.problems)
    ):
        # A master that can't see the cluster calls no node gone.
        ready, cordoned = seen.node_ready, bool(seen.cordoned)
    else:
        return None
    if ready is None:
        return "not_joined" if status == "pending" else "gone"
    return "not_ready" if not ready else "cordoned" if cordoned else "ready"


def _heartbeat_age_s(report: Report, row: Row) -> float | None:
    if row.last_heartbeat_ms is None:
        return None
    return round(max(0, report.now_ms - row.last_heartbeat_ms) / 1000, 1)


def as_json(report: Report) -> dict[str, Any]:
    """The report for programs. Amounts in MIST as text, times in ms since 1970, ages in seconds."""
    chain, said = report.chain, report.master
    record = chain.config.master if chain else None
    return {
        "network": report.config.network,
        "registry_id": report.config.registry_id,
        "registry": chain.config.name if chain else None,
        "staked_mist": str(chain.config.staked_mist) if chain else None,
        "simulated": _simulated(report),
        "stand_in": any(notice.startswith("STAND-IN") for notice in report.notices),
        "chain": None
        if chain is None
        else {"checkpoint": chain.checkpoint, "age_s": round(chain.age_ms / 1000, 1)},
        "master": None
        if record is None and said is None
        else {
            "epoch": record.epoch if record else None,
            "endpoint": report.endpoint,
            "api_server": record.api_server if record else None,
            "ca_hash": record.ca_hash.hex() if record else None,
            "health": said.health.state if said else None,
            "attested": said.tee.attested if said else None,
            "image_pcr0": record.pcr0.hex() if record else None,
            "config_hash": record.binding.config_hash.hex() if record else None,
            "gas_mist": None if (gas := _gas_mist(report)) is None else str(gas),
            "gas_low": said.gas.low if said else None,
            "findings": said.slashing.findings if said else None,
            "slashing": said.slashing.mode if said else None,
        },
        "alarms": [one.model_dump() for one in said.alerts] if said else None,
        "release": None if report.release is None else report.release.model_dump(),
        "nodes": None
        if report.nodes is None
        else {name: vars(node) for name, node in sorted(report.nodes.items())},
        "workers": [
            vars(row)
            | {
                "stake_mist": str(row.stake_mist),
                "node_ready": None if row.node is None else row.node in ("ready", "cordoned"),
                "last_heartbeat_age_s": _heartbeat_age_s(report, row),
            }
            for row in rows(report)
        ],
        "notices": report.notices,
        "problems": report.problems,
    }


def _simulated(report: Report) -> bool | None:
    if report.master is not None:
        return not report.master.tee.attested
    return not report.chain.config.require_attestation if report.chain else None


def _gas_mist(report: Report) -> int | None:
    if report.chain is not None:
        return report.chain.gas_mist
    return report.master.gas.balance_mist if report.master else None


def print_table(report: Report) -> None:
    """Print the report for people."""
    terminal = sys.stdout.isatty()
    console = Console(width=None if terminal else WIDTH)
    with console.capture() as capture:
        console.print(_summary(report))
        console.print()
        console.print(_table(report))
        for notice in report.notices:
            console.print(Text(notice, style="bold magenta"))
        for problem in report.problems:
            console.print(Text(f"not read: {_plain(problem)}", style="red"))
    # Without the blanks that fill up the lines: Ansible shows text that has none as it is, other text quoted.
    print("\n".join(line.rstrip() for line in capture.get().splitlines()))


def _summary(report: Report) -> Table:
    chain, said = report.chain, report.master
    name = f"{chain.config.name} · " if chain else ""
    table = Table(
        title=Text(f"K3s-DaaS · {name}{report.config.network}"),
        title_justify="left",
        box=None,
        show_header=False,
        padding=(0, 2, 0, 0),
    )
    table.add_column(no_wrap=True)
    table.add_column(overflow="fold")
    if chain is not None:
        table.add_row("chain", f"checkpoint {chain.checkpoint}, {chain.age_ms / 1000:.0f} s old")
    else:
        seen = said.chain if said else None
        last = (
            f"; the master saw checkpoint {seen.checkpoint}, {seen.age_ms / 1000:.0f} s ago"
            if seen and seen.age_ms is not None
            else ""
        )
        table.add_row("chain", Text(f"no answer{last}", style="red"))
    table.add_row("master", _master(report))
    record = chain.config.master if chain else None
    if record is not None and record.attestation_expires_at_ms:
        hashes = record.pcr0.hex()[:16], record.binding.config_hash.hex()[:16]
        table.add_row("attested", "image (PCR0) {}…, configuration {}…".format(*hashes))
    if (gas := _gas_mist(report)) is not None:
        low = said is not None and said.gas.low
        table.add_row("gas", Text(format_sui(gas) + (", low" if low else ""), style="red" if low else ""))
    table.add_row("nodes", _nodes(report))
    if report.release is not None:
        table.add_row("release", _plain(report.release.shown))
    if said is not None:
        slashing = said.slashing
        held = f", held back: {_plain(slashing.held_back)}" if slashing.held_back else ""
        table.add_row("findings", f"{slashing.findings} ({slashing.mode}{held})")
        for place, alert in enumerate(said.alerts):
            style = {"critical": "red", "warning": "yellow"}.get(alert.severity, "")
            text = f"{alert.severity}: {alert.what}: {alert.text}"
            table.add_row("" if place else "alarms", Text(_plain(text), style=style))
        if not said.alerts:
            table.add_row("alarms", "none")
    return table


def _master(report: Report) -> Text:
    said, record = report.master, report.chain.config.master if report.chain else None
    if said is None:
        if record is None or not record.endpoint:
            return Text("unknown" if report.chain is None else "none announced", style="red")
        return Text(f"{_plain(record.endpoint)}, no answer", style="red")
    tee = "attested" if said.tee.attested else "SIMULATED" if said.tee.mode == "simulated" else "not attested"
    style = {"healthy": "green", "degraded": "yellow"}.get(said.health.state, "red")
    text = f"{report.endpoint}, {tee}, {said.health.state}: {said.health.summary}"
    return Text(_plain(text), style=style)


def _nodes(report: Report) -> Text:
    if report.nodes is not None:
        ready = sum(node.ready for node in report.nodes.values())
        versions = ", ".join(sorted({node.version for node in report.nodes.values()}))
        return Text(_plain(f"{ready} of {len(report.nodes)} Ready{', ' if versions else ''}{versions}"))
    known = [row.node for row in rows(report) if row.node not in (None, "not_joined", "gone")]
    return Text(f"{sum(node != 'not_ready' for node in known)} of {len(known)} Ready" if known else "?")


_STATUS_STYLES = {"active": "green", "busy": "green", "slashed": "red", "jailed": "red"}
_NODES = {
    "ready": Text("Ready", style="green"),
    "cordoned": Text("cordoned", style="yellow"),
    "not_ready": Text("not Ready", style="red"),
    "not_joined": Text("not joined", style="yellow"),
    "gone": Text("gone", style="red"),
    None: Text("?"),
}


def _table(report: Report) -> Table:
    table = Table(box=box.SIMPLE_HEAD, show_edge=False, padding=(0, 1, 0, 0))
    # The one column whose text may be long (63 characters) goes on in a second line.
    table.add_column("node id", overflow="fold", min_width=8)
    for name in ("owner", "stake", "on-chain", "rep.", "node", "token", "token expires", "heartbeat"):
        table.add_column(name, no_wrap=True)
    for row in rows(report):
        # Text, not markup: names come from a chain where anybody may write.
        table.add_row(
            Text(row.node_id),
            Text(short(row.owner)),
            format_sui(row.stake_mist),
            Text(row.status, style=_STATUS_STYLES.get(row.status, "yellow")),
            str(row.reputation),
            _NODES[row.node],
            _token(row),
            _date(row.token_expires_at_ms, report.now_ms),
            _heartbeat(report, row),
        )
    return table


def _token(row: Row) -> str:
    if row.token_generation is None:
        return "-"
    return f"gen {row.token_generation}" + (" revoked" if row.token_revoked else "")


def _heartbeat(report: Report, row: Row) -> str:
    age_s = _heartbeat_age_s(report, row)
    if age_s is not None:
        return f"{age_s:.0f} s ago"
    return "never" if row.known_to_master else "?"


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


def _plain(text: str) -> str:
    """For a terminal: no control characters, no novel."""
    return "".join(c if c.isprintable() else "?" for c in text)[:300]
