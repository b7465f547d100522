"""What an operator does with a parent: runs of playbooks/nitro_parent.yml, and an enclave that breaks off."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest
from testinfra.host import Host

from nitro_standin.make_image import pcr0
from pages import told
from scenario import PROJECT, STAGE, Run, play

HOSTS = f"--inventory={PROJECT / 'molecule/nitro/inventory/hosts.yml'}"
VARIABLES = f"--extra-vars=@{PROJECT / 'molecule/nitro/vars/main.yml'}"
METRICS = "/var/lib/prometheus/node-exporter/k3s_daas_enclave.prom"


@dataclass(frozen=True)
class Look:
    """What is true between two runs."""

    enclaves: list[dict[str, Any]]
    pool: dict[str, Any]
    healthy: bool
    forwarded: bool

    @property
    def enclave(self) -> dict[str, Any]:
        (found,) = self.enclaves
        return found


@dataclass(frozen=True)
class Story:
    """Each run, and what was true after it."""

    before: Look
    # With the right image under the wrong name, so to speak: another PCR0 than the wanted one.
    refused: tuple[Run, Look]
    debug: tuple[Run, Look]
    # The new image and more memory, in check mode and in earnest: enclave, allocator, enclave.
    checked: tuple[Run, Look]
    replaced: tuple[Run, Look]
    journal: str
    # With an inventory from before an update that playbooks/update_image.yml noted; and back to the image of
    # before, which is on the parent still.
    outdated: tuple[Run, Look]
    kept: tuple[Run, Look]
    # After the enclave's process was killed.
    broken: Look
    # With somebody's enclave in debug mode in its place.
    seen: str


@pytest.fixture(scope="session")
def parent(hosts: dict[str, Host]) -> Host:
    return hosts["master"]


@pytest.fixture(scope="session")
def look(parent: Host) -> Callable[[], Look]:
    def ask() -> Look:
        return Look(
            json.loads(parent.check_output("nitro-cli describe-enclaves")),
            json.loads(parent.check_output("cat /run/nitro-stand-in.json")),
            parent.run("systemctl start k3s-daas-enclave-health.service").rc == 0,
            'port_forwarded{port="6443"} 1' in parent.check_output(f"cat {METRICS}"),
        )

    return ask


@pytest.fixture(scope="session")
def story(parent: Host, look: Callable[[], Look]) -> Story:
    command = told("docs/nitro.md", "playbooks/nitro_parent.yml")
    check = told("docs/nitro.md", "playbooks/nitro_parent.yml", "--check")

    def run(typed: tuple[str, ...] = command, **variables: Any) -> tuple[Run, Look]:
        return play(*typed, HOSTS, VARIABLES, f"--extra-vars={json.dumps(variables)}"), look()

    before = look()
    refused = run(nitro_parent_image=str(STAGE / "two.eif"))
    debug = run(nitro_parent_debug=True, k3s_daas_network="testnet")
    newer = {
        "nitro_parent_image": str(STAGE / "two.eif"),
        "nitro_parent_pcr0": pcr0("two"),
        "nitro_parent_memory_mib": 4096,
    }
    checked = run(check, **newer)
    replaced = run(**newer)
    units = "-u nitro-enclaves-allocator -u k3s-daas-enclave"
    journal = parent.check_output(f"journalctl --no-pager --output=cat {units}")

    note = json.dumps({"pcr0": pcr0("two")})
    parent.check_output(f"echo '{note}' > /etc/k3s-daas/image-update.json")
    outdated = run()
    older = images_on(parent)[pcr0("one")]
    kept = run(
        nitro_parent_image="",
        nitro_parent_kept_image=older,
        nitro_parent_memory_mib=4096,
        nitro_parent_replaces=True,
    )

    parent.check_output(f"kill -9 {kept[1].enclave['ProcessID']}")
    broken = await_enclave(parent, look, kept[1].enclave["EnclaveID"])

    parent.check_output("systemctl stop k3s-daas-enclave.service")
    image = json.loads(parent.check_output("cat /etc/k3s-daas/enclave.json"))["eif"]
    parent.check_output(
        "nitro-cli run-enclave --enclave-name k3s-daas-master --enclave-cid 16 --cpu-count 2 --memory 4096 "
        f"--debug-mode --eif-path {image}"
    )
    seen = parent.run("systemctl start k3s-daas-enclave-health.service").stderr
    seen += parent.check_output(
        f"journalctl --no-pager --output=cat -u k3s-daas-enclave-health; cat {METRICS}"
    )
    return Story(before, refused, debug, checked, replaced, journal, outdated, kept, broken, seen)


def images_on(parent: Host) -> dict[str, str]:
    """The images' files on the parent, by PCR0."""
    files = parent.check_output("ls /var/lib/k3s-daas-enclave/*.eif").split()
    told = {
        file: json.loads(parent.check_output(f"nitro-cli describe-eif --eif-path {file}")) for file in files
    }
    return {one["Measurements"]["PCR0"]: file for file, one in told.items()}


def await_enclave(parent: Host, look: Callable[[], Look], last: str) -> Look:
    """What is true once there is another enclave than `last`."""
    end = time.monotonic() + 30
    while time.monotonic() < end:
        found = json.loads(parent.check_output("nitro-cli describe-enclaves"))
        if found and found[0]["EnclaveID"] != last:
            return look()
        time.sleep(0.5)
    return look()
