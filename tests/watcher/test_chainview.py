"""What several endpoints say together."""

from __future__ import annotations

from dataclasses import replace

import pytest

from k3s_daas.chain.errors import ChainUnreachable, RpcFailed, WrongNetwork
from k3s_daas.registry.model import Master, SealTokenRecord, Worker, WorkerStatus
from k3s_daas_watcher import chainview
from k3s_daas_watcher.chainview import EndpointReader, Outcome, look, safe_name


@pytest.fixture
def chains(chain):
    """Three endpoints that agree."""
    return [replace(chain, name=f"fake://{number}") for number in range(3)]


async def test_all_that_answer_agree(chains):
    view = await look(chains, "worker-1", 1)
    assert view.outcome is Outcome.AGREED
    assert view.sighting == chains[0].sighting


async def test_one_that_does_not_answer_is_named_and_outvoted_by_nobody(chains):
    chains[1].error = ChainUnreachable({"https://key@rpc.example/SECRET-API-KEY": "refused"})
    view = await look(chains, "worker-1", 1)
    assert view.outcome is Outcome.AGREED
    assert [answer.error is None for answer in view.answers] == [True, False, True]
    assert "SECRET-API-KEY" not in view.detail


async def test_disagreement_is_its_own_finding_and_says_who_said_what(chains):
    chains[2].set_status(WorkerStatus.SLASHED)
    view = await look(chains, "worker-1", 1)
    assert view.outcome is Outcome.DISAGREE
    assert view.sighting is None
    assert "fake://2: slashed" in view.detail
    assert "fake://0: active" in view.detail


async def test_a_different_master_is_a_disagreement_too(chains):
    chains[1].set_master(endpoint="https://192.0.2.66:8443", epoch=2)
    assert (await look(chains, "worker-1", 1)).outcome is Outcome.DISAGREE


async def test_nobody_answers(chains):
    for chain in chains:
        chain.error = ChainUnreachable({})
    view = await look(chains, "worker-1", 1)
    assert view.outcome is Outcome.UNREACHABLE
    assert view.sighting is None


async def test_mainnet_believes_no_single_endpoint(chains):
    chains[0].error = chains[1].error = RpcFailed("GetObject", "unavailable", "later")
    view = await look(chains, "worker-1", 2)
    assert view.outcome is Outcome.TOO_FEW
    assert "unavailable" in view.detail


async def test_wrong_network_is_told_apart_from_silence(chains):
    for chain in chains:
        chain.error = WrongNetwork("35834a8a", "4c78adac", "https://x")
    view = await look(chains, "worker-1", 1)
    assert view.outcome is Outcome.WRONG_NETWORK
    assert "serves 35834a8a, wanted 4c78adac" in view.detail


async def test_an_endpoint_that_hangs_costs_only_its_own_answer(chains, monkeypatch):
    monkeypatch.setattr(chainview, "READ_TIMEOUT_S", 0.05)
    chains[0].hang = True
    view = await look(chains, "worker-1", 1)
    assert view.outcome is Outcome.AGREED
    assert "no answer within" in view.detail


async def test_an_endpoint_that_makes_the_library_stumble_is_a_failed_endpoint(chains):
    chains[0].error = KeyError("json")
    view = await look(chains, "worker-1", 1)
    assert view.outcome is Outcome.AGREED
    assert view.answers[0].error == "KeyError"


@pytest.mark.parametrize(
    ("endpoint", "shown"),
    [
        ("https://user:pw@rpc.example:443/v1/KEY?api=KEY", "https://rpc.example:443"),
        ("http://127.0.0.1:9000", "http://127.0.0.1:9000"),
    ],
)
def test_names_hold_no_credentials(endpoint, shown):
    assert safe_name(endpoint) == shown


class FakeRegistry:
    """FAKE registry of one endpoint that fails when told."""

    def __init__(self, sighting) -> None:
        self.sighting = sighting
        self.error: Exception | None = None

    async def worker(self, node_id: str) -> Worker | None:
        if self.error:
            raise self.error
        return self.sighting.worker

    async def worker_token(self, node_id: str) -> SealTokenRecord | None:
        return self.sighting.token

    async def master(self) -> Master | None:
        return self.sighting.master


async def test_a_reader_connects_once_and_anew_after_a_failure(chain):
    registry, connected, closed = FakeRegistry(chain.sighting), [], []

    async def connect(endpoint):
        connected.append(endpoint)

        async def close():
            closed.append(endpoint)

        return registry, close

    reader = EndpointReader("https://rpc.example/KEY", connect)
    assert await reader.read("worker-1") == chain.sighting
    assert await reader.read("worker-1") == chain.sighting
    assert len(connected) == 1
    registry.error = ChainUnreachable({})
    with pytest.raises(ChainUnreachable):
        await reader.read("worker-1")
    assert len(closed) == 1
    registry.error = None
    assert await reader.read("worker-1") == chain.sighting
    assert len(connected) == 2
