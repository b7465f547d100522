"""Until when the master's certificates are good: what Prometheus warns of before they end.

The API's own is renewed when the service starts and at no other time, so a master that runs for months tells
here that it wants a restart.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from pathlib import Path

from cryptography import x509

from k3s_daas_master.config import Config
from k3s_daas_master.registration import ClusterCa


def certificates(config: Config, ca: ClusterCa) -> Iterator[tuple[str, float]]:
    """(which, end in seconds since 1970) of each one that can be read: `api`, `kubernetes` (its identity
    towards the API server) and `server_ca` (the earliest of the CAs that k3s serves)."""
    found = {
        "api": _first(_read(config.tls_cert)),
        "kubernetes": _first(_identity(config.kubeconfig)),
        "server_ca": _earliest(ca.pem),
    }
    yield from ((name, end) for name, end in found.items() if end is not None)


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError:
        return b""


def _identity(kubeconfig: Path) -> bytes:
    """The client certificate of a kubeconfig as `issue-kubeconfig` writes it, which is JSON."""
    try:
        user = json.loads(_read(kubeconfig))["users"][0]["user"]
        return base64.b64decode(user["client-certificate-data"])
    except (ValueError, LookupError, TypeError):
        return b""


def _ends(pem: bytes) -> list[float]:
    try:
        return [one.not_valid_after_utc.timestamp() for one in x509.load_pem_x509_certificates(pem)]
    except ValueError:
        return []


def _first(pem: bytes) -> float | None:
    """Of the certificate itself; those that follow it are its issuers'."""
    return next(iter(_ends(pem)), None)


def _earliest(pem: bytes) -> float | None:
    return min(_ends(pem), default=None)
