"""The plugin as its users run it: by Ansible's commands, with our ansible.cfg, against a localnet."""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
import yaml

from k3s_daas.chain import Key, SuiClient
from k3s_daas.registry import Registry, StakeRequest

pytestmark = pytest.mark.asyncio(loop_scope="session")
PROJECT = Path(__file__).parents[2]
SUI = 1_000_000_000
LOCAL = {"ansible_connection": "local", "ansible_python_interpreter": sys.executable}


@dataclass
class Fleet:
    """A registry with worker-1 and worker-2 (jailed), and its inventory in `folder`, beside a static one."""

    registry: Registry
    key_file: Path
    folder: Path
    url: str

    def write(self, **options: Any) -> None:
        ids = {
            "package_id": self.registry.deployment.package_id,
            "registry_id": self.registry.deployment.registry_id,
        }
        usual = {"plugin": "sui_workers", "network": "localnet", "endpoints": [self.url], **ids}
        given = {name: value for name, value in (usual | options).items() if value is not None}
        (self.folder / "inventory/sui_workers.yml").write_text(yaml.safe_dump(given))

    async def run(self, program: str, *arguments: str) -> tuple[int, str, str]:
        """(exit code, standard output, standard error)."""
        command = [str(Path(sys.executable).parent / program), f"--inventory={self.folder}/inventory"]
        done = await asyncio.to_thread(
            subprocess.run,
            [*command, *arguments],
            cwd=PROJECT,
            env=os.environ | {"ANSIBLE_NOCOLOR": "1", "HOME": str(self.folder), "LC_ALL": "C.UTF-8"},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        return done.returncode, done.stdout, done.stderr

    async def play(self, playbook: Any, *options: str, **variables: Any) -> tuple[int, str]:
        """(exit code, output as one line)."""
        path = PROJECT / "playbooks" / f"{playbook}.yml"
        if not isinstance(playbook, str):
            path = self.folder / "play.yml"
            path.write_text(yaml.safe_dump(playbook))
        given = {
            "k3s_daas_network": "localnet",
            "k3s_daas_sui_endpoints": [self.url],
            "k3s_daas_wallet_key_file": str(self.key_file),
            "k3s_daas_registry_name": "fleet",
            "k3s_daas_tee_mode": "simulated",
        }
        code, out, err = await self.run(
            "ansible-playbook", str(path), "-e", json.dumps(given | variables), *options
        )
        return code, " ".join((out + err).split())

    async def status(self, node_id: str) -> str:
        worker = await self.registry.worker(node_id)
        assert worker is not None
        return worker.status.value


@pytest_asyncio.fixture(loop_scope="session")
async def fleet(live_net: Any, new_registry: Any, tmp_path: Path) -> Any:
    key = Key.create(tmp_path / "operator.key")
    await live_net.faucet(key.address, 100 * SUI)
    async with await SuiClient.connect([live_net.url], "localnet", key) as chain:
        registry: Registry = await new_registry(chain, name="fleet")
        expires = await registry.clock_ms() + 86_400_000
        names = [
            StakeRequest(name, hashlib.sha256(os.urandom(32)).digest(), SUI, expires)
            for name in ("worker-1", "worker-2")
        ]
        await registry.stake(names, key.address)
        await registry.propose_slash("worker-2", 4, bytes(32))
        (tmp_path / "inventory").mkdir()
        static = {
            # --limit knows hosts of the inventory only, so localhost is one here.
            "all": {"hosts": {"localhost": LOCAL}},
            "k3s_daas_master": {"hosts": {"master": {"ansible_host": "10.0.0.11"}}},
            "k3s_daas_workers": {"hosts": {"worker-1": {"ansible_host": "10.0.0.12"}}},
        }
        (tmp_path / "inventory/hosts.yml").write_text(yaml.safe_dump(static))
        made = Fleet(registry, tmp_path / "operator.key", tmp_path, live_net.url)
        made.write()
        yield made


async def test_ansible_inventory_lists_the_registry(fleet: Fleet) -> None:
    code, out, err = await fleet.run("ansible-inventory", "--list")
    assert (code, err) == (0, "")
    told = json.loads(out)["_meta"]["hostvars"]["worker-2"]["sui_worker"]
    assert told["owner"] == {"__ansible_unsafe": fleet.registry.chain.address}  # to be no template later on
    found = json.loads(out, object_hook=lambda some: some.get("__ansible_unsafe", some))
    assert found["sui_workers_pending"]["hosts"] == ["worker-1"]
    assert found["sui_workers_jailed"]["hosts"] == ["worker-2"]
    assert found["sui_workers_chain_only"]["hosts"] == ["worker-2"]
    one, two = (found["_meta"]["hostvars"][name] for name in ("worker-1", "worker-2"))
    assert one["ansible_host"] == "10.0.0.12"
    assert one["sui_worker"]["seal_token"]["generation"] == 1
    proposal = two["sui_worker"]["proposal"]
    assert (proposal["reason"], proposal["previous"]) == (4, "pending")
    assert two["sui_worker_read"]["chain_id"] == fleet.registry.chain.chain_id
    checkpoint, timestamp_ms = await fleet.registry.chain.latest_checkpoint()
    assert 0 < two["sui_worker_read"]["checkpoint"] <= checkpoint
    assert two["sui_worker_read"]["timestamp_ms"] <= timestamp_ms


async def test_a_registry_is_found_by_its_name(fleet: Fleet) -> None:
    fleet.write(package_id=None, registry_id=None, name="fleet", key_file=str(fleet.key_file))
    code, out, _ = await fleet.run("ansible-inventory", "--graph", "sui_workers_jailed")
    assert (code, out.split()) == (0, ["@sui_workers_jailed:", "|--worker-2"])
    fleet.write(package_id=None, registry_id=None, name="flee", key_file=str(fleet.key_file))
    code, out, err = await fleet.run("ansible-inventory", "--graph", "sui_workers_jailed")
    assert (code, out.split()) == (0, ["@sui_workers_jailed:"])
    assert "Found no registry called 'flee'" in err


async def test_no_run_goes_on_without_the_registry(fleet: Fleet, unused_tcp_port: int) -> None:
    fleet.write(endpoints=[f"http://127.0.0.1:{unused_tcp_port}"])
    code, out, err = await fleet.run("ansible-inventory", "--graph")
    assert code != 0
    assert "worker-1" not in out
    assert "The registry can't be read: No Sui endpoint answered" in " ".join(err.split())


async def test_plays_use_it_in_check_mode_too(fleet: Fleet) -> None:
    before = await fleet.registry.chain.balance(fleet.registry.chain.require_address())
    play = [
        {
            "hosts": "sui_workers:!sui_workers_jailed",
            "gather_facts": False,
            "tasks": [{"debug": {"msg": "{{ inventory_hostname }} holds {{ sui_worker.stake_mist }}"}}],
        }
    ]
    for options in ((), ("--check", "--diff")):
        code, said = await fleet.play(play, *options)
        assert code == 0, said
        assert "worker-1 holds 1000000000" in said
        assert "worker-2" not in said
    assert await fleet.registry.chain.balance(fleet.registry.chain.require_address()) == before


async def test_a_worker_only_the_chain_knows_is_not_connected_to(fleet: Fleet) -> None:
    play = [{"hosts": "worker-2", "gather_facts": False, "tasks": [{"ping": {}}]}]
    code, said = await fleet.play(play)
    assert code == 4
    assert "no-inventory-has-an-address-of-this-worker.invalid" in said


# -- slashing by it ----------------------------------------------------------------------------------------


def age(folder: Path, seconds: int) -> None:
    """Make what is in the cache older, by the chain's time."""
    (file,) = (folder / "kept").iterdir()
    outer = json.loads(file.read_text())
    kept = json.loads(outer["__payload__"])
    kept["source"]["timestamp_ms"] -= seconds * 1000
    file.write_text(json.dumps(outer | {"__payload__": json.dumps(kept)}))


async def test_a_slash_by_a_stale_inventory_is_refused(fleet: Fleet, live_net: Any) -> None:
    cache = {"cache": True, "cache_plugin": "jsonfile", "cache_connection": str(fleet.folder / "kept")}
    fleet.write(**cache)
    await fleet.run("ansible-inventory", "--graph")
    age(fleet.folder, 90)
    asked = {"node_id": "worker-1", "confirm": "worker-1"}
    code, said = await fleet.play("slash", "--limit=localhost", **asked)
    assert code == 2, said
    assert "Found worker-1 in an inventory that was read from registry" in said
    assert "out of a cache at checkpoint" in said
    assert "that is at most 60 s old. Run again with --flush-cache" in said
    assert await fleet.status("worker-1") == "pending"
    # Other tests set this chain's clock forward; how far is no part of how old the inventory is.
    ahead_s = abs(live_net.clock.now_ms() / 1000 - time.time())
    limit = {"contracts_inventory_max_age_s": int(60 + ahead_s)}
    code, said = await fleet.play("slash", "--limit=localhost", "--flush-cache", **asked, **limit)
    assert code == 0, said
    assert await fleet.status("worker-1") == "slashed"


async def test_a_slash_by_the_inventory_of_another_registry_is_refused(
    fleet: Fleet, new_registry: Any
) -> None:
    other: Registry = await new_registry()
    expires = await other.clock_ms() + 86_400_000
    token = StakeRequest("worker-2", hashlib.sha256(os.urandom(32)).digest(), SUI, expires)
    await other.stake([token], other.chain.require_address())
    fleet.write(registry_id=other.deployment.registry_id)
    asked = {"node_id": "worker-2", "confirm": "worker-2"}
    code, said = await fleet.play("slash", "--limit=localhost", **asked)
    assert code == 2, said
    assert f"wanted one of registry {fleet.registry.deployment.registry_id}" in said
    assert await fleet.status("worker-2") == "jailed"


async def test_a_static_inventory_slashes_as_before(fleet: Fleet) -> None:
    (fleet.folder / "inventory/sui_workers.yml").unlink()
    code, said = await fleet.play("slash", "--limit=localhost", node_id="worker-2", confirm="worker-2")
    assert code == 0, said
    assert await fleet.status("worker-2") == "slashed"
