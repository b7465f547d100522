"""A master that another has overtaken ends k3s, once and for good, and no other does."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from attester_kit import Emulated, settle

from k3s_daas.chain.errors import ChainUnreachable
from k3s_daas.registry import Binding
from k3s_daas_master import nsm

OTHER = "0x" + "ee" * 32


@pytest.fixture
def emulated(clock: Any) -> Emulated:
    return Emulated(clock)


@pytest.fixture
def module(emulated: Emulated) -> nsm.SecurityModule:
    return nsm.SecurityModule(emulated.exchange)


@pytest.fixture
async def attested(bench: Any) -> Any:
    """A master that is attested on-chain, and live."""
    await bench.restart(tee_mode="nitro")
    await bench.state.fleet.reconcile()
    await settle(bench)
    assert bench.state.attester.live()
    return bench


def word(bench: Any) -> Path:
    """What root's unit looks for."""
    return Path(bench.config.state_dir) / "overtaken"


async def overtake(bench: Any, account: str = OTHER) -> None:
    """Another enclave registers itself."""
    bench.chain.appoint(account, bench.chain.master.epoch + 1)
    bench.chain.attest(b"o" * 32, b"\1" * 48, b"\3" * 48, bench.clock.ms, Binding())
    await bench.catch_up()
    await bench.state.attester.look()


async def test_a_live_master_goes_on(attested: Any) -> None:
    await attested.state.fence.look()
    assert not word(attested).exists()


@pytest.mark.parametrize("restored", [False, True])
async def test_another_enclave_has_taken_over(attested: Any, restored: bool) -> None:
    """Also one that was restored from its state, and has its account."""
    await overtake(attested, attested.address if restored else OTHER)
    await attested.state.fence.look()
    assert "has taken over" in word(attested).read_text()
    # Once: root's unit isn't started again and again.
    word(attested).unlink()
    await attested.state.fence.look()
    assert not word(attested).exists()


async def test_one_endpoint_that_lies_or_lags_ends_nothing(attested: Any) -> None:
    attested.chain.masters_elsewhere = [attested.chain.master]
    await overtake(attested)
    await attested.state.fence.look()
    assert not word(attested).exists()
    attested.chain.masters_elsewhere = [attested.chain.master]
    await attested.state.fence.look()
    assert word(attested).exists()


async def test_without_an_answer_it_is_asked_again(attested: Any) -> None:
    await overtake(attested)
    attested.chain.refuse_reads = ChainUnreachable({"x": "no answer"})
    await attested.state.fence.look()
    assert not word(attested).exists()
    attested.chain.refuse_reads = None
    await attested.state.fence.look()
    assert word(attested).exists()


async def test_a_master_whose_image_is_allowed_no_more_goes_on_for_those_who_joined(attested: Any) -> None:
    """There is no other: whoever joined stays, and nobody joins."""
    attested.chain.emit(
        "nautilus::MasterVoidedEvent", epoch=str(attested.chain.master.epoch), account=attested.address
    )
    attested.chain.master = None
    await attested.catch_up()
    await attested.state.attester.look()
    await attested.state.fence.look()
    assert not word(attested).exists()


async def test_an_attestation_that_only_ended_overtakes_nobody(attested: Any) -> None:
    attested.clock.advance(25 * 3600)
    attested.chain.checkpoint()
    await attested.catch_up()
    attested.chain.refuse_attestations = lambda: ChainUnreachable({"x": "no answer"})
    await attested.state.attester.look()
    await attested.state.fence.look()
    assert not word(attested).exists()


async def test_a_state_that_the_chain_does_not_go_on_from(bench: Any) -> None:
    bench.state.sealer.fenced = "another master goes on from here"
    await bench.state.fence.look()
    assert word(bench).read_text() == "another master goes on from here\n"


async def test_an_operator_that_appoints_another_is_told_by_readyz_alone(bench: Any) -> None:
    """Without sealed state or attestation nobody says that the other goes on from this state."""
    bench.chain.master = replace(bench.chain.master, account=OTHER, epoch=9)
    await bench.catch_up()
    await bench.state.fence.look()
    assert not word(bench).exists()
