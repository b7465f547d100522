"""The chain as the rest of the project sees it."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncGenerator, AsyncIterator, Iterable, Sequence
from types import TracebackType

from k3s_daas.chain import answers, bcs
from k3s_daas.chain.endpoints import check_network, parse_endpoint
from k3s_daas.chain.errors import InvalidEndpoint, InvalidKey, ObjectNotFound
from k3s_daas.chain.execute import SUI_COIN, Executor, batch_get, owned
from k3s_daas.chain.follow import Follower
from k3s_daas.chain.keys import Key
from k3s_daas.chain.messages import rpc
from k3s_daas.chain.model import CheckpointEvents, Object, Package, Preview, Receipt, Unsigned
from k3s_daas.chain.transaction import Build
from k3s_daas.chain.transport import SERVICE_INFO, Link, NotFound, Transport, mask

_OBJECT = ("object_id", "version", "digest", "owner", "object_type", "json")
_FIELD = ("kind", "field_id", *(f"field_object.{name}" for name in _OBJECT))


class SuiClient:
    """Reads and transactions against one network, over one or more endpoints.

    Every method raises what `k3s_daas.chain.errors` lists, ChainUnreachable among them, and takes at most
    a few call timeouts; none waits for ever, except `checkpoints`, which is meant to.
    """

    def __init__(self, transport: Transport, key: Key | None, wait_s: float) -> None:
        self._transport = transport
        self._key = key
        self._wait_s = wait_s
        self._executor = Executor(transport, key, wait_s)

    @classmethod
    async def connect(
        cls,
        endpoints: Sequence[str],
        network: str,
        key: Key | None = None,
        chain_id: str | None = None,
        *,
        timeout_s: float = 10.0,
        wait_s: float = 30.0,
    ) -> SuiClient:
        """A client whose first endpoint that answers serves the right chain.

        `timeout_s` is for one call, `wait_s` for an executed transaction to reach a checkpoint. Raises
        InvalidEndpoint, ChainUnreachable or WrongNetwork.
        """
        check_network(network)
        if not endpoints:
            raise InvalidEndpoint("No endpoint is configured, wanted at least one URL.")
        parsed = dict.fromkeys(parse_endpoint(url, network) for url in endpoints)
        transport = Transport([Link(e, timeout_s) for e in parsed], network, chain_id, timeout_s)
        client = cls(transport, key, wait_s)
        try:
            await client.latest_checkpoint()
        except BaseException:
            transport.close()
            raise
        return client

    async def __aenter__(self) -> SuiClient:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self) -> None:
        self._transport.close()

    def leave_endpoint(self) -> None:
        """Ask the next endpoint first from now on: the present one lags, or says what can't be."""
        self._transport.prefer(self._transport.rotation()[1 % len(self._transport.links)])

    def all_endpoints(self) -> list[SuiClient]:
        """One client per endpoint, without failover, for asking all of them the same question. They share
        this client's channels and are closed with it."""
        return [SuiClient(self._transport.single(link), None, self._wait_s) for link in self._transport.links]

    # -- who and where -------------------------------------------------------------------------------------

    @property
    def network(self) -> str:
        return self._transport.network

    @property
    def chain_id(self) -> str:
        """Base58 digest of the network's first checkpoint."""
        return self._transport.chain_id or ""

    @property
    def address(self) -> str | None:
        return None if self._key is None else self._key.address

    @property
    def endpoint(self) -> str:
        """URL of the endpoint that answered last."""
        return self._transport.current.endpoint.url

    def require_address(self) -> str:
        if self._key is None:
            raise InvalidKey("This needs a wallet key and none was given. Set the key file.")
        return self._key.address

    # -- reads ---------------------------------------------------------------------------------------------

    async def latest_checkpoint(self) -> tuple[int, int]:
        """Sequence number and time (ms since 1970) of the newest checkpoint."""
        info = await self._transport.call(*SERVICE_INFO)
        return info.checkpoint_height or 0, answers.milliseconds(info.timestamp)

    async def get_object(self, object_id: str) -> Object:
        """A live object; ObjectNotFound when there is none."""
        (found,) = await self.get_objects([object_id])
        if found is None:
            raise ObjectNotFound(object_id)
        return found

    async def get_objects(self, object_ids: Iterable[str]) -> list[Object | None]:
        """Live objects in the order asked for, None for each that doesn't exist."""
        ids = [bcs.normalize_address(object_id) for object_id in object_ids]
        found = await batch_get(self._transport, ids, *_OBJECT)
        return [None if item is None else answers.to_object(item) for item in found]

    async def dynamic_field(self, parent: str, name_type: str, name_bcs: bytes) -> Object | None:
        """The `Field<Name, Value>` object of one dynamic field: its id is derived, so this is one read."""
        (found,) = await self.get_objects([bcs.dynamic_field_id(parent, name_type, name_bcs)])
        return found

    async def dynamic_fields(self, parent: str) -> AsyncIterator[Object]:
        """All dynamic fields of an object, as their `Field<Name, Value>` objects."""
        token = b""
        while True:
            request = rpc.ListDynamicFieldsRequest(
                parent=bcs.normalize_address(parent),
                page_size=500,
                page_token=token or None,
                read_mask=mask(*_FIELD),
            )
            page = await self._transport.call(
                "ListDynamicFields", lambda link: link.state.list_dynamic_fields, request
            )
            for field in page.dynamic_fields:
                if field.field_object is not None:
                    yield answers.to_object(field.field_object)
            token = page.next_page_token or b""
            if not token:
                return

    async def owned_objects(self, owner: str, type_: str | None = None) -> AsyncIterator[Object]:
        """All objects that an address owns, or those of one type."""
        async for found in owned(self._transport, bcs.normalize_address(owner), type_, *_OBJECT):
            yield answers.to_object(found)

    async def balance(self, address: str) -> int:
        """SUI that an address holds, in MIST."""
        request = rpc.GetBalanceRequest(owner=bcs.normalize_address(address), coin_type="0x2::sui::SUI")
        answer = await self._transport.call("GetBalance", lambda link: link.state.get_balance, request)
        return int(answer.balance.balance or 0) if answer.balance is not None else 0

    async def reference_gas_price(self) -> int:
        """What a unit of computation costs in this epoch, in MIST."""
        return await self._executor.gas_price()

    async def package_modules(self, package_id: str) -> dict[str, bytes]:
        """Bytecode of a package by module name; ObjectNotFound when there is no such package."""
        return (await self.package(package_id)).modules

    async def package(self, package_id: str) -> Package:
        """One version of a package; ObjectNotFound when there is no such package."""
        request = rpc.GetPackageRequest(package_id=bcs.normalize_address(package_id))
        try:
            answer = await self._transport.call("GetPackage", lambda link: link.packages.get_package, request)
        except NotFound:
            raise ObjectNotFound(package_id, "package") from None
        found = answer.package
        modules = {module.name: bytes(module.contents) for module in found.modules}
        storage, original = bcs.normalize_address(package_id), found.original_id or package_id
        return Package(storage, bcs.normalize_address(original), int(found.version or 1), modules)

    # -- transactions --------------------------------------------------------------------------------------

    async def simulate(self, build: Build) -> Preview:
        """What the transaction would do and cost; raises what `execute` would. Sends nothing."""
        return await self._executor.simulate(build)

    async def execute(self, build: Build) -> Receipt:
        """Simulate, sign, send, and wait until the effects are readable.

        Raises MoveAbort, InsufficientGas, ObjectNotFound or TransactionFailed, nearly always before anything
        is sent; OutcomeUnknown when the answer was lost and nobody could be asked.
        """
        return await self._executor.execute(build)

    async def unsigned(self, build: Build, sender: str) -> Unsigned:
        """The transaction for `sender` to sign, its coins pay. Simulated; raises what `execute` would.
        Nothing is sent and no key is needed."""
        return await self._executor.unsigned(build, sender)

    # -- events --------------------------------------------------------------------------------------------

    async def checkpoints(
        self, after: int | None, packages: Iterable[str] | None = None, digest: str | None = None
    ) -> AsyncGenerator[CheckpointEvents, None]:
        """Every checkpoint after `after` (None: from now on), in order, none twice, none left out.

        With `packages`, only events of types those define are in the batches. With `digest`, that of the
        checkpoint `after`, an endpoint that knows another history is left at once. What holds events is
        compared between endpoints before it is given out (see `crosscheck`). Raises ReplayGap, ForkedChain,
        or ChainUnreachable after several rounds without an answer; call again with the last position then.
        """
        only = None if packages is None else frozenset(map(bcs.normalize_address, packages))
        follower = Follower(self._transport, after, only, digest)
        async with contextlib.aclosing(follower.run()) as batches:
            async for batch in batches:
                yield batch


__all__ = ["SUI_COIN", "SuiClient"]
