"""The scenario's hosts and chain, seen from outside: over ssh and over the chain's own RPC."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
import testinfra
from testinfra.host import Host

PROJECT = Path(__file__).parents[3]
STAGE = PROJECT / ".state" / os.environ["K3S_DAAS_STAGE"]


@pytest.fixture(scope="session")
def stage() -> dict[str, Any]:
    return json.loads((STAGE / "stage.json").read_text())


@pytest.fixture(scope="session")
def hosts(stage: dict[str, Any]) -> dict[str, Host]:
    return {
        name: testinfra.get_host(f"ssh://root@{name}", ssh_config=stage["ssh_config"])
        for name in stage["hosts"]
    }


@pytest.fixture(scope="session")
def deployment(hosts: dict[str, Host]) -> dict[str, Any]:
    """Which contracts the master serves, as its configuration says."""
    return json.loads(hosts["master"].check_output("cat /etc/k3s-daas/master.json"))
