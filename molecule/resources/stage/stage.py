"""Making a stage and taking it away."""

from __future__ import annotations

import ipaddress
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

from stage import k3s, localnet
from stage.errors import StageError
from testhosts import cgroups, fleet
from testhosts.names import Fleet

PROJECT = Path(__file__).resolve().parents[3]
STATE = PROJECT / ".state"
HOSTS = {"master": 11, "worker-1": 12, "worker-2": 13}  # their places in the subnet

__all__ = ["Stage", "StageError"]


def say(line: str) -> None:
    print(f"== {line}", file=sys.stderr, flush=True)


class Stage:
    """One stage: its name decides its fleet, its folder below .state and its cgroups."""

    def __init__(self, name: str, subnet: ipaddress.IPv4Network) -> None:
        self.name = name
        self.subnet = subnet
        self.fleet = Fleet.parse(name, str(subnet))
        self.folder = STATE / name
        self.description = self.folder / "stage.json"
        # Beside the fleet's, not below it: a sweep of the fleet leaves the chain alone.
        self.chain_cgroup = f"testhosts/{name}-localnet"

    @property
    def addresses(self) -> dict[str, str]:
        return {name: str(self.subnet.network_address + place) for name, place in HOSTS.items()}

    def up(self) -> None:
        binary = k3s.choose(STATE / "k3s")
        say(f"k3s: {binary.says}")
        if not self.is_whole():
            # A host that is made anew has lost its seal token, and a chain that is made anew knows no worker:
            # only all of it together makes sense.
            self.down()
        say(f"hosts: {', '.join(f'{name} {address}' for name, address in self.addresses.items())}")
        self.testhosts(
            *(["--kubernetes"] if binary.real else []),
            "up",
            *(f"{name}={address}" for name, address in self.addresses.items()),
        )
        net = localnet.start(
            self.folder / "localnet", str(self.subnet.network_address + 1), self.chain_cgroup
        )
        say(f"localnet: {net.rpc}, chain {net.chain_id}")
        wallet = self.folder / "operator.key"
        address = localnet.wallet(wallet, net)
        say(f"wallet: {address}")
        description = {
            "name": self.name,
            "subnet": str(self.subnet),
            "hosts": self.addresses,
            "ssh_config": str(self.folder / "ssh_config"),
            "rpc": net.rpc,
            "faucet": net.faucet,
            "chain_id": net.chain_id,
            "wallet": str(wallet),
            "operator": address,
            "k3s_binary": str(binary.path),
            "k3s": binary.says,
        }
        temporary = self.description.with_suffix(".new")
        temporary.write_text(json.dumps(description, indent=2) + "\n")
        temporary.replace(self.description)

    def is_whole(self) -> bool:
        """Whether every host runs and the chain's state is there (the chain itself may be started again)."""
        try:
            described = json.loads(self.description.read_text())
        except (OSError, ValueError):
            return False
        return (
            described["subnet"] == str(self.subnet)
            and {host.name for host in fleet.well_hosts(self.fleet, fleet.FleetPaths(self.folder))}
            == set(HOSTS)
            and localnet.has_state(self.folder / "localnet")
        )

    def down(self) -> None:
        say(f"taking the stage {self.name} down")
        cgroups.destroy(self.chain_cgroup)
        self.testhosts("down")
        shutil.rmtree(self.folder, ignore_errors=True)

    def logs(self) -> None:
        """Keep the hosts' journals and the chain's log in .state/logs/NAME."""
        if not self.description.exists():
            return
        bundle = STATE / "logs" / self.name
        shutil.rmtree(bundle, ignore_errors=True)
        bundle.mkdir(parents=True)
        self.testhosts("logs", str(bundle))
        shutil.copy(self.folder / "localnet.log", bundle)
        say(f"logs: {bundle}")

    def testhosts(self, *arguments: str) -> None:
        command = [
            sys.executable, str(PROJECT / "molecule/resources/testhosts"),
            "--fleet", self.name, "--subnet", str(self.subnet), "--state-dir", str(self.folder),
            "--image-dir", str(STATE / "image"), *arguments,
        ]  # fmt: skip
        if subprocess.run(command, env=os.environ).returncode:
            raise StageError(f"the test hosts' `{arguments[0]}` failed; what it said stands above")
