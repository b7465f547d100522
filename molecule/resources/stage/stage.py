"""Making a stage and taking it away."""

from __future__ import annotations

import ipaddress
import json
import re
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from stage import k3s, localnet, nitro
from stage.errors import StageError
from testhosts import cgroups, fleet, registry
from testhosts.names import Fleet

PROJECT = Path(__file__).resolve().parents[3]
STATE = PROJECT / ".state"
DEFAULT_SUBNET = "10.123.1.0/24"
STANDBY_PLACE, MONITOR_PLACE = 9, 10  # in the subnet
MASTER_PLACE = 11  # the workers come after it
MAX_WORKERS = 16

__all__ = ["Stage", "StageError"]


def say(line: str) -> None:
    print(f"== {line}", file=sys.stderr, flush=True)


def _pairs(hosts: Mapping[str, str]) -> list[str]:
    return [f"{name}={address}" for name, address in hosts.items()]


class Stage:
    """One stage: its name decides its fleet, its folder below .state and its cgroups."""

    def __init__(
        self,
        name: str,
        subnet: ipaddress.IPv4Network | None = None,
        workers: int = 2,
        enclave: bool = False,
        monitor: bool = False,
        standby: bool = False,
    ) -> None:
        """`enclave`: the master is none of the test hosts; `start_enclave` starts it from an image.

        `monitor`: there is one more host, for Prometheus. `standby`: there is another for a master, with a
        folder that all hosts share and an emulator for each of the two.
        """
        if not 0 <= workers <= MAX_WORKERS:
            raise StageError(f"found {workers} workers, wanted 0 to {MAX_WORKERS}")
        self.name = name
        self.hosts = ["master", *(f"worker-{number}" for number in range(1, workers + 1))]
        self.enclave = enclave
        self.standby = standby
        if standby:
            self.hosts.append("standby")
        if monitor:
            self.hosts.append("monitor")
        # What there is decides how it is taken down, whatever range is wanted now.
        running = registry.entry(name)
        self.running_subnet = ipaddress.IPv4Network(running.subnet) if running else None
        self.subnet = subnet or self.running_subnet or ipaddress.IPv4Network(DEFAULT_SUBNET)
        self.fleet = Fleet.parse(name, str(self.subnet))
        self.folder = STATE / name
        self.description = self.folder / "stage.json"
        # Beside the fleet's, not below it: a sweep of the fleet leaves the chain alone.
        self.chain_cgroup = f"testhosts/{name}-localnet"

    @property
    def made(self) -> list[str]:
        """The test hosts among the hosts."""
        return [name for name in self.hosts if name != "master" or not self.enclave]

    @property
    def emulates(self) -> bool:
        """Whether a master attests itself here."""
        return self.enclave or self.standby

    @property
    def addresses(self) -> dict[str, str]:
        return {name: self.address(name) for name in self.hosts}

    def address(self, name: str) -> str:
        """Where a host of that name is, whichever others there are. Raises StageError."""
        number = re.fullmatch(r"worker-([1-9][0-9]?)", name)
        if number is not None and int(number[1]) <= MAX_WORKERS:
            place = MASTER_PLACE + int(number[1])
        elif name in (places := {"master": MASTER_PLACE, "monitor": MONITOR_PLACE, "standby": STANDBY_PLACE}):
            place = places[name]
        else:
            raise StageError(f"found the host name {name}, wanted worker-1 to worker-{MAX_WORKERS}")
        return str(self.subnet.network_address + place)

    def up(self) -> None:
        binary = k3s.choose(STATE / "k3s")
        say(f"k3s: {binary.says}")
        added = self.added()
        if self.is_whole(binary):
            self.hosts += added
        else:
            added = []
            # A host that is made anew has lost its seal token, and a chain that is made anew knows no worker:
            # only all of it together makes sense.
            self.down()
        say(f"hosts: {', '.join(f'{name} {address}' for name, address in self.addresses.items())}")
        hosts = {name: address for name, address in self.addresses.items() if name in self.made}
        if self.standby:
            (self.folder / "shared").mkdir(parents=True, exist_ok=True)
        self.testhosts(self.subnet, "up", *_pairs(hosts), options=["--kubernetes"] if binary.real else [])
        net = self.start_chain()
        say(f"localnet: {net.rpc}, chain {net.chain_id}")
        wallet = self.folder / "operator.key"
        address = localnet.wallet(wallet, net)
        say(f"wallet: {address}")
        old = k3s.older(binary, self.folder)
        description = {
            "name": self.name,
            "subnet": str(self.subnet),
            "hosts": self.addresses,
            "added": added,
            "enclave": self.enclave,
            "ssh_config": str(self.folder / "ssh_config"),
            "rpc": net.rpc,
            "faucet": net.faucet,
            "chain_id": net.chain_id,
            "wallet": str(wallet),
            "operator": address,
            "k3s_binary": str(binary.path),
            "k3s_version": k3s.version(binary),
            **({"nitro_root": str(nitro.root_certificate(self.folder))} if self.emulates else {}),
            **({"k3s_old": {"path": str(old.path), "version": k3s.version(old)}} if old else {}),
            "k3s": binary.says,
        }
        self.describe(description)

    def add(self, names: Sequence[str]) -> list[str]:
        """Make hosts of more workers, and return those that weren't there. Raises StageError."""
        description = self.described()
        new = {name: self.address(name) for name in names if name not in description["hosts"]}
        if new:
            self.testhosts(self.subnet, "up", *_pairs(new), options=self.kind())
            hosts = description["hosts"] | new
            self.describe(description | {"hosts": hosts, "added": [*description["added"], *new]})
        return list(new)

    def remove(self, names: Sequence[str]) -> list[str]:
        """Take hosts that were added away with all they have, and return those that were there."""
        description = self.described()
        old = [name for name in names if name in description["added"]]
        if old:
            for name in old:
                cgroups.destroy(self.fleet.host(name, description["hosts"][name]).cgroup)
            hosts = {name: at for name, at in description["hosts"].items() if name not in old}
            # What is dead is swept away with its files.
            self.testhosts(self.subnet, "up", *_pairs(hosts), options=self.kind())
            added = [name for name in description["added"] if name not in old]
            self.describe(description | {"hosts": hosts, "added": added})
        return old

    def added(self) -> list[str]:
        """Hosts that `add` made."""
        return list(self.described()["added"]) if self.description.exists() else []

    def kind(self) -> list[str]:
        """Options of the hosts that run."""
        running = registry.entry(self.name)
        return ["--kubernetes"] if running is not None and running.kubernetes else []

    def described(self) -> dict[str, Any]:
        """The description of a stage that is up. Raises StageError."""
        if not self.description.exists():
            raise StageError(f"found no stage {self.name} ({self.description}), wanted one; run `up` first")
        found: dict[str, Any] = json.loads(self.description.read_text())
        return found

    def describe(self, description: Mapping[str, Any]) -> None:
        temporary = self.description.with_suffix(".new")
        temporary.write_text(json.dumps(description, indent=2) + "\n")
        temporary.replace(self.description)

    def is_whole(self, binary: k3s.Binary) -> bool:
        """Whether every host runs as wanted and the chain's state is there (the chain itself may be dead)."""
        running = registry.entry(self.name)
        if not self.description.exists() or running is None:
            return False
        if (running.subnet, running.kubernetes) != (str(self.subnet), binary.real):
            return False
        well = fleet.well_hosts(self.fleet, fleet.FleetPaths(self.folder))
        found = {host.name for host in well if host.name != "master" or not self.enclave}
        wanted = {*self.made, *self.added()}
        return found == wanted and localnet.has_state(self.folder / "localnet")

    def down(self) -> None:
        say(f"taking the stage {self.name} down")
        cgroups.destroy(self.chain_cgroup)
        self.testhosts(self.running_subnet or self.subnet, "down")
        shutil.rmtree(self.folder, ignore_errors=True)

    def start_chain(self) -> localnet.Net:
        """Start the chain on what is there of it, or find it running."""
        root = nitro.root_certificate(self.folder) if self.emulates else None
        address = str(self.subnet.network_address + 1)
        return localnet.start(self.folder / "localnet", address, self.chain_cgroup, root)

    def start_enclave(self, image: Path, cluster: dict[str, Any]) -> dict[str, Any]:
        """Start the master from an image; returns what the emulator says. It may run already."""
        return nitro.up(self.fleet, self.folder, self.addresses["master"], image, cluster)

    def emulate(self, host: str, pcr0: str) -> dict[str, Any]:
        """Have that host's emulator measure another image; returns what it says. Raises StageError."""
        self.described()
        return nitro.emulate(self.fleet, self.folder, host, pcr0)

    def stop_chain(self) -> None:
        """End the chain's process; what it has written stays."""
        cgroups.destroy(self.chain_cgroup)

    def logs(self) -> None:
        """Keep the hosts' journals and the chain's log in .state/logs/NAME."""
        if not self.description.exists():
            return
        bundle = STATE / "logs" / self.name
        shutil.rmtree(bundle, ignore_errors=True)
        bundle.mkdir(parents=True)
        self.testhosts(self.running_subnet or self.subnet, "logs", str(bundle))
        shutil.copy(self.folder / "localnet.log", bundle)
        say(f"logs: {bundle}")

    def testhosts(
        self, subnet: ipaddress.IPv4Network, command: str, *arguments: str, options: Sequence[str] = ()
    ) -> None:
        program = [
            sys.executable, str(PROJECT / "molecule/resources/testhosts"),
            "--fleet", self.name, "--subnet", str(subnet), "--state-dir", str(self.folder),
            "--image-dir", str(STATE / "image"), *options,
        ]  # fmt: skip
        if subprocess.run([*program, command, *arguments]).returncode:
            raise StageError(f"the test hosts' `{command}` failed; what it said stands above")
