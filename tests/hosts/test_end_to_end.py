"""Two real hosts: made, broken by kill -9, made whole, taken down without a trace."""

import hashlib
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from testhosts import cgroups, image, mounts, network, registry, system
from testhosts.errors import HostsError
from testhosts.names import Fleet

CHECKOUT = Path(__file__).resolve().parents[2]
IMAGES = CHECKOUT / ".state" / "image"


def _cannot_run() -> str:
    try:
        system.check_machine()
    except HostsError as error:
        return str(error)
    return ""


pytestmark = pytest.mark.skipif(bool(_cannot_run()), reason=f"no test hosts here: {_cannot_run()}")


def _fleets(place: int) -> Iterator[Fleet]:
    """The fleet of the test at `place` in this file, with one subnet after the other.

    Its name is the same in each run of a checkout, so that a run sweeps what a killed one left. Neither name
    nor subnet is another test's, because they run at the same time.
    """
    digest = hashlib.sha256(str(CHECKOUT).encode())
    for step in range(12):
        block = 128 + (digest.digest()[0] + step) % 12 * 10
        yield Fleet.parse(f"t{digest.hexdigest()[:4]}{place}", f"10.123.{block + place}.0/24")


def _is_free(fleet: Fleet) -> bool:
    try:
        network.check_free(fleet)
    except HostsError:
        return False
    return True


class Program:
    """The program as its users call it."""

    def __init__(self, fleet: Fleet) -> None:
        self.fleet = fleet
        self.state = CHECKOUT / ".state" / f"hosts-{fleet.name}"
        self.pairs = [f"{name}={fleet.gateway + place}" for name, place in (("a", 10), ("b", 11))]

    def command(self, *arguments: str) -> list[str]:
        paths = ["--state-dir", str(self.state), "--image-dir", str(IMAGES)]
        fleet = ["--fleet", self.fleet.name, "--subnet", str(self.fleet.subnet)]
        return [sys.executable, str(CHECKOUT / "molecule/resources/testhosts"), *fleet, *paths, *arguments]

    def __call__(self, *arguments: str, fails: bool = False) -> "subprocess.CompletedProcess[str]":
        done = subprocess.run(self.command(*arguments), capture_output=True, text=True, timeout=300)
        assert (done.returncode != 0) == fails, f"{arguments}: {done.stdout}{done.stderr}"
        return done

    def states(self) -> dict[str, str]:
        return {host["name"]: host["state"] for host in json.loads(self("status").stdout)["hosts"]}

    def boot_of(self, name: str) -> str:
        """Differs after every start of a host's systemd."""
        return self("exec", name, "--", "systemctl", "show", "--property=UserspaceTimestampMonotonic").stdout

    def supervisor(self, name: str) -> int:
        """Process id of a host's systemd-nspawn."""
        host = self.fleet.hosts(self.pairs)[["a", "b"].index(name)]
        comms = {pid: Path(f"/proc/{pid}/comm").read_text().strip() for pid in cgroups.processes(host.cgroup)}
        return next(pid for pid, comm in comms.items() if comm == "systemd-nspawn")

    def traces(self) -> list[str]:
        """All that is left of the fleet on this machine."""
        fleet = self.fleet
        rules = [
            line
            for table in ("nat", "filter")
            for line in network.removals(
                table, system.run("iptables", "-w", "-t", table, "-S").stdout, fleet.tag
            )
        ]
        members = [
            path.name
            for path in Path("/proc").iterdir()
            if path.name.isdigit()
            and cgroups.is_member(_read(path / "cgroup"), fleet.cgroup)
            and "\nState:\tZ" not in _read(path / "status")  # dead; its parent has yet to hear of it
        ]
        return [
            *(str(path) for path in cgroups.paths(fleet.cgroup) if path.exists()),
            *(name for name in network.interfaces() if fleet.owns_interface(name) or name == fleet.bridge),
            *(str(mount.target) for mount in mounts.current() if mount.source == fleet.tag),
            *(str(mount.target) for mount in mounts.below(mounts.current(), self.state)),
            *(f"process {pid}" for pid in members),
            *(f"rule {rule}" for rule in rules),
            *(str(path) for path in self.state.glob("*")),
            *(str(path) for path in Path("/run/systemd/nspawn").glob(f"*/{fleet.name}-*")),
            *([f"registry entry of {fleet.name}"] if registry.entry(fleet.name) else []),
        ]


def _forwarding_when_alone(fleet: Fleet) -> str | None:
    """ip_forward; None while another fleet is up, which needs it and may come and go beside this test."""
    with system.locked(system.RUN_DIR / "lock", "the machine's network"):
        return None if registry.others(fleet.name) else _read(Path("/proc/sys/net/ipv4/ip_forward"))


def _read(path: Path) -> str:
    try:
        return path.read_text()
    except OSError:
        return ""


