"""`0x2::nitro_attestation` by transactions: the AWS root only, unless the network is told otherwise."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
from localnet_wallet import Wallet, arg, failed, succeeded

from k3s_daas.attestation import AWS_ROOT
from k3s_daas_localnet import Localnet
from k3s_daas_localnet.ledger.encoding import address, byte_string
from k3s_daas_localnet.ledger.transaction import MoveCall, PureInput, SharedInput
from k3s_daas_localnet.nsm import NsmEmulator
from k3s_daas_localnet.serve import main

SUI = 10**9
HOUR = 3_600_000
IMAGE = {0: b"\x11" * 48, 1: b"\x22" * 48, 2: b"\x33" * 48, 16: b"\x44" * 48}
_CLOCK = SharedInput(address("0x6"), 1, False)
_LOAD = MoveCall(address("0x2"), "nitro_attestation", "load_nitro_attestation", (), (arg(0), arg(1)))


async def load(wallet: Wallet, document: bytes, *, simulate: bool = False) -> Any:
    inputs = [PureInput(byte_string(document)), _CLOCK]
    if not simulate:
        return await wallet.run([_LOAD], inputs)
    answer = await wallet.simulate(await wallet.raw([_LOAD], inputs))
    assert answer.transaction.effects.status.success, answer.transaction.effects.status.error
    return answer.command_outputs[0].return_values[0].json.to_dict()


def aborted(executed: Any, code: int) -> None:
    error = failed(executed, "MOVE_ABORT")
    assert error.abort.abort_code == code
    assert error.abort.location.function_name == "load_nitro_attestation_internal"


async def test_a_simulated_document_where_the_network_accepts_them() -> None:
    async with Localnet.start() as probe:
        now = probe.clock.now_ms()
    emulator = NsmEmulator(now - HOUR)
    async with (
        Localnet.start(simulated_nitro_root=emulator.root_pem) as net,
        Wallet.connect(net.url, seed=1) as wallet,
    ):
        await net.faucet(wallet.address, 100 * SUI)
        document = emulator.document(now, pcrs=IMAGE, public_key=b"k" * 32, indefinite=True)
        succeeded(await load(wallet, document))
        fields = await load(wallet, document, simulate=True)
        assert [int(item["index"]) for item in fields["pcrs"]] == [0, 1, 2, 3, 4, 8, 16]
        assert int(fields["timestamp"]) == now
        # Debug mode and age are for contracts to refuse, not for the framework.
        succeeded(await load(wallet, emulator.document(now)))
        net.clock.advance(2 * HOUR)
        succeeded(await load(wallet, document))
        net.clock.advance(2 * HOUR)
        aborted(await load(wallet, document), 2)
        aborted(await load(wallet, emulator.document(now + 5 * HOUR, pcrs=IMAGE)), 2)
        # What holds no longer, or never did.
        now_there = net.clock.now_ms()
        fresh = emulator.document(now_there, pcrs=IMAGE)
        succeeded(await load(wallet, fresh))
        aborted(await load(wallet, fresh[:-1] + bytes([fresh[-1] ^ 1])), 2)
        aborted(await load(wallet, fresh[:-1]), 1)
        aborted(await load(wallet, b""), 1)
        aborted(await load(wallet, NsmEmulator(now).document(now_there, pcrs=IMAGE)), 2)


async def test_a_simulated_document_proves_nothing_by_default(net: Localnet, wallet: Wallet) -> None:
    now = net.clock.now_ms()
    aborted(await load(wallet, NsmEmulator(now - HOUR).document(now, pcrs=IMAGE)), 2)


def test_the_command_line_takes_emulators_only(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from cryptography.hazmat.primitives.serialization import Encoding

    pem = tmp_path / "root.pem"
    pem.write_bytes(AWS_ROOT.certificate.public_bytes(Encoding.PEM))
    assert main(["--listen=127.0.0.1:0", f"--simulated-nitro-root={pem}"]) == 1
    assert "not the root of an emulator" in capsys.readouterr().err


@pytest.mark.skipif(
    "NITRO_DOCUMENTS" not in os.environ, reason="NITRO_DOCUMENTS names no folder with genuine AWS documents"
)
async def test_genuine_documents(net: Localnet, wallet: Wallet) -> None:
    """The chain's clock can only go forward, so they are too old here: read by the native directly."""
    from k3s_daas_localnet.vm import Interpreter, ModuleId, MoveAbort, PureHost, Ref

    folder = Path(os.environ["NITRO_DOCUMENTS"])
    module = ModuleId(address("0x2"), "nitro_attestation")

    def run(name: str, now_ms: int) -> Any:
        raw = bytearray.fromhex((folder / name).read_text())
        vm = Interpreter(net.ledger.code, PureHost())
        return vm.call(module, "load_nitro_attestation_internal", [], [Ref.to(raw), now_ms])[0]

    found = run("FIXED_VALID_ATTESTATION.hex", 1731627987382)
    assert [int(index) for index, _ in found[3]] == [0, 1, 2, 3, 4, 8]
    assert not any(found[3][0][1])
    found = run("VALID_PCR16_ATTESTATION.hex", 1762795380000)
    assert [int(index) for index, _ in found[3]] == [0, 1, 2, 3, 4, 8, 16]
    assert len(found[4][0][0]) == 32
    for now_ms in (1762795207000 - 1, 1762806010000 + 1000):
        with pytest.raises(MoveAbort) as caught:
            run("VALID_PCR16_ATTESTATION.hex", now_ms)
        assert caught.value.code == 2
    raw = bytes.fromhex((folder / "VALID_PCR16_ATTESTATION.hex").read_text())
    aborted(await load(wallet, raw), 2)
