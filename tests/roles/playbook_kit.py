"""ansible-playbook as an operator runs it, from the project and with an empty home directory."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import yaml

PROJECT = Path(__file__).parents[2]


def ansible_playbook(
    folder: Path,
    playbook: str | list[dict[str, Any]],
    inventory: dict[str, Any],
    *options: str,
    timeout_s: float = 120,
    **variables: Any,
) -> tuple[int, str]:
    """(exit code, output as one line) of a playbook of ours by its name, or of plays.

    The inventory, the plays and what Ansible itself leaves are put into `folder`; `variables` are extra vars.
    """
    path = PROJECT / "playbooks" / f"{playbook}.yml"
    if not isinstance(playbook, str):
        path = folder / "play.yml"
        path.write_text(yaml.safe_dump(playbook, sort_keys=False))
    hosts = folder / "inventory.yml"
    hosts.write_text(yaml.safe_dump(inventory, allow_unicode=True, sort_keys=False))
    command = [Path(sys.executable).parent / "ansible-playbook", path, "-i", hosts, *options]
    done = subprocess.run(
        [*command, f"--extra-vars={json.dumps(variables)}"],
        cwd=PROJECT,
        env=os.environ | {"ANSIBLE_NOCOLOR": "1", "HOME": str(folder), "LC_ALL": "C.UTF-8"},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=timeout_s,
        check=False,
    )
    return done.returncode, " ".join((done.stdout + done.stderr).split())


def failures(said: str) -> dict[str, str]:
    """{host: why} of the hosts that failed, out of what `ansible_playbook` returned."""
    parts = re.split(r"fatal: \[([\w.-]+)\]: ", said)[1:]
    ends = re.compile(r" (?:TASK \[|PLAY|(?:ok|changed|skipping): \[|included: /)")
    return {host: ends.split(why)[0] for host, why in zip(parts[::2], parts[1::2], strict=True)}
