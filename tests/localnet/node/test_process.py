"""The network as a process: the command line, what survives a restart, and what happens at its edges."""

from __future__ import annotations

import asyncio
import hashlib
import json
import signal
import socket
import sqlite3
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import httpx
import pysui.sui.sui_common.sui_commands as cmd
import pytest
import pytest_asyncio
from grpclib.exceptions import GRPCError
from localnet_wallet import Probe, Rejected, Wallet, arg, failed, succeeded
from pysui.sui.sui_grpc.pgrpc_requests import GetObject, SubscribeCheckpoints

from k3s_daas_localnet import Localnet
from k3s_daas_localnet.ledger.encoding import address, base58
from k3s_daas_localnet.ledger.objects import decode
from k3s_daas_localnet.ledger.store import StateError
from k3s_daas_localnet.ledger.transaction import SharedInput

SUI = 10**9
Serve = Callable[..., Awaitable[tuple[asyncio.subprocess.Process, dict[str, Any]]]]


@pytest_asyncio.fixture(loop_scope="session")
async def serve(tmp_path: Path) -> AsyncIterator[Serve]:
    """`await serve(options…)`: process and what it said when it was ready. Killed at the end."""
    started: list[asyncio.subprocess.Process] = []

    async def start(*options: str) -> tuple[asyncio.subprocess.Process, dict[str, Any]]:
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "k3s_daas_localnet",
            *options,
            "--listen=127.0.0.1:0",
            "--faucet-listen=127.0.0.1:0",
            f"--state-dir={tmp_path / 'state'}",
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
        started.append(process)
        assert process.stdout is not None
        line = await asyncio.wait_for(process.stdout.readline(), 30)
        return process, json.loads(line) if line else {}

    yield start
    for process in started:
        if process.returncode is None:
            process.kill()
            await process.wait()


async def give(ready: dict[str, Any], address: str, **extra: Any) -> httpx.Response:
    async with httpx.AsyncClient() as http:
        body = {"FixedAmountRequest": {"recipient": address, **extra}}
        return await http.post(f"{ready['faucet']}/v2/gas", json=body)


async def test_a_killed_network_goes_on_where_it_was(
    serve: Serve, probe_code: tuple[list[bytes], list[bytes]]
) -> None:
    process, ready = await serve("serve", "--checkpoint-ms=0")
    assert ready["event"] == "listening"
    async with Wallet.connect(ready["rpc"], seed=5) as wallet:
        assert (await give(ready, wallet.address, amount=100 * SUI)).status_code == 200
        probe = await Probe.publish(wallet, *probe_code)
        executed = await wallet.run([probe.call("bump", arg(0))], [probe.shared()])
        failed(await wallet.run([probe.call("refuse")]), "MOVE_ABORT")
        balance = await wallet.balance()
        board = await wallet.ask(cmd.GetObject(object_id=probe.board))
        tip = (await wallet.ask(cmd.GetLatestCheckpoint())).checkpoint
    process.send_signal(signal.SIGKILL)
    await process.wait()

    _, again = await serve("--checkpoint-ms=0")
    assert again["chain_id"] == ready["chain_id"]
    async with Wallet.connect(again["rpc"], seed=5) as wallet:
        assert await wallet.balance() == balance
        assert await wallet.ask(cmd.GetObject(object_id=probe.board)) == board
        assert (await wallet.ask(cmd.GetLatestCheckpoint())).checkpoint == tip
        assert (await wallet.ask(cmd.GetTransaction(digest=executed.digest))).effects == executed.effects
        old = await wallet.ask(cmd.GetCheckpointBySequence(sequence_number=executed.checkpoint))
        (transaction,) = old.checkpoint.transactions
        assert transaction.events == executed.events
        # The published code runs, and the chain grows on.
        more = await wallet.run([probe.call("bump", arg(0))], [probe.shared()])
        succeeded(more)
        assert more.checkpoint == tip.sequence_number + 1
        assert more.events.events[0].json.to_dict()["count"] == "2"


async def test_sigterm_stops_it_with_a_subscriber_connected(serve: Serve) -> None:
    process, ready = await serve("--checkpoint-ms=20")
    async with Wallet.connect(ready["rpc"], seed=5) as wallet, httpx.AsyncClient() as http:
        path = "/sui.rpc.v2.SubscriptionService/SubscribeCheckpoints"
        web = {"content-type": "application/grpc-web+proto"}
        asked = http.build_request("POST", ready["rpc"] + path, headers=web, content=bytes(5))
        assert (await http.send(asked, stream=True)).status_code == 200
        opened = await wallet.client.execute_grpc_request(request=SubscribeCheckpoints(field_mask=["*"]))
        cursors = [(await asyncio.wait_for(anext(opened.result_data), 5)).cursor for _ in range(3)]
        # Checkpoints come without transactions too, so that followers see that the chain is alive.
        assert cursors == list(range(cursors[0], cursors[0] + 3))
        process.terminate()
        assert await asyncio.wait_for(process.wait(), 2) == 0
        assert process.stderr is not None
        assert await process.stderr.read() == b""


