"""A whole network in one object: ledger, gRPC server, faucet and clock."""

from __future__ import annotations

import asyncio
import logging
import sqlite3
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

from k3s_daas.attestation import simulation_root

from .faucet import DEFAULT_AMOUNT_MIST, Faucet
from .ledger import encoding
from .ledger.clock import Clock
from .ledger.encoding import base58, hex_address
from .ledger.ledger import DEFAULT_EPOCH_MS, Ledger
from .ledger.store import Store
from .rpc.records import Records
from .rpc.server import RpcServer

_LOG = logging.getLogger(__name__)


class Localnet:
    """A running network.

    :ivar url: where gRPC is served, for example ``http://127.0.0.1:9000``.
    :ivar faucet_url: where the faucet is served, None when it is not.
    :ivar chain_id: base58 digest of the genesis checkpoint, random per state directory.
    :ivar clock: settable time of the network.
    :ivar stop: ends streams and stops serving, before the block that started it ends.
    """

    def __init__(
        self, ledger: Ledger, url: str, faucet_url: str | None, stop: Callable[[], Awaitable[None]]
    ) -> None:
        self.ledger = ledger
        self.stop = stop
        self.url = url
        self.faucet_url = faucet_url
        self.chain_id = base58(ledger.chain)

    @property
    def clock(self) -> Clock:
        return self.ledger.clock

    async def faucet(self, address: str, mist: int = DEFAULT_AMOUNT_MIST) -> str:
        """Sends ``mist`` MIST to an address and gives the id of the new coin.

        :raises ValueError: no address. :raises Refused: not that much.
        """
        coin, _ = self.ledger.faucet(encoding.address(address), mist)
        return hex_address(coin.object_id)

    @staticmethod
    @asynccontextmanager
    async def start(
        state_dir: Path | str | None = None,
        listen: str = "127.0.0.1:0",
        *,
        faucet_listen: str | None = None,
        epoch_ms: int = DEFAULT_EPOCH_MS,
        checkpoint_ms: int | None = None,
        simulated_nitro_root: bytes | None = None,
    ) -> AsyncIterator[Localnet]:
        """Starts a network and stops it when the block ends.

        :param state_dir: keeps the chain; None forgets it at the end.
        :param listen: address and port of gRPC; port 0 takes a free one.
        :param faucet_listen: address and port of the faucet; None serves none.
        :param checkpoint_ms: also makes a checkpoint without transactions every so many ms; None doesn't.
        :param simulated_nitro_root: PEM of an emulator's root (``nsm``): contracts then accept its documents
            too. Without it, as on a public network, only documents of real AWS enclaves.
        :raises ValueError: that PEM isn't an emulator's.
        :raises StateError: the state directory can't be used. :raises OSError: an address can't be.
        """
        async with AsyncExitStack() as stack:
            store = Store(Path(state_dir) if state_dir is not None else None)
            stack.callback(store.close)
            root = None
            if simulated_nitro_root is not None:
                root = simulation_root(simulated_nitro_root, "localnet")
                _LOG.warning("SIMULATED attestation is accepted: root %s", root.fingerprint)
            records = Records()
            ledger = Ledger(store, Clock(), records.encode, epoch_ms=epoch_ms, simulated_nitro_root=root)
            server = RpcServer(ledger, records)
            host, port = parse_listen(listen)
            port = await server.start(host, port)
            stack.push_async_callback(server.stop)
            faucet_url = None
            if faucet_listen is not None:
                faucet = Faucet(ledger)
                faucet_host, faucet_port = parse_listen(faucet_listen)
                faucet_port = await faucet.start(faucet_host, faucet_port)
                stack.push_async_callback(faucet.stop)
                faucet_url = _url(faucet_host, faucet_port)
            if checkpoint_ms is not None:
                heartbeat = asyncio.create_task(_beat(ledger, checkpoint_ms))
                stack.callback(heartbeat.cancel)
            yield Localnet(ledger, _url(host, port), faucet_url, server.stop)


def parse_listen(text: str) -> tuple[str, int]:
    """``address:port``, IPv6 addresses in brackets. :raises ValueError: it is something else."""
    host, separator, port = text.rpartition(":")
    host = host.removeprefix("[").removesuffix("]")
    if not separator or not host or not port.isdecimal() or int(port) > 65535:
        raise ValueError(f"found {text!r}, wanted ADDRESS:PORT, for example 127.0.0.1:9000")
    return host, int(port)


def _url(host: str, port: int) -> str:
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


async def _beat(ledger: Ledger, interval_ms: int) -> None:
    while True:
        await asyncio.sleep(interval_ms / 1000)
        try:
            ledger.seal_empty_checkpoint()
        except sqlite3.Error:
            # A full disk, say: nothing was written, and transactions report the same to their senders.
            _LOG.exception("no checkpoint was made")
