"""Data keys from KMS: for the attested enclave alone, and for nothing that was changed on the way."""

from __future__ import annotations

import base64
import datetime as dt
import shutil
import time
from dataclasses import replace
from typing import Any

import httpx
import pytest
from kms_double import KmsDouble, envelope

from k3s_daas.attestation import simulation_root
from k3s_daas_localnet import nsm_serve
from k3s_daas_localnet.nsm import NsmEmulator
from k3s_daas_master import nsm
from k3s_daas_master.sealed.aws import AwsError, Credentials, instance_credentials, sign
from k3s_daas_master.sealed.errors import SealedError
from k3s_daas_master.sealed.kms import PURPOSE, KmsKeys
from k3s_daas_master.sealed.snapshot import NO_HASH, Identity, seal, unseal

needs_openssl = pytest.mark.skipif(shutil.which("openssl") is None, reason="OpenSSL makes the envelopes")
ARN = "arn:aws:kms:eu-central-1:111122223333:key/1234abcd-12ab-34cd-56ef-1234567890ab"
CONTEXT = {"registry": "0xbb", "counter": "7"}


class Enclave:
    """An emulated enclave and the double of a KMS whose key lets its image in."""

    def __init__(self) -> None:
        now_ms = time.time_ns() // 1_000_000
        self.emulator = NsmEmulator(now_ms - 10_000)
        root = simulation_root(self.emulator.root_pem, "localnet")
        self.kms = KmsDouble(ARN, nsm_serve.DEFAULT_PCRS[0], root)
        self.keys = self.keys_of(nsm_serve.DEFAULT_PCRS)

    def keys_of(self, pcrs: dict[int, bytes], emulator: NsmEmulator | None = None) -> KmsKeys:
        now_ms = time.time_ns() // 1_000_000
        module = nsm_serve.Module(emulator or self.emulator, pcrs, now_ms)
        exchange = nsm.SecurityModule(lambda request: module.answer(request, time.time_ns() // 1_000_000))
        return KmsKeys(ARN, exchange, client=self.kms.client())


@pytest.fixture
def enclave() -> Enclave:
    return Enclave()


@needs_openssl
class TestDataKeys:
    def test_a_key_is_made_and_opened_again(self, enclave: Enclave) -> None:
        key = enclave.keys.new_key(CONTEXT)
        assert len(key.plain) == 32
        assert enclave.keys.open_key(key.wrapped, CONTEXT) == key.plain
        assert enclave.keys.new_key(CONTEXT).plain != key.plain

    def test_nothing_on_the_way_shows_it(self, enclave: Enclave) -> None:
        answers: list[dict[str, Any]] = []
        enclave.kms.change = lambda answer: answers.append(answer) or answer  # type: ignore[func-returns-value]
        key = enclave.keys.new_key(CONTEXT)
        for answer in answers:
            assert set(answer) == {"KeyId", "CiphertextBlob", "CiphertextForRecipient"}
            for name in ("CiphertextBlob", "CiphertextForRecipient"):
                assert key.plain not in base64.b64decode(answer[name])

    def test_a_restarted_enclave_opens_what_the_last_one_made(self, enclave: Enclave) -> None:
        key = enclave.keys.new_key(CONTEXT)
        now_ms = time.time_ns() // 1_000_000
        other = enclave.keys_of(nsm_serve.DEFAULT_PCRS, enclave.emulator.restarted(now_ms - 10_000))
        assert other.open_key(key.wrapped, CONTEXT) == key.plain

    def test_each_call_has_a_key_and_a_document_of_its_own_for_this_purpose(self, enclave: Enclave) -> None:
        from k3s_daas.attestation import parse

        for _ in range(2):
            enclave.keys.new_key(CONTEXT)
        documents = [
            parse(base64.b64decode(body["Recipient"]["AttestationDocument"]))
            for _, body in enclave.kms.requests
        ]
        assert documents[0].public_key != documents[1].public_key
        assert [document.user_data for document in documents] == [PURPOSE] * 2

    def test_it_is_signed_by_the_instances_role(self, enclave: Enclave) -> None:
        enclave.keys.new_key(CONTEXT)
        ((request, body),) = enclave.kms.requests
        assert str(request.url) == "https://kms.eu-central-1.amazonaws.com/"
        assert request.headers["x-amz-security-token"] == "session"
        assert "Credential=AKIDEXAMPLE/" in request.headers["authorization"]
        assert "secret-of-role" not in str(request.headers) + str(body)
        assert (body["KeyId"], body["KeySpec"], body["EncryptionContext"]) == (ARN, "AES_256", CONTEXT)

    def test_a_snapshot_sealed_with_it(self, enclave: Enclave) -> None:
        ours = Identity("testnet", "4c78adac", "0x" + "bb" * 32, "nitro")
        sealed = seal(b"state", ours, counter=1, previous=NO_HASH, created_ms=0, keys=enclave.keys)
        header, content = unseal(sealed, ours, enclave.keys)
        assert (header.provider, content) == ("kms", b"state")


@needs_openssl
class TestRefused:
    def refused(self, enclave: Enclave, words: str, keys: KmsKeys | None = None) -> None:
        with pytest.raises(SealedError, match=words) as caught:
            (keys or enclave.keys).new_key(CONTEXT)
        assert caught.value.kind == "key"
        assert "kms:RecipientAttestation:ImageSha384" in str(caught.value)

    def test_another_image(self, enclave: Enclave) -> None:
        pcrs = nsm_serve.DEFAULT_PCRS | {0: b"x" * 48}
        self.refused(enclave, "400 AccessDeniedException: no key policy", enclave.keys_of(pcrs))

    def test_an_enclave_in_debug_mode(self, enclave: Enclave) -> None:
        self.refused(enclave, "ValidationException: the enclave runs in debug mode", enclave.keys_of({}))

    def test_a_document_of_another_root(self, enclave: Enclave) -> None:
        stranger = NsmEmulator(time.time_ns() // 1_000_000 - 10_000)
        keys = enclave.keys_of(nsm_serve.DEFAULT_PCRS, stranger)
        self.refused(enclave, "400 ValidationException", keys)

    def test_a_wrapped_key_for_another_snapshot(self, enclave: Enclave) -> None:
        key = enclave.keys.new_key(CONTEXT)
        with pytest.raises(SealedError, match="InvalidCiphertextException"):
            enclave.keys.open_key(key.wrapped, CONTEXT | {"counter": "8"})

    @pytest.mark.parametrize(
        ("change", "words"),
        [
            ({"Plaintext": "AAAA"}, "the data key in clear"),
            ({"KeyId": "arn:aws:kms:eu-central-1:666666666666:key/theirs"}, "an answer by the key"),
            ({"CiphertextForRecipient": None}, "found the end in the middle"),
            ({"CiphertextForRecipient": "%"}, "no base64"),
            ({"CiphertextForRecipient": base64.b64encode(b"0" * 300).decode()}, "wanted"),
            ({"CiphertextBlob": None}, "without the wrapped key"),
        ],
    )
    def test_changed_answers(self, enclave: Enclave, change: dict[str, Any], words: str) -> None:
        enclave.kms.change = lambda answer: answer | change
        self.refused(enclave, words)

    def test_an_envelope_for_another_key(self, enclave: Enclave) -> None:
        """The parent asks KMS by itself, with a document of an enclave it can't have, or makes one up."""
        from cryptography.hazmat.primitives.asymmetric import rsa

        theirs = rsa.generate_private_key(public_exponent=65537, key_size=2048).public_key()
        made = base64.b64encode(envelope(theirs, bytes(32))).decode()
        enclave.kms.change = lambda answer: answer | {"CiphertextForRecipient": made}
        self.refused(enclave, "our key doesn't open")

    def test_a_short_key(self, enclave: Enclave) -> None:
        real = envelope

        def short(key: Any, content: bytes) -> bytes:
            return real(key, content[:16])

        enclave.kms.change = lambda answer: answer
        import kms_double

        kms_double.envelope = short  # type: ignore[assignment]
        try:
            self.refused(enclave, "a data key of 16 bytes")
        finally:
            kms_double.envelope = real


class TestOnTheWay:
    @pytest.mark.parametrize(
        ("answer", "words"),
        [
            (httpx.ConnectError("no way"), "gave no answer .ConnectError: no way"),
            (httpx.Response(500, text="oops"), "gave no answer"),
            (httpx.Response(200, json=[]), "answered with list"),
            (httpx.Response(200, content=b"x" * 70_000), "70000 bytes"),
            (
                httpx.Response(403, json={"__type": "ExpiredTokenException", "Message": "old"}),
                "403 Expired.*old",
            ),
        ],
    )
    def test_what_is_no_answer_is_said(self, enclave: Enclave, answer: Any, words: str) -> None:
        def respond(request: httpx.Request) -> httpx.Response:
            if isinstance(answer, Exception):
                raise answer
            return answer

        client = httpx.Client(transport=httpx.MockTransport(respond))
        module = nsm.SecurityModule(lambda _: b"\xa1kAttestation\xa1hdocumentA1")
        keys = KmsKeys(ARN, module, client=client, credentials=lambda: Credentials("a", "b"))
        with pytest.raises(SealedError, match=words):
            keys.new_key(CONTEXT)

    @pytest.mark.parametrize("text", ["", "{}", "[]", '{"AccessKeyId": "a"}'])
    def test_a_parent_without_a_role(self, text: str) -> None:
        client = httpx.Client(transport=httpx.MockTransport(lambda _: httpx.Response(200, text=text)))
        with pytest.raises(AwsError, match="no credentials from the instance's metadata service"):
            instance_credentials(client)

    def test_an_enclave_without_its_module(self, enclave: Enclave) -> None:
        def gone(_: bytes) -> bytes:
            raise nsm.NsmUnavailable("no /dev/nsm")

        keys = KmsKeys(ARN, nsm.SecurityModule(gone), client=enclave.kms.client())
        with pytest.raises(SealedError, match="no /dev/nsm"):
            keys.new_key(CONTEXT)

    @pytest.mark.parametrize(
        "arn", ["", "alias/x", ARN.replace("key/", "alias/"), ARN + "\n", "arn:aws:s3:::x"]
    )
    def test_what_is_no_keys_arn(self, arn: str) -> None:
        with pytest.raises(ValueError, match="wanted arn:aws:kms"):
            KmsKeys(arn, nsm.SecurityModule(lambda _: b""))


class TestSignature:
    """AWS's own vectors (get-vanilla and post-vanilla of its Signature Version 4 test suite)."""

    CREDENTIALS = Credentials("AKIDEXAMPLE", "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY")
    NOW = dt.datetime(2015, 8, 30, 12, 36, tzinfo=dt.UTC)

    @pytest.mark.parametrize(
        ("method", "signature"),
        [
            ("GET", "5fa00fa31553b73ebf1942676e86291e8372ff2a2260956d9b8aae1d763fbf31"),
            ("POST", "5da7c1a2acd57cee7505fc6676e4e544621c30862966e37dddb68e92efbe5d6b"),
        ],
    )
    def test_it_is_aws_own(self, method: str, signature: str) -> None:
        signed = sign(
            method,
            "example.amazonaws.com",
            {},
            b"",
            region="us-east-1",
            service="service",
            credentials=self.CREDENTIALS,
            now=self.NOW,
        )
        assert signed["authorization"] == (
            "AWS4-HMAC-SHA256 Credential=AKIDEXAMPLE/20150830/us-east-1/service/aws4_request, "
            f"SignedHeaders=host;x-amz-date, Signature={signature}"
        )

    def test_every_part_counts(self) -> None:
        def signature(**other: Any) -> str:
            given = {
                "region": "eu-central-1",
                "service": "kms",
                "credentials": self.CREDENTIALS,
                "now": self.NOW,
            }
            headers, body = other.pop("headers", {}), other.pop("body", b"{}")
            return sign("POST", other.pop("host", "h"), headers, body, **(given | other))["authorization"][
                -64:
            ]

        token = replace(self.CREDENTIALS, token="session")  # noqa: S106  a test's
        later = self.NOW + dt.timedelta(seconds=1)
        others = (
            {"region": "us-east-1"},
            {"service": "sts"},
            {"host": "i"},
            {"body": b"{ }"},
            {"headers": {"x": "y"}},
            {"credentials": token},
            {"now": later},
        )
        assert len({signature(), *(signature(**other) for other in others)}) == len(others) + 1
