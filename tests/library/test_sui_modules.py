"""The chain modules against a real network: what they do, what they refuse, and that twice is as once."""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from k3s_daas.registry import Registry

Operator = Any  # of conftest.py
pytestmark = pytest.mark.asyncio(loop_scope="session")
SUI = 1_000_000_000
PLANNED = "published by this run"


def commitment(name: str) -> str:
    return hashlib.sha256(name.encode()).hexdigest()


def worker(node_id: str, **more: Any) -> dict[str, Any]:
    # As seal_commitment registers it: with more keys than we ask for.
    return {"node_id": node_id, "commitment": commitment(node_id), "changed": True, "path": "/x", **more}


def registry_of(operator: Operator) -> Registry:
    return operator.registry


# -- sui_package ------------------------------------------------------------------------------------------


async def test_package_is_published_once(new_operator: Any, repository: Path) -> None:
    operator = await new_operator()
    arguments = {"path": str(repository / "move" / "k3s_daas"), "compiler": "localnet"}
    planned = await operator("sui_package", check=True, **arguments)
    assert not planned["failed"], planned
    assert (planned["changed"], planned["package_id"], planned["digests"]) == (True, PLANNED, [])
    assert planned["gas_mist"] > 0
    assert planned["diff"]["before"] == {}
    held = await operator.chain.balance(operator.chain.address)
    assert held == 100 * SUI
    made = await operator("sui_package", **arguments)
    assert made["changed"]
    assert made["compiler"] == "localnet"
    assert len(made["digests"]) == 1
    assert f"that is {operator.chain.address}" in made["preview"]["summary"][1].replace(
        "that is\n", "that is "
    )
    assert made["gas_mist"] == planned["gas_mist"]
    assert await operator.chain.balance(operator.chain.address) == held - made["gas_mist"]
    assert set(await operator.chain.package_modules(made["package_id"])) >= {"worker_registry", "slashing"}
    before = await operator.sent()
    again = await operator("sui_package", **arguments)
    assert (again["changed"], again["package_id"]) == (False, made["package_id"])
    assert again["diff"]["before"] == again["diff"]["after"]
    assert await operator.sent() == before


async def test_what_was_shown_is_what_is_published(
    new_operator: Any, tmp_path: Path, repository: Path
) -> None:
    operator = await new_operator()
    source = tmp_path / "package"
    shutil.copytree(repository / "move" / "k3s_daas", source, ignore=shutil.ignore_patterns("build"))
    planned = await operator("sui_package", check=True, path=str(source), compiler="localnet")
    # Neither compiled again nor looked at: these sources are no Move any more.
    (source / "sources/slashing.move").write_text("module")
    made = await operator("sui_package", path=str(source), compiled=planned["compiled"])
    assert (made["changed"], made["compiler"]) == (True, "localnet"), made
    assert made["bytecode_digest"] == planned["bytecode_digest"]
    assert made["gas_mist"] == planned["gas_mist"]
    assert "compiled" not in made
    again = await operator("sui_package", check=True, path=str(source), compiled=planned["compiled"])
    assert (again["changed"], "compiled" in again) == (False, False)


async def test_package_with_other_code_is_another_package(
    new_operator: Any, tmp_path: Path, repository: Path
) -> None:
    operator = await new_operator()
    ids = []
    for constant in (1, 2):
        folder = tmp_path / f"package-{constant}"
        (folder / "sources").mkdir(parents=True)
        (folder / "Move.toml").write_text((repository / "move/k3s_daas/Move.toml").read_text())
        (folder / "sources" / "m.move").write_text(
            f"module k3s_daas::m;\npublic fun f(): u64 {{ {constant} }}\n"
        )
        ids.append((await operator("sui_package", path=str(folder), compiler="localnet"))["package_id"])
    assert len(set(ids)) == 2
    again = await operator("sui_package", path=str(tmp_path / "package-1"), compiler="localnet")
    assert (again["changed"], again["package_id"]) == (False, ids[0])


async def test_package_says_what_does_not_compile(
    new_operator: Any, tmp_path: Path, repository: Path
) -> None:
    operator = await new_operator()
    result = await operator("sui_package", path=str(tmp_path), compiler="localnet")
    assert "Found no Move.toml" in result["msg"]
    (tmp_path / "sources").mkdir()
    (tmp_path / "Move.toml").write_text((repository / "move/k3s_daas/Move.toml").read_text())
    (tmp_path / "sources" / "m.move").write_text("module k3s_daas::m;\nfun f(): u64 { true }\n")
    result = await operator("sui_package", path=str(tmp_path), compiler="localnet")
    assert result["error"] == "CompileFailed"
    assert "m.move" in result["msg"]


