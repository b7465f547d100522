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

from k3s_daas import seal
from k3s_daas.chain import Key, MoveAbort, SuiClient
from k3s_daas.registry import Registry, StakeRequest, WorkerStatus, find_registry
from pages import told

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

    async def typed(self, command: tuple[str, ...]) -> tuple[bool, str]:
        """The same of a page's command, as `pages.told` gives it."""
        playbook, *options = command
        return await self(Path(playbook).stem, *options)

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
    good, planned = await ansible.typed(
        told("docs/upgrade-contracts.md", "playbooks/upgrade_contracts.yml", "--check")
    )
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
    upgrade = told("docs/upgrade-contracts.md", "playbooks/upgrade_contracts.yml", "confirm", confirm="fleet")
    good, done = await ansible.typed(upgrade)
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


async def test_a_slash_waits_for_its_window_and_is_cancelled(ansible: Ansible) -> None:
    """Hosts are left out: that the wait for them needs a slash that is executed is what is looked at."""
    good, said = await ansible("contracts", contracts_registry_slash_window_ms=3_600_000)
    assert good, said
    registry = await ansible.registry()
    wanted = StakeRequest(
        "worker-2", seal.commitment(seal.make()), SUI, await registry.clock_ms() + 3_600_000
    )
    await registry.stake([wanted], ansible.chain.require_address())
    held = await ansible.balance()
    good, planned = await ansible.typed(told("docs/slash.md", "playbooks/slash.yml", "--check"))
    assert good, planned
    assert "Proposes a slash of worker-2 for operator decision" in planned
    assert await ansible.balance() == held

    good, proposed = await ansible.typed(told("docs/slash.md", "playbooks/slash.yml"))
    assert good, proposed
    in_order(
        proposed, "worker-2 is jailed: its stake is locked", "Run this again after 20", "cancel_slash.yml"
    )
    worker = await registry.worker("worker-2")
    assert worker is not None
    assert worker.status is WorkerStatus.JAILED

    key = str(ansible.folder / "operator.key")
    cancel = told("docs/slash.md", "playbooks/cancel_slash.yml", contracts_arbiter_key_file=key)
    good, done = await ansible.typed(cancel)
    assert good, done
    assert "Cancels the slash of worker-2" in done
    assert changed(done) == 1
    worker = await registry.worker("worker-2")
    assert worker is not None
    assert (worker.status, worker.stake_mist) == (WorkerStatus.PENDING, SUI)
    good, again = await ansible.typed(cancel)
    assert (good, changed(again)) == (True, 0), again


async def test_without_a_snapshot_there_is_none_to_give_up(ansible: Ansible) -> None:
    good, said = await ansible("contracts")
    assert good, said
    good, planned = await ansible.typed(
        told("docs/abandon-snapshots.md", "playbooks/abandon_snapshots.yml", "--check")
    )
    assert good, planned
    good, done = await ansible.typed(
        told("docs/abandon-snapshots.md", "playbooks/abandon_snapshots.yml", "confirm", confirm="fleet")
    )
    assert good, done
    assert "No snapshot was anchored: there is nothing to give up." in done
    assert changed(done) == 0
