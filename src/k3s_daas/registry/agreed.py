"""A registry whose reads are asked of every endpoint where something that can't be undone hangs on them.

One endpoint's word is enough to answer a token check, which the next event puts right. It is not enough to
remove a node or to propose a slash; and on mainnet not even to start from.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any, TypeVar

from k3s_daas.chain.endpoints import wanted_answers
from k3s_daas.chain.errors import ChainError, ChainUnreachable, ObjectNotFound
from k3s_daas.registry.client import Registry
from k3s_daas.registry.model import Deployment, Master, Snapshot, Worker

if TYPE_CHECKING:
    from k3s_daas.chain.client import SuiClient

#: One endpoint that hangs must not hold up the word of the others for longer, in seconds.
_PATIENCE_S = 6.0
#: Snapshots of a chain that moves are seldom of one moment: so often they are read anew.
_TRIES = 5
T = TypeVar("T")


class EndpointsDisagree(ChainError):
    """Endpoints that answered tell different stories: one lags or lies, so nothing is decided."""


class AgreedRegistry(Registry):
    """`worker` and, on mainnet, `snapshot` are what all endpoints that answer agree on."""

    def __init__(self, chain: SuiClient, deployment: Deployment) -> None:
        super().__init__(chain, deployment)
        self._each = [Registry(single, deployment) for single in chain.all_endpoints()]

    async def worker(self, node_id: str) -> Worker | None:
        """Raises EndpointsDisagree, or ChainUnreachable when too few answered, and as Registry does."""
        good = self._answered(
            await asyncio.gather(*(_within(one, one.worker(node_id)) for one in self._each))
        )
        if any(answer != good[0] for answer in good):
            said = [answer.status.value if isinstance(answer, Worker) else "absent" for answer in good]
            raise EndpointsDisagree(
                f"Endpoints disagree on worker {node_id}: {', '.join(said)}. Wanted: one answer. "
                "One of them lags or lies; nothing is decided until they agree."
            )
        found: Worker | None = good[0]
        return found

    async def snapshot(self) -> Snapshot:
        """Raises as `worker` does."""
        if wanted_answers(self.chain.network) == 1:
            return await super().snapshot()
        for _ in range(_TRIES):
            reads = [_within(one, one.snapshot(), _TRIES * _PATIENCE_S) for one in self._each]
            good: list[Snapshot] = self._answered(await asyncio.gather(*reads))
            if all(_gist(answer) == _gist(good[0]) for answer in good):
                # The oldest: events after it come again, which is harmless; left out they would be lost.
                return min(good, key=lambda answer: answer.checkpoint)
        raise EndpointsDisagree(
            f"Endpoints disagree on the registry {self.deployment.registry_id}, {_TRIES} times in a row. "
            "One of them lags or lies; nothing is decided until they agree."
        )

    async def masters(self) -> list[Master | None]:
        """The live master by the word of each endpoint that answers. Raises as `each` does."""
        return await self.each(Registry.master)

    async def each(self, read: Callable[[Registry], Awaitable[T]]) -> list[T]:
        """What every endpoint that answers says, each asked on its own. ChainUnreachable when too few do."""
        found = await asyncio.gather(*(_within(one, read(one)) for one in self._each))
        return self._answered(found)

    def _answered(self, answers: list[Any]) -> list[Any]:
        failed = {
            one.chain.endpoint: str(answer)
            for one, answer in zip(self._each, answers, strict=True)
            if isinstance(answer, ChainUnreachable | ObjectNotFound)
        }
        good = [a for a in answers if not isinstance(a, ChainUnreachable | ObjectNotFound)]
        wanted = wanted_answers(self.chain.network)
        if len(good) < wanted:
            raise ChainUnreachable(failed | {"": f"{len(good)} of {len(answers)} answered, wanted {wanted}"})
        return good


async def _within(registry: Registry, read: Any, seconds: float = _PATIENCE_S) -> Any:
    """The answer, or as a value that there was none in time; other errors are raised."""
    try:
        async with asyncio.timeout(seconds):
            return await read
    except TimeoutError:
        return ChainUnreachable({registry.chain.endpoint: f"no answer within {seconds:g} s"})
    except (ChainUnreachable, ObjectNotFound) as error:
        return error


def _gist(snapshot: Snapshot) -> Any:
    """What endpoints must agree on: who staked, who may do what with which token, and who is the master."""
    workers = {
        name: (worker.owner, worker.status, worker.stake_mist, worker.registered_at_ms)
        for name, worker in snapshot.workers.items()
    }
    return workers, snapshot.worker_tokens, snapshot.owner_tokens, snapshot.master