async def test_package_takes_the_sui_cli_where_it_is(
    new_operator: Any, tmp_path: Path, repository: Path, monkeypatch: pytest.MonkeyPatch, compiled: Any
) -> None:
    """A stand-in for the CLI's output format; what it compiled is what counts."""
    import base64

    output = {
        "modules": [base64.b64encode(module).decode() for module in compiled.modules],
        "dependencies": list(compiled.dependencies),
        "digest": list(compiled.digest),
    }
    tool = tmp_path / "bin" / "sui"
    tool.parent.mkdir()
    tool.write_text(
        f"#!/bin/sh\necho 'INCLUDING DEPENDENCY Sui' >&2\ncat <<'EOF'\n{json.dumps(output)}\nEOF\n"
    )
    tool.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tool.parent}:/usr/bin:/bin")
    operator = await new_operator()
    source = repository / "move" / "k3s_daas"
    result = await operator("sui_package", check=True, path=str(source))
    assert (result["compiler"], result["bytecode_digest"]) == ("sui", compiled.digest.hex())
    monkeypatch.setenv("PATH", "/nowhere")
    result = await operator("sui_package", check=True, path=str(source), compiler="sui")
    assert "Found no sui" in result["msg"]


# -- sui_stake ---------------------------------------------------------------------------------------------


async def test_stakes_for_all_in_one_transaction_and_only_once(fleet: Operator) -> None:
    workers = [worker("worker-1"), worker("worker-2", stake_mist=2 * SUI)]
    planned = await fleet("sui_stake", check=True, workers=workers, stake="1.5")
    assert not planned["failed"], planned
    assert (planned["changed"], planned["digests"], planned["workers"]) == (True, [], {})
    assert planned["staked"] == ["worker-1", "worker-2"]
    held = await fleet.chain.balance(fleet.chain.address)
    preview = planned["preview"]
    assert preview["stake_locked_mist"] == 3_500_000_000
    assert preview["balance_before_mist"] == held
    assert preview["slash_conditions"]["slash_share_percent"] == 50
    assert await registry_of(fleet).workers() == []

    made = await fleet("sui_stake", workers=workers, stake="1.5")
    assert made["changed"]
    assert len(made["digests"]) == 1
    # What was shown beforehand is what happened.
    assert made["gas_mist"] == preview["gas_estimate_mist"]
    assert await fleet.chain.balance(fleet.chain.address) == preview["balance_after_mist"]
    assert made["diff"] == planned["diff"]
    assert made["diff"]["after"]["worker-1"] == {
        "status": "pending",
        "owner": fleet.chain.address,
        "stake": "1.5 SUI",
    }
    record = made["workers"]["worker-2"]
    assert (record["stake_mist"], record["owner"]) == (2 * SUI, fleet.chain.address)
    assert record["withdrawal_address"] == fleet.chain.address
    assert record["seal_token"]["commitment"] == commitment("worker-2")
    lifetime = record["seal_token"]["expires_at_ms"] - record["seal_token"]["issued_at_ms"]
    assert 81 * 86_400_000 - 60_000 < lifetime <= 90 * 86_400_000
    assert lifetime != (
        made["workers"]["worker-1"]["seal_token"]["expires_at_ms"]
        - made["workers"]["worker-1"]["seal_token"]["issued_at_ms"]
    )

    before = await fleet.sent()
    for check in (False, True):
        again = await fleet("sui_stake", check=check, workers=workers, stake="1.5")
        assert (again["changed"], again["staked"], again["digests"]) == (False, [], [])
        assert again["workers"] == made["workers"]
        assert again["diff"]["before"] == again["diff"]["after"]
    assert await fleet.sent() == before

    more = await fleet("sui_stake", workers=[*workers, worker("worker-3")], withdrawal_address="0xc01d")
    assert more["staked"] == ["worker-3"]
    assert more["workers"]["worker-3"]["withdrawal_address"] == "0x" + "0" * 60 + "c01d"


