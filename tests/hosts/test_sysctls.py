"""Sysctls are noted before they change and put back by the last fleet that goes."""

from pathlib import Path

import pytest

from testhosts import network, registry, sysctls
from testhosts.names import Fleet

FIRST = Fleet.parse("first", "10.123.1.0/24")
SECOND = Fleet.parse("second", "10.123.2.0/24")


class Machine:
    """A pretended /proc/sys and set of bridges."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.bridges: dict[str, dict[str, object]] = {}
        for name, value in {
            "net/ipv4/ip_forward": "0",
            "net/ipv4/conf/all/forwarding": "0",
            "net/ipv4/conf/all/accept_redirects": "0",
            "net/ipv4/conf/eth0/forwarding": "1",
            "fs/inotify/max_user_instances": "128",
            "vm/overcommit_memory": "0",
            "vm/drop_caches": "0",
            "kernel/panic": "0",
            "kernel/random/boot_id": "a-boot",
        }.items():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            self.set(name, value)
        (folder / "kernel/ostype").write_text("Linux\n")
        (folder / "kernel/ostype").chmod(0o444)

    def get(self, name: str) -> str:
        return (self.folder / name).read_text().strip()

    def set(self, name: str, value: str) -> None:
        (self.folder / name).write_text(value + "\n")


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Machine:
    machine = Machine(tmp_path / "proc-sys")
    run = tmp_path / "run"
    monkeypatch.setattr(sysctls, "_ROOT", machine.folder)
    monkeypatch.setattr(registry, "RUN_DIR", run)
    monkeypatch.setattr(registry, "_FLEETS", run / "fleets")
    monkeypatch.setattr(registry, "_SYSCTLS", run / "sysctls.json")
    monkeypatch.setattr(network, "interfaces", lambda: machine.bridges)
    monkeypatch.setattr(network, "up", lambda fleet: machine.bridges.update({fleet.bridge: {}}))
    monkeypatch.setattr(network, "down", lambda fleet: machine.bridges.pop(fleet.bridge, None))
    monkeypatch.setattr(registry.cgroups, "processes", lambda cgroup: set())
    monkeypatch.setattr(registry.cgroups, "remove_parent", lambda: None)
    return machine


def test_forwarding_stays_until_the_last_fleet_goes(machine: Machine, tmp_path: Path) -> None:
    registry.join(FIRST, tmp_path, kubernetes=False)
    # what the kernel does when ip_forward is written
    machine.set("net/ipv4/conf/all/forwarding", "1")
    machine.set("net/ipv4/conf/all/accept_redirects", "1")
    registry.join(SECOND, tmp_path, kubernetes=False)
    registry.leave(FIRST)
    assert machine.get("net/ipv4/ip_forward") == "1"
    machine.set("net/ipv4/conf/eth0/forwarding", "0")
    registry.leave(SECOND)
    assert machine.get("net/ipv4/ip_forward") == "0"
    assert machine.get("net/ipv4/conf/all/forwarding") == "0"
    assert machine.get("net/ipv4/conf/all/accept_redirects") == "0"
    assert machine.get("net/ipv4/conf/eth0/forwarding") == "1"


def test_forwarding_that_was_on_stays_on(machine: Machine, tmp_path: Path) -> None:
    machine.set("net/ipv4/ip_forward", "1")
    registry.join(FIRST, tmp_path, kubernetes=False)
    registry.leave(FIRST)
    assert machine.get("net/ipv4/ip_forward") == "1"


def test_inotify_serves_many_hosts_until_the_last_fleet_goes(machine: Machine, tmp_path: Path) -> None:
    instances = "fs/inotify/max_user_instances"
    registry.join(FIRST, tmp_path, kubernetes=True)
    assert machine.get(instances) == "1024"
    registry.join(SECOND, tmp_path, kubernetes=False)
    registry.leave(FIRST)
    assert machine.get(instances) == "1024"
    registry.leave(SECOND)
    assert machine.get(instances) == "128"


def test_a_higher_limit_of_inotify_stays(machine: Machine, tmp_path: Path) -> None:
    machine.set("fs/inotify/max_user_instances", "8192")
    registry.join(FIRST, tmp_path, kubernetes=False)
    assert machine.get("fs/inotify/max_user_instances") == "8192"


def test_what_a_kubelet_changes_is_put_back_by_the_last_kubernetes_fleet(
    machine: Machine, tmp_path: Path
) -> None:
    registry.join(FIRST, tmp_path, kubernetes=True)
    machine.set("vm/overcommit_memory", "1")
    machine.set("kernel/panic", "10")
    machine.set("vm/drop_caches", "3")
    registry.join(SECOND, tmp_path, kubernetes=False)
    registry.leave(FIRST)
    assert (machine.get("vm/overcommit_memory"), machine.get("kernel/panic")) == ("0", "0")
    assert machine.get("vm/drop_caches") == "3", "writing it does something; it must not be written back"
    assert machine.get("net/ipv4/ip_forward") == "1"


def test_a_fleet_that_died_before_its_network_was_made_holds_nothing(
    machine: Machine, tmp_path: Path
) -> None:
    registry.join(FIRST, tmp_path, kubernetes=False)
    machine.bridges.clear()
    registry.join(SECOND, tmp_path, kubernetes=False)
    registry.leave(SECOND)
    assert machine.get("net/ipv4/ip_forward") == "0"


def test_a_record_of_an_earlier_boot_counts_for_nothing(
    machine: Machine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    registry.join(FIRST, tmp_path, kubernetes=False)
    assert registry.entry("first")
    monkeypatch.setattr(registry, "_boot", lambda: "another")
    assert registry.entry("first") is None
    machine.set("net/ipv4/ip_forward", "1")
    registry.leave(FIRST)
    assert machine.get("net/ipv4/ip_forward") == "1"
