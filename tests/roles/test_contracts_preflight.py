"""The contracts role's inventory checks, run by Ansible itself; no network is asked."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from playbook_kit import ansible_playbook

PLAY = {
    "hosts": "localhost",
    "gather_facts": False,
    "tasks": [{"ansible.builtin.include_role": {"name": "contracts", "tasks_from": "preflight"}}],
}
INVENTORY = {
    "k3s_daas_master": {"hosts": {"master": None}},
    "k3s_daas_workers": {"hosts": {"worker-1": None}},
    "nitro_parents": {"hosts": {"parent": None}},
}
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
    code, said = ansible_playbook(tmp_path, [PLAY], INVENTORY, **PUBLIC | variables)
    assert (code != 0) == refused, said
    assert ("wanted two different addresses" in said) == refused