@pytest.mark.parametrize(
    ("workers", "more", "wrong"),
    [
        ([worker("Worker")], {}, "RFC 1123"),
        ([worker("ansible_host")], {}, "RFC 1123"),
        ([worker("a" * 253)], {}, "253 characters"),
        ([worker("wörker")], {}, "RFC 1123"),
        ([worker("-a")], {}, "RFC 1123"),
        ([worker("a.b")], {}, "RFC 1123"),
        ([worker(""), worker("b")], {}, "without node_id"),
        ([{"node_id": "a"}], {}, "Found no commitment for a"),
        ([{"node_id": "a", "commitment": "ab"}], {}, "64 hex digits"),
        ([{"node_id": "a", "commitment": "seal_canary" + "A" * 37}], {}, "64 hex digits"),
        ([worker("a"), worker("a")], {}, "Found a twice"),
        ([worker("a"), worker("b", commitment=commitment("a"))], {}, "twice, for a and b"),
        ([worker("a")], {"stake": "0.999999999"}, "wanted at least 1 SUI"),
        ([worker("a", stake_mist=SUI - 1)], {}, "Found a stake of 0.999999999 SUI for a"),
        ([worker("a", stake_mist=-1)], {}, "wanted an amount"),
        ([worker("a")], {"stake": "one"}, "wanted an amount"),
        ([worker("a")], {"stake": "1000"}, "Send at least"),
        ([worker("a")], {"token_lifetime_days": 366}, "at most 365"),
        ([worker("a")], {"token_lifetime_days": 0}, "more than 0"),
        ([worker("a")], {"withdrawal_address": "home"}, "wanted a Sui address"),
        ([worker("a")], {"withdrawal_address": "0x0"}, "EInvalidWithdrawalAddress"),
        ([worker("a")], {"registry_id": "0xdead"}, "No object 0x"),
        ([worker("a")], {"registry_id": "0x6"}, "Check package id and registry id"),
        ([worker("a")], {"package_id": "0xdead"}, "Check package id and registry id"),
        ([worker("a")], {"registry_id": PLANNED}, "Only check mode plans"),
        ([worker("a")], {"network": "testnet"}, "plaintext"),
        ([worker("a")], {"chain_id": "other"}, "wanted localnet with chain other"),
        ([worker("a")], {"key_file": "/nonexistent"}, "can't be read"),
    ],
)
async def test_stake_refuses_before_anything_is_sent(
    fleet: Operator, workers: Any, more: dict[str, Any], wrong: str
) -> None:
    before = await fleet.sent()
    result = await fleet("sui_stake", workers=workers, **more)
    assert result["failed"]
    assert wrong in result["msg"]
    assert "canary" not in json.dumps(result)
    assert await fleet.sent() == before
    assert await registry_of(fleet).workers() == []


async def test_stake_leaves_all_or_nothing_when_one_is_bad(fleet: Operator, new_operator: Any) -> None:
    other = await new_operator()
    other.ids = fleet.ids
    assert (await other("sui_stake", workers=[worker("worker-2")]))["changed"]
    for check in (False, True):
        result = await fleet("sui_stake", check=check, workers=[worker("worker-1"), worker("worker-2")])
        assert (
            f"worker-2 is taken: found owner {other.chain.address}, wanted {fleet.chain.address}"
            in result["msg"]
        )
    assert [w.node_id for w in await registry_of(fleet).workers()] == ["worker-2"]


async def test_stake_refuses_a_host_with_another_secret(fleet: Operator) -> None:
    await fleet("sui_stake", workers=[worker("worker-1")])
    changed = {"node_id": "worker-1", "commitment": commitment("another")}
    result = await fleet("sui_stake", workers=[changed])
    assert result["failed"]
    assert f"found {commitment('another')} on the host" in result["msg"]
    assert f"wanted commitment {commitment('worker-1')}" in result["msg"]
    # In check mode on a host without a secret yet: the real run would make a new one, which fails the same.
    absent = await fleet("sui_stake", check=True, workers=[{"node_id": "worker-1", "commitment": ""}])
    assert "found no secret on the host" in absent["msg"]


async def test_stake_leaves_the_slashed_and_the_leaving_alone(fleet: Operator) -> None:
    await fleet("sui_stake", workers=[worker("worker-1"), worker("worker-2")])
    registry = registry_of(fleet)
    await registry.slash_now("worker-1", 4, bytes(32))
    await registry.request_unstake("worker-2")
    workers = [{"node_id": "worker-1", "commitment": commitment("reinstalled")}, worker("worker-2")]
    result = await fleet("sui_stake", workers=workers)
    assert not result["changed"], result
    assert {name: w["status"] for name, w in result["workers"].items()} == {
        "worker-1": "slashed",
        "worker-2": "unbonding",
    }


