"""Checks documents: signature, certificates, time, debug mode."""

from __future__ import annotations

import datetime
import warnings
from dataclasses import replace

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature
from cryptography.hazmat.primitives.hashes import SHA384

from .document import AttestationDocument, AttestationError, parse
from .roots import AWS_ROOT, SIMULATION, Root

MAX_AGE_MS = 5 * 60 * 1000
MAX_AHEAD_MS = 60 * 1000


def verify(
    raw: bytes,
    *,
    now_ms: int,
    root: Root = AWS_ROOT,
    accept_debug: bool = False,
    max_age_ms: int | None = MAX_AGE_MS,
) -> AttestationDocument:
    """The document, when it holds now.

    :param now_ms: the present, from a clock that can be trusted (not the enclave's parent), in ms.
    :param root: `AWS_ROOT`, or what `simulation_root` gave.
    :param accept_debug: also take documents of enclaves in debug mode, which prove nothing.
    :param max_age_ms: how old it may be, in ms; None for as old as its certificates allow.

    Raises AttestationError.
    """
    document = parse(raw)
    check_signature(document, now_ms=now_ms, root=root)
    if document.debug and not accept_debug:
        raise AttestationError(
            "the enclave runs in debug mode: its PCRs 0 to 2 are zero, so anybody made it",
            code="document_debug",
        )
    age = now_ms - document.timestamp_ms
    if max_age_ms is not None and not -MAX_AHEAD_MS <= age <= max_age_ms:
        raise AttestationError(
            f"the document is {age} ms old, wanted at most {max_age_ms} (and {MAX_AHEAD_MS} ahead): "
            "ask for a new one, and compare the clocks",
            code="document_not_fresh",
        )
    if root.simulated and SIMULATION not in document.module_id:
        raise AttestationError(
            f"module id {document.module_id!r} under a simulated root, wanted {SIMULATION}"
        )
    return replace(document, simulated=root.simulated)


def check_signature(document: AttestationDocument, *, now_ms: int, root: Root = AWS_ROOT) -> None:
    """Signature, chain and windows: what Sui checks. Raises AttestationError."""
    try:
        with warnings.catch_warnings():
            # cryptography warns of oddities in certificates that it will refuse one day.
            warnings.simplefilter("ignore")
            chain = [
                x509.load_der_x509_certificate(der)
                for der in (document.certificate, *reversed(document.cabundle))
            ]
            _check_chain(chain, root, now_ms)
            _check_document_signature(document, chain[0])
    except AttestationError:
        raise
    except Exception as error:  # cryptography's errors on hostile certificates have no common base
        raise AttestationError(f"certificate that can't be used: {error}") from error


def _check_document_signature(document: AttestationDocument, leaf: x509.Certificate) -> None:
    key = leaf.public_key()
    if not isinstance(key, ec.EllipticCurvePublicKey) or not isinstance(key.curve, ec.SECP384R1):
        raise AttestationError("the document's certificate holds another kind of key, wanted P-384")
    half = len(document.signature) // 2
    r, s = (int.from_bytes(part, "big") for part in (document.signature[:half], document.signature[half:]))
    try:
        key.verify(encode_dss_signature(r, s), document.signed, ec.ECDSA(SHA384()))
    except InvalidSignature:
        raise AttestationError("the document's signature does not fit its contents") from None


def _check_chain(chain: list[x509.Certificate], root: Root, now_ms: int) -> None:
    """From the leaf up, each issued by the next and the last by the root (which may be in the chain)."""
    now = datetime.datetime.fromtimestamp(now_ms // 1000, tz=datetime.UTC)
    for position, certificate in enumerate(chain):
        name = certificate.subject.rfc4514_string()
        _check_use(certificate, position, name)
        if not certificate.not_valid_before_utc <= now <= certificate.not_valid_after_utc:
            raise AttestationError(
                f"certificate {name} is valid from {certificate.not_valid_before_utc:%Y-%m-%d %H:%M:%S} to "
                f"{certificate.not_valid_after_utc:%Y-%m-%d %H:%M:%S} UTC, now is {now:%Y-%m-%d %H:%M:%S}"
            )
        issuer = chain[position + 1] if position + 1 < len(chain) else root.certificate
        try:
            certificate.verify_directly_issued_by(issuer)
        except (ValueError, InvalidSignature):
            raise AttestationError(
                f"certificate {name} was not issued by {issuer.subject.rfc4514_string()}, "
                f"wanted a chain to the root with fingerprint {root.fingerprint[:16]}…"
            ) from None


def _check_use(certificate: x509.Certificate, position: int, name: str) -> None:
    """Key usage and basic constraints; position 0 is the leaf."""
    extensions = certificate.extensions
    try:
        usage = extensions.get_extension_for_class(x509.KeyUsage).value
    except x509.ExtensionNotFound:
        raise AttestationError(f"certificate {name} has no key usage") from None
    try:
        constraints = extensions.get_extension_for_class(x509.BasicConstraints)
    except x509.ExtensionNotFound:
        constraints = None
    if position == 0:
        is_ca = constraints is not None and constraints.value.ca
        if not usage.digital_signature or is_ca:
            raise AttestationError(f"certificate {name} may not sign documents")
        return
    if not usage.key_cert_sign or constraints is None or not constraints.critical or not constraints.value.ca:
        raise AttestationError(f"certificate {name} may not issue certificates")
    longest = constraints.value.path_length
    if longest is not None and position - 1 > longest:
        raise AttestationError(f"certificate {name} stands {position} above the leaf, allowed {longest + 1}")
