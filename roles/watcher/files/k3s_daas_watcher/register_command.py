"""`k3s-daas-watcher register`: what `k3s-daas-register.service` runs as root before the agent starts."""

from __future__ import annotations

import argparse
import asyncio
import sys
from pathlib import Path

import stamina.instrumentation

from . import config, sealfile, signing
from .clock import SystemClock
from .connect import readers
from .errors import Exit, Refusal
from .findings import SIMULATED_NOTICE, when
from .register import Joined, Outputs, register, unwritable

# Made by the agent's unit once k3s says READY, which it does when the Node is there, not before.
JOINED_MARKER = Path("/var/lib/k3s-daas/agent-joined")
CERTIFICATE = ("client-kubelet.crt", "client-kubelet.key")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The command's options; no secret is ever one of them."""
    parser.add_argument("--config", type=Path, default=Path("/etc/k3s-daas/watcher.json"))
    parser.add_argument("--seal-token-file", type=Path, help="default: systemd's credential seal-token")
    parser.add_argument("--heartbeat-key-file", type=Path, help="default: systemd's credential heartbeat-key")
    parser.add_argument("--token-out", type=Path, default=Path("/etc/rancher/k3s/join-token"))
    parser.add_argument("--password-out", type=Path, default=Path("/etc/rancher/node/password"))
    parser.add_argument("--ca-out", type=Path, help="also write the cluster's CA bundle there")
    parser.add_argument(
        "--joined-marker",
        type=Path,
        default=JOINED_MARKER,
        help="nothing is done when it and the agent's certificate exist: a joined agent needs no token "
        "(default: %(default)s)",
    )
    parser.add_argument(
        "--agent-dir",
        type=Path,
        default=Path("/var/lib/rancher/k3s/agent"),
        help="where the agent has its certificate, also one that didn't get to join (default: %(default)s)",
    )
    parser.add_argument("--wait", type=float, default=30.0, metavar="SECONDS", help="per step (default: 30)")


def run(options: argparse.Namespace) -> int:
    """Exit code of the command; findings go to stderr, the one line of success to stdout."""
    # Its hooks print every retry; the person gets one finding at the end instead.
    stamina.instrumentation.set_on_retry_hooks([])
    try:
        return _run(options)
    except Refusal as refusal:
        print(f"k3s-daas-watcher register: {refusal.text()}", file=sys.stderr)
        return refusal.exit_code


def _run(options: argparse.Namespace) -> Exit:
    settings = config.load(options.config)
    if settings.simulated:
        print(SIMULATED_NOTICE, file=sys.stderr)
    # Both: a host whose k3s was wiped and set up anew still has the marker.
    if options.joined_marker.exists() and (options.agent_dir / CERTIFICATE[0]).exists():
        print(f"{settings.node_id} joined before ({options.joined_marker} is there): nothing to do")
        return Exit.OK
    token = sealfile.read(sealfile.find(options.seal_token_file))
    key = signing.load(signing.find(options.heartbeat_key_file))
    outputs = Outputs(options.token_out, options.password_out, options.ca_out)
    joined = asyncio.run(_register(settings, token, key, outputs, options.wait))
    _forget_join(options.joined_marker, options.agent_dir)
    print(
        f"{joined.node_id} may join {joined.server} until {when(joined.expires_at_ms)}: "
        f"join token in {options.token_out}"
    )
    return Exit.OK


def _forget_join(marker: Path, agent_dir: Path) -> None:
    """Remove the kubelet certificate of a join that was interrupted. Raises Refusal.

    k3s 1.34 shows it together with the new token, and is refused for it as long as its Node doesn't exist:
    with it the agent never joins. After the registration, so that one that fails leaves all as it was.
    """
    for leftover in (marker, *(agent_dir / name for name in CERTIFICATE)):
        try:
            leftover.unlink()
        except FileNotFoundError:
            continue
        except OSError as error:
            raise unwritable(leftover, error) from None
        print(f"removed {leftover}, left by an earlier join")


async def _register(
    settings: config.WatcherConfig, token: str, key: signing.HeartbeatKey, outputs: Outputs, wait_s: float
) -> Joined:
    endpoints = readers(settings)
    try:
        return await register(settings, token, endpoints, outputs, SystemClock(), key=key, wait_s=wait_s)
    finally:
        for endpoint in endpoints:
            await endpoint.close()
