"""The playbooks that are run: workers.yml for those that come, exit.yml for those that go."""

from __future__ import annotations

import json
import logging
import re
import subprocess
import tempfile
from pathlib import Path
from typing import Any, Protocol

from .config import Config

LOG = logging.getLogger(__name__)

_INSTANCE = re.compile(r"i-[0-9a-f]{8,17}")


class PlayFailed(Exception):
    """A playbook ended with an error; what it said is in the journal."""


class Plays(Protocol):
    """What the pass runs."""

    def join(self, node_ids: list[str]) -> None: ...

    def leave(self, node_id: str) -> int: ...


class AnsiblePlays:
    """:class:`Plays` by `ansible-playbook`, whose output goes where this process's goes."""

    def __init__(self, config: Config) -> None:
        self._config = config

    def join(self, node_ids: list[str]) -> None:
        """Stakes for all workers of the inventory that have no stake, has them join, and waits for these.

        Raises:
            PlayFailed: not all of these are active
        """
        self._run("workers.yml", [self._config.inventory], {"master_wanted_workers": node_ids})

    def leave(self, node_id: str) -> int:
        """Drains a worker and begins to take its stake out, or takes it out when its window is over.

        Returns:
            When the stake can be withdrawn, in ms since 1970; 0 when it was.

        Raises:
            PlayFailed: this has to be tried again
        """
        if not _INSTANCE.fullmatch(node_id):
            raise PlayFailed(f"Found {node_id!r} as an instance's id; wanted one as i-0123456789abcdef0.")
        with tempfile.TemporaryDirectory(prefix="k3s-daas-leaving-") as folder:
            # Once its instance is gone the inventory doesn't know it. Its address may be another's by then,
            # so here it has a name that nobody has; one that is there has its address from EC2.
            inventory, report = Path(folder, "leaving.json"), Path(folder, "report.json")
            host = {node_id: {"ansible_host": f"{node_id}.invalid"}}
            inventory.write_text(json.dumps({"k3s_daas_workers": {"hosts": host}}))
            given = {"node_id": node_id, "confirm": node_id, "exit_report": str(report)}
            self._run("exit.yml", [inventory, self._config.inventory], given)
            try:
                return int(json.loads(report.read_text())["withdrawable_at_ms"])
            except (OSError, ValueError, KeyError, TypeError) as error:
                raise PlayFailed(f"exit.yml left no report about {node_id}: {error!r}") from None

    def _run(self, playbook: str, inventories: list[Path], variables: dict[str, Any]) -> None:
        command = [str(self._config.ansible_playbook), f"playbooks/{playbook}"]
        for inventory in inventories:
            command += ["-i", str(inventory)]
        # Nobody is here to say yes: who turned autoscaling on did.
        command += ["-e", json.dumps({**variables, "contracts_confirm": False})]
        LOG.info("running %s", " ".join(command))
        try:
            done = subprocess.run(command, cwd=self._config.project, stdin=subprocess.DEVNULL, check=False)
        except OSError as error:
            raise PlayFailed(f"{command[0]} can't be run: {error.strerror}") from None
        if done.returncode != 0:
            raise PlayFailed(f"{playbook} ended with {done.returncode}")
