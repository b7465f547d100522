"""An enclave's master gets gas for the account that it proves, and nobody else does: against a localnet."""

from __future__ import annotations

import asyncio
import base64
import datetime as dt
import json
import ssl
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from playbook_kit import ansible_playbook

from k3s_daas.attestation.statements import Statement, registration, serving
from k3s_daas.chain import Key, SuiClient
from k3s_daas.enclave.cluster import parse
from k3s_daas.enclave.configure import told_hash
from k3s_daas.registry import Registry
from k3s_daas.registry.mastery import Image, plan_images
from k3s_daas.registry.operation import carry_out
from k3s_daas_localnet import nsm_serve
from k3s_daas_localnet.nsm import NsmEmulator

pytestmark = pytest.mark.asyncio(loop_scope="session")
PCRS = nsm_serve.DEFAULT_PCRS
SUI = 1_000_000_000


def tls(folder: Path) -> ssl.SSLContext:
    """A server's, with a certificate that nobody has to trust."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "enclave")])
    now = dt.datetime.now(dt.UTC)
    builder = x509.CertificateBuilder().subject_name(name).issuer_name(name).public_key(key.public_key())
    builder = builder.serial_number(1).not_valid_before(now).not_valid_after(now + dt.timedelta(hours=1))
    pem = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    ) + builder.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)
    (folder / "tls.pem").write_bytes(pem)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(folder / "tls.pem")
    return context


@contextmanager
def answering(folder: Path, document: Callable[[bytes], bytes]) -> Iterator[str]:
    """A test double of an enclave's master: its one answer is a document for the nonce it is asked with."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            nonce = bytes.fromhex(parse_qs(urlsplit(self.path).query)["nonce"][0])
            body = json.dumps({"document": base64.b64encode(document(nonce)).decode()}).encode()
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None: ...

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        server.socket = tls(folder).wrap_socket(server.socket, server_side=True)
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"https://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()


async def test_it_gets_gas_for_the_account_that_it_proves(
    new_registry: Any, live_net: Any, nitro: NsmEmulator, tmp_path: Path
) -> None:
    operator, enclave = Key.create(tmp_path / "operator.key"), Key.create(tmp_path / "enclave.key")
    await live_net.faucet(operator.address, 100 * SUI)
    (tmp_path / "root.pem").write_bytes(nitro.root_pem)
    async with (
        await SuiClient.connect([live_net.url], "localnet", operator) as chain,
        await SuiClient.connect([live_net.url], "localnet", enclave) as inside,
    ):
        registry: Registry = await new_registry(chain, require_attestation=True)
        # The chain's time is what documents are held against; this one has none but its transactions'.
        _, now_ms = await chain.latest_checkpoint()
        machine = nitro.restarted(now_ms - 10_000)
        ours = registry.deployment
        told = {
            "network": "localnet",
            "endpoints": [live_net.url],
            "chain_id": chain.chain_id,
            "package_id": ours.package_id,
            "registry_id": ours.registry_id,
            "address": "10.0.0.10",
        }
        statement = Statement(
            chain.chain_id,
            ours.types_id,
            ours.registry_id,
            enclave.address,
            b"c" * 32,
            told_hash(parse(json.dumps(told).encode())),
        )

        def document(nonce: bytes) -> bytes:
            return machine.document(
                now_ms, pcrs=PCRS, public_key=bytes(32), user_data=serving(statement), nonce=nonce
            )

        async def provide(endpoint: str, pcr0: bytes = PCRS[0], **other: str) -> tuple[int, str]:
            ids = {"package_id": ours.package_id, "registry_id": ours.registry_id}
            ids |= {"original_package_id": "", "network": "localnet", "endpoints": [live_net.url]}
            ids |= {"chain_id": "", "key_file": str(tmp_path / "operator.key")}
            task = {"ansible.builtin.include_role": {"name": "contracts", "tasks_from": "enclave"}}
            play = {"hosts": "localhost", "gather_facts": False, "tasks": [task]}
            return await asyncio.to_thread(
                ansible_playbook,
                tmp_path,
                [play],
                {},
                contracts_deployment=ids,
                contracts_enclave_endpoint=endpoint,
                contracts_wanted_pcr0=pcr0.hex().upper(),
                contracts_enclave_cluster=told | other,
                contracts_simulation_root_file=str(tmp_path / "root.pem"),
                contracts_attested_timeout_s=0,
            )

        with answering(tmp_path, document) as endpoint:
            code, said = await provide(endpoint, b"\xab" * 48)
            assert (code != 0, "has proved no account" in said) == (True, True), said
            # Its parent told it something else.
            code, said = await provide(endpoint, address="10.0.0.11")
            assert (code != 0, "found the config " in said) == (True, True), said
            assert await chain.balance(enclave.address) == 0

            code, said = await provide(endpoint)
            assert code == 0, said
            assert "changed=1" in said
            assert await chain.balance(enclave.address) == SUI // 2

            code, said = await provide(endpoint)
            assert (code, "changed=0" in said) == (0, True), said

        _, operation = await plan_images(registry, frozenset({Image(PCRS[0], PCRS[3])}))
        await carry_out(chain, operation)
        proof = machine.document(
            now_ms, pcrs=PCRS, public_key=bytes(range(32)), user_data=registration(statement)
        )
        await Registry(inside, ours).register_master(proof)
        # Nobody answers there any more: of one that has registered the chain's word is enough.
        code, said = await provide(endpoint)
        assert (code, "changed=0" in said) == (0, True), said
