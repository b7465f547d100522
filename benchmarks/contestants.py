"""The two installers that benchmarks/cluster.py compares: what each is told of the hosts, and its command.

Both get the same hosts, binary, k3s options, forks, ansible-core and Python on the hosts; pipelining is as
each one's own ansible.cfg has it. Nothing of either is changed.
"""

from __future__ import annotations

import json
import os
import re
import secrets
import shutil
import subprocess
import sys
import urllib.error
import urllib.request
from abc import ABC, abstractmethod
from pathlib import Path
from typing import Any

PROJECT = Path(__file__).resolve().parents[1]
FORKS = 20
STAND_IN_SCRIPT = PROJECT / "molecule/resources/standin/k3s-install.sh"
# As the roles k3s_server and k3s_agent configure them: a server without an agent, none of k3s' extras.
SERVER_OPTIONS = (
    "--disable-agent --egress-selector-mode=cluster --disable=traefik,servicelb,metrics-server,local-storage"
)
AGENT_OPTIONS = "--kubelet-arg=fail-swap-on=false"

Stage = dict[str, Any]  # content of .state/NAME/stage.json


class Contestant(ABC):
    """One installer; `folder` is its own, for inventory and connections."""

    name: str

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)

    @property
    @abstractmethod
    def directory(self) -> Path:
        """Where the command is run: its ansible.cfg is there."""

    @abstractmethod
    def command(self, stage: Stage, workers: int) -> list[str]:
        """The command for the master and the first `workers` workers, inventory written."""

    def environment(self, stage: Stage) -> dict[str, str]:
        """Connections are each contestant's own: none finds the other's still open."""
        return os.environ | {
            "ANSIBLE_FORKS": str(FORKS),
            "ANSIBLE_NOCOLOR": "1",
            "ANSIBLE_SSH_CONTROL_PATH_DIR": str(self.folder / "ssh"),
        }


class Ours(Contestant):
    name = "ours"
    directory = PROJECT

    def command(self, stage: Stage, workers: int) -> list[str]:
        hosts = hosts_of(stage, workers)
        groups = {
            "k3s_daas_master": {"hosts": {"master": hosts.pop("master")}},
            "k3s_daas_workers": {"hosts": hosts},
        }
        inventory = self.folder / "hosts.json"
        inventory.write_text(json.dumps(groups))
        variables = self.folder / "group_vars"
        if not variables.exists():
            variables.symlink_to(PROJECT / "inventories/local/group_vars")
        return [program(Path(sys.executable).parent), f"--inventory={inventory}", "site.yml"]

    def environment(self, stage: Stage) -> dict[str, str]:
        return super().environment(stage) | {"K3S_DAAS_STAGE": stage["name"]}

    def prepare(self) -> None:
        """Build the wheelhouse: once for a control node and a version, as a download is."""
        options = {
            "project": str(PROJECT),
            "requirements": str(PROJECT / "requirements/hosts.txt"),
            "cache_dir": str(PROJECT / ".state/wheelhouse"),
            "python_version": "3.11",  # of the test hosts
            "architecture": os.uname().machine,
        }
        run = ["localhost", "--module-name=k3s_daas_wheelhouse", f"--args={json.dumps(options)}"]
        ansible = Path(sys.executable).parent / "ansible"
        subprocess.run([ansible, *run], cwd=PROJECT, check=True, stdout=subprocess.DEVNULL)


