"""The playbooks about the contracts, run by Ansible against a localnet: shown first, sent once, upgraded."""

from __future__ import annotations

import asyncio
import re
import shutil
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from playbook_kit import PROJECT, ansible_playbook

from k3s_daas.chain import Key, MoveAbort, SuiClient
from k3s_daas.registry import Registry, find_registry

pytestmark = pytest.mark.asyncio(loop_scope="session")
SUI = 1_000_000_000
VERSION = "const VERSION: u64 = {};"


@dataclass
class Ansible:
    """An operator with an inventory of a master and no workers; only localhost's plays are run."""

    folder: Path
    chain: SuiClient
    variables: dict[str, Any]

    async def __call__(self, playbook: str | list[Any], *options: str, **variables: Any) -> tuple[bool, str]:
        """(whether it went through, what it said, as one line)."""
        # --limit knows hosts of the inventory only, so localhost is one here.
        local = {"ansible_connection": "local", "ansible_python_interpreter": sys.executable}
        inventory = {
            "all": {"hosts": {"localhost": local}},
            "k3s_daas_master": {"hosts": {"master": None}},
            "k3s_daas_workers": {},
        }
        code, output = await asyncio.to_thread(
            ansible_playbook,
            self.folder,
            playbook,
            inventory,
            "--limit=localhost",
            *options,
            timeout_s=300,
            **self.variables | variables,
        )
        return code == 0, output.replace("''", "'")  # YAML's quotes

    async def registry(self) -> Registry:
        found = await find_registry(self.chain, self.chain.require_address(), "fleet")
        assert found is not None
        return Registry(self.chain, found)

    async def balance(self) -> int:
        return int(await self.chain.balance(self.chain.require_address()))


@pytest_asyncio.fixture(loop_scope="session")
async def ansible(live_net: Any, tmp_path: Path) -> Any:
    key = Key.create(tmp_path / "operator.key")
    await live_net.faucet(key.address, 100 * SUI)
    async with await SuiClient.connect([live_net.url], "localnet", key) as chain:
        yield Ansible(
            tmp_path,
            chain,
            {
                "k3s_daas_network": "localnet",
                "k3s_daas_sui_endpoints": [live_net.url],
                "k3s_daas_wallet_key_file": str(tmp_path / "operator.key"),
                "k3s_daas_registry_name": "fleet",
                "k3s_daas_tee_mode": "simulated",
                "contracts_compiler": "localnet",
                "contracts_registry_open": True,
                "contracts_package_path": str(PROJECT / "move" / "k3s_daas"),
            },
        )


def changed(said: str) -> int:
    """How many tasks changed something, by the recap."""
    found = re.search(r"PLAY RECAP .*?localhost : ok=\d+ changed=(\d+)", said)
    assert found, said
    return int(found[1])


def in_order(said: str, *words: str) -> None:
    at = 0
    for word in words:
        found = said.find(word, at)
        assert found >= 0, f"{word!r} does not follow in: {said[at:]}"
        at = found


APPOINT = [
    {"ansible.builtin.import_playbook": str(PROJECT / "playbooks" / "deployment.yml")},
    {
        "hosts": "localhost",
        "gather_facts": False,
        "tasks": [
            {
                "ansible.builtin.include_role": {"name": "master", "tasks_from": "appoint_on_chain"},
                "vars": {"_master_account": "0x77"},
            }
        ],
    },
]


