"""sui_seal_token, and a rotation as the playbook does it: host, chain, host."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.asyncio(loop_scope="session")
DAY_MS = 86_400_000


def commitment(name: str) -> str:
    return hashlib.sha256(name.encode()).hexdigest()


def worker(node_id: str, secret: str | None = None) -> dict[str, Any]:
    return {"node_id": node_id, "commitment": commitment(secret or node_id)}


async def test_rotates_many_in_one_transaction_and_each_once(fleet: Any) -> None:
    await fleet("sui_stake", workers=[worker("a"), worker("b"), worker("c")])
    wanted = [worker("a", "a2"), worker("b", "b2")]
    planned = await fleet("sui_seal_token", check=True, workers=wanted, state="rotated")
    assert (planned["changed"], planned["digests"]) == (True, []), planned
    assert "old secret is worthless at once" in planned["preview"]["summary"][0]
    assert planned["gas_mist"] == planned["preview"]["gas_estimate_mist"] > 0
    assert planned["tokens"]["a"]["commitment"] == commitment("a")
    held = await fleet.chain.balance(fleet.chain.address)
    done = await fleet("sui_seal_token", workers=wanted, state="rotated", token_lifetime_days=10)
    assert len(done["digests"]) == 1
    assert await fleet.chain.balance(fleet.chain.address) == held - done["gas_mist"]
    assert done["diff"] == planned["diff"]
    assert done["diff"]["before"]["a"] == {"generation": 1, "revoked": False}
    assert done["diff"]["after"]["a"] == {"generation": 2, "revoked": False}
    token = done["tokens"]["b"]
    assert (token["commitment"], token["generation"]) == (commitment("b2"), 2)
    assert 9 * DAY_MS - 60_000 < token["expires_at_ms"] - token["issued_at_ms"] <= 10 * DAY_MS
    assert (await fleet.registry.worker_token("c")).generation == 1
    before = await fleet.sent()
    for state in ("rotated", "present"):
        again = await fleet("sui_seal_token", workers=wanted, state=state)
        assert (again["changed"], again["tokens"]) == (False, done["tokens"])
    assert await fleet.sent() == before
    mixed = await fleet("sui_seal_token", workers=[worker("a", "a2"), worker("b", "b3")], state="rotated")
    assert {name: one["generation"] for name, one in mixed["tokens"].items()} == {"a": 2, "b": 3}


async def test_revokes_and_comes_back_only_with_another_secret(fleet: Any) -> None:
    await fleet("sui_stake", workers=[worker("a"), worker("b")])
    planned = await fleet("sui_seal_token", check=True, workers=[{"node_id": "a"}], state="revoked")
    done = await fleet("sui_seal_token", workers=[{"node_id": "a"}], state="revoked")
    assert (done["changed"], done["tokens"]["a"]["revoked"], done["diff"]) == (True, True, planned["diff"])
    again = await fleet("sui_seal_token", workers=[{"node_id": "a"}, {"node_id": "nobody"}], state="revoked")
    assert not again["changed"]
    for state in ("present", "rotated"):
        dead = await fleet("sui_seal_token", workers=[worker("a")], state=state)
        assert "is revoked, wanted a live one" in dead["msg"]
    used = await fleet("sui_seal_token", workers=[worker("b", "a")], state="rotated")
    assert used["abort_name"] == "ECommitmentReused"
    back = await fleet("sui_seal_token", workers=[worker("a", "a2")], state="rotated")
    assert (back["tokens"]["a"]["generation"], back["tokens"]["a"]["revoked"]) == (2, False)


async def test_an_expired_token_needs_another_secret(fleet: Any, live_net: Any) -> None:
    await fleet("sui_stake", workers=[worker("a")], token_lifetime_days=0.001)
    live_net.clock.advance(90_000)
    await fleet.registry.send("0x5", 1)  # the Clock object moves with transactions only
    for state in ("present", "rotated"):
        assert "is expired" in (await fleet("sui_seal_token", workers=[worker("a")], state=state))["msg"]
    assert (await fleet("sui_seal_token", workers=[worker("a", "a2")], state="rotated"))["changed"]


async def test_present_creates_and_never_replaces(fleet: Any) -> None:
    async def stake_only(tx: Any) -> None:
        (coin,) = tx.split([1_000_000_000])
        args = [tx.object(fleet.ids["registry_id"]), coin, tx.string("a")]
        args += [tx.address(fleet.chain.address), tx.object("0x6")]
        tx.call(f"{fleet.ids['package_id']}::worker_registry::stake_and_register_worker", args)

    await fleet.chain.execute(stake_only)
    made = await fleet("sui_seal_token", workers=[worker("a")])
    assert (made["changed"], made["tokens"]["a"]["generation"]) == (True, 1), made
    assert "first worker seal token on-chain for a" in made["preview"]["summary"][0]
    other = await fleet("sui_seal_token", workers=[worker("a", "b")])
    assert f"found {commitment('b')}, wanted commitment {commitment('a')}" in other["msg"]


async def test_an_owner_has_one_token_of_its_own(fleet: Any, new_operator: Any) -> None:
    owner = {"scope": "owner"}
    without = await fleet("sui_seal_token", **owner, commitment=commitment("kubectl"))
    assert without["abort_name"] == "ENotAnOwner"
    await fleet("sui_stake", workers=[worker("a")])
    address = fleet.chain.address
    made = await fleet("sui_seal_token", **owner, commitment=commitment("kubectl"))
    assert (made["changed"], made["tokens"][address]["generation"]) == (True, 1)
    assert made["tokens"][address]["scope"] == "owner"
    assert not (await fleet("sui_seal_token", **owner, commitment=commitment("kubectl")))["changed"]
    planned = await fleet("sui_seal_token", check=True, **owner, state="rotated")
    assert planned["diff"]["after"] == {address: {"generation": 2, "revoked": False}}
    done = await fleet("sui_seal_token", **owner, commitment=commitment("k2"), state="rotated")
    assert done["tokens"][address]["commitment"] == commitment("k2")
    gone = await fleet("sui_seal_token", **owner, state="revoked")
    assert gone["tokens"][address]["revoked"]
    assert not (await fleet("sui_seal_token", **owner, state="revoked"))["changed"]
    stranger = await new_operator()
    stranger.ids = fleet.ids
    assert not (await stranger("sui_seal_token", **owner, state="revoked"))["changed"]
    assert (await fleet.registry.worker_token("a")).generation == 1


@pytest.mark.parametrize(
    ("arguments", "wrong"),
    [
        ({"workers": []}, "wanted workers alone with scope worker"),
        ({"workers": [worker("a")], "commitment": commitment("b")}, "wanted workers alone"),
        ({"workers": [worker("a")], "scope": "owner"}, "wanted a commitment alone"),
        ({"scope": "owner"}, "wanted a commitment alone"),
        ({"scope": "owner", "commitment": "seal_canary" + "A" * 37}, "64 hex digits"),
        ({"workers": [{"node_id": "a"}]}, "Found no commitment for a"),
        ({"workers": [worker("A")]}, "RFC 1123"),
        ({"workers": [worker("a"), worker("b", "a")], "state": "rotated"}, "twice, for a and b"),
        ({"workers": [worker("nobody")], "state": "rotated"}, "Found no worker nobody"),
        ({"workers": [worker("gone", "x")], "state": "rotated"}, "Worker gone is slashed"),
        ({"workers": [worker("leaving", "x")], "state": "rotated"}, "Worker leaving is unbonding"),
        ({"workers": [worker("theirs", "x")], "state": "rotated"}, "Worker theirs belongs to"),
        ({"workers": [{"node_id": "theirs"}], "state": "revoked"}, "Worker theirs belongs to"),
        ({"workers": [worker("a")], "token_lifetime_days": 366}, "at most 365"),
        ({"workers": [worker("a")], "registry_id": ""}, "Only check mode plans"),
    ],
)
async def test_refuses_before_anything_is_sent(
    fleet: Any, new_operator: Any, arguments: dict[str, Any], wrong: str
) -> None:
    other = await new_operator()
    other.ids = fleet.ids
    await other("sui_stake", workers=[worker("theirs")])
    await fleet("sui_stake", workers=[worker("fine"), worker("gone"), worker("leaving")])
    await fleet.registry.slash_now("gone", 4, bytes(32))
    await fleet.registry.request_unstake("leaving")
    before = await fleet.sent()
    result = await fleet("sui_seal_token", **arguments)
    assert result["failed"]
    assert wrong in result["msg"]
    assert "canary" not in str(result)
    assert await fleet.sent() == before


async def test_there_is_nothing_to_rotate_in_a_registry_to_come(new_operator: Any) -> None:
    operator = await new_operator()
    operator.ids = {"package_id": "", "registry_id": ""}
    result = await operator("sui_seal_token", check=True, workers=[worker("a")])
    assert "would only be created by this run" in result["msg"]


# -- the whole rotation ------------------------------------------------------------------------------------


class Host:
    """A worker's file, and the steps that playbooks/rotate.yml takes."""

    def __init__(self, operator: Any, arun: Any, folder: Path) -> None:
        self.operator, self.arun, self.path = operator, arun, folder / "seal-token"

    async def seal(self, state: str, **more: Any) -> dict[str, Any]:
        arguments = {"node_id": "worker-1", "path": str(self.path), "state": state, **more}
        result: dict[str, Any] = await self.arun("seal_commitment", **arguments)
        assert not result["failed"], result
        result.pop("warnings", None)  # of earlier modules in this process
        return result

    async def chain(self, made: dict[str, Any]) -> dict[str, Any]:
        result: dict[str, Any] = await self.operator("sui_seal_token", workers=[made], state="rotated")
        assert not result["failed"], result
        return result

    async def rotate(self) -> tuple[int, bool]:
        """(generation, whether this run told the chain)."""
        sent = await self.chain(await self.seal("next"))
        token = sent["tokens"]["worker-1"]
        await self.seal("promoted", commitment=token["commitment"])
        return token["generation"], sent["changed"]


