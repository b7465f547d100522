"""sui_master, sui_images, sui_snapshots: who is master, or may attest as one, and what of it is restored."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from k3s_daas.attestation.statements import Statement, registration
from k3s_daas.chain import Key, SuiClient
from k3s_daas.registry import AgreedRegistry, Registry, RegistryParams, create_registry, publish
from k3s_daas.registry.snapshots import Anchors
from k3s_daas_localnet import Localnet
from k3s_daas_localnet.nsm import NsmEmulator

Operator = Any  # of conftest.py
pytestmark = pytest.mark.asyncio(loop_scope="session")
SUI = 1_000_000_000
ONE = {"pcr0": "10" * 48, "pcr3": "13" * 48}
TWO = {"pcr0": "20" * 48, "pcr3": "13" * 48}


async def test_master_is_appointed_and_kept_in_gas(fleet: Operator, new_wallet: Any) -> None:
    master = await new_wallet(0, coins=0)
    planned = await fleet("sui_master", check=True, account=master.address)
    assert (planned["changed"], planned["topped_up_mist"], planned["digests"]) == (True, SUI // 2, [])
    assert planned["diff"]["before"]["master"] is None
    text = " ".join(planned["preview"]["summary"])
    assert f"Makes {master.address} the master: it sets workers' statuses" in text
    assert "Sends it 0.5 SUI for gas, which is all that is lost with its key." in text
    preview, held = planned["preview"], await fleet.chain.balance(fleet.chain.address)
    assert (preview["paid_mist"], preview["stake_locked_mist"]) == (SUI // 2, 0)
    assert (preview["balance_before_mist"], preview["transactions"]) == (held, 1)
    assert preview["balance_after_mist"] == held - SUI // 2 - planned["gas_mist"]
    made = await fleet("sui_master", account=master.address)
    assert (made["changed"], made["epoch"], made["topped_up_mist"]) == (True, 1, SUI // 2)
    assert (made["preview"], len(made["digests"])) == (preview, 1)
    assert await fleet.chain.balance(fleet.chain.address) == preview["balance_after_mist"]
    assert await master.balance(master.address) == SUI // 2
    registry = Registry(master, fleet.registry.deployment)
    await registry.announce_master("https://m:8443", "https://m:6443", bytes(32))
    before = await fleet.sent()
    again = await fleet("sui_master", account=master.address)
    assert (again["changed"], again["epoch"], again["topped_up_mist"]) == (False, 1, 0)
    assert await fleet.sent() == before
    assert (await registry.master()).endpoint == "https://m:8443"  # a new appointment would have forgotten it
    await registry.send("0x5", 3 * SUI // 10)
    left = await master.balance(master.address)
    topped = await fleet("sui_master", account=master.address)
    assert (topped["changed"], topped["epoch"], topped["topped_up_mist"]) == (True, 1, SUI // 2 - left)
    assert await master.balance(master.address) == SUI // 2
    assert "Makes" not in str(topped["preview"]["summary"])
    shown = await fleet("sui_master", check=True, account="0x77", gas="0")
    assert f"Master {master.address} (epoch 1) is none any more at once" in str(shown["preview"])
    assert (shown["epoch"], shown["preview"]["paid_mist"]) == (0, 0)
    other = await fleet("sui_master", account="0x77", gas="0")
    assert (other["changed"], other["epoch"], other["topped_up_mist"]) == (True, 2, 0)


async def test_master_needs_the_operator_also_in_check_mode(fleet: Operator, new_operator: Any) -> None:
    stranger = await new_operator()
    stranger.ids = fleet.ids
    for check in (False, True):
        result = await stranger("sui_master", check=check, account="0x77")
        assert result["error"] == "MissingCap"
        assert "holds no OperatorCap" in result["msg"]


async def test_master_is_refused_where_attestation_is_required(new_operator: Any, new_registry: Any) -> None:
    operator = await new_operator()
    registry = await new_registry(operator.chain, require_attestation=True)
    ids = {"package_id": registry.deployment.package_id, "registry_id": registry.deployment.registry_id}
    result = await operator("sui_master", account="0x77", **ids)
    assert result["abort_name"] == "EAttestationRequired"


async def test_a_master_that_attests_itself_gets_gas_and_no_appointment(
    new_operator: Any, new_registry: Any, new_wallet: Any
) -> None:
    operator, master = await new_operator(), await new_wallet(0, coins=0)
    registry = await new_registry(operator.chain, require_attestation=True)
    ids = {"package_id": registry.deployment.package_id, "registry_id": registry.deployment.registry_id}
    asked = {"account": master.address, "attests": True, **ids}
    planned = await operator("sui_master", check=True, **asked)
    done = await operator("sui_master", **asked)
    for result in (planned, done):
        assert (result["changed"], result["epoch"], result["topped_up_mist"]) == (True, 0, SUI // 2)
        assert result["diff"]["after"] == {"master": None, "topped_up_mist": SUI // 2}
        assert "Makes" not in str(result["preview"]["summary"])
    assert await master.balance(master.address) == SUI // 2
    assert await registry.master() is None
    again = await operator("sui_master", **asked)
    assert (again["changed"], again["digests"]) == (False, [])
    fresh = await operator("sui_master", check=True, account="", attests=True, registry_id="", package_id="")
    assert fresh["diff"]["after"]["master"] is None
    assert "Makes" not in str(fresh["preview"]["summary"])


async def test_the_operators_own_wallet_gets_no_gas_of_itself(fleet: Operator) -> None:
    made = await fleet("sui_master", account=fleet.chain.address, gas="1000")
    assert (made["changed"], made["topped_up_mist"], made["preview"]["paid_mist"]) == (True, 0, 0)
    assert not (await fleet("sui_master", account=fleet.chain.address, gas="1000"))["changed"]


# -- sui_images --------------------------------------------------------------------------------------------


async def test_images_are_listed_as_asked(fleet: Operator, new_operator: Any) -> None:
    assert not (await fleet("sui_images", images=[]))["changed"]
    planned = await fleet("sui_images", check=True, images=[ONE, TWO])
    assert (planned["changed"], planned["digests"], planned["diff"]["before"]) == (True, [], {"images": []})
    assert f"Lets whoever runs image {ONE['pcr0']} under IAM role {ONE['pcr3']} attest" in str(
        planned["preview"]
    )
    done = await fleet("sui_images", images=[TWO, ONE, ONE])
    assert (len(done["digests"]), done["images"], done["diff"]) == (1, [ONE, TWO], planned["diff"])
    assert done["gas_mist"] == planned["preview"]["gas_estimate_mist"]
    before = await fleet.sent()
    for check in (False, True):
        assert not (await fleet("sui_images", check=check, images=[ONE, TWO]))["changed"]
    assert await fleet.sent() == before
    changed = await fleet("sui_images", images=[TWO])
    assert "off the list: it can't attest as a master any more." in str(changed["preview"])
    assert changed["diff"] == {"before": {"images": [ONE, TWO]}, "after": {"images": [TWO]}}
    stranger = await new_operator()
    stranger.ids = fleet.ids
    assert "holds no OperatorCap" in (await stranger("sui_images", images=[]))["msg"]


async def test_images_come_and_go_beside_others(fleet: Operator) -> None:
    await fleet("sui_images", images=[ONE])
    added = await fleet("sui_images", images=[TWO], state="present")
    assert (added["changed"], added["images"]) == (True, [ONE, TWO])
    assert (await fleet("sui_registry_info"))["images"] == [ONE, TWO]
    before = await fleet.sent()
    assert not (await fleet("sui_images", images=[ONE], state="present"))["changed"]
    assert await fleet.sent() == before
    gone = await fleet("sui_images", images=[ONE], state="absent")
    assert (gone["changed"], gone["images"]) == (True, [TWO])
    assert not (await fleet("sui_images", images=[ONE], state="absent"))["changed"]


@pytest.mark.parametrize(
    ("images", "wrong"),
    [
        ([ONE | {"pcr0": "00" * 48}], "Found a pcr0 of 48 bytes, all zero"),
        ([ONE | {"pcr3": "00" * 48}], "Found a pcr3 of 48 bytes, all zero"),
        ([ONE | {"pcr0": "10" * 47}], "wanted 48 bytes in hex: 96 digits"),
        ([ONE | {"pcr3": "zz" * 48}], "wanted 48 bytes in hex: 96 digits"),
        ([{"pcr0": "10" * 48}], "missing required arguments: pcr3"),
        (
            [ONE | {"pcr0": f"{number:02x}" * 48} for number in range(1, 34)],
            "Found 33 images, wanted at most 32",
        ),
    ],
)
async def test_what_is_no_image_is_refused(fleet: Operator, images: list[Any], wrong: str) -> None:
    before = await fleet.sent()
    result = await fleet("sui_images", images=images)
    assert wrong in result["msg"]
    assert await fleet.sent() == before


async def test_the_operator_reads_that_a_master_loses_its_image(new_operator: Any, compiled: Any) -> None:
    operator = await new_operator(0)
    async with Localnet.start() as probe:
        now = probe.clock.now_ms()
    emulator = NsmEmulator(now - 60_000)
    async with Localnet.start(simulated_nitro_root=emulator.root_pem) as net:
        key = Key.load(operator.key_file)
        await net.faucet(key.address, 100 * SUI)
        async with await SuiClient.connect([net.url], "localnet", key) as chain:
            package, _ = await publish(chain, compiled)
            params = RegistryParams("attested", True, SUI, 0, 0, 5000, True)
            deployment, _ = await create_registry(chain, package, params)
            ids = {"package_id": deployment.package_id, "registry_id": deployment.registry_id}
            operator = replace(operator, chain=chain, url=net.url, ids=ids)
            await operator("sui_images", images=[ONE, TWO])
            await attest(operator, emulator, net.clock.now_ms())
            assert (await operator.registry.master()).pcr0.hex() == ONE["pcr0"]
            planned = await operator("sui_images", check=True, images=[TWO])
            assert f"Master {key.address} (epoch 1) runs it and is none any more at once" in str(
                planned["preview"]
            )
            assert await operator.registry.master() is not None
            await operator("sui_images", images=[TWO])
            assert await operator.registry.master() is None


async def attest(operator: Operator, emulator: NsmEmulator, now_ms: int) -> None:
    """The wallet becomes master by a document of image ONE."""
    ids = operator.ids
    account = operator.chain.require_address()
    statement = Statement(
        operator.chain.chain_id, ids["package_id"], ids["registry_id"], account, bytes(32), bytes(32)
    )
    document = emulator.document(
        now_ms,
        pcrs={0: bytes.fromhex(ONE["pcr0"]), 3: bytes.fromhex(ONE["pcr3"])},
        public_key=bytes(range(32)),
        user_data=registration(statement),
    )

    async def build(tx: Any) -> None:
        clock = tx.object("0x6", mutable=False)
        loaded = tx.call("0x2::nitro_attestation::load_nitro_attestation", [tx.data(document), clock])
        target = f"{ids['package_id']}::nautilus::register_master"
        tx.call(target, [tx.object(ids["registry_id"]), loaded, clock])

    await operator.chain.execute(build)


# -- sui_snapshots -----------------------------------------------------------------------------------------


async def test_snapshots_are_given_up_once(fleet: Operator, new_wallet: Any, new_operator: Any) -> None:
    nothing = await fleet("sui_snapshots")
    assert (nothing["changed"], nothing["counter"], nothing["digests"]) == (False, 0, [])
    wallet = await new_wallet()
    await fleet.registry.appoint_master(wallet.address)
    await Anchors(AgreedRegistry(wallet, fleet.registry.deployment)).anchor(1, b"", b"h" * 32)
    planned = await fleet("sui_snapshots", check=True)
    assert (planned["changed"], planned["counter"], planned["digests"]) == (True, 1, [])
    assert planned["diff"]["before"]["restorable"] == f"number 1, {(b'h' * 32).hex()}"
    assert "Gives up snapshot 1 and all before it" in " ".join(planned["preview"]["summary"])
    stranger = await new_operator()
    stranger.ids = fleet.ids
    assert "holds no OperatorCap" in (await stranger("sui_snapshots"))["msg"]
    seen = (await fleet("sui_registry_info"))["sealed_snapshot"]
    assert (seen["counter"], seen["hash"], seen["epoch"]) == (1, (b"h" * 32).hex(), 1)
    done = await fleet("sui_snapshots")
    assert (done["changed"], len(done["digests"])) == (True, 1)
    again = await fleet("sui_snapshots")
    assert (again["changed"], again["counter"], again["diff"]["before"]) == (False, 1, {"restorable": "none"})


# -- sealed_snapshot ---------------------------------------------------------------------------------------


async def test_a_snapshot_wants_a_master_that_answers(fleet: Operator, new_wallet: Any) -> None:
    assert "Found no master in registry" in (await fleet("sealed_snapshot"))["msg"]
    wallet = await new_wallet()
    await fleet.registry.appoint_master(wallet.address)
    assert "Found a master without an endpoint" in (await fleet("sealed_snapshot"))["msg"]
    registry = Registry(wallet, fleet.registry.deployment)
    await registry.announce_master("https://127.0.0.1:1", "https://127.0.0.1:1", bytes(32))
    before = await fleet.sent()
    planned = await fleet("sealed_snapshot", check=True)
    assert (planned["changed"], planned["anchored"], planned["counter"]) == (True, False, 0)
    assert "The master made no snapshot: https://127.0.0.1:1" in (await fleet("sealed_snapshot"))["msg"]
    skipped = await fleet("sealed_snapshot", required=False)
    assert (skipped["failed"], skipped["changed"], skipped["anchored"]) == (False, False, False)
    assert "https://127.0.0.1:1" in skipped["problem"]
    assert await fleet.sent() == before
