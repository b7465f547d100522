"""``python -m k3s_daas.enclave``: `heartbeat` tells the parent that the enclave runs, `configure` asks it."""

from __future__ import annotations

import argparse
import socket
import sys

from k3s_daas.enclave.cluster import PARENT_CID, ClusterError, from_parent, parse
from k3s_daas.enclave.configure import Place, configure

#: What `nitro-cli run-enclave` waits for. Source: aws-nitro-enclaves-sdk-bootstrap, init/init.c.
_HEARTBEAT_PORT, _HEARTBEAT = 9000, b"\xb7"
_TIMEOUT_S = 20.0


def heartbeat(channel: socket.socket) -> None:
    """Say that we are there, and hear it back. Raises OSError."""
    channel.sendall(_HEARTBEAT)
    if (answer := channel.recv(1)) != _HEARTBEAT:
        raise OSError(f"the parent answered the heartbeat with {answer!r}, wanted {_HEARTBEAT!r}")


def main(arguments: list[str] | None = None) -> int:
    """Run one command; returns the exit code."""
    parser = argparse.ArgumentParser(prog="k3s_daas.enclave", description=__doc__)
    parser.add_argument("command", choices=["heartbeat", "configure"])
    command = parser.parse_args(arguments).command
    try:
        if command == "heartbeat":
            with socket.socket(socket.AF_VSOCK, socket.SOCK_STREAM) as channel:
                channel.settimeout(_TIMEOUT_S)
                channel.connect((PARENT_CID, _HEARTBEAT_PORT))
                heartbeat(channel)
        else:
            configure(parse(from_parent()), Place())
    except (ClusterError, OSError) as error:
        print(f"k3s_daas.enclave {command}: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