@pytest.fixture
def program(request: pytest.FixtureRequest) -> Iterator[Program]:
    tests = [item for item in request.session.items if item.path == request.node.path]
    place = tests.index(request.node)
    Program(next(_fleets(place)))("down")  # what a killed run left
    program = Program(next(fleet for fleet in _fleets(place) if _is_free(fleet)))
    yield program
    program("down")


def test_life_of_a_fleet(program: Program) -> None:
    forwarding = _forwarding_when_alone(program.fleet)

    program("up", *program.pairs)
    assert program.states() == {"a": "running", "b": "running"}
    assert program.state.joinpath("id_ed25519").stat().st_mode & 0o777 == 0o600
    assert "1 received" in program("exec", "a", "--", "ping", "-c1", "-W5", "b").stdout

    # limits hold: seen from outside, not by the program's own word
    hog = ["/usr/bin/python3", "-c", "print(len(b'x' * (300 << 20)))"]
    capped = ["systemd-run", "--wait", "--pipe", "--collect", "--property=MemoryMax=64M", *hog]
    assert program("exec", "b", "--", *hog).stdout.strip() == str(300 << 20)
    assert "status=KILL" in program("exec", "b", "--", *capped, fails=True).stderr

    # up again leaves running hosts alone
    boots = {name: program.boot_of(name) for name in "ab"}
    program("up", *program.pairs)
    assert {name: program.boot_of(name) for name in "ab"} == boots

    # an orphaned host is made anew, its neighbour stays
    os.kill(program.supervisor("b"), signal.SIGKILL)
    assert program.states() == {"a": "running", "b": "dead"}
    program("up", *program.pairs)
    assert program.states() == {"a": "running", "b": "running"}
    assert program.boot_of("a") == boots["a"]
    assert "1 received" in program("exec", "a", "--", "ping", "-c1", "-W5", "b").stdout

    program("logs", str(program.state / "bundle"))
    assert "systemd" in (program.state / "bundle/b/journal.txt").read_text()
    system.remove_tree(program.state / "bundle")

    program("down")
    assert program.traces() == []
    if None not in (forwarding, after := _forwarding_when_alone(program.fleet)):
        assert after == forwarding
    program("down")


@pytest.mark.parametrize("marker", ["starting", ": running at", "memory limits"])
def test_up_killed_on_the_way_is_made_good_by_up_and_by_down(program: Program, marker: str) -> None:
    image.ensure(IMAGES, kubernetes=False)
    killed = subprocess.Popen(program.command("up", *program.pairs), stderr=subprocess.PIPE, text=True)
    assert killed.stderr
    seen = next(line for line in killed.stderr if marker in line)
    killed.kill()
    killed.wait()
    assert seen
    if marker == "starting":
        program("down")
        assert program.traces() == []
    program("up", *program.pairs)
    assert program.states() == {"a": "running", "b": "running"}
    program("down")
    assert program.traces() == []


def test_a_taken_subnet_is_refused_before_anything_changes(program: Program) -> None:
    taken = next(
        f"{info['local']}/{info['prefixlen']}"
        for link in json.loads(system.run("ip", "-j", "-4", "address").stdout)
        for info in link.get("addr_info", [])
        if link["ifname"] not in ("lo", program.fleet.bridge)
    )
    address = taken.split("/")[0]
    subnet = ".".join([*address.split(".")[:3], "0/24"])
    command = program.command("up", "a=" + subnet.replace("0/24", "99"))
    command[command.index("--subnet") + 1] = subnet
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.returncode == 1
    assert f"subnet {subnet} is in use: {taken}" in done.stderr
    assert program.traces() == []


def test_another_checkouts_fleet_is_not_touched(program: Program, tmp_path: Path) -> None:
    program("up", program.pairs[0])
    for arguments in (["up", *program.pairs], ["down"], ["sweep"]):
        command = program.command(*arguments)
        command[command.index("--state-dir") + 1] = str(tmp_path)
        done = subprocess.run(command, capture_output=True, text=True, timeout=60)
        assert done.returncode == 1
        assert f"belongs to {program.state}" in done.stderr
    assert program.states() == {"a": "running"}


def test_a_name_that_another_checkouts_killed_run_left_is_free(program: Program, tmp_path: Path) -> None:
    program("up", program.pairs[0])
    for pid in cgroups.processes(program.fleet.cgroup):
        os.kill(pid, signal.SIGKILL)
    assert system.wait_until(lambda: not cgroups.processes(program.fleet.cgroup), 10)
    command = program.command("up", *program.pairs)
    command[command.index("--state-dir") + 1] = str(tmp_path)
    try:
        subprocess.run(command, check=True, timeout=120)
    finally:
        subprocess.run([*command[: command.index("up")], "down"], check=True, timeout=60)
