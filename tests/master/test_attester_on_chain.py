"""A master's attestation against the contract itself, on a localnet that accepts the emulator's documents."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from k3s_daas.attestation import simulation_root
from k3s_daas.attestation.serving import ServingRefused, check_serving, new_nonce
from k3s_daas.attestation.statements import Statement, chain_digest, registration
from k3s_daas.chain import MoveAbort
from k3s_daas.registry import AgreedRegistry, Binding, Registry
from k3s_daas.registry.attested import agree, live_master, read_basis
from k3s_daas.registry.mastery import Image, plan_images
from k3s_daas.registry.operation import carry_out
from k3s_daas_localnet import nsm_serve
from k3s_daas_localnet.nsm import NsmEmulator
from k3s_daas_master import nsm
from k3s_daas_master.attester import RENEW_MS, Attester
from k3s_daas_master.clock import Clock
from k3s_daas_master.freshness import ChainView
from k3s_daas_master.index import TokenIndex
from k3s_daas_master.registration import ClusterCa

pytestmark = pytest.mark.asyncio(loop_scope="session")
PCRS = nsm_serve.DEFAULT_PCRS
IMAGE = Image(PCRS[0], PCRS[3])
CONFIG = b"\x06" * 32


class Subject:
    """An attester that reads the registry anew whenever it looks."""

    def __init__(self, registry: Registry, net: Any, emulator: NsmEmulator, folder: Path) -> None:
        self.registry, self.net = registry, net
        self.index = TokenIndex()
        clock = _NetClock(net)
        self.view = ChainView(clock)
        self.ca = ClusterCa(b"", b"c" * 32)
        module = nsm_serve.Module(emulator, PCRS, net.clock.now_ms())
        self.attester = Attester(
            module=nsm.SecurityModule(lambda request: module.answer(request, net.clock.now_ms())),
            required=True,
            index=self.index,
            view=self.view,
            registry=registry,
            chain_id=registry.chain.chain_id,
            deployment=registry.deployment,
            address=registry.chain.require_address(),
            config_hash=CONFIG,
            ca=self.ca,
            key_file=folder / "attestation.key",
            clock=clock,
        )

    async def look(self) -> None:
        await self.read()
        await self.attester.look()
        await self.read()

    async def read(self) -> None:
        self.index.load(await self.registry.snapshot())
        self.index.settled = True
        self.view.seen((self.view.sequence or 0) + 1, self.net.clock.now_ms())


class _NetClock(Clock):
    def __init__(self, net: Any) -> None:
        self._net = net

    def now_ms(self) -> int:
        now: int = self._net.clock.now_ms()
        return now

    def monotonic(self) -> float:
        return self.now_ms() / 1000


async def test_from_the_list_of_images_to_a_renewal(
    new_registry: Any, new_wallet: Any, live_net: Any, nitro: NsmEmulator, tmp_path: Path
) -> None:
    operator: Registry = await new_registry(require_attestation=True)
    emulator = nitro.restarted(live_net.clock.now_ms() - 10_000)
    one = Subject(Registry(await new_wallet(), operator.deployment), live_net, emulator, tmp_path)
    await one.look()
    assert "EImageNotAllowed" in str(one.attester.problem)
    assert one.attester.not_ready() is not None
    _, operation = await plan_images(operator, frozenset({IMAGE}))
    await carry_out(operator.chain, operation)
    live_net.clock.advance(20_000)
    await one.look()
    assert one.attester.problem is None
    assert one.attester.live()
    master = await operator.master()
    assert master is not None
    assert (master.account, master.pcr0, master.pcr3) == (one.registry.chain.address, IMAGE.pcr0, IMAGE.pcr3)
    # What MasterCap is for works.
    await one.registry.announce_master("https://m:8443", "https://m:6443", b"c" * 32)
    await check_as_a_client(operator, one, nitro)
    live_net.clock.advance(24 * 3_600_000 - RENEW_MS)
    await one.look()
    renewed = await operator.master()
    assert renewed is not None
    assert (renewed.epoch, renewed.endpoint) == (master.epoch, "https://m:8443")
    assert renewed.attestation_expires_at_ms > master.attestation_expires_at_ms
    # What it was told, and its CA, are in the record; a new CA is attested before it is announced.
    assert renewed.binding == Binding(chain_digest(operator.chain.chain_id), b"c" * 32, CONFIG)
    one.ca.hash = b"d" * 32
    live_net.clock.advance(20_000)
    with pytest.raises(MoveAbort, match="EOtherCa"):
        await one.registry.announce_master("https://m:8443", "https://m:6443", one.ca.hash)
    await one.look()
    with pytest.raises(ServingRefused) as caught:
        await check_as_a_client(operator, one, nitro)
    assert caught.value.code == "ca_mismatch"
    await one.registry.announce_master("https://m:8443", "https://m:6443", one.ca.hash)
    await check_as_a_client(operator, one, nitro)
    # Another enclave takes over; the first stays what it was: replaced.
    (tmp_path / "two").mkdir()
    other = nitro.restarted(live_net.clock.now_ms() - 10_000)
    wallet = await new_wallet()
    two = Subject(Registry(wallet, operator.deployment), live_net, other, tmp_path / "two")
    await two.look()
    assert two.attester.live()
    live_net.clock.advance(20_000)
    await one.look()
    assert not one.attester.live()
    assert "has taken over" in str(one.attester.problem)


async def check_as_a_client(operator: Registry, subject: Subject, nitro: NsmEmulator) -> None:
    """What k3s-daas attest and the watcher do, by the chain's own records."""
    nonce = new_nonce()
    raw = await subject.attester.document(nonce)
    agreed = AgreedRegistry(operator.chain, operator.deployment)
    basis = agree(await agreed.each(read_basis))
    live = live_master("localnet", operator.deployment, basis)
    root = simulation_root(nitro.root_pem, "localnet")
    assert check_serving(raw, nonce, live, now_ms=basis.time_ms, root=root).public_key == live.public_key
    assert live.images == {(IMAGE.pcr0, IMAGE.pcr3)}
    with pytest.raises(ServingRefused) as caught:
        check_serving(raw, nonce, live, now_ms=basis.time_ms)
    assert caught.value.code == "document_untrusted"


async def test_a_network_without_the_emulators_root_takes_none(new_registry: Any, live_net: Any) -> None:
    """By construction: the document can't even be loaded."""
    operator: Registry = await new_registry(require_attestation=True)
    now_ms = live_net.clock.now_ms()
    ours, account = operator.deployment, operator.chain.require_address()
    statement = registration(
        Statement(operator.chain.chain_id, ours.types_id, ours.registry_id, account, bytes(32), bytes(32))
    )
    stranger = NsmEmulator(now_ms - 10_000)
    document = stranger.document(now_ms, pcrs=PCRS, public_key=b"k" * 32, user_data=statement)
    with pytest.raises(MoveAbort, match="load_nitro_attestation"):
        await operator.register_master(document)
