"""The emulated security module as a process."""

from __future__ import annotations

import asyncio
import json
import signal
import sys
import time
from pathlib import Path

import pytest

from k3s_daas.attestation import simulation_root, verify
from k3s_daas_localnet import nsm_serve
from k3s_daas_master import nsm

PCR3 = b"\x33" * 48


async def test_it_signs_until_it_is_stopped(tmp_path: Path) -> None:
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "k3s_daas_localnet",
        "nsm",
        f"--socket={tmp_path / 'nsm.sock'}",
        f"--state-dir={tmp_path / 'state'}",
        f"--pcr=3={PCR3.hex()}",
        stdout=asyncio.subprocess.PIPE,
    )
    try:
        assert process.stdout is not None
        ready = json.loads(await asyncio.wait_for(process.stdout.readline(), 60))
        assert ready["attestation"] == "SIMULATION"
        client = nsm.simulated(Path(ready["socket"]))
        raw = await asyncio.to_thread(client.attest, user_data=b"u", nonce=b"n", public_key=b"k")
        root = simulation_root(Path(ready["root"]).read_bytes(), "localnet")
        document = verify(raw, now_ms=time.time_ns() // 1_000_000, root=root)
        assert {str(i): document.pcr(i).hex() for i in range(4)} == ready["pcrs"]
        assert document.pcr(3) == PCR3
        process.send_signal(signal.SIGTERM)
        assert await asyncio.wait_for(process.wait(), 30) == 0
        assert not Path(ready["socket"]).exists()
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


@pytest.mark.parametrize("pcr", ["0", "0=", "16=" + "00" * 48, "-1=" + "00" * 48, "0=" + "00" * 47, "0=xx"])
def test_registers_that_are_none(pcr: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        nsm_serve.main([f"--socket={tmp_path / 's'}", f"--state-dir={tmp_path}", f"--pcr={pcr}"])
    assert "96 hex digits" in capsys.readouterr().err


def test_a_socket_that_cant_be_made(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert nsm_serve.main([f"--socket={tmp_path / 'no' / 's'}", f"--state-dir={tmp_path / 'state'}"]) == 1
    assert "k3s_daas_localnet nsm:" in capsys.readouterr().err
