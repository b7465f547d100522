"""Clock and snapshots, in this process and over HTTP."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pysui.sui.sui_common.sui_commands as cmd
import pytest
import pytest_asyncio
from grpclib.const import Status
from grpclib.exceptions import GRPCError
from localnet_wallet import Probe, Rejected, Wallet, arg, pure, succeeded
from pysui.sui.sui_grpc.pgrpc_requests import SubscribeCheckpoints

from k3s_daas_localnet import Localnet
from k3s_daas_localnet.faucet import _is_near
from k3s_daas_localnet.ledger.encoding import from_base58
from k3s_daas_localnet.ledger.errors import NotFound
from k3s_daas_localnet.ledger.objects import CLOCK_ID

HOUR = 3_600_000


@pytest_asyncio.fixture(loop_scope="session")
async def admin(net: Localnet) -> AsyncIterator[httpx.AsyncClient]:
    headers = {"content-type": "application/json"}
    async with httpx.AsyncClient(base_url=f"{net.faucet_url}/admin", headers=headers) as client:
        yield client


async def count(wallet: Wallet, probe: Probe) -> str:
    board = await wallet.ask(cmd.GetObject(object_id=probe.board))
    return str(board.json.to_dict()["count"])


def state(net: Localnet) -> tuple[Any, ...]:
    """Everything there is, the clock apart."""
    live = {item.object_id: item for item in net.ledger.all_objects() if item.object_id != CLOCK_ID}
    stored = {item.object_id: item for item in net.ledger._store.live_objects() if item.object_id != CLOCK_ID}
    assert live == stored
    owned = {owner: set(ids) for owner, ids in net.ledger._by_owner.items()}
    return live, owned, net.ledger.tip, net.ledger.history(0, 10**6, False, 10**6)


async def test_a_snapshot_is_restored_exactly(net: Localnet, wallet: Wallet, probe: Probe) -> None:
    note = probe.call("mark", arg(0), arg(1), arg(2))
    succeeded(await wallet.run([note], [probe.shared(), pure(0), pure(5)]))
    before = state(net)
    net.ledger.save("start")
    for _ in range(2):
        kept = await wallet.run([probe.call("bump", arg(0))], [probe.shared()])
        thing = await probe.thing(wallet)
        net.clock.advance(24 * HOUR)
        net.ledger.seal_empty_checkpoint()
        assert net.ledger.tip.epoch == 1
        net.ledger.restore("start")
        assert state(net) == before
        assert await count(wallet, probe) == "0"
        assert net.ledger.record(from_base58(kept.digest)) is None
        with pytest.raises(Rejected) as caught:
            await wallet.ask(cmd.GetObject(object_id=thing))
        assert caught.value.status is Status.NOT_FOUND
        assert net.clock.ahead_ms == 0
    # Life goes on from there, and the same transaction can happen again.
    again = await wallet.run([probe.call("bump", arg(0))], [probe.shared()])
    assert again.checkpoint == before[2].sequence + 1
    assert await count(wallet, probe) == "1"


async def test_published_code_goes_and_comes_with_snapshots(
    net: Localnet, wallet: Wallet, probe_code: tuple[list[bytes], list[bytes]]
) -> None:
    net.ledger.save("empty")
    modules = len(list(net.ledger.code.modules()))
    probe = await Probe.publish(wallet, *probe_code)
    net.ledger.save("published")
    assert len(list(net.ledger.code.modules())) == modules + 1
    net.ledger.restore("published")
    succeeded(await wallet.run([probe.call("bump", arg(0))], [probe.shared()]))
    net.ledger.restore("empty")
    assert len(list(net.ledger.code.modules())) == modules
    with pytest.raises(Rejected, match="Dependent package not found"):
        await wallet.run([probe.call("refuse")])
    # A snapshot of what never happened is none.
    with pytest.raises(NotFound, match="there are: as at first, empty"):
        net.ledger.restore("published")


async def test_streams_end_when_history_does(net: Localnet, wallet: Wallet) -> None:
    net.ledger.save("here")
    opened = await wallet.client.execute_grpc_request(request=SubscribeCheckpoints(field_mask=["*"]))
    reading = asyncio.ensure_future(anext(opened.result_data))
    while not net.ledger.listeners:
        await asyncio.sleep(0.01)
    net.ledger.restore("here")
    with pytest.raises(GRPCError, match="never happened") as caught:
        await asyncio.wait_for(reading, 5)
    assert caught.value.status is Status.ABORTED
    assert not net.ledger.listeners


async def test_snapshots_survive_a_restart(tmp_path: Path) -> None:
    async with Localnet.start(tmp_path) as net:
        net.clock.advance(HOUR)
        await net.faucet("0xabc", 1)
        net.ledger.save("one")
        before = state(net)
        await net.faucet("0xabc", 1)
    async with Localnet.start(tmp_path) as net:
        (snapshot,) = net.ledger.snapshots()
        assert (snapshot.name, snapshot.clock_ms) == ("one", HOUR)
        net.ledger.restore("one")
        assert state(net) == before
        assert HOUR <= net.clock.ahead_ms < HOUR + 1000


# --- over HTTP


async def test_the_clock_over_http(net: Localnet, admin: httpx.AsyncClient) -> None:
    tip = net.ledger.tip
    before = (await admin.get("/clock")).json()
    assert before["ahead_ms"] == 0
    after = (await admin.post("/clock/advance", json={"by_ms": 25 * HOUR})).json()
    assert after["ahead_ms"] == 25 * HOUR <= after["now_ms"] - before["now_ms"]
    assert net.ledger.tip.sequence == tip.sequence + 1
    assert net.ledger.tip.epoch == 1
    assert net.ledger.tip.timestamp_ms - tip.timestamp_ms >= 25 * HOUR


async def test_snapshots_over_http(net: Localnet, admin: httpx.AsyncClient) -> None:
    others = (await admin.get("/snapshots")).json()["snapshots"]
    saved = (await admin.put("/snapshots/a b")).json()
    assert saved == {"name": "a b", "checkpoint": net.ledger.tip.sequence, "clock_ahead_ms": 0}
    await net.faucet("0xabc", 5)
    assert (await admin.get("/snapshots")).json() == {"snapshots": [saved, *others]}
    assert (await admin.post("/snapshots/a b/restore")).json() == saved
    assert not list(net.ledger.owned_by(bytes(30) + b"\x0a\xbc"))
    assert (await admin.delete("/snapshots/a b")).status_code == 200
    missing = await admin.post("/snapshots/a b/restore")
    assert (missing.status_code, "no snapshot 'a b'" in missing.json()["error"]) == (404, True)


@pytest.mark.parametrize(
    ("method", "path", "body", "status"),
    [
        ("POST", "/clock/advance", b'{"by_ms": -1}', 400),
        ("POST", "/clock/advance", b'{"by_ms": "1"}', 400),
        ("POST", "/clock/advance", b'{"by_ms": 1e300}', 400),
        ("POST", "/clock/advance", b"[" * 5000, 400),
        ("POST", "/clock/advance", b"[]", 400),
        ("POST", "/clock/advance", b" " * 70_000, 413),
        ("PUT", "/snapshots/" + "x" * 101, b"", 400),
        ("POST", "/snapshots/x/restore", b"", 404),
        ("DELETE", "/snapshots/x", b"", 404),
        ("POST", "/clock", b"", 405),
        ("GET", "/nothing", b"", 404),
    ],
)
async def test_malformed_controls(
    net: Localnet, admin: httpx.AsyncClient, method: str, path: str, body: bytes, status: int
) -> None:
    before = net.ledger.tip, net.clock.ahead_ms
    answer = await admin.request(method, path, content=body)
    assert answer.status_code == status
    assert answer.json()["error"]
    assert (net.ledger.tip, net.clock.ahead_ms) == before


async def test_pages_in_browsers_have_no_controls(net: Localnet, admin: httpx.AsyncClient) -> None:
    simple = {"content-type": "text/plain"}
    answer = await admin.post("/clock/advance", content=b'{"by_ms": 5}', headers=simple)
    assert answer.status_code == 415
    asked = {"origin": "http://evil", "access-control-request-method": "POST"}
    assert "access-control-allow-origin" not in (await admin.options("/clock/advance", headers=asked)).headers


@pytest.mark.parametrize(
    ("host", "near"),
    [
        ("127.0.0.1", True),
        ("::1", True),
        ("10.123.1.12", True),
        ("203.0.114.9", False),
        ("8.8.8.8", False),
        ("name", False),
    ],
)
def test_who_is_near(host: str, near: bool) -> None:
    assert _is_near(host) is near
