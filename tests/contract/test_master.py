"""nautilus and k8s_gateway: who is the master, and where."""

from __future__ import annotations

import base64
from collections.abc import Callable
from typing import Any

import pytest
from contract_fleet import Fleet, aborts, only, owned

from k3s_daas.chain import SuiClient, Transaction, TransactionFailed

pytestmark = pytest.mark.asyncio(loop_scope="session")
UNATTESTED = {
    "public_key": "",
    "pcr0": "",
    "pcr3": "",
    "attested_at_ms": "0",
    "attestation_expires_at_ms": "0",
    "binding": {"chain_id": "", "ca_hash": "", "config_hash": ""},
}


async def test_appoint_and_announce(fleet: Fleet, alice: SuiClient) -> None:
    receipt = await fleet.call(
        fleet.admin,
        "nautilus::appoint_master",
        lambda tx: [
            tx.object(fleet.operator_cap),
            tx.address(alice.require_address()),
            tx.object("0x6", mutable=False),
        ],
    )
    assert only(receipt, "MasterAppointedEvent") == {
        "registry": fleet.registry,
        "epoch": "1",
        "account": alice.address,
    }
    (cap,) = [
        c
        for c in await owned(alice, fleet, "worker_registry::MasterCap")
        if c.json["registry"] == fleet.registry
    ]
    assert cap.json["epoch"] == "1"
    assert (await fleet.read())["master"] == {
        "epoch": "1",
        "account": alice.address,
        "endpoint": "",
        "api_server": "",
        "ca_hash": "",
        "announced_at_ms": "0",
        **UNATTESTED,
    }
    receipt = await fleet.announce(alice, cap.id)
    ca_hash = base64.b64encode(bytes(range(32))).decode()
    assert only(receipt, "MasterAnnouncedEvent") == {
        "registry": fleet.registry,
        "epoch": "1",
        "endpoint": "https://10.123.1.11:8443",
        "api_server": "https://10.123.1.11:6443",
        "ca_hash": ca_hash,
        "public_key": "",
        "attestation_expires_at_ms": "0",
    }
    master = (await fleet.read())["master"]
    assert 0 < int(master.pop("announced_at_ms")) <= fleet.now_ms
    assert master == {
        "epoch": "1",
        "account": alice.address,
        "endpoint": "https://10.123.1.11:8443",
        "api_server": "https://10.123.1.11:6443",
        "ca_hash": ca_hash,
        **UNATTESTED,
    }


async def test_a_new_master_voids_the_old_one(fleet: Fleet, alice: SuiClient, bob: SuiClient) -> None:
    old = await fleet.appoint(alice.require_address())
    await fleet.announce(alice, old)
    await fleet.stake(alice, "w-1")
    new = await fleet.appoint(bob.require_address())
    master = (await fleet.read())["master"]
    assert (master["epoch"], master["endpoint"], master["ca_hash"]) == ("2", "", "")
    with aborts("EMasterSuperseded"):
        await fleet.announce(alice, old)
    with aborts("EMasterSuperseded"):
        await fleet.set_statuses(alice, old, ["w-1"], ["active"])
    await fleet.announce(bob, new)
    await fleet.set_statuses(bob, new, ["w-1"], ["active"])


async def test_a_master_cap_is_soulbound(fleet: Fleet, alice: SuiClient, bob: SuiClient) -> None:
    cap = await fleet.appoint(alice.require_address())

    async def transfer(tx: Transaction) -> None:
        tx.transfer([tx.object(cap)], bob.require_address())

    async def public_transfer(tx: Transaction) -> None:
        args = [tx.object(cap), tx.address(bob.require_address())]
        tx.call("0x2::transfer::public_transfer", args, [f"{fleet.package}::worker_registry::MasterCap"])

    for build in (transfer, public_transfer):
        with pytest.raises(TransactionFailed):
            await alice.execute(build)
    with pytest.raises(TransactionFailed):  # nor can another use it in place
        await fleet.announce(bob, cap)


async def test_an_operator_cannot_appoint_where_attestation_is_required(
    make_fleet: Callable[..., Any], alice: SuiClient
) -> None:
    fleet: Fleet = await make_fleet(require_attestation=True)
    with aborts("EAttestationRequired"):
        await fleet.appoint(alice.require_address())


@pytest.mark.parametrize(
    "endpoint",
    [
        "",
        "https://",
        "http://10.0.0.1:8443",
        "10.0.0.1:8443",
        "https://host/path",
        "https://user@host",
        "https://host?x",
        "https://{{ x }}",
        "https://a b",
        "https://é",
        "https://" + "a" * 249,
    ],
)
async def test_endpoints_that_are_refused(fleet: Fleet, endpoint: str) -> None:
    cap = await fleet.appoint(fleet.admin.require_address())
    with aborts("EInvalidEndpoint"):
        await fleet.announce(fleet.admin, cap, endpoint=endpoint)
    with aborts("EInvalidEndpoint"):
        await fleet.announce(fleet.admin, cap, api_server=endpoint)


async def test_endpoints_that_are_accepted(fleet: Fleet) -> None:
    cap = await fleet.appoint(fleet.admin.require_address())
    for endpoint in ("https://h", "https://master.Example.org:8443", "https://[fd00::1]:6443"):
        await fleet.announce(fleet.admin, cap, endpoint=endpoint, api_server=endpoint)


async def test_a_ca_hash_is_32_bytes(fleet: Fleet) -> None:
    cap = await fleet.appoint(fleet.admin.require_address())
    for wrong in (b"", bytes(31), bytes(33)):
        with aborts("EInvalidCaHash"):
            await fleet.announce(fleet.admin, cap, ca_hash=wrong)