class K3sAnsible(Contestant):
    """k3s-io/k3s-ansible from a checkout, in its airgap way: the binary comes from the control node."""

    name = "k3s-ansible"

    def __init__(self, folder: Path, checkout: Path, environment: Path, binary: Path, script: Path) -> None:
        super().__init__(folder)
        self.checkout, self.venv = checkout, environment
        self.version = version_of(binary)
        self.airgap = folder / "airgap"
        self.airgap.mkdir()
        shutil.copy(binary, self.airgap / "k3s")
        shutil.copy(script, self.airgap / "k3s-install.sh")
        # Where it finds a kubectl, it merges the cluster into ~/.kube/config. Nobody's is to be changed here,
        # and ours has a playbook of its own for that: it finds none, and saves the time.
        self.home = folder / "home"
        hidden = self.home / "bin/kubectl"
        hidden.parent.mkdir(parents=True)
        hidden.write_text("#!/bin/sh\nexit 127\n")
        hidden.chmod(0o755)

    @property
    def directory(self) -> Path:
        return self.checkout

    def command(self, stage: Stage, workers: int) -> list[str]:
        hosts = hosts_of(stage, workers)
        address = hosts["master"]["ansible_host"]
        server = {"hosts": {"master": hosts.pop("master")}}
        variables = {
            "ansible_user": "root",
            "ansible_ssh_common_args": f"-F {stage['ssh_config']}",
            "ansible_python_interpreter": "/usr/bin/python3",
            "airgap_dir": str(self.airgap),
            "k3s_version": self.version,
            "token": self.token(stage),
            "api_endpoint": address,
            "extra_server_args": SERVER_OPTIONS,
            "extra_agent_args": AGENT_OPTIONS,
        }
        groups = {"server": server, "agent": {"hosts": hosts}}
        inventory = self.folder / "inventory.json"
        inventory.write_text(json.dumps({"k3s_cluster": {"children": groups, "vars": variables}}))
        return [program(self.venv / "bin"), f"--inventory={inventory}", "playbooks/site.yml"]

    def token(self, stage: Stage) -> str:
        """The cluster's token: one for a stage, whatever is run on it."""
        path = self.folder / f"token-{stage['chain_id']}"
        if not path.exists():
            path.touch(mode=0o600)
            path.write_text(secrets.token_hex(32))
        return path.read_text()

    def environment(self, stage: Stage) -> dict[str, str]:
        """With a home of its own, and without PYTHONPATH, which is for our packages."""
        inherited = super().environment(stage)
        inherited.pop("PYTHONPATH", None)
        return inherited | {"HOME": str(self.home), "PATH": f"{self.home}/bin:{inherited['PATH']}"}


def hosts_of(stage: Stage, workers: int) -> dict[str, dict[str, str]]:
    """Master and the first `workers` workers as an inventory's hosts."""
    names = ["master", *(f"worker-{number}" for number in range(1, workers + 1))]
    return {name: {"ansible_host": stage["hosts"][name]} for name in names}


def program(folder: Path) -> str:
    path = folder / "ansible-playbook"
    if not path.exists():
        raise SystemExit(
            f"found no {path}; wanted a virtual environment with Ansible: `make bench-cluster` makes both"
        )
    return str(path)


def version_of(binary: Path) -> str:
    """The version in `k3s version v1.34.2+k3s1 (…)`."""
    said = subprocess.run([binary, "--version"], check=True, capture_output=True, text=True).stdout
    found = re.match(r"k3s version (\S+)", said)
    if found is None:
        raise SystemExit(f"{binary} --version said {said!r}, wanted `k3s version …`; give the path of a k3s")
    return found[1]


def install_script(given: Path | None, folder: Path) -> tuple[Path, str]:
    """k3s' install.sh, which k3s-ansible runs on each host, and what to say of it.

    The given one, else the published one, else the stand-in's, which does less.
    """
    if given is not None:
        if not given.is_file():
            raise SystemExit(f"found no {given}, wanted k3s' install.sh")
        return given, str(given)
    path = folder / "k3s-install.sh"
    try:
        with urllib.request.urlopen("https://get.k3s.io/", timeout=5) as answer:
            path.write_bytes(answer.read())
    except (urllib.error.URLError, TimeoutError, ConnectionError):
        return (
            STAND_IN_SCRIPT,
            "STAND-IN: https://get.k3s.io can't be reached; --install-script takes a real one",
        )
    return path, "https://get.k3s.io"
