"""The certificates that chains may end at."""

from __future__ import annotations

from dataclasses import dataclass

from cryptography import x509
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.x509.oid import NameOID

# Stands in the root's common name and in the module id of every document the emulator makes.
SIMULATION = "SIMULATION"
PUBLIC_NETWORKS = frozenset(("mainnet", "testnet", "devnet"))

_AWS_ROOT_PEM = b"""-----BEGIN CERTIFICATE-----
MIICETCCAZagAwIBAgIRAPkxdWgbkK/hHUbMtOTn+FYwCgYIKoZIzj0EAwMwSTEL
MAkGA1UEBhMCVVMxDzANBgNVBAoMBkFtYXpvbjEMMAoGA1UECwwDQVdTMRswGQYD
VQQDDBJhd3Mubml0cm8tZW5jbGF2ZXMwHhcNMTkxMDI4MTMyODA1WhcNNDkxMDI4
MTQyODA1WjBJMQswCQYDVQQGEwJVUzEPMA0GA1UECgwGQW1hem9uMQwwCgYDVQQL
DANBV1MxGzAZBgNVBAMMEmF3cy5uaXRyby1lbmNsYXZlczB2MBAGByqGSM49AgEG
BSuBBAAiA2IABPwCVOumCMHzaHDimtqQvkY4MpJzbolL//Zy2YlES1BR5TSksfbb
48C8WBoyt7F2Bw7eEtaaP+ohG2bnUs990d0JX28TcPQXCEPZ3BABIeTPYwEoCWZE
h8l5YoQwTcU/9KNCMEAwDwYDVR0TAQH/BAUwAwEB/zAdBgNVHQ4EFgQUkCW1DdkF
R+eWw5b6cp3PmanfS5YwDgYDVR0PAQH/BAQDAgGGMAoGCCqGSM49BAMDA2kAMGYC
MQCjfy+Rocm9Xue4YnwWmNJVA44fA0P5W2OpYow9OYCVRaEevL8uO1XYru5xtMPW
rfMCMQCi85sWBbJwKKXdS6BptQFuZbT73o/gBh1qUxl/nNr12UO8Yfwr6wPLb+6N
IwLz3/Y=
-----END CERTIFICATE-----
"""


@dataclass(frozen=True)
class Root:
    """A trusted root. `simulated` documents prove nothing, and everything made from them has to say so."""

    certificate: x509.Certificate
    simulated: bool = False

    @property
    def fingerprint(self) -> str:
        """Hex sha256 of the certificate's DER."""
        return self.certificate.fingerprint(SHA256()).hex()


AWS_ROOT = Root(x509.load_pem_x509_certificate(_AWS_ROOT_PEM))
"""G1 root of AWS Nitro Enclaves, valid until 2049; DER sha256 641a0321…8f79bb5b as AWS publishes it."""


def simulation_root(pem: bytes, network: str) -> Root:
    """The emulator's root, for networks where nothing is at stake.

    Raises ValueError on a public network, and for certificates that don't say what they are.
    """
    if network in PUBLIC_NETWORKS:
        raise ValueError(
            f"network {network} trusts the AWS root only: found a root for simulated attestation, "
            "remove it or use tee_mode nitro"
        )
    certificate = x509.load_pem_x509_certificate(pem)
    names = certificate.subject.get_attributes_for_oid(NameOID.COMMON_NAME)
    if not names or SIMULATION not in str(names[0].value):
        raise ValueError(
            f"not the root of an emulator: its subject is {certificate.subject.rfc4514_string()!r}, "
            f"wanted a common name with {SIMULATION}"
        )
    return Root(certificate, simulated=True)
