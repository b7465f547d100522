"""Names and address ranges of stages that no other checkout's stage on this machine has."""

import hashlib
from collections.abc import Callable
from pathlib import Path

import pytest

from testhosts import network
from testhosts.errors import HostsError
from testhosts.names import Fleet

PROJECT = Path(__file__).parents[2]


@pytest.fixture(scope="session")
def own_stage() -> Callable[[str, int], Fleet]:
    """`own_stage(letter, place)`: a name and a free range; places are 0 to 19 for "m", 0 to 9 for "s".

    The name is the same in each run of a checkout, so that a run clears what a killed one left.
    """

    def choose(letter: str, place: int) -> Fleet:
        digest = hashlib.sha256(str(PROJECT).encode())
        for step in range(5):
            first, size = {"m": (10, 20), "s": (110, 10)}[letter]
            block = first + (digest.digest()[0] + step) % 5 * size
            fleet = Fleet.parse(f"{letter}{digest.hexdigest()[:4]}{place}", f"10.123.{block + place}.0/24")
            try:
                network.check_free(fleet)
            except HostsError:
                continue
            return fleet
        raise AssertionError(f"every address range of a stage {letter}-{place} is in use: see `ip address`")

    return choose