async def test_two_networks_do_not_share_a_directory(serve: Serve, tmp_path: Path) -> None:
    _, ready = await serve()
    second, nothing = await serve()
    assert nothing == {}
    assert await second.wait() == 1
    assert second.stderr is not None
    assert b"is in use by another node" in await second.stderr.read()
    assert ready["chain_id"]
    mode = (tmp_path / "state").stat().st_mode & 0o777
    assert mode == 0o700


async def test_a_taken_port_is_an_error(serve: Serve) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "k3s_daas_localnet",
            f"--listen=127.0.0.1:{taken.getsockname()[1]}",
            stderr=asyncio.subprocess.PIPE,
        )
        _, error = await asyncio.wait_for(process.communicate(), 30)
    assert process.returncode == 1
    assert b"address already in use" in error


async def test_state_of_another_format_is_refused(tmp_path: Path) -> None:
    with sqlite3.connect(tmp_path / "ledger.sqlite3") as database:
        database.execute("PRAGMA user_version = 99")
    with pytest.raises(StateError, match="has format 99, this version reads 2"):
        async with Localnet.start(tmp_path):
            pass


async def test_a_file_that_is_no_database_is_refused(tmp_path: Path) -> None:
    (tmp_path / "ledger.sqlite3").write_bytes(b"not a database" * 100)
    with pytest.raises(StateError, match="use an empty state directory"):
        async with Localnet.start(tmp_path):
            pass


async def test_chains_differ_and_time_does_not_go_back(tmp_path: Path) -> None:
    async with Localnet.start(tmp_path / "a") as net, Localnet.start(tmp_path / "b") as second:
        assert net.chain_id != second.chain_id
        first = net.chain_id
        advanced = net.clock.advance(90 * 24 * 3600 * 1000)
        await net.faucet("0x1234", 1)
        assert net.ledger.tip.timestamp_ms >= advanced
        assert net.ledger.tip.epoch == 90
        with pytest.raises(ValueError, match="only moves forward"):
            net.clock.advance(-1)
    async with Localnet.start(tmp_path / "a") as net:
        assert net.chain_id == first
        assert net.clock.now_ms() >= advanced


async def test_the_clock_is_what_contracts_see(net: Localnet, wallet: Wallet, probe: Probe) -> None:
    async def now() -> int:
        clock = SharedInput(address("0x6"), 1, False)
        simulated = await wallet.simulate(await wallet.raw([probe.call("now", arg(0))], [clock]))
        succeeded(simulated.transaction)
        return int.from_bytes(simulated.command_outputs[0].return_values[0].value.value, "little")

    before = await now()
    net.clock.advance(3_600_000)
    assert 3_600_000 <= await now() - before < 3_660_000


# --- faucet


async def test_faucet(net: Localnet, wallet: Wallet) -> None:
    ready = {"faucet": net.faucet_url}
    before = await wallet.balance()
    answer = (await give(ready, wallet.address)).json()
    (sent,) = answer["coins_sent"]
    assert answer["status"] == "Success"
    assert sent["amount"] == 10 * SUI == await wallet.balance() - before
    assert (await wallet.ask(cmd.GetObject(object_id=sent["id"]))).balance == 10 * SUI
    transaction = await wallet.ask(cmd.GetTransaction(digest=sent["transferTxDigest"]))
    assert transaction.effects.status.success


