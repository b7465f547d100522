"""`k3s-daas demand`: how many pods run, and how many found no room on any node; on the master's host."""

from __future__ import annotations

import argparse
import dataclasses
import json
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

OK, NOT_READ = 0, 1
_PAGE = 500
_TIMEOUT_S = 60
#: What another worker would help against, in the scheduler's words. Not a taint, a selector, or a resource
#: that no worker has, which anybody could ask for.
_NO_ROOM = re.compile(
    r"Insufficient (cpu|memory|ephemeral-storage)(?=,|\.?(\s|$))|Too many pods|no nodes available"
)


@dataclass(frozen=True)
class Pods:
    """Pods of the whole cluster. `unplaced`: the scheduler found no room for them."""

    running: int
    unplaced: int


class DemandError(Exception):
    """The cluster wasn't read; the text says why."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The command's options."""
    parser.add_argument("--kubectl", default="kubectl", help="command to ask with (default: %(default)s)")


def run(options: argparse.Namespace) -> int:
    """Print {"running", "unplaced"}; 1 when the cluster couldn't be read."""
    try:
        pods = Pods(
            running=sum(1 for _ in _pods(options.kubectl, "Running")),
            unplaced=sum(map(unplaced, _pods(options.kubectl, "Pending"))),
        )
    except DemandError as error:
        print(f"k3s-daas demand: {error}", file=sys.stderr)
        return NOT_READ
    print(json.dumps(dataclasses.asdict(pods)))
    return OK


def unplaced(pod: Any) -> bool:
    """Whether the scheduler found no room for a pending pod, as the API server has it."""
    return any(
        condition.get("type") == "PodScheduled"
        and condition.get("reason") == "Unschedulable"
        and _NO_ROOM.search(condition.get("message", "")) is not None
        for condition in pod.get("status", {}).get("conditions", ())
    )


def _pods(kubectl: str, phase: str) -> Iterator[Any]:
    path, following = f"/api/v1/pods?fieldSelector=status.phase%3D{phase}&limit={_PAGE}", ""
    while True:
        page = _get(kubectl, path + (f"&continue={quote(following)}" if following else ""))
        yield from page["items"]
        following = page.get("metadata", {}).get("continue", "")
        if not following:
            return


def _get(kubectl: str, path: str) -> Any:
    command = [*shlex.split(kubectl), "get", f"--raw={path}"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=_TIMEOUT_S, check=False)
        if done.returncode != 0:
            raise DemandError(
                f"`{kubectl}` said: {done.stderr.strip()[:300] or f'exit code {done.returncode}'}"
            )
        page = json.loads(done.stdout)
        if not isinstance(page["items"], list):
            raise TypeError
    except (OSError, subprocess.TimeoutExpired) as error:
        raise DemandError(f"`{kubectl}` can't be run: {error}") from None
    except (ValueError, KeyError, TypeError):
        raise DemandError(f"`{kubectl}` answered with no list of pods") from None
    return page