async def test_stake_gives_a_token_to_a_worker_that_has_none(fleet: Operator) -> None:
    """Staked by other means, with a contract call that mints nothing."""
    registry = registry_of(fleet)

    async def build(tx: Any) -> None:
        (coin,) = tx.split([SUI])
        args = [tx.object(fleet.ids["registry_id"]), coin, tx.string("worker-1")]
        args += [tx.address(fleet.chain.address), tx.object("0x6")]
        tx.call(f"{fleet.ids['package_id']}::worker_registry::stake_and_register_worker", args)

    await fleet.chain.execute(build)
    result = await fleet("sui_stake", workers=[worker("worker-1"), worker("worker-2")])
    assert (result["changed"], result["staked"]) == (True, ["worker-2"]), result
    assert (await registry.worker_token("worker-1")).commitment.hex() == commitment("worker-1")
    assert not (await fleet("sui_stake", workers=[worker("worker-1")]))["changed"]


async def test_stake_needs_a_place_on_a_closed_registrys_list(new_operator: Any, new_registry: Any) -> None:
    admin, owner = await new_operator(), await new_operator()
    registry = await new_registry(admin.chain, open=False)
    owner.ids = {"package_id": registry.deployment.package_id, "registry_id": registry.deployment.registry_id}
    result = await owner("sui_stake", workers=[worker("a")])
    assert f"{owner.chain.address} is not on it" in result["msg"]
    terms = {"name": "test", "open": False, "slash_window_ms": 0, "unbonding_window_ms": 0}
    terms |= {"require_attestation": False, "allowed_owners": [owner.chain.address]}
    ids = {"package_id": registry.deployment.package_id}
    assert (await admin("sui_registry", **terms, **ids))["changed"]
    assert (await owner("sui_stake", workers=[worker("a")]))["changed"]


