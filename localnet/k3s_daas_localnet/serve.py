"""``python -m k3s_daas_localnet [serve]``: runs a network until SIGTERM or SIGINT."""

from __future__ import annotations

import argparse
import asyncio
import json
import logging
import signal
import sys
from collections.abc import Sequence
from pathlib import Path

from .ledger.ledger import DEFAULT_EPOCH_MS
from .ledger.store import StateError
from .localnet import Localnet, parse_listen
from .vm import FrameworkMissing

_CHECKPOINT_MS = 1000


def main(argv: Sequence[str]) -> int:
    """Serves; returns the exit code: 0 after a signal, 1 when the network can't start."""
    options = _parser().parse_args(argv)
    logging.basicConfig(
        level=logging.WARNING, stream=sys.stderr, format="%(levelname)s %(name)s: %(message)s"
    )
    try:
        asyncio.run(_serve(options))
    except (StateError, FrameworkMissing, OSError, ValueError) as error:
        print(f"k3s_daas_localnet: {error}", file=sys.stderr)
        return 1
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="k3s_daas_localnet serve", description="An embedded Sui network for the demo and for tests."
    )
    parser.add_argument(
        "--listen",
        type=_address,
        default="127.0.0.1:9000",
        metavar="ADDRESS:PORT",
        help="where gRPC (sui.rpc.v2, without TLS) is served; port 0 takes a free one (default: %(default)s)",
    )
    parser.add_argument(
        "--state-dir",
        type=Path,
        help="directory the chain is kept in; without it, it is forgotten at the end",
    )
    parser.add_argument(
        "--faucet-listen",
        type=_address,
        metavar="ADDRESS:PORT",
        help="where the faucet is served (default: not)",
    )
    parser.add_argument(
        "--epoch-ms",
        type=_positive,
        default=DEFAULT_EPOCH_MS,
        help="length of an epoch (default: %(default)s)",
    )
    parser.add_argument(
        "--checkpoint-ms",
        type=int,
        default=_CHECKPOINT_MS,
        help="also make an empty checkpoint every so many ms; 0 for never (default: %(default)s)",
    )
    parser.add_argument(
        "--simulated-nitro-root",
        type=Path,
        metavar="PEM",
        help="root certificate of an attestation emulator whose documents contracts accept too; everything "
        "they prove is simulated (default: only documents of real AWS enclaves)",
    )
    return parser


def _address(text: str) -> str:
    try:
        parse_listen(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from error
    return text


def _positive(text: str) -> int:
    if not text.isdecimal() or int(text) == 0:
        raise argparse.ArgumentTypeError(f"found {text!r}, wanted a whole number above 0")
    return int(text)


async def _serve(options: argparse.Namespace) -> None:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    root: Path | None = options.simulated_nitro_root
    async with Localnet.start(
        options.state_dir,
        options.listen,
        faucet_listen=options.faucet_listen,
        epoch_ms=options.epoch_ms,
        checkpoint_ms=options.checkpoint_ms or None,
        simulated_nitro_root=root.read_bytes() if root is not None else None,
    ) as net:
        ready = {"event": "listening", "rpc": net.url, "faucet": net.faucet_url, "chain_id": net.chain_id}
        if root is not None:
            ready["attestation"] = "SIMULATED"
        print(json.dumps(ready), flush=True)
        await stop.wait()
