"""Channels to the endpoints, and the one place that decides which failure is worth another endpoint.

pysui brings the generated `sui.rpc.v2` messages and stubs (messages.py). Its client is not used: it needs a
configuration that wants to be a file with the private key in it, hard-wires TLS, lets connection errors
escape raw and submits transactions whose simulation failed.
"""

from __future__ import annotations

import asyncio
import random
import ssl
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import certifi
from grpclib.client import Channel
from grpclib.const import Status
from grpclib.exceptions import GRPCError, ProtocolError, StreamTerminatedError

from k3s_daas.chain.endpoints import CHAIN_IDS, Endpoint
from k3s_daas.chain.errors import ChainError, ChainUnreachable, RpcFailed, WrongNetwork
from k3s_daas.chain.messages import protobuf, rpc

#: Picks the method to call, such as `lambda link: link.ledger.get_object`.
Pick = Callable[["Link"], Callable[[Any], Awaitable[Any]]]

#: The endpoint is down, overloaded or broken: ask another one. Everything else is an answer.
_UNREACHABLE = {Status.UNAVAILABLE, Status.DEADLINE_EXCEEDED, Status.RESOURCE_EXHAUSTED, Status.CANCELLED}
_BROKEN = {"UNKNOWN", "INTERNAL", "UNAUTHENTICATED", "PERMISSION_DENIED", "DATA_LOSS"}

CONNECTION_ERRORS = (OSError, TimeoutError, StreamTerminatedError, ProtocolError)


class NotFound(ChainError):
    """The endpoint answered NOT_FOUND; the caller knows what was asked for and says it."""


class Link:
    """One endpoint with its channel, which connects when it is first used and again after a loss."""

    def __init__(self, endpoint: Endpoint, timeout_s: float) -> None:
        self.endpoint = endpoint
        self.channel = Channel(endpoint.host, endpoint.port, ssl=_tls() if endpoint.tls else None)
        self.ledger = rpc.LedgerServiceStub(self.channel, timeout=timeout_s)
        self.state = rpc.StateServiceStub(self.channel, timeout=timeout_s)
        self.packages = rpc.MovePackageServiceStub(self.channel, timeout=timeout_s)
        self.execution = rpc.TransactionExecutionServiceStub(self.channel, timeout=timeout_s)
        # A stream lives for hours; the follower notices by itself when it falls silent.
        self.subscription = rpc.SubscriptionServiceStub(self.channel)
        self.verified = False
        self.lock = asyncio.Lock()


#: Arguments of a call for the chain's id and its newest checkpoint.
SERVICE_INFO: tuple[str, Pick, Any] = (
    "GetServiceInfo",
    lambda link: link.ledger.get_service_info,
    rpc.GetServiceInfoRequest(),
)


class Transport:
    """Calls with timeouts and failover. Stays with the endpoint that answered last, so that a client reads
    its own writes."""

    def __init__(
        self,
        links: Sequence[Link],
        network: str,
        chain_id: str | None,
        timeout_s: float,
        shared: Transport | None = None,
    ) -> None:
        self.links = list(links)
        self.network = network
        self.chain_id = chain_id or CHAIN_IDS.get(network)
        self.timeout_s = timeout_s
        self._current = 0
        self._shared = shared

    @property
    def current(self) -> Link:
        return self.links[self._current]

    def rotation(self) -> list[Link]:
        """All links, the one that answered last first."""
        return self.links[self._current :] + self.links[: self._current]

    def prefer(self, link: Link) -> None:
        self._current = self.links.index(link)

    def single(self, link: Link) -> Transport:
        """The same network through `link` alone, sharing its channel."""
        return Transport([link], self.network, self.chain_id, self.timeout_s, shared=self)

    async def call(self, name: str, pick: Pick, request: Any) -> Any:
        """The first answer of any endpoint to a call that may be repeated.

        Raises NotFound, RpcFailed (an answer that is a refusal), WrongNetwork or ChainUnreachable.
        """
        tried: dict[str, str] = {}
        refused: RpcFailed | None = None
        for attempt in range(2):
            if attempt:
                await asyncio.sleep(random.uniform(0.1, 0.4))  # noqa: S311  jitter, not a secret
            for link in self.rotation():
                try:
                    answer = await self.once(link, name, pick, request)
                except RpcFailed as error:
                    if error.status not in _BROKEN:
                        raise
                    refused = error
                except ChainUnreachable as error:
                    tried |= error.tried
                else:
                    self.prefer(link)
                    return answer
        if refused is not None:
            raise refused
        raise ChainUnreachable(tried)

    async def once(self, link: Link, name: str, pick: Pick, request: Any) -> Any:
        """One call to one endpoint, which serves the right chain. Errors as those of `call`."""
        if not link.verified:
            async with link.lock:
                if not link.verified:
                    await self._verify(link)
        return await self._ask(link, name, pick, request)

    async def _verify(self, link: Link) -> None:
        info = await self._ask(link, *SERVICE_INFO)
        found = str(info.chain_id or "")
        wanted = self.chain_id or (self._shared.chain_id if self._shared else None)
        if wanted is None:
            public = {chain_id: network for network, chain_id in CHAIN_IDS.items()}
            if found in public:
                # A localnet's playbooks create wallets and spend without asking: never on a public chain.
                raise WrongNetwork(public[found], self.network, link.endpoint.url)
            wanted = self.chain_id = found
        if found != wanted:
            raise WrongNetwork(f"chain {found}", f"{self.network} with chain {wanted}", link.endpoint.url)
        link.verified = True

    async def _ask(self, link: Link, name: str, pick: Pick, request: Any) -> Any:
        url = link.endpoint.url
        try:
            # The stub's own deadline covers the call, this one also a connection that never comes up.
            async with asyncio.timeout(self.timeout_s + 1):
                return await pick(link)(request)
        except GRPCError as error:
            if error.status is Status.NOT_FOUND:
                raise NotFound(error.message or "not found") from None
            if error.status in _UNREACHABLE:
                link.verified = False
                raise ChainUnreachable({url: f"{error.status.name} {error.message or ''}".strip()}) from None
            raise RpcFailed(name, error.status.name, error.message or "no detail") from None
        except CONNECTION_ERRORS as error:
            # Whatever answers on that address next may be another chain.
            link.verified = False
            if isinstance(error, TimeoutError):
                # A connection can be dead without a word (a peer that vanished, a forgetful NAT), and would
                # time out for ever: the next call makes a new one.
                link.channel.close()
            raise ChainUnreachable({url: describe(error, self.timeout_s)}) from None

    def close(self) -> None:
        if self._shared is None:
            for link in self.links:
                link.channel.close()


def describe(error: BaseException, timeout_s: float) -> str:
    if isinstance(error, TimeoutError):
        return f"no answer within {timeout_s:g} s"
    return str(error) or type(error).__name__


def _tls() -> ssl.SSLContext:
    """The system's trust, which honours SSL_CERT_FILE, or certifi's where the system has none."""
    context = ssl.create_default_context()
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_alpn_protocols(["h2"])
    paths = ssl.get_default_verify_paths()
    if paths.cafile is None and paths.capath is None:
        context.load_verify_locations(certifi.where())
    return context


def mask(*paths: str) -> Any:
    """A read mask: what of the answer is wanted."""
    return protobuf.FieldMask(paths=list(paths))
