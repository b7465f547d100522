"""What ansible-doc says of the plugin, and its examples, against its code."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from inventory_kit import SUI, record, view

from k3s_daas.chain import Key
from k3s_daas.inventory import ProposalRecord, Source, TokenRecord, WorkerRecord
from k3s_daas.registry import WorkerStatus

PROJECT = Path(__file__).parents[2]
FRAGMENTS = {"strict", "compose", "groups", "keyed_groups", "use_extra_vars", "leading_separator"}


@pytest.fixture(scope="module")
def documented() -> Any:
    """What `ansible-doc` says, found by ansible.cfg."""
    program = Path(sys.executable).parent / "ansible-doc"
    done = subprocess.run(
        [program, "--type=inventory", "--json", "sui_workers"],
        cwd=PROJECT,
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    return json.loads(done.stdout)["sui_workers"]


@pytest.fixture(scope="module")
def options(documented: Any) -> dict[str, Any]:
    found: dict[str, Any] = documented["doc"]["options"]
    return found


def test_every_option_is_told(options: dict[str, Any]) -> None:
    assert set(options) > FRAGMENTS | {"cache", "cache_plugin", "cache_timeout", "cache_connection"}
    assert all(told["description"] and told["type"] for told in options.values() if "env" not in told)
    assert options["statuses"]["choices"] == [status.value for status in WorkerStatus]


def test_what_it_shares_with_the_modules_is_the_same(options: dict[str, Any]) -> None:
    text = (PROJECT / "doc_fragments/k3s_daas.py").read_text().split('DOCUMENTATION = r"""')[1]
    shared = yaml.safe_load(text.split('"""')[0])["options"]
    for name, told in shared.items():
        for key in ("type", "elements", "choices", "default", "required"):
            assert options[name].get(key, False) == told.get(key, False), (name, key)


def test_the_page_lists_every_variable() -> None:
    page = (PROJECT / "docs/inventory.md").read_text()
    told = {
        title: set(re.findall(r"`(\w+)`", page.split(f"| `{title}` | |")[1].split("\n\n")[0]))
        for title in ("sui_worker", "sui_worker_read")
    }
    worker = {*WorkerRecord.model_fields, *ProposalRecord.model_fields, *TokenRecord.model_fields}
    assert told == {"sui_worker": worker, "sui_worker_read": {*Source.model_fields, "cached"}}


def test_the_example_is_an_inventory(parsed: Any, chain: Any, tmp_path: Path) -> None:
    example = PROJECT / "inventories/example"
    hosts, ours = (yaml.safe_load((example / name).read_text()) for name in ("hosts.yml", "sui_workers.yml"))
    shared = yaml.safe_load((example / "group_vars/all.yml").read_text())
    assert ours["key_file"] == shared["k3s_daas_wallet_key_file"]
    assert (ours["endpoints"], ours["network"], ours["name"]) == tuple(
        shared[f"k3s_daas_{name}"] for name in ("sui_endpoints", "network", "registry_name")
    )
    Key.create(tmp_path / "key")
    chain.answer = view([record("worker-1", required_stake_mist=2 * SUI), record("worker-9")])
    ids = {"package_id": None, "registry_id": None}
    inventory = parsed(before=hosts, **ours | ids | {"key_file": str(tmp_path / "key")})
    assert [host.name for host in inventory.get_hosts("sui_workers")] == ["worker-1"]
    assert [host.name for host in inventory.get_hosts("understaked")] == ["worker-1"]
    assert inventory.get_hosts("sui_workers_chain_only") == []


def test_examples_are_inventories(documented: Any, options: dict[str, Any], parsed: Any, chain: Any) -> None:
    examples = list(yaml.safe_load_all(documented["examples"]))
    assert len(examples) == 3
    chain.answer = view([record("worker-1", workload=1)])
    for example in examples:
        assert set(example) <= set(options)
        assert {name for name, told in options.items() if told.get("required")} <= set(example)
    *_, last = examples
    inventory = parsed(**{name: last[name] for name in ("strict", "compose", "groups", "keyed_groups")})
    assert {"understaked", "without_a_token", "load_at_work"} & set(inventory.groups) == {"load_at_work"}
    assert inventory.get_host("worker-1").vars["ansible_host"] == "worker-1.workers.internal"
