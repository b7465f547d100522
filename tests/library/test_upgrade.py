"""Upgrading the contracts: version 1 with state, version 2 published and migrated, version 1 refused."""

from __future__ import annotations

import hashlib
import shutil
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.asyncio(loop_scope="session")
TERMS = {
    "name": "up",
    "open": True,
    "slash_window_ms": 0,
    "unbonding_window_ms": 0,
    "require_attestation": False,
}


def sources(repository: Path, folder: Path, *changes: tuple[str, str, str]) -> str:
    """A copy of our contracts with (file, old, new) replaced."""
    shutil.copytree(repository / "move" / "k3s_daas", folder, ignore=shutil.ignore_patterns("build"))
    for file, old, new in changes:
        path = folder / "sources" / file
        text = path.read_text()
        assert old in text
        path.write_text(text.replace(old, new))
    return str(folder)


def worker(node_id: str) -> dict[str, str]:
    return {"node_id": node_id, "commitment": hashlib.sha256(node_id.encode()).hexdigest()}


async def test_contracts_are_upgraded_and_the_registry_migrated(
    new_operator: Any, repository: Path, tmp_path: Path
) -> None:
    operator, stranger = await new_operator(), await new_operator()
    raised = ("worker_registry.move", "const VERSION: u64 = 1;", "const VERSION: u64 = 2;")
    first, second = sources(repository, tmp_path / "1"), sources(repository, tmp_path / "2", raised)
    compiler = {"compiler": "localnet"}

    empty = await operator("sui_package", path=first, state="latest", package_id="", **compiler)
    assert empty["changed"], empty  # nothing to upgrade yet: published
    one = empty["package_id"]
    assert (empty["original_package_id"], empty["upgraded_from"]) == (one, "")
    registry = await operator("sui_registry", package_id=one, **TERMS)
    operator.ids = {"package_id": one, "registry_id": registry["registry_id"]}
    assert (await operator("sui_stake", workers=[worker("a")]))["changed"]

    latest = {"path": second, "state": "latest", "registry_id": None, **compiler}
    refused = await stranger("sui_package", package_id=one, **latest)
    assert "holds no UpgradeCap" in refused["msg"]
    planned = await operator("sui_package", check=True, package_id=one, **latest)
    assert (planned["changed"], planned["digests"], planned["upgraded_from"]) == (True, [], one), planned
    text = " ".join(planned["preview"]["summary"])
    assert f"Upgrades package {one} (version 1)" in text
    assert f"compatible changes): that is {operator.chain.address}" in text
    done = await operator("sui_package", package_id=one, **latest)
    two = done["package_id"]
    assert (done["changed"], done["original_package_id"], done["upgraded_from"]) == (True, one, one), done
    assert two != one
    for known in (one, two):  # any version names the package
        again = await operator("sui_package", package_id=known, **latest)
        assert (again["changed"], again["package_id"], again["upgraded_from"]) == (False, two, "")
    assert not (await operator("sui_package", **latest | {"state": "present", "package_id": None}))["changed"]

    named = {"package_id": None, "registry_id": None, "name": "up", "key_file": str(operator.key_file)}
    found = await operator("sui_registry_info", **named)
    assert (found["package_id"], found["original_package_id"]) == (two, one)
    planned = await operator("sui_registry", check=True, registry_id=None, **TERMS | {"package_id": two})
    assert (planned["changed"], planned["migrated"], planned["digests"]) == (True, True, []), planned
    moved = await operator("sui_registry", registry_id=None, **TERMS | {"package_id": two})
    assert (moved["registry_id"], moved["migrated"], len(moved["digests"])) == (found["registry_id"], True, 1)
    assert moved["original_package_id"] == one
    again = await operator("sui_registry", registry_id=None, **TERMS | {"package_id": two})
    assert (again["changed"], again["migrated"]) == (False, False)

    old = await operator("sui_stake", workers=[worker("a"), worker("b")])
    assert old["abort_name"] == "EWrongVersion"
    operator.ids |= {"package_id": two}
    new = await operator("sui_stake", workers=[worker("a"), worker("b")], original_package_id=one)
    assert (new["changed"], new["staked"]) == (True, ["b"]), new
    slashed = await operator("sui_slash", node_id="a", original_package_id=one)
    assert slashed["slashed_mist"] == 500_000_000


async def test_a_change_that_breaks_callers_is_refused_before_it_is_paid(
    new_operator: Any, repository: Path, tmp_path: Path
) -> None:
    operator = await new_operator()
    removed = ("worker_registry.move", "public fun staked(", "public fun held(")
    first, second = sources(repository, tmp_path / "1"), sources(repository, tmp_path / "2", removed)
    one = (await operator("sui_package", path=first, compiler="localnet"))["package_id"]
    held = await operator.chain.balance(operator.chain.address)
    result = await operator("sui_package", path=second, compiler="localnet", state="latest", package_id=one)
    assert result["failed"]
    assert await operator.chain.balance(operator.chain.address) == held
