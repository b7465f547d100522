"""Listening addresses of the services: "address:port" as text, and the socket bound to it."""

from __future__ import annotations

import socket


def split_listen(value: str) -> tuple[str, int]:
    """("0.0.0.0", 8443) of "0.0.0.0:8443"; an IPv6 address stands in brackets. Raises ValueError."""
    host, separator, port = value.rpartition(":")
    if not separator or not host or not port.isascii() or not port.isdigit() or int(port) > 65535:
        raise ValueError("wanted <address>:<port>, like 127.0.0.1:8443")
    return host.removeprefix("[").removesuffix("]"), int(port)


def bind(listen: str) -> socket.socket:
    """A bound TCP socket for "address:port", not listening yet. Raises OSError."""
    host, port = split_listen(listen)
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    # The protocol is named because asyncio switches Nagle's algorithm off only where it reads TCP here;
    # with it on, every answer to a kept connection takes 40 ms.
    bound = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    try:
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        bound.bind((host, port))
    except OSError:
        bound.close()
        raise
    return bound