@pytest.fixture
def new_host(fleet: Any, arun: Any, tmp_path: Path) -> Any:
    async def make() -> Host:
        host = Host(fleet, arun, tmp_path)
        assert not (await fleet("sui_stake", workers=[await host.seal("present")]))["failed"]
        return host

    return make


async def agrees(host: Host) -> bool:
    live = hashlib.sha256(host.path.read_text().strip().encode()).digest()
    leftovers = [path.name for path in host.path.parent.iterdir() if "seal-token." in path.name]
    return (await host.operator.registry.worker_token("worker-1")).commitment == live and not leftovers


async def test_a_rotation_killed_before_the_chain_knows_is_finished(new_host: Any) -> None:
    host = await new_host()
    made = await host.seal("next")
    # Killed here. The live secret is still good, and staking again still fits.
    assert (await host.seal("present"))["commitment"] != made["commitment"]
    assert await host.rotate() == (2, True)
    assert await agrees(host)
    assert (await host.operator.registry.worker_token("worker-1")).commitment.hex() == made["commitment"]


async def test_a_rotation_killed_after_the_chain_knows_is_finished(new_host: Any) -> None:
    host = await new_host()
    made = await host.seal("next")
    await host.chain(made)
    # Killed here: the live secret is dead, the good one waits.
    staked = await host.operator("sui_stake", workers=[await host.seal("present")])
    assert "rotate.yml -e rotate=seal_tokens, which finishes it" in staked["msg"]
    assert await host.rotate() == (2, False)  # nothing is sent twice
    assert await agrees(host)
    assert not (await host.operator("sui_stake", workers=[await host.seal("present")]))["failed"]


async def test_a_rotation_killed_after_the_rename_is_whole(new_host: Any) -> None:
    host = await new_host()
    assert await host.rotate() == (2, True)
    assert await agrees(
        host
    )  # only the watcher was not restarted: the next run makes another secret and does
    assert await host.rotate() == (3, True)
    assert await agrees(host)


async def test_a_rotation_brings_back_a_host_that_lost_its_secret(new_host: Any) -> None:
    host = await new_host()
    host.path.unlink()
    assert await host.rotate() == (2, True)
    assert await agrees(host)
