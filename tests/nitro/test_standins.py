"""The stand-ins refuse what the real ones refuse: each of it was read in their source."""

from __future__ import annotations

import subprocess
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from conftest import Parent


@pytest.mark.parametrize(
    ("config", "words"),
    [
        ("memory_mib: 512\ncpu_count: 2\n", "missing memory reservation"),  # without ---, nothing is read
        ("---\nmemory_mib: 512\ncpu_count: 2", "conflicts"),  # the last line has no newline: not read
        ("---\nmemory_mib: 512\n\ncpu_count: 2\n", ":3 - unexpected: "),  # an empty line is an unknown key
        ("---\nmemory_mib: 512\ncpu_count: 2\nname: x\n", ":4 - unexpected: name"),
        ("---\nmemory_mib: 512\ncpu_count:\n", ":3 - missing value for cpu_count"),
        ("---\nmemory_mib: 512\ncpu_count: 2\ncpu_pool: 1,3\n", "conflicts"),
        ("---\nmemory_mib: 512\ncpu_count: 4\n", "Failed to find suitable CPUs"),
        ("---\nmemory_mib: 99999\ncpu_count: 2\n", "Failed to configure entire amount of requested memory"),
    ],
)
def test_the_allocators_traps(parent: Parent, config: str, words: str) -> None:
    done = parent.allocate(config)
    assert (done.returncode, words in done.stdout) == (1, True), done.stdout


def test_the_allocator_takes_nothing_from_an_enclave_that_runs(parent: Parent) -> None:
    parent.run_enclave()
    done = parent.allocate("---\nmemory_mib: 512\ncpu_count: 2\n")
    assert "there is at least one enclave currently running" in done.stdout


def test_an_unknown_enclave_can_not_be_ended(parent: Parent) -> None:
    with pytest.raises(subprocess.CalledProcessError) as caught:
        parent.nitro("terminate-enclave", "--enclave-id", "i-1-enc1")
    assert caught.value.returncode == 11
    assert b"[ E11 ] Socket error." in caught.value.stderr


def test_a_failed_start_is_told_twice_and_by_its_consequence(parent: Parent) -> None:
    with pytest.raises(subprocess.CalledProcessError) as caught:
        parent.run_enclave(cpu_count=4)
    said = caught.value.stderr.decode()
    assert caught.value.returncode == 39
    assert said.index("[ E22 ]") < said.index("Failed connections: 1") < said.index("[ E39 ]")
