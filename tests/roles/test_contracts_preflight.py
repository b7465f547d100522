"""The contracts role's inventory checks, run by Ansible itself; no network is asked."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

PROJECT = Path(__file__).parents[2]
PLAY = """
- hosts: localhost
  gather_facts: false
  tasks:
    - ansible.builtin.include_role: {name: contracts, tasks_from: preflight}
"""
INVENTORY = "[k3s_daas_master]\nmaster\n[k3s_daas_workers]\nworker-1\n"
PUBLIC = {
    "k3s_daas_network": "mainnet",
    "k3s_daas_sui_endpoints": ["https://127.0.0.1:1"],
    "k3s_daas_wallet_key_file": "/nonexistent",
    "k3s_daas_registry_name": "fleet",
    "k3s_daas_tee_mode": "nitro",
}
APART = {"contracts_slasher_address": "0xa", "contracts_arbiter_address": "0xb"}


@pytest.mark.parametrize(
    ("variables", "refused"),
    [
        ({"contracts_slasher_address": "0xA", "contracts_arbiter_address": "0x" + "0" * 63 + "a"}, True),
        (APART, False),
        ({"k3s_daas_network": "localnet"}, False),
    ],
)
def test_slasher_and_arbiter_are_two_except_on_a_localnet(
    tmp_path: Path, variables: dict[str, Any], refused: bool
) -> None:
    (tmp_path / "play.yml").write_text(PLAY)
    (tmp_path / "hosts").write_text(INVENTORY)
    done = subprocess.run(
        [
            *(str(Path(sys.executable).parent / "ansible-playbook"), str(tmp_path / "play.yml")),
            *("-i", str(tmp_path / "hosts"), "-e", json.dumps(PUBLIC | variables)),
        ],
        cwd=PROJECT,
        env=os.environ | {"ANSIBLE_NOCOLOR": "1", "HOME": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    said = " ".join(done.stdout.split())
    assert (done.returncode != 0) == refused, done.stdout + done.stderr
    assert ("wanted two different addresses" in said) == refused