@pytest.mark.parametrize(
    ("method", "path", "body", "status"),
    [
        ("POST", "/v2/gas", b"{}", 400),
        ("POST", "/v2/gas", b"no json", 400),
        ("POST", "/v2/gas", b'{"FixedAmountRequest": {"recipient": "0xzz"}}', 400),
        ("POST", "/v2/gas", b'{"FixedAmountRequest": {"recipient": "0x1", "amount": 0}}', 400),
        ("POST", "/v2/gas", b'{"FixedAmountRequest": {"recipient": "0x1", "amount": "9"}}', 400),
        (
            "POST",
            "/v2/gas",
            b'{"FixedAmountRequest": {"recipient": "0x1", "amount": 18446744073709551615}}',
            400,
        ),
        ("POST", "/v2/gas", b"x" * 70_000, 413),
        ("GET", "/v2/gas", b"", 405),
        ("POST", "/gas", b"{}", 404),
    ],
)
async def test_faucet_refusals(net: Localnet, method: str, path: str, body: bytes, status: int) -> None:
    tip = net.ledger.tip.sequence
    async with httpx.AsyncClient() as http:
        answer = await http.request(method, f"{net.faucet_url}{path}", content=body)
    assert answer.status_code == status
    assert answer.json()["status"]["Failure"]["Internal"]
    if b"18446744073709551615" not in body:
        assert net.ledger.tip.sequence == tip


# --- the edges of the RPC server


async def test_read_masks(wallet: Wallet, probe: Probe) -> None:
    async def get(*paths: str) -> Any:
        request = GetObject(object_id=probe.board, field_mask=list(paths))
        result = await wallet.client.execute_grpc_request(request=request)
        if not result.is_ok():
            raise Rejected(*result.result_string[:2])
        return result.result_data.object

    found = await get("object_id", "owner.kind")
    assert (found.object_id, found.owner.kind.name) == (probe.board, "SHARED")
    assert (found.version, found.owner.version, found.json) == (None, None, None)
    whole = await get("*")
    assert whole.bcs.value
    assert whole.contents.value.startswith(bytes.fromhex(probe.board[2:]))
    with pytest.raises(Rejected, match="invalid read_mask path"):
        await get("nonsense")


async def test_object_digests_are_suis(wallet: Wallet, probe: Probe) -> None:
    coin = (await wallet.coins())[0].object_id
    for object_id in (probe.board, probe.soul, probe.package, coin):
        found = await wallet.ask(cmd.GetObject(object_id=object_id))
        encoded = found.bcs.value
        assert found.digest == base58(hashlib.blake2b(b"Object::" + encoded, digest_size=32).digest())
        assert decode(encoded).encoded == encoded


async def test_a_subscriber_that_does_not_read_is_dropped(net: Localnet, wallet: Wallet) -> None:
    opened = await wallet.client.execute_grpc_request(request=SubscribeCheckpoints(field_mask=["*"]))
    reading = asyncio.ensure_future(anext(opened.result_data))
    while not net.ledger.listeners:
        await asyncio.sleep(0.01)
    net.ledger.seal_empty_checkpoint()
    await asyncio.wait_for(reading, 5)
    # The server gets no chance to send while these are made, as when the client does not read.
    for _ in range(300):
        net.ledger.seal_empty_checkpoint()
    assert not net.ledger.listeners

    async def drain() -> None:
        async for _ in opened.result_data:
            pass

    with pytest.raises(GRPCError, match="subscribe again and backfill"):
        await asyncio.wait_for(drain(), 5)
    # The node goes on.
    assert (await wallet.ask(cmd.GetLatestCheckpoint())).checkpoint.sequence_number >= 300


async def test_only_the_given_address_is_served(net: Localnet) -> None:
    port = int(net.url.rsplit(":", 1)[1])
    with pytest.raises(ConnectionRefusedError):
        await asyncio.open_connection("127.0.0.2", port)


@pytest.mark.parametrize("text", ["9000", "127.0.0.1", ":9000", "127.0.0.1:x", "127.0.0.1:70000"])
async def test_malformed_listen_addresses(text: str) -> None:
    with pytest.raises(ValueError, match="wanted ADDRESS:PORT"):
        async with Localnet.start(listen=text):
            pass


async def test_what_was_answered_survives_a_kill_under_load(serve: Serve) -> None:
    process, ready = await serve("--checkpoint-ms=5")
    answered: list[dict[str, Any]] = []

    async def ask(number: int) -> None:
        while True:
            try:
                answer = await give(ready, f"0x{number}", amount=number)
            except httpx.HTTPError:
                return
            answered.extend(answer.json()["coins_sent"])
            if len(answered) == 40:
                process.kill()

    await asyncio.wait_for(asyncio.gather(*(ask(number) for number in range(1, 5))), 30)
    await process.wait()
    _, again = await serve()
    async with Wallet.connect(again["rpc"], seed=5) as wallet:
        for sent in answered:
            coin = await wallet.ask(cmd.GetObject(object_id=sent["id"]))
            assert coin.balance == sent["amount"]
        tip = (await wallet.ask(cmd.GetLatestCheckpoint())).checkpoint
        assert tip.summary.total_network_transactions >= len(answered) >= 40
