"""`k3s-daas doctor`: options, output, exit code."""

from __future__ import annotations

import argparse
import json
import socket
import sys
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

from k3s_daas import logs
from k3s_daas.doctor.checks import examine
from k3s_daas.doctor.facts import Facts, Finding
from k3s_daas.doctor.gather import NothingHere, gather
from k3s_daas.doctor.probes import Paths, Probes

WELL, WARNINGS, ERRORS = 0, 1, 2
PAUSE_S = 2.0


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The command's options."""
    parser.add_argument("--config", type=Path, help="watcher.json or master.json (default: what is there)")
    parser.add_argument("--all", action="store_true", help="show what is well, too")
    parser.add_argument("--json", action="store_true", help="one JSON object instead of lines")
    parser.add_argument(
        "--wait",
        type=float,
        default=0,
        metavar="SECONDS",
        help="look again until there is no error, and nothing just coming up, but no longer than this",
    )


def run(
    options: argparse.Namespace,
    probes: Probes | None = None,
    paths: Paths | None = None,
    pause: Callable[[float], None] = time.sleep,
    clock_s: Callable[[], float] = time.monotonic,
) -> int:
    """Print what is found; 0 when all is well, 1 with warnings only, 2 with errors."""
    probes, paths = probes or Probes(), paths or Paths()
    until_s = clock_s() + options.wait
    try:
        while True:
            facts = gather(probes, paths, options.config)
            findings = examine(facts)
            if settled(findings) or clock_s() + PAUSE_S > until_s:
                break
            pause(PAUSE_S)
    except NothingHere as error:
        print(f"k3s-daas doctor: {error}", file=sys.stderr)
        return ERRORS
    # Text off the chain and from errors: no secret is in it, and this makes sure.
    print(
        logs.redact(as_json(facts, findings) if options.json else as_lines(findings, everything=options.all))
    )
    return code(findings)


def settled(findings: list[Finding]) -> bool:
    """Whether it is as well as it gets without anybody's help."""
    return not any(finding.level == "error" or finding.coming for finding in findings)


def code(findings: list[Finding]) -> int:
    levels = {finding.level for finding in findings}
    return ERRORS if "error" in levels else WARNINGS if "warning" in levels else WELL


def as_lines(findings: list[Finding], *, everything: bool) -> str:
    """One line a finding, errors first; the last line counts."""
    order = {"error": 0, "warning": 1, "ok": 2}
    shown = sorted(
        (f for f in findings if everything or f.level != "ok"), key=lambda finding: order[finding.level]
    )
    lines = [line(finding) for finding in shown]
    count = {level: sum(finding.level == level for finding in findings) for level in order}
    lines.append(f"{count['error']} error(s), {count['warning']} warning(s), {count['ok']} well")
    return "\n".join(lines)


def line(finding: Finding) -> str:
    """`error  token  what was found (why that is bad) -> what to do`"""
    text = f"{finding.level:<8} {finding.check:<11} {finding.found}"
    if finding.cause:
        text += f" ({finding.cause})"
    if finding.fix:
        text += f" -> {finding.fix}"
    return "".join(c if c.isprintable() else "?" for c in text)


def as_json(facts: Facts, findings: list[Finding]) -> str:
    """For programs: the findings, worst level, and what was looked at."""
    return json.dumps(
        {
            "host": socket.gethostname(),
            "role": facts.role,
            "node_id": facts.node_id,
            "release": None if facts.release is None else facts.release.model_dump(),
            "code": code(findings),
            "settled": settled(findings),
            "findings": [asdict(finding) for finding in findings],
        }
    )
