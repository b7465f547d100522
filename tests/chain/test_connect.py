from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from grpclib.const import Status

from k3s_daas.chain import (
    ChainUnreachable,
    InvalidEndpoint,
    InvalidKey,
    Key,
    ObjectNotFound,
    RpcFailed,
    SuiClient,
    WrongNetwork,
)
from k3s_daas.chain.endpoints import CHAIN_IDS

pytestmark = pytest.mark.asyncio(loop_scope="session")
CLOCK = "0x" + "0" * 63 + "6"


async def test_says_which_chain_it_serves(live_net: Any) -> None:
    async with await SuiClient.connect([live_net.url], "localnet") as chain:
        assert (chain.chain_id, chain.network, chain.address) == (live_net.chain_id, "localnet", None)
        assert chain.endpoint == live_net.url


async def test_another_chain_id_is_the_wrong_network(live_net: Any) -> None:
    with pytest.raises(WrongNetwork, match=f"chain {live_net.chain_id}, wanted localnet with chain other"):
        await SuiClient.connect([live_net.url], "localnet", chain_id="other")


async def test_a_public_chain_is_no_localnet(live_net: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(CHAIN_IDS, "mainnet", live_net.chain_id)
    with pytest.raises(WrongNetwork, match="serves mainnet, wanted localnet"):
        await SuiClient.connect([live_net.url], "localnet")


async def test_no_endpoint_is_refused() -> None:
    with pytest.raises(InvalidEndpoint, match="at least one URL"):
        await SuiClient.connect([], "localnet")


async def test_unreachable_names_every_endpoint_and_why(closed_url: str, silent_url: str) -> None:
    started = time.monotonic()
    with pytest.raises(ChainUnreachable) as caught:
        await SuiClient.connect([closed_url, silent_url], "localnet", timeout_s=0.3)
    assert set(caught.value.tried) == {closed_url, silent_url}
    assert "no answer within 0.3 s" in caught.value.tried[silent_url]
    assert time.monotonic() - started < 10


async def test_goes_on_with_the_next_endpoint(closed_url: str, silent_url: str, live_net: Any) -> None:
    urls = [closed_url, silent_url, live_net.url]
    async with await SuiClient.connect(urls, "localnet", timeout_s=0.5) as chain:
        assert chain.endpoint == live_net.url
        assert (await chain.get_object("0x6")).id == CLOCK


async def test_an_endpoint_that_dies_is_left(live_net: Any, proxy: Callable[[], Awaitable[Any]]) -> None:
    first = await proxy()
    async with await SuiClient.connect([first.url, live_net.url], "localnet", timeout_s=2) as chain:
        assert chain.endpoint == first.url
        await first.stop()
        assert (await chain.get_object("0x6")).id == CLOCK
        assert chain.endpoint == live_net.url


async def test_a_connection_that_died_without_a_word_is_replaced(
    proxy: Callable[[], Awaitable[Any]],
) -> None:
    front = await proxy()
    async with await SuiClient.connect([front.url], "localnet", timeout_s=0.3) as chain:
        await chain.get_object("0x6")
        front.forget()
        assert (await chain.get_object("0x6")).id == CLOCK
        assert front.connections == 2


@pytest.mark.parametrize("status", [Status.UNAVAILABLE, Status.RESOURCE_EXHAUSTED, Status.INTERNAL])
async def test_an_overloaded_or_broken_endpoint_is_left(refusing: Any, live_net: Any, status: Status) -> None:
    async with await SuiClient.connect([await refusing(status), live_net.url], "localnet") as chain:
        assert (await chain.get_object("0x6")).id == CLOCK
        assert chain.endpoint == live_net.url


async def test_a_refusal_of_all_endpoints_is_told_apart_from_silence(refusing: Any) -> None:
    async with await SuiClient.connect([await refusing(Status.INTERNAL)], "localnet") as chain:
        with pytest.raises(RpcFailed, match="BatchGetObjects was refused with INTERNAL: because of the test"):
            await chain.get_object("0x6")
    async with await SuiClient.connect([await refusing(Status.UNAVAILABLE)], "localnet") as chain:
        with pytest.raises(ChainUnreachable, match="UNAVAILABLE because of the test"):
            await chain.get_object("0x6")


async def test_a_bad_request_is_not_tried_elsewhere(refusing: Any, live_net: Any) -> None:
    urls = [await refusing(Status.INVALID_ARGUMENT), live_net.url]
    async with await SuiClient.connect(urls, "localnet") as chain:
        with pytest.raises(RpcFailed, match="INVALID_ARGUMENT"):
            await chain.get_object("0x6")


async def test_an_endpoint_that_comes_back_as_another_chain_is_refused(
    proxy: Callable[[], Awaitable[Any]],
) -> None:
    from k3s_daas_localnet import Localnet

    first = await proxy()
    async with await SuiClient.connect([first.url], "localnet", timeout_s=2) as chain:
        await chain.get_object("0x6")
        async with Localnet.start() as other:
            first.forward_to(other.url)
            with pytest.raises(WrongNetwork, match=f"serves chain {other.chain_id}"):
                await chain.get_object("0x6")


async def test_all_endpoints_can_be_asked_one_by_one(
    live_net: Any, proxy: Callable[[], Awaitable[Any]]
) -> None:
    second = await proxy()
    async with await SuiClient.connect([live_net.url, second.url], "localnet", timeout_s=2) as chain:
        singles = chain.all_endpoints()
        assert [single.endpoint for single in singles] == [live_net.url, second.url]
        assert [(await s.get_object("0x6")).id for s in singles] == [CLOCK, CLOCK]
        await second.stop()
        with pytest.raises(ChainUnreachable):
            await singles[1].get_object("0x6")
        assert (await singles[0].get_object("0x6")).id == CLOCK


async def test_an_object_the_node_cannot_give_is_not_taken_for_absent(
    live_net: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    from pysui.sui.sui_grpc.suimsgs.google import rpc as google

    async with await SuiClient.connect([live_net.url], "localnet") as chain:
        call = chain._transport.call

        async def failing(name: str, pick: Any, request: Any) -> Any:
            answer = await call(name, pick, request)
            answer.objects[0].object = None
            answer.objects[0].error = google.Status(code=13, message="disk on fire")
            return answer

        monkeypatch.setattr(chain._transport, "call", failing)
        with pytest.raises(RpcFailed, match="disk on fire"):
            await chain.get_objects(["0x6"])


async def test_what_is_not_there(live_net: Any) -> None:
    async with await SuiClient.connect([live_net.url], "localnet") as chain:
        with pytest.raises(ObjectNotFound, match="dead on this network"):
            await chain.get_object("0xdead")
        assert await chain.get_objects(["0xdead", "0x6", "0xbeef"]) == [
            None,
            await chain.get_object("0x6"),
            None,
        ]
        with pytest.raises(ObjectNotFound, match="No package"):
            await chain.package_modules("0xdead")
        assert await chain.balance("0xdead") == 0
        assert [
            found async for found in chain.owned_objects("0xdead", "0x2::coin::Coin<0x2::sui::SUI>")
        ] == []
        assert [field async for field in chain.dynamic_fields("0xdead")] == []
        assert await chain.dynamic_field("0xdead", "u64", bytes(8)) is None


async def test_without_a_key_nothing_is_sent(live_net: Any) -> None:
    async def build(tx: Any) -> None:
        raise AssertionError("not even written")

    async with await SuiClient.connect([live_net.url], "localnet") as chain:
        for call in (chain.execute, chain.simulate):
            with pytest.raises(InvalidKey, match="needs a wallet key"):
                await call(build)
        with pytest.raises(InvalidKey):
            chain.require_address()


async def test_importing_is_cheap_and_using_writes_no_file(tmp_path: Path) -> None:
    home = tmp_path / "home"
    home.mkdir()
    script = """
import asyncio, sys
import k3s_daas.registry
from k3s_daas.chain import Key
assert not any(name.startswith("pysui") for name in sys.modules), "pysui is loaded too early"
from k3s_daas.chain import SuiClient
async def main():
    try:
        await SuiClient.connect([sys.argv[1]], "localnet", Key(bytes(range(32))), timeout_s=0.2)
    except Exception as error:
        print(type(error).__name__)
asyncio.run(main())
"""
    environment = os.environ | {"HOME": str(home), "XDG_CONFIG_HOME": str(home / "config")}
    done = await asyncio.to_thread(
        subprocess.run,
        [sys.executable, "-c", script, "http://127.0.0.1:1"],
        env=environment,
        cwd=home,
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    assert done.stdout.strip() == "ChainUnreachable"
    assert list(home.rglob("*")) == []
    assert Key(bytes(range(32))).address not in done.stderr


async def test_only_pysuis_messages_are_loaded() -> None:
    """Its client and what that imports cost each daemon 15 MB and each module run half a second."""
    code = "import sys, k3s_daas.chain.client; print([m for m in sys.modules if m in ('pysui', 'graphql')])"
    done = await asyncio.to_thread(
        subprocess.run, [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "[]"
