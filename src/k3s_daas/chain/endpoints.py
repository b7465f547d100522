"""Endpoint URLs and the networks they belong to. Parsed here: pysui's own parser turns TLS on for http
URLs, loses IPv6 addresses and takes `https://name` for port None."""

from __future__ import annotations

import re
from dataclasses import dataclass
from urllib.parse import urlsplit

from k3s_daas.chain.errors import InvalidEndpoint

#: The base58 digest of each public network's first checkpoint. A localnet's is its own.
CHAIN_IDS = {
    "mainnet": "4btiuiMPvEENsttpZC7CZ53DruC3MAgfznDbASZ7DR6S",
    "testnet": "69WiPg3DAQiwdxfncX6wYQ2siKwAe6L9BZthQea3JNMD",
}
#: devnet is started anew again and again: it has no lasting chain id.
NETWORKS = ("localnet", "devnet", "testnet", "mainnet")


def wanted_answers(network: str) -> int:
    """How many endpoints must answer, and agree, before anything is believed: on mainnet one can't lie."""
    return 2 if network == "mainnet" else 1


_HOST = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9.-]{0,251}[A-Za-z0-9])?", re.ASCII)


@dataclass(frozen=True)
class Endpoint:
    url: str
    host: str
    port: int
    tls: bool


def check_network(network: str) -> str:
    if network not in NETWORKS:
        raise InvalidEndpoint(f"Found network {network!r}, wanted one of {', '.join(NETWORKS)}.")
    return network


def parse_endpoint(url: str, network: str) -> Endpoint:
    """`url` is `https://host[:port]`, or on a localnet also `http://host:port` (plaintext).

    Raises InvalidEndpoint. A password, path or query in the URL is refused rather than ignored.
    """
    check_network(network)
    wanted = "wanted https://host[:port]" + (" or http://host:port" if network == "localnet" else "")
    # A URL can carry a password or an API key: what is shown of a refused one ends before either.
    shown = repr(url.split("@")[-1].split("?")[0][:80]) if isinstance(url, str) else repr(type(url))
    try:
        parts = urlsplit(url)
        host, port = parts.hostname, parts.port
    except (ValueError, AttributeError, TypeError):
        raise InvalidEndpoint(f"Found endpoint {shown}, {wanted}.") from None
    if parts.scheme not in ("http", "https") or not host or any(c.isspace() for c in url):
        raise InvalidEndpoint(f"Found endpoint {shown}, {wanted}.")
    if parts.username is not None or parts.password is not None or parts.query or parts.fragment:
        raise InvalidEndpoint(f"Found endpoint {shown} with user, query or fragment, {wanted}.")
    if parts.path not in ("", "/"):
        raise InvalidEndpoint(f"Found endpoint {shown} with a path, {wanted}: gRPC has no paths.")
    if ":" not in host and _HOST.fullmatch(host) is None:
        raise InvalidEndpoint(f"Found endpoint {shown} with an impossible host name, {wanted}.")
    tls = parts.scheme == "https"
    if not tls and network != "localnet":
        raise InvalidEndpoint(
            f"Found endpoint {shown} on {network}, {wanted}: http is plaintext, for a localnet only."
        )
    if port == 0:
        raise InvalidEndpoint(f"Found endpoint {shown} with port 0, {wanted}.")
    port = port or (443 if tls else 9000)
    netloc = f"[{host}]" if ":" in host else host
    return Endpoint(f"{parts.scheme}://{netloc}:{port}", host, port, tls)
