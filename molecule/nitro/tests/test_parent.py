"""What each run did and said, and what runs now: asked from outside."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest
from testinfra.host import Host

from nitro_standin.make_image import pcr0

if TYPE_CHECKING:
    from conftest import Story


def test_the_enclave_runs_as_it_is_wanted(story: Story) -> None:
    found = story.before.enclave
    assert (found["EnclaveName"], found["EnclaveCID"], found["NumberOfCPUs"]) == ("k3s-daas-master", 16, 2)
    assert (found["State"], found["Flags"], found["MemoryMiB"]) == ("RUNNING", "NONE", 2048)
    assert found["Measurements"]["PCR0"] == pcr0("one")
    assert story.before.pool == {"cpus": [1, 3], "memory_mib": 2048}
    assert (story.before.healthy, story.before.forwarded) == (True, True)


def test_an_image_that_was_not_asked_for_changes_nothing(story: Story) -> None:
    run, after = story.refused
    assert run.code != 0
    assert f"an image with PCR0 {pcr0('two')}" in run.words
    assert f"wanted PCR0 {pcr0('one')}" in run.words
    assert after == story.before


def test_debug_mode_is_for_a_localnet(story: Story) -> None:
    run, after = story.debug
    assert run.code != 0
    assert "Found nitro_parent_debug on testnet; wanted it off" in run.words
    assert after == story.before


def test_check_mode_says_what_would_change_and_leaves_the_enclave_running(story: Story) -> None:
    run, after = story.checked
    assert run.code == 0, run.output
    assert run.changed["master"] > 0
    assert after == story.before


def test_another_image_and_more_memory_replace_it(story: Story) -> None:
    run, after = story.replaced
    assert run.code == 0, run.output
    assert after.enclave["EnclaveID"] != story.before.enclave["EnclaveID"]
    assert (after.enclave["MemoryMiB"], after.enclave["Measurements"]["PCR0"]) == (4096, pcr0("two"))
    assert after.pool["memory_mib"] == 4096
    assert (after.healthy, after.forwarded) == (True, True)


def test_the_allocator_came_between_the_two(story: Story) -> None:
    """It refuses while an enclave runs; so first the enclave ended, and then it was not asked twice."""
    first, second = (story.before.enclave["EnclaveID"], story.replaced[1].enclave["EnclaveID"])
    words = story.journal[story.journal.index(f"enclave {first} runs") :]
    order = [
        words.index(f"enclave {first} ended"),
        words.index("Successfully allocated Nitro Enclaves resources: 4096 MiB, 2 CPUs"),
        words.index(f"enclave {second} runs"),
    ]
    assert order == sorted(order)
    assert "Error:" not in words
    assert words.count("Successfully allocated") == 1


def test_an_inventory_from_before_an_update_does_not_undo_it(story: Story) -> None:
    run, after = story.outdated
    assert run.code != 0
    assert f"Found nitro_parent_pcr0 {pcr0('one')} in the inventory" in run.words
    assert f"{pcr0('two')} as the image of the last update" in run.words
    assert after == story.replaced[1]


def test_an_image_that_the_parent_kept_runs_again(story: Story) -> None:
    run, after = story.kept
    assert run.code == 0, run.output
    assert after.enclave["Measurements"]["PCR0"] == pcr0("one")
    assert (after.healthy, after.forwarded) == (True, True)


def test_one_that_breaks_off_is_started_again(story: Story) -> None:
    assert story.broken.enclave["EnclaveID"] != story.kept[1].enclave["EnclaveID"]
    assert story.broken.enclave["Measurements"]["PCR0"] == pcr0("one")
    assert story.broken.healthy


def test_one_in_debug_mode_is_told_of(story: Story) -> None:
    assert "flags DEBUG_MODE, wanted NONE" in story.seen
    for line in ("k3s_daas_enclave_debug 1", "k3s_daas_enclave_healthy 0", "k3s_daas_enclave_running 1"):
        assert f"{line}\n" in story.seen + "\n"


@pytest.mark.parametrize(
    "unit", ["nitro-enclaves-allocator.service", "k3s-daas-gvproxy.service", "k3s-daas-enclave-health.timer"]
)
def test_units_run_and_come_back_after_a_reboot(parent: Host, story: Story, unit: str) -> None:
    assert parent.service(unit).is_running
    assert parent.service(unit).is_enabled
    assert parent.service("k3s-daas-enclave.service").is_enabled


def test_an_enclave_that_asks_is_told_its_cluster_and_nothing_else(
    parent: Host, stage: dict[str, Any]
) -> None:
    ask = "import socket, sys; s = socket.socket(socket.AF_UNIX); s.connect('/run/k3s-daas-cluster.sock'); "
    said = parent.check_output(f'python3 -c "{ask}print(s.makefile().read())"')
    assert json.loads(said) == {
        "network": "localnet",
        "endpoints": [stage["rpc"]],
        "chain_id": "69WiPg3DAQiwdxfncX6wYQ2siKwAe6L9BZthQea3JNMD",
        "package_id": "0x" + "1" * 64,
        "original_package_id": None,
        "registry_id": "0x" + "2" * 64,
        "operator_cap_id": None,
        "address": stage["hosts"]["master"],
        "names": [],
    }


def test_gvproxy_is_nobody(parent: Host) -> None:
    pid = parent.check_output("systemctl show --property=MainPID --value k3s-daas-gvproxy.service")
    assert parent.check_output(f"ps -o user= -p {pid}") != "root"
    assert parent.file("/run/k3s-daas-gvproxy").mode == 0o700