async def test_a_fresh_inventory_can_be_planned(new_operator: Any) -> None:
    """Neither package nor registry nor secrets nor the master's account exist yet."""
    operator = await new_operator(5 * SUI)
    operator.ids = {"package_id": PLANNED, "registry_id": PLANNED}
    terms = {"open": True, "slash_window_ms": 0, "unbonding_window_ms": 0, "require_attestation": False}
    registry = await operator("sui_registry", check=True, name="demo", registry_id=None, **terms)
    assert (registry["changed"], registry["registry_id"]) == (True, PLANNED), registry
    master = await operator("sui_master", check=True, account="")
    assert (master["changed"], master["account"], master["epoch"]) == (True, PLANNED, 0)
    info = await operator("sui_registry_info", check=True)
    assert (info["exists"], info["workers"]) == (False, {})
    stake = await operator("sui_stake", check=True, workers=[{"node_id": "worker-1", "commitment": ""}])
    assert (stake["changed"], stake["staked"]) == (True, ["worker-1"])
    assert stake["preview"]["balance_after_mist"] == 4 * SUI
    assert stake["preview"]["gas_estimate_mist"] is None
    for shown, gone in ((registry, 0), (master, SUI // 2)):
        assert (shown["preview"]["gas_estimate_mist"], shown["gas_mist"]) == (None, None)
        assert shown["preview"]["balance_after_mist"] == 5 * SUI - gone
        assert "can't be estimated before what it works on exists" in shown["preview"]["summary"][-1]
    for module, own in (
        ("sui_slash", {"node_id": "worker-1"}),
        ("sui_rewards", {"state": "claimed"}),
        ("sui_images", {"images": []}),
        ("sui_seal_token", {"state": "revoked", "scope": "owner"}),
        ("sui_k8s_request", {"method": "list", "resource": "pods", "deposit": "1"}),
    ):
        assert "would only be created by this run" in (await operator(module, check=True, **own))["msg"]
    bad = await operator("sui_stake", check=True, workers=[{"node_id": "ansible_host", "commitment": ""}])
    assert "RFC 1123" in bad["msg"]
    assert await operator.chain.balance(operator.chain.address) == 5 * SUI
    for name in ("sui_stake", "sui_master", "sui_registry_info", "sui_slash"):
        own = {"sui_stake": {"workers": []}, "sui_master": {"account": "0x5"}, "sui_slash": {"node_id": "a"}}
        result = await operator(name, **own.get(name, {}))
        assert "Only check mode plans with ids" in result["msg"]


# -- sui_caps ----------------------------------------------------------------------------------------------


async def test_caps_are_handed_on_once(fleet: Operator, new_operator: Any) -> None:
    slasher, arbiter, stranger = [await new_operator() for _ in range(3)]
    slasher.ids = arbiter.ids = stranger.ids = fleet.ids
    wanted = {"slasher": slasher.chain.address, "arbiter": arbiter.chain.address}
    planned = await fleet("sui_caps", check=True, **wanted)
    assert (planned["changed"], planned["digests"]) == (True, []), planned
    assert f"Gives the ArbiterCap to {arbiter.chain.address}" in planned["preview"]["summary"][1]
    assert planned["diff"]["before"]["SlasherCap"] == fleet.chain.address
    done = await fleet("sui_caps", **wanted)
    assert (len(done["digests"]), done["diff"]) == (1, planned["diff"])
    assert done["holders"] == {
        "SlasherCap": slasher.chain.address,
        "ArbiterCap": arbiter.chain.address,
    }
    before = await fleet.sent()
    for check in (False, True):
        again = await fleet("sui_caps", check=check, **wanted)
        assert (again["changed"], again["holders"]) == (False, done["holders"])
    assert not (await fleet("sui_caps"))["changed"]
    assert await fleet.sent() == before
    elsewhere = await fleet("sui_caps", slasher=stranger.chain.address)
    assert "Only its holder can hand it on" in elsewhere["msg"]
    back = await fleet("sui_caps", slasher=fleet.chain.address)
    assert "Neither the wallet" in back["msg"]
    await fleet("sui_stake", workers=[worker("worker-1")])
    assert "holds no SlasherCap" in (await fleet("sui_slash", node_id="worker-1"))["msg"]
    assert (await slasher("sui_slash", node_id="worker-1", state="proposed"))["status"] == "jailed"
    assert "holds no ArbiterCap" in (await slasher("sui_slash", node_id="worker-1", state="cancelled"))["msg"]
    assert (await arbiter("sui_slash", node_id="worker-1", state="cancelled"))["status"] == "pending"


async def test_caps_keep_slasher_and_arbiter_apart_except_on_a_localnet(fleet: Operator) -> None:
    same = {"slasher": "0xA", "arbiter": "0x" + "0" * 63 + "a"}
    public = {"network": "testnet", "endpoints": ["https://127.0.0.1:1"]}
    for names in (same, {}, {"slasher": fleet.chain.address}, {"arbiter": fleet.chain.address}):
        result = await fleet("sui_caps", **public, **names)
        assert "as slasher and as arbiter on testnet, wanted two addresses" in result["msg"], names
    assert (await fleet("sui_caps", check=True, **same))["changed"]
    planned = await fleet("sui_caps", check=True, slasher="0xb", package_id="", registry_id="")
    assert (planned["changed"], planned["gas_mist"]) == (True, None)
    assert "wanted a Sui address" in (await fleet("sui_caps", slasher="me"))["msg"]


# -- sui_registry_info -------------------------------------------------------------------------------------


async def test_info_reads_everything_without_a_key(fleet: Operator) -> None:
    empty = await fleet("sui_registry_info")
    assert (empty["changed"], empty["exists"], empty["workers"], empty["master"]) == (False, True, {}, None)
    await fleet("sui_stake", workers=[worker("worker-1"), worker("worker-2")])
    await fleet("sui_master", account="0x77", gas="0")
    info = await fleet("sui_registry_info")
    assert list(info["workers"]) == ["worker-1", "worker-2"]
    assert info["workers"]["worker-1"]["seal_token"]["commitment"] == commitment("worker-1")
    assert info["workers"]["worker-1"]["status"] == "pending"
    assert info["master"]["account"].endswith("77")
    assert info["registry"]["staked_mist"] == 2 * SUI
    assert info["chain"]["id"] == fleet.chain.chain_id
    some = await fleet("sui_registry_info", check=True, node_ids=["worker-2", "nobody"])
    assert list(some["workers"]) == ["worker-2"]
    assert some["workers"]["worker-2"] == info["workers"]["worker-2"]
    assert "RFC 1123" in (await fleet("sui_registry_info", node_ids=["no_label"]))["msg"]


async def test_info_tells_the_operators_capability(fleet: Operator, new_operator: Any) -> None:
    assert (await fleet("sui_registry_info"))["operator_cap_id"] == ""
    found = await fleet("sui_registry_info", key_file=str(fleet.key_file), check=True)
    assert found["operator_cap_id"] == await fleet.registry.cap("OperatorCap")
    stranger = await new_operator()
    assert (await fleet("sui_registry_info", key_file=str(stranger.key_file)))["operator_cap_id"] == ""


async def test_info_finds_a_registry_by_its_name(fleet: Operator, new_operator: Any) -> None:
    name = (await fleet("sui_registry_info"))["registry"]["name"]
    by_name = {"package_id": None, "registry_id": None, "name": name}
    found = await fleet("sui_registry_info", key_file=str(fleet.key_file), **by_name)
    assert (found["exists"], found["package_id"], found["registry_id"]) == (True, *fleet.ids.values()), found
    holder = await fleet.registry.cap_holder("OperatorCap", found["operator_cap_id"])
    assert holder == fleet.chain.address
    by_ids = await fleet("sui_registry_info", key_file=str(fleet.key_file))
    assert by_ids["operator_cap_id"] == found["operator_cap_id"]
    assert (await fleet("sui_registry_info"))["operator_cap_id"] == ""
    other = await fleet("sui_registry_info", key_file=str(fleet.key_file), **by_name | {"name": "other"})
    assert (other["failed"], other["exists"], other["registry_id"]) == (False, False, "")
    stranger = await new_operator()
    assert not (await stranger("sui_registry_info", key_file=str(stranger.key_file), **by_name))["exists"]


async def test_an_unreachable_chain_is_named(fleet: Operator) -> None:
    urls = ["http://127.0.0.1:1", "http://127.0.0.1:2"]
    for module, more in (("sui_registry_info", {}), ("sui_stake", {"workers": [worker("worker-1")]})):
        result = await fleet(module, endpoints=urls, timeout_s=0.5, **more)
        assert result["error"] == "ChainUnreachable"
        assert all(url in result["msg"] for url in urls)
        assert "Wanted: at least one answering endpoint. Check that the URL is right" in result["msg"]


async def test_too_little_gas_is_named_with_where_to_send_more(
    fleet: Operator, new_operator: Any, live_net: Any
) -> None:
    poor = await new_operator(SUI)
    poor.ids = fleet.ids
    result = await poor("sui_stake", workers=[worker("worker-1")])
    assert result["error"] == "InsufficientGas"
    for words in (f"{poor.chain.address} holds 1 SUI", "the transaction needs 1.", "Send at least 0."):
        assert words in result["msg"]
    assert await registry_of(fleet).workers() == []
    # Run again with more money, it finishes what it began.
    await live_net.faucet(poor.chain.address, SUI)
    assert (await poor("sui_stake", workers=[worker("worker-1")]))["staked"] == ["worker-1"]


# -- sui_slash ---------------------------------------------------------------------------------------------


async def test_slash_takes_the_stake_once(fleet: Operator) -> None:
    await fleet("sui_stake", workers=[worker("worker-1")], stake="3")
    planned = await fleet("sui_slash", check=True, node_id="worker-1", evidence="ticket 1")
    assert (planned["changed"], planned["status"], planned["digests"]) == (True, "slashed", []), planned
    assert planned["slashed_mist"] == 1_500_000_000
    assert (await registry_of(fleet).worker("worker-1")).status == "pending"
    done = await fleet("sui_slash", node_id="worker-1", evidence="ticket 1")
    assert (done["changed"], done["status"], done["slashed_mist"]) == (True, "slashed", 1_500_000_000)
    assert done["diff"] == planned["diff"]
    assert done["diff"]["after"] == {"status": "slashed", "stake_mist": 1_500_000_000}
    assert done["evidence_hash"] == hashlib.sha256(b"ticket 1").hexdigest()
    before = await fleet.sent()
    for state in ("executed", "proposed"):
        again = await fleet("sui_slash", node_id="worker-1", state=state)
        assert (again["changed"], again["status"], again["slashed_mist"]) == (False, "slashed", 0)
    assert await fleet.sent() == before


async def test_slash_waits_for_the_window(new_operator: Any, new_registry: Any, live_net: Any) -> None:
    operator = await new_operator()
    registry = await new_registry(operator.chain, slash_window_ms=3_600_000)
    operator.ids = {
        "package_id": registry.deployment.package_id,
        "registry_id": registry.deployment.registry_id,
    }
    await operator("sui_stake", workers=[worker("worker-1")])
    arguments = {"node_id": "worker-1", "reason": "wrong_result", "evidence": "proof"}
    proposed = await operator("sui_slash", **arguments)
    assert (proposed["changed"], proposed["status"], proposed["slashed_mist"]) == (True, "jailed", 0)
    record = await registry.worker("worker-1")
    assert record.proposal.reason == 3
    assert record.proposal.evidence_hash == hashlib.sha256(b"proof").digest()
    assert proposed["executable_at_ms"] == record.proposal.executable_at_ms
    assert "Run again after" in str(proposed["warnings"])
    waiting = await operator("sui_slash", **arguments)
    assert (waiting["changed"], waiting["status"]) == (False, "jailed")
    jailed = await operator("sui_slash", state="proposed", **arguments)
    assert (jailed["changed"], jailed["status"]) == (False, "jailed")
    live_net.clock.advance(3_600_001)
    done = await operator("sui_slash", **arguments)
    assert (done["changed"], done["status"], done["executable_at_ms"]) == (True, "slashed", None)


async def test_a_proposal_lapses_when_nobody_executed_it(
    new_operator: Any, new_registry: Any, live_net: Any
) -> None:
    operator, stranger = await new_operator(), await new_operator()
    registry = await new_registry(operator.chain, slash_window_ms=3_600_000)
    operator.ids = stranger.ids = {
        "package_id": registry.deployment.package_id,
        "registry_id": registry.deployment.registry_id,
    }
    await operator("sui_stake", workers=[worker("worker-1"), worker("worker-2")])
    arguments = {"node_id": "worker-1", "state": "lapsed"}
    assert not (await stranger("sui_slash", **arguments))["changed"]  # nothing is proposed
    await operator("sui_slash", node_id="worker-1", state="proposed")
    early = await stranger("sui_slash", **arguments)
    assert (early["changed"], early["status"]) == (False, "jailed")
    until = early["executable_at_ms"] + 7 * 86_400_000
    assert f"can be executed until {until} (ms since 1970)" in str(early["warnings"])
    live_net.clock.advance(until - live_net.clock.now_ms())
    assert (await operator("sui_slash", node_id="worker-1"))["abort_name"] == "ESlashLapsed"
    planned = await stranger("sui_slash", check=True, **arguments)
    assert (planned["changed"], planned["status"], planned["digests"]) == (True, "pending", []), planned
    assert "nobody executed in time: it is pending again" in planned["preview"]["summary"][0]
    done = await stranger("sui_slash", **arguments)
    assert (done["changed"], done["status"], done["executable_at_ms"]) == (True, "pending", None)
    assert (done["diff"], done["slashed_mist"]) == (planned["diff"], 0)
    assert not (await stranger("sui_slash", **arguments))["changed"]
    await operator("sui_slash", node_id="worker-2", state="proposed")
    live_net.clock.advance(3_600_001)
    await operator("sui_slash", node_id="worker-2")
    late = await stranger("sui_slash", node_id="worker-2", state="lapsed")
    assert "is slashed, which is final: there is nothing left to lapse" in late["msg"]


async def test_slash_can_stop_at_the_proposal(fleet: Operator) -> None:
    await fleet("sui_stake", workers=[worker("worker-1")])
    result = await fleet("sui_slash", node_id="worker-1", state="proposed")
    assert (result["changed"], result["status"]) == (True, "jailed")
    done = await fleet("sui_slash", node_id="worker-1")
    assert (done["changed"], done["status"]) == (True, "slashed")


async def test_slash_needs_the_slasher_and_a_worker(fleet: Operator, new_operator: Any) -> None:
    await fleet("sui_stake", workers=[worker("worker-1")])
    stranger = await new_operator()
    stranger.ids = fleet.ids
    for check in (False, True):
        result = await stranger("sui_slash", check=check, node_id="worker-1")
        assert result["error"] == "MissingCap"
        assert "holds no SlasherCap" in result["msg"]
    assert "has no worker nobody" in (await fleet("sui_slash", node_id="nobody"))["msg"]
    assert "RFC 1123" in (await fleet("sui_slash", node_id="no_label"))["msg"]
    assert (await registry_of(fleet).worker("worker-1")).status == "pending"


# -- secrets -----------------------------------------------------------------------------------------------


async def test_no_result_holds_the_key(fleet: Operator) -> None:
    key = fleet.key_file.read_text().strip()
    fleet.key_file.chmod(0o644)
    exposed = await fleet("sui_stake", workers=[worker("a")])
    fleet.key_file.chmod(0o600)
    assert exposed["error"] == "InvalidKey"
    results = [exposed, await fleet("sui_stake", workers=[worker("a")]), await fleet("sui_registry_info")]
    assert key not in json.dumps(results)
    fleet.key_file.write_text(key[:-1])
    broken = await fleet("sui_stake", workers=[worker("a")])
    assert broken["error"] == "InvalidKey"
    assert key[:-1] not in json.dumps(broken)


async def test_runs_under_ansible_itself(fleet: Operator, repository: Path, tmp_path: Path) -> None:
    """With ansible.cfg's paths and the most talkative output there is."""
    arguments = {
        "network": "localnet",
        "endpoints": [fleet.url],
        "key_file": str(fleet.key_file),
        "workers": [worker("worker-1")],
        **fleet.ids,
    }
    done = await asyncio.to_thread(
        subprocess.run,
        [
            *(str(Path(sys.executable).parent / "ansible"), "localhost", "-vvv", "--diff"),
            *("-m", "sui_stake", "-a", json.dumps(arguments)),
        ],
        cwd=repository,
        env=os.environ | {"ANSIBLE_NOCOLOR": "1", "HOME": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    output = done.stdout + done.stderr
    assert done.returncode == 0, output
    assert commitment("worker-1") in output
    assert (await registry_of(fleet).worker("worker-1")).stake_mist == SUI
    assert fleet.key_file.read_text().strip() not in output
    assert "no_log" not in done.stderr


async def test_a_slash_is_cancelled_by_the_arbiter_until_it_is_executed(
    new_operator: Any, new_registry: Any
) -> None:
    operator, stranger = await new_operator(), await new_operator()
    registry = await new_registry(operator.chain, slash_window_ms=3_600_000)
    operator.ids = stranger.ids = {
        "package_id": registry.deployment.package_id,
        "registry_id": registry.deployment.registry_id,
    }
    await operator("sui_stake", workers=[worker("worker-1")], stake="2")
    nothing = await operator("sui_slash", node_id="worker-1", state="cancelled")
    assert (nothing["changed"], nothing["status"]) == (False, "pending")
    planned = await operator("sui_slash", check=True, node_id="worker-1", state="proposed")
    text = " ".join(planned["preview"]["summary"])
    assert "takes 1 SUI of the 2 SUI that worker-1 staked" in text
    assert "1 h from now at the earliest" in text
    assert "the arbiter can cancel it" in text
    assert planned["preview"]["slash_conditions"]["slash_window_ms"] == 3_600_000
    await operator("sui_slash", node_id="worker-1", state="proposed")
    refused = await stranger("sui_slash", node_id="worker-1", state="cancelled")
    assert "holds no ArbiterCap" in refused["msg"]
    planned = await operator("sui_slash", check=True, node_id="worker-1", state="cancelled")
    assert (planned["changed"], planned["status"], planned["digests"]) == (True, "pending", [])
    assert (await registry.worker("worker-1")).status == "jailed"
    done = await operator("sui_slash", node_id="worker-1", state="cancelled")
    assert (done["changed"], done["status"], done["executable_at_ms"]) == (True, "pending", None)
    assert done["diff"] == planned["diff"]
    assert not (await operator("sui_slash", node_id="worker-1", state="cancelled"))["changed"]


async def test_an_executed_slash_can_not_be_cancelled(fleet: Operator) -> None:
    await fleet("sui_stake", workers=[worker("worker-1")])
    done = await fleet("sui_slash", node_id="worker-1")
    assert "This is final" in " ".join(done["preview"]["summary"])
    result = await fleet("sui_slash", node_id="worker-1", state="cancelled")
    assert "is slashed, which is final" in result["msg"]


async def test_nobody_both_proposes_and_judges_outside_of_a_localnet(
    fleet: Operator, monkeypatch: pytest.MonkeyPatch
) -> None:
    from k3s_daas.chain import SuiClient

    await fleet("sui_stake", workers=[worker("worker-1")])
    monkeypatch.setattr(SuiClient, "network", property(lambda self: "testnet"))
    for state in ("proposed", "executed"):
        for check in (False, True):
            result = await fleet("sui_slash", check=check, node_id="worker-1", state=state)
            assert result["error"] == "WrongHolder"
            assert "as slasher and as arbiter on testnet, wanted two addresses" in result["msg"]
    cap = await fleet.registry.cap("ArbiterCap")

    async def give_away(tx: Any) -> None:
        tx.transfer([tx.object(cap)], "0xa2b1")

    await fleet.chain.execute(give_away)
    assert (await fleet("sui_slash", node_id="worker-1"))["status"] == "slashed"
