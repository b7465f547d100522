"""Data keys of an AWS KMS key that opens to attested enclaves alone.

Each call carries an attestation document with an RSA key made for that call. KMS checks the document against
the key's policy (`kms:RecipientAttestation:ImageSha384` is PCR0) and answers with the data key encrypted for
that RSA key: neither the parent, through which all of it goes, nor whoever reads the answer has the data key.

Source: AWS KMS API reference (GenerateDataKey, Decrypt: Recipient, CiphertextForRecipient).
"""

from __future__ import annotations

import base64
import binascii
import datetime as dt
from collections.abc import Callable
from typing import Any

import httpx
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from k3s_daas_master.config import KMS_KEY
from k3s_daas_master.nsm import NsmError, SecurityModule
from k3s_daas_master.sealed.aws import AwsError, Credentials, call, instance_credentials
from k3s_daas_master.sealed.cms import CmsError, open_envelope
from k3s_daas_master.sealed.errors import SealedError
from k3s_daas_master.sealed.keys import KEY_BYTES, Context, DataKey, Provider

#: `user_data` of these documents: none of them passes for a registration, or for what clients are shown.
PURPOSE = b"k3s-daas-sealed-v1"
_RSA_BITS = 2048
_ALGORITHM = "RSAES_OAEP_SHA_256"


class KmsKeys:
    """`key_arn` is the KMS key's; `module` signs for this enclave. Raises ValueError for no key's ARN."""

    provider: Provider = "kms"

    def __init__(
        self,
        key_arn: str,
        module: SecurityModule,
        *,
        client: httpx.Client | None = None,
        credentials: Callable[[], Credentials] | None = None,
        now: Callable[[], dt.datetime] = lambda: dt.datetime.now(dt.UTC),
    ) -> None:
        found = KMS_KEY.fullmatch(key_arn)
        if found is None:
            raise ValueError(f"found {key_arn[:120]!r}, wanted arn:aws:kms:REGION:ACCOUNT:key/ID")
        self._key_arn = key_arn
        self._region = found["region"]
        top = "amazonaws.com.cn" if found["partition"] == "aws-cn" else "amazonaws.com"
        self._host = f"kms.{self._region}.{top}"
        self._module = module
        # Nothing of the environment's: a proxy there would be the parent's choice.
        self._client = client or httpx.Client(trust_env=False)
        self._credentials = credentials or (lambda: instance_credentials(self._client))
        self._now = now

    def new_key(self, context: Context) -> DataKey:
        answer, plain = self._call("GenerateDataKey", {"KeySpec": "AES_256"}, context)
        wrapped = _bytes(answer, "CiphertextBlob")
        if not wrapped:
            raise _refused("an answer without the wrapped key")
        return DataKey(plain, wrapped)

    def open_key(self, wrapped: bytes, context: Context) -> bytes:
        given = {"CiphertextBlob": base64.b64encode(wrapped).decode()}
        return self._call("Decrypt", given, context)[1]

    def _call(self, action: str, given: dict[str, Any], context: Context) -> tuple[dict[str, Any], bytes]:
        """(the answer, the data key in it)."""
        own = rsa.generate_private_key(public_exponent=65537, key_size=_RSA_BITS)
        public = own.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
        try:
            document = self._module.attest(user_data=PURPOSE, nonce=None, public_key=public)
            answer = call(
                self._client,
                host=self._host,
                region=self._region,
                service="kms",
                target=f"TrentService.{action}",
                body={
                    "KeyId": self._key_arn,
                    **given,
                    "EncryptionContext": dict(context),
                    "Recipient": {
                        "KeyEncryptionAlgorithm": _ALGORITHM,
                        "AttestationDocument": base64.b64encode(document).decode(),
                    },
                },
                credentials=self._credentials,
                now=self._now,
            )
            if answer.get("KeyId") != self._key_arn:
                raise _refused(f"an answer by the key {str(answer.get('KeyId'))[:120]!r}")
            if answer.get("Plaintext"):
                # Whoever ends TLS could have read it: this is no KMS that knows of enclaves.
                raise _refused("an answer with the data key in clear")
            plain = open_envelope(_bytes(answer, "CiphertextForRecipient"), own)
        except (AwsError, NsmError, CmsError) as error:
            raise _refused(str(error)) from None
        if len(plain) != KEY_BYTES:
            raise _refused(f"a data key of {len(plain)} bytes")
        return answer, plain


def _bytes(answer: dict[str, Any], name: str) -> bytes:
    try:
        return base64.b64decode(answer.get(name) or "", validate=True)
    except (TypeError, ValueError, binascii.Error):
        raise _refused(f"an answer whose {name} is no base64") from None


def _refused(found: str) -> SealedError:
    return SealedError(
        "key",
        found,
        "a data key from KMS, for this enclave alone",
        "Look at the KMS key's policy (this image's PCR0 in kms:RecipientAttestation:ImageSha384), at the "
        "parent's role, and at the way to KMS.",
    )
