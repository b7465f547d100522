"""Readers of the real chain. Apart, so that only what talks to a chain loads its library."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from k3s_daas.chain.model import Unsigned
from k3s_daas.chainconfig import ChainConfig
from k3s_daas.registry import Registry

from .chainview import EndpointReader, RegistryLike
from .unstake import BuildLeave


def readers(config: ChainConfig) -> list[EndpointReader]:
    """One reader per configured endpoint, each with a connection of its own."""

    async def connect(endpoint: str) -> tuple[RegistryLike, Callable[[], Awaitable[None]]]:
        from k3s_daas.chain import SuiClient

        client = await SuiClient.connect([endpoint], config.network, chain_id=config.chain_id)
        return Registry(client, config.deployment), client.close

    return [EndpointReader(endpoint, connect) for endpoint in config.endpoints]


def leave_builder(config: ChainConfig) -> BuildLeave:
    """Writes the transaction by which an owner requests the unstake of a worker."""

    async def build(node_id: str, owner: str) -> Unsigned:
        from k3s_daas.chain import SuiClient

        async with await SuiClient.connect(
            config.endpoints, config.network, chain_id=config.chain_id
        ) as client:
            return await client.unsigned(Registry(client, config.deployment).leaving([node_id], []), owner)

    return build
