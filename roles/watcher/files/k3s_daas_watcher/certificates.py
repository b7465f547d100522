"""The certificates of this node whose users are the same on every node, by fingerprint.

k3s gives an agent new ones each time it starts. The master wants to hear which they are: one that no worker
says is its own opens nothing. They are no secret; root's oneshot `k3s-daas-kubelet-credentials` copies them
to where this service may read them.
"""

from __future__ import annotations

import hashlib
import ssl
from collections.abc import Iterator
from pathlib import Path

from cryptography import x509

from k3s_daas import logs

from .pods import CERTIFICATE

log = logs.get_logger(__name__)

SHARED = ("client-kube-proxy.crt", "client-k3s-controller.crt")
_END = "-----END CERTIFICATE-----"


class NodeCertificates:
    """Looks at the files again whenever they were replaced."""

    def __init__(self, credentials: Path) -> None:
        self._paths = [credentials / name for name in SHARED]
        self._read: dict[Path, tuple[tuple[int, int], str | None]] = {}

    def fingerprints(self) -> list[str]:
        """SHA-256 (hex) of each one that is there, in DER. Never raises."""
        return [found for path in self._paths if (found := self._fingerprint(path))]

    def _fingerprint(self, path: Path) -> str | None:
        try:
            info = path.stat()
            stamp = (info.st_ino, info.st_mtime_ns)
            known = self._read.get(path)
            if known is None or known[0] != stamp:
                self._read[path] = known = (stamp, _first(path.read_text("ascii")))
        except FileNotFoundError:
            return None
        except (OSError, ValueError) as error:
            log.warning("certificate can't be read", path=str(path), why=type(error).__name__)
            return None
        return known[1]


def ends(credentials: Path) -> Iterator[tuple[str, float]]:
    """(name, end in seconds since 1970) of each certificate of the agent's that can be read. Never raises."""
    for name in (CERTIFICATE, *SHARED):
        try:
            certificate = x509.load_pem_x509_certificate((credentials / name).read_bytes())
        except (OSError, ValueError):
            continue
        yield name.removesuffix(".crt"), certificate.not_valid_after_utc.timestamp()


def _first(pem: str) -> str | None:
    """Of the first certificate in a PEM file; the CA's follow. None when there is none. Raises ValueError."""
    head, end, _ = pem.partition(_END)
    return hashlib.sha256(ssl.PEM_cert_to_DER_cert(head + end)).hexdigest() if end else None
