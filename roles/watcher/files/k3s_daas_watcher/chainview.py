"""What the chain says about this worker, asked of every configured endpoint on its own.

One endpoint can lag, fork or lie. So each is asked separately and all that answer must say the same;
on mainnet two must answer. "Can't be reached" and "don't agree" are different findings: neither is a
slash, and neither stops heartbeats.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol, TypeVar
from urllib.parse import urlsplit

from k3s_daas.chain.errors import ChainError, ChainUnreachable, MalformedRecord, ObjectNotFound, WrongNetwork
from k3s_daas.registry import Registry
from k3s_daas.registry.attested import Basis, read_basis
from k3s_daas.registry.model import Master, SealTokenRecord, Worker

READ_TIMEOUT_S = 6.0


@dataclass(frozen=True)
class Sighting:
    """One endpoint's records at one time; None where the registry holds none."""

    worker: Worker | None
    token: SealTokenRecord | None
    master: Master | None


class Reader(Protocol):
    """One endpoint. `name` is fit for logs: no path, no query, no user info (they may hold API keys)."""

    @property
    def name(self) -> str: ...

    async def read(self, node_id: str) -> Sighting: ...

    async def basis(self) -> Basis: ...

    async def close(self) -> None: ...


class Outcome(StrEnum):
    AGREED = "agreed"
    UNREACHABLE = "chain_unreachable"
    TOO_FEW = "chain_too_few_answers"
    DISAGREE = "chain_disagrees"
    WRONG_NETWORK = "wrong_network"
    NO_REGISTRY = "registry_not_found"


@dataclass(frozen=True)
class EndpointAnswer:
    """How one endpoint did; `error` is None when it answered."""

    name: str
    error: str | None


@dataclass(frozen=True)
class View:
    """What all of them together say. `sighting` is there exactly when `outcome` is AGREED."""

    outcome: Outcome
    sighting: Sighting | None
    answers: tuple[EndpointAnswer, ...]
    detail: str


def safe_name(endpoint: str) -> str:
    """`endpoint` without anything that could be a credential."""
    parts = urlsplit(endpoint)
    return f"{parts.scheme}://{parts.hostname}" + (f":{parts.port}" if parts.port else "")


async def look(readers: Sequence[Reader], node_id: str, wanted_answers: int) -> View:
    """Ask all endpoints at the same time and compare. Never raises for what an endpoint does."""
    results = await ask_all(readers, lambda reader: reader.read(node_id))
    answers, errors = summary(readers, results)
    sightings = [result for result in results if isinstance(result, Sighting)]
    if len(sightings) < wanted_answers:
        if any(isinstance(result, WrongNetwork) for result in results):
            return View(Outcome.WRONG_NETWORK, None, answers, errors)
        if any(isinstance(result, ObjectNotFound | MalformedRecord) for result in results):
            return View(Outcome.NO_REGISTRY, None, answers, errors)
        outcome = Outcome.TOO_FEW if sightings else Outcome.UNREACHABLE
        return View(outcome, None, answers, errors)
    if any(sighting != sightings[0] for sighting in sightings[1:]):
        return View(Outcome.DISAGREE, None, answers, _differences(readers, results))
    return View(Outcome.AGREED, sightings[0], answers, errors)


async def ask_all(
    readers: Sequence[Reader], ask: Callable[[Reader], Awaitable[Answer]]
) -> list[Answer | Exception]:
    """Each endpoint's answer, or why it gave none in time. Never raises."""
    return await asyncio.gather(*(_ask(reader, ask) for reader in readers))


def summary(readers: Sequence[Reader], results: Sequence[object]) -> tuple[tuple[EndpointAnswer, ...], str]:
    """How each endpoint did, and all errors in one line."""
    answers = tuple(
        EndpointAnswer(reader.name, _error_text(result))
        for reader, result in zip(readers, results, strict=True)
    )
    return answers, "; ".join(f"{a.name}: {a.error}" for a in answers if a.error)


async def _ask(reader: Reader, ask: Callable[[Reader], Awaitable[Answer]]) -> Answer | Exception:
    try:
        async with asyncio.timeout(READ_TIMEOUT_S):
            return await ask(reader)
    except TimeoutError:
        return TimeoutError(f"no answer within {READ_TIMEOUT_S:g} s")
    except Exception as error:
        # Whatever an endpoint makes the library raise, it is that endpoint's failure and not ours.
        return error


def _error_text(result: object) -> str | None:
    if not isinstance(result, Exception):
        return None
    if isinstance(result, ChainUnreachable):
        # Its message quotes the endpoint's URL, which may hold a provider's API key.
        return "can't be reached"
    if isinstance(result, WrongNetwork):
        return f"serves {result.found}, wanted {result.wanted}"
    if isinstance(result, ChainError | TimeoutError):
        return str(result)[:300]
    return type(result).__name__


def _differences(readers: Sequence[Reader], results: Sequence[Sighting | Exception]) -> str:
    said = []
    for reader, result in zip(readers, results, strict=True):
        if isinstance(result, Sighting):
            status = result.worker.status.value if result.worker else "no such worker"
            stake = result.worker.stake_mist if result.worker else 0
            generation = result.token.generation if result.token else None
            epoch = result.master.epoch if result.master else None
            said.append(f"{reader.name}: {status}, {stake} MIST, token {generation}, master epoch {epoch}")
    return "; ".join(said)


class RegistryLike(Protocol):
    """The part of `k3s_daas.registry.Registry` used here."""

    async def worker(self, node_id: str) -> Worker | None: ...

    async def worker_token(self, node_id: str) -> SealTokenRecord | None: ...

    async def master(self) -> Master | None: ...


Connect = Callable[[str], Awaitable[tuple[RegistryLike, Callable[[], Awaitable[None]]]]]
Answer = TypeVar("Answer")


class EndpointReader:
    """A `Reader` that connects on first use and again after a failure."""

    def __init__(self, endpoint: str, connect: Connect) -> None:
        self._endpoint = endpoint
        self._connect = connect
        self._registry: RegistryLike | None = None
        self._close: Callable[[], Awaitable[None]] | None = None

    @property
    def name(self) -> str:
        return safe_name(self._endpoint)

    async def read(self, node_id: str) -> Sighting:
        """Raises what `k3s_daas.chain` raises."""

        async def sight(registry: RegistryLike) -> Sighting:
            worker, token, master = await asyncio.gather(
                registry.worker(node_id), registry.worker_token(node_id), registry.master()
            )
            return Sighting(worker, token, master)

        return await self._asked(sight)

    async def basis(self) -> Basis:
        """What the master is attested by. Raises what `k3s_daas.chain` raises."""

        async def read(registry: RegistryLike) -> Basis:
            assert isinstance(registry, Registry), "only the chain itself knows"
            return await read_basis(registry)

        return await self._asked(read)

    async def _asked(self, ask: Callable[[RegistryLike], Awaitable[Answer]]) -> Answer:
        try:
            if self._registry is None:
                self._registry, self._close = await self._connect(self._endpoint)
            return await ask(self._registry)
        except BaseException:
            # Also on a time-out: a channel that hangs may hang for ever.
            await self.close()
            raise

    async def close(self) -> None:
        """Never raises: there is nothing to do about a connection that can't be closed."""
        close, self._close, self._registry = self._close, None, None
        if close is not None:
            try:
                async with asyncio.timeout(1):
                    await close()
            except Exception:
                return
