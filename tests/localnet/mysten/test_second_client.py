"""A client that nobody here wrote: Mysten's TypeScript SDK, over gRPC-Web, its default, and native gRPC."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from k3s_daas_localnet import Localnet
from k3s_daas_localnet.ledger.encoding import blake2b

FOLDER = Path(__file__).parent
SUI = 10**9

pytestmark = [
    pytest.mark.skipif(shutil.which("node") is None, reason="node is missing: install Node.js 20 or newer"),
    pytest.mark.skipif(
        not (FOLDER / "node_modules").is_dir(),
        reason="the second client is missing: run npm ci --prefix tests/localnet/mysten",
    ),
]


async def run(task: dict[str, Any]) -> dict[str, Any]:
    process = await asyncio.create_subprocess_exec(
        "node",
        str(FOLDER / "client.mjs"),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    try:
        out, error = await asyncio.wait_for(process.communicate(json.dumps(task).encode()), 60)
    finally:
        if process.returncode is None:
            process.kill()
    assert process.returncode == 0, error.decode()
    found: dict[str, Any] = json.loads(out)
    return found


@pytest.mark.parametrize("transport", ["web", "native"])
async def test_mysten_client(transport: str, compiled: Any) -> None:
    secret = hashlib.sha256(b"second client").digest()
    async with Localnet.start() as net:
        public = Ed25519PrivateKey.from_private_bytes(secret).public_key().public_bytes_raw()
        address = "0x" + blake2b(b"\0" + public).hex()
        await net.faucet(address, 100 * SUI)
        seen = await run(
            {
                "url": net.url,
                "transport": transport,
                "secret": base64.b64encode(secret).decode(),
                "modules": [base64.b64encode(module).decode() for module in compiled.modules],
                "dependencies": compiled.dependencies,
            }
        )
        assert (seen["address"], seen["chain"]) == (address, net.chain_id)
        assert seen["balance"] == str(100 * SUI)
        registry = "::worker_registry::Registry"
        assert seen["registry"] == {
            "type": seen["packageId"] + registry,
            "owner": "Shared",
            "staked": str(2 * SUI),
            "name": "second-client",
        }
        (proof,) = seen["proofs"]
        assert (proof["registry"], proof["node_id"]) == (seen["registryId"], "worker-1")
        assert proof["owner"] == address
        (field,) = seen["fields"]
        assert field == ["worker-1", seen["worker"]]
        assert field[1].startswith(seen["packageId"])
        assert field[1].endswith("::Worker")
        names = [name for name, _ in seen["events"]]
        assert "WorkerRegisteredEvent" in names
        assert dict(seen["events"])["StakeDepositedEvent"]["amount"] == str(2 * SUI)
        ((payer, spent),) = seen["spent"]
        assert payer == address
        assert -3 * SUI < int(spent) < -2 * SUI
        (balance,) = seen["coins"][1]
        assert seen["coins"][0] == 1
        assert 97 * SUI < int(balance) < 98 * SUI
        assert (seen["sui"], seen["active"], seen["same"]) == ("SUI", False, len(names))
        # Lists in pages, forwards and backwards.
        assert seen["listed"] == seen["sent"]
        assert seen["newest"] == seen["sent"][-1]
        assert [name for name, digest in seen["history"] if digest == seen["sent"][-1]] == names
        assert seen["history"][0] == ["RegistryCreatedEvent", seen["sent"][1]]
        # Failures are named.
        assert "not found" in seen["missing"]["message"]
        assert "EInsufficientStake" in seen["refused"]["message"]
        assert seen["invalid"]["code"] == "INVALID_ARGUMENT"
        # The stream had every checkpoint once, with the transactions in them.
        cursors = [cursor for cursor, _ in seen["followed"]]
        assert cursors == list(range(cursors[0], cursors[0] + len(cursors)))
        assert [digest for _, digests in seen["followed"] for digest in digests] == seen["sent"]
        # Its end was noticed.
        async with asyncio.timeout(5):
            while net.ledger.listeners:
                await asyncio.sleep(0.01)
