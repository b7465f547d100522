"""AWS Nitro attestation documents: what an enclave says of itself, signed by Amazon's hardware.

    document = verify(raw, now_ms=…)                  # AttestationError says what is wrong
    document.pcr(0), document.public_key, document.user_data

``verify`` checks form, certificate chain to the AWS root (a constant here), certificate windows, signature,
age, and that the enclave is not in debug mode. What the caller still has to check is what it alone knows:
PCRs against the allowed images, user_data and nonce against what was expected. `serving.check_serving` does
all of that for the document by which a master proves itself to a client.

Documents of the emulator end at a root of its own: `simulation_root` admits it, never on a public network.
Source: AWS "Verifying the root of trust", RFC 9052 (COSE_Sign1), and Sui's own verifier in fastcrypto.
"""

from .document import MAX_DOCUMENT_BYTES, AttestationDocument, AttestationError, parse
from .roots import AWS_ROOT, PUBLIC_NETWORKS, SIMULATION, Root, simulation_root
from .verify import MAX_AGE_MS, MAX_AHEAD_MS, check_signature, verify

__all__ = [
    "AWS_ROOT",
    "MAX_AGE_MS",
    "MAX_AHEAD_MS",
    "MAX_DOCUMENT_BYTES",
    "PUBLIC_NETWORKS",
    "SIMULATION",
    "AttestationDocument",
    "AttestationError",
    "Root",
    "check_signature",
    "parse",
    "simulation_root",
    "verify",
]
