"""Readers of the real chain. Apart, so that only what talks to a chain loads its library."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from k3s_daas.chainconfig import ChainConfig
from k3s_daas.registry import Registry

from .chainview import EndpointReader, RegistryLike


def readers(config: ChainConfig) -> list[EndpointReader]:
    """One reader per configured endpoint, each with a connection of its own."""

    async def connect(endpoint: str) -> tuple[RegistryLike, Callable[[], Awaitable[None]]]:
        from k3s_daas.chain import SuiClient

        client = await SuiClient.connect([endpoint], config.network, chain_id=config.chain_id)
        return Registry(client, config.deployment), client.close

    return [EndpointReader(endpoint, connect) for endpoint in config.endpoints]
