"""The anchor of sealed snapshots, on a real chain: read, moved, given up."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from k3s_daas.chain import MoveAbort
from k3s_daas.chain.errors import WrongNetwork
from k3s_daas.registry import AgreedRegistry, EndpointsDisagree, MissingCap, Registry
from k3s_daas.registry.operation import carry_out
from k3s_daas.registry.snapshots import Anchor, Anchors, NothingToAbandon, plan_abandoning, read_anchor
from k3s_daas_master.config import Config
from k3s_daas_master.sealed.put_back import chain_word

pytestmark = pytest.mark.asyncio(loop_scope="session")
FIRST, SECOND = b"1" * 32, b"2" * 32


async def make(new_registry: Any, new_wallet: Any) -> tuple[Registry, Anchors]:
    """(the operator's registry, the master's anchors)."""
    operator: Registry = await new_registry()
    wallet = await new_wallet()
    await operator.appoint_master(wallet.address)
    return operator, Anchors(AgreedRegistry(wallet, operator.deployment))


async def test_from_the_first_to_the_one_that_is_given_up(new_registry: Any, new_wallet: Any) -> None:
    operator, anchors = await make(new_registry, new_wallet)
    assert await anchors.newest() is None
    with pytest.raises(NothingToAbandon, match="no snapshot anchored"):
        await plan_abandoning(operator)
    await anchors.anchor(1, b"", FIRST)
    await anchors.anchor(2, FIRST, SECOND)
    newest = await anchors.newest()
    assert newest is not None
    assert (newest.counter, newest.hash, newest.epoch, newest.abandoned) == (2, SECOND, 1, False)
    with pytest.raises(MoveAbort, match="ENotTheNextSnapshot"):
        await anchors.anchor(2, FIRST, SECOND)
    with pytest.raises(MoveAbort, match="EOtherPreviousSnapshot"):
        await anchors.anchor(3, FIRST, SECOND)
    found, operation = await plan_abandoning(operator)
    assert found == newest
    await carry_out(operator.chain, operation)
    after = await read_anchor(operator)
    assert after is not None
    assert (after.counter, after.abandoned) == (2, True)
    with pytest.raises(NothingToAbandon, match="number 2 given up already"):
        await plan_abandoning(operator)
    await anchors.anchor(3, b"", FIRST)


async def test_only_the_master_anchors_and_only_the_operator_gives_up(
    new_registry: Any, new_wallet: Any
) -> None:
    operator, anchors = await make(new_registry, new_wallet)
    await anchors.anchor(1, b"", FIRST)
    stranger = await new_wallet()
    theirs = AgreedRegistry(stranger, operator.deployment)
    with pytest.raises(MissingCap, match="MasterCap"):
        await Anchors(theirs).anchor(2, FIRST, SECOND)
    with pytest.raises(MissingCap, match="OperatorCap"):
        await plan_abandoning(theirs)


async def test_endpoints_that_disagree_are_not_believed(monkeypatch: pytest.MonkeyPatch) -> None:
    class Two(AgreedRegistry):
        def __init__(self) -> None:
            pass

        async def each(self, read: Any) -> list[Any]:
            return [Anchor(2, SECOND, 1, 0), Anchor(1, FIRST, 1, 0)]

    with pytest.raises(EndpointsDisagree, match=r"numbers \[2, 1\]"):
        await Anchors(Two()).newest()


async def test_what_a_host_without_its_state_is_told(
    new_registry: Any, new_wallet: Any, live_net: Any
) -> None:
    operator, anchors = await make(new_registry, new_wallet)
    config = Config(
        network="localnet",
        endpoints=[live_net.url],
        chain_id=operator.chain.chain_id,
        package_id=operator.deployment.package_id,
        registry_id=operator.deployment.registry_id,
        tee_mode="simulated",
        endpoint="https://m:8443",
        api_server="https://m:6443",
        kubeconfig=Path("/k"),
        key_file=Path("/w"),
        state_dir=Path("/s"),
    )
    word = await chain_word(config)
    assert (word.counter, word.hash, word.ca_hash) == (0, b"", "")
    await anchors.anchor(1, b"", FIRST)
    word = await chain_word(config)
    assert (word.counter, word.hash) == (1, FIRST)
    assert word.time_ms > 0
    with pytest.raises(WrongNetwork):
        await chain_word(
            config.model_copy(update={"chain_id": "4vJ9JU1bJJE96FWSJKvHsmmFADCg4gpZQff4P3bkLKi"})
        )