async def test_everything_is_shown_before_it_is_sent_and_only_sent_once(ansible: Ansible) -> None:
    arbiter = "0x" + "a" * 64
    wallet, more = ansible.chain.require_address(), {"contracts_arbiter_address": arbiter}
    good, planned = await ansible("contracts", "--check", **more)
    assert good, planned
    in_order(
        planned,
        "Show what is about to be signed",
        "This can't be taken back.",
        f"Who holds its UpgradeCap can change the rules for everybody's stake (compatible changes): that is "
        f"{wallet}",
        "Creates registry 'fleet', in which anybody may stake",
        f"capabilities all go to {wallet}: AdminCap, who holds it changes the owners",
        "can't be estimated before what it works on exists",
        f"Gives the ArbiterCap to {arbiter}: who holds it cancels proposed slashes.",
    )
    assert await ansible.balance() == 100 * SUI

    good, refused = await ansible("contracts", contracts_confirm=True, **more)  # nobody there who types yes
    assert not good
    assert "Nothing was sent: found the answer" in refused
    assert await ansible.balance() == 100 * SUI

    good, done = await ansible("contracts", **more)
    assert good, done
    in_order(
        done,
        "Publishes 13 modules",
        "TASK [contracts : Publish the package]",
        "Creates registry 'fleet'",
        "TASK [contracts : Create the registry, or change it]",
        f"Gives the ArbiterCap to {arbiter}",
        "TASK [contracts : Hand them on]",
    )
    assert changed(done) == 3
    registry = await ansible.registry()
    assert await registry.find_cap("ArbiterCap", arbiter)
    held = await ansible.balance()
    good, again = await ansible("contracts", **more)
    assert good, again
    assert (changed(again), await ansible.balance()) == (0, held)
    assert "Gas: about" not in again

    good, appointed = await ansible(APPOINT)
    assert good, appointed
    in_order(
        appointed,
        f"Makes 0x{'0' * 62}77 the master",
        "Sends it 0.5 SUI for gas",
        "TASK [master : Appoint the master]",
    )
    master = await registry.master()
    assert master is not None
    assert master.account.endswith("77")
    good, again = await ansible(APPOINT)
    assert (good, changed(again)) == (True, 0), again

    changes = {"contracts_registry_min_stake": "3", "contracts_registry_reward_rates": RATES}
    good, done = await ansible("contracts", **more, **changes)
    assert good, done
    in_order(
        done, "Changes the terms from (minimum 1 SUI", "TASK [contracts : Create the registry, or change it]"
    )
    config = await registry.config()
    assert (config.min_stake_mist, config.rates.per_request_mist) == (3 * SUI, SUI // 1000)


RATES = {"per_request": "0.001", "per_ready_hour": "0", "cap_per_epoch": "1"}


async def test_the_contracts_are_upgraded(ansible: Ansible) -> None:
    sources = ansible.folder / "k3s_daas"
    shutil.copytree(PROJECT / "move" / "k3s_daas", sources, ignore=shutil.ignore_patterns("build"))
    ansible.variables["contracts_package_path"] = str(sources)
    good, early = await ansible("upgrade_contracts", confirm="fleet")
    assert not good
    assert "Found no registry called fleet that the wallet" in early
    good, said = await ansible("contracts")
    assert good, said
    one = await ansible.registry()
    held = await ansible.balance()
    code = sources / "sources" / "worker_registry.move"
    text = code.read_text()
    assert text.count(VERSION.format(1)) == 1
    code.write_text(text.replace(VERSION.format(1), VERSION.format(2)))
    good, refused = await ansible("upgrade_contracts", confirm="other")
    assert not good
    assert "Found confirm=other, wanted the registry's name. Run again with -e confirm=fleet" in refused
    good, planned = await ansible("upgrade_contracts", "--check")
    assert good, planned
    in_order(
        planned,
        f"Upgrades package {one.deployment.package_id} (version 1)",
        f"that is {ansible.chain.require_address()}",
        "TASK [contracts : Publish the next version]",
    )
    assert await ansible.balance() == held

    # Stopped between the two steps, which the next run finishes.
    good, stopped = await ansible("upgrade_contracts", confirm="fleet", contracts_registry_slash_window_ms=-1)
    assert not good
    in_order(
        stopped,
        f"Upgrades package {one.deployment.package_id} (version 1)",
        "TASK [contracts : Publish the next version]",
        "wanted 0 or more",
    )
    assert (await one.config()).version == 1
    good, done = await ansible("upgrade_contracts", confirm="fleet")
    assert good, done
    in_order(
        done,
        "Migrates registry 'fleet' to package",
        "withdrawals included, so hosts must be told the new one.",
        "TASK [contracts : Create the registry, or change it]",
        "Registry fleet is at version 2 with package",
    )
    assert changed(done) == 1
    two = await ansible.registry()
    assert two.deployment.package_id != one.deployment.package_id
    assert (two.deployment.original_id, (await two.config()).version) == (one.deployment.package_id, 2)
    with pytest.raises(MoveAbort, match="EWrongVersion"):
        await one.appoint_master("0x77")
    await two.appoint_master("0x77")
    held = await ansible.balance()
    good, again = await ansible("upgrade_contracts", confirm="fleet")
    assert (good, changed(again), await ansible.balance()) == (True, 0, held), again
