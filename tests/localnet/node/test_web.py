"""gRPC-Web beside native gRPC on one port, seen from below: bytes, headers, limits, broken clients."""

from __future__ import annotations

import asyncio
import base64
import struct
from collections.abc import AsyncIterator
from typing import Any
from urllib.parse import unquote, urlparse

import h2.config
import h2.connection
import h2.events
import httpx
import pysui.sui.sui_common.sui_commands as cmd
import pysui.sui.sui_grpc.suimsgs.sui.rpc.v2 as v2
import pytest
import pytest_asyncio
from grpclib.client import Channel
from grpclib.const import Status
from grpclib.exceptions import GRPCError, StreamTerminatedError
from localnet_wallet import Wallet

from k3s_daas_localnet import Localnet
from k3s_daas_localnet.rpc.calls import MAX_MESSAGE_BYTES

LEDGER = "/sui.rpc.v2.LedgerService/"
SUBSCRIBE = "/sui.rpc.v2.SubscriptionService/SubscribeCheckpoints"
BINARY = {"content-type": "application/grpc-web+proto", "x-grpc-web": "1"}


def frame(message: bytes, flags: int = 0) -> bytes:
    return struct.pack(">BI", flags, len(message)) + message


def unframe(body: bytes) -> tuple[list[bytes], dict[str, str]]:
    """Messages and trailers; there must be exactly one trailer, at the end."""
    messages = []
    while body:
        flags, length = struct.unpack(">BI", body[:5])
        content, body = body[5 : 5 + length], body[5 + length :]
        if flags == 0x80:
            assert not body
            lines = content.decode().removesuffix("\r\n").split("\r\n")
            return messages, dict(line.split(":", 1) for line in lines)
        assert flags == 0
        messages.append(content)
    raise AssertionError("no trailer")


@pytest_asyncio.fixture(loop_scope="session")
async def http(net: Localnet) -> AsyncIterator[httpx.AsyncClient]:
    async with httpx.AsyncClient(base_url=net.url) as client:
        yield client


def status(body: bytes) -> tuple[Status, str]:
    _, trailers = unframe(body)
    return Status(int(trailers["grpc-status"])), unquote(trailers.get("grpc-message", ""))


async def test_unary(net: Localnet, http: httpx.AsyncClient) -> None:
    answer = await http.post(LEDGER + "GetServiceInfo", headers=BINARY, content=frame(b""))
    assert (answer.status_code, answer.headers["content-type"]) == (200, BINARY["content-type"])
    (message,), trailers = unframe(answer.content)
    assert trailers == {"grpc-status": "0"}
    assert v2.GetServiceInfoResponse.parse(message).chain_id == net.chain_id
    # Connections are kept.
    again = await http.post(LEDGER + "GetServiceInfo", headers=BINARY, content=frame(b""))
    assert again.extensions["network_stream"] is answer.extensions["network_stream"]


async def test_text_for_old_browsers(net: Localnet, http: httpx.AsyncClient) -> None:
    headers = {"content-type": "application/grpc-web-text"}
    answer = await http.post(LEDGER + "GetServiceInfo", headers=headers, content=base64.b64encode(frame(b"")))
    assert answer.headers["content-type"] == "application/grpc-web-text+proto"
    # Each frame is encoded on its own, so it is padded on its own.
    body = b"".join(
        base64.b64decode(part + b"==") for part in answer.content.replace(b"==", b"= ").split(b"= ")
    )
    assert net.chain_id.encode() in body


async def test_errors_are_statuses(http: httpx.AsyncClient) -> None:
    async def post(path: str, body: bytes, **headers: str) -> tuple[Status, str]:
        answer = await http.post(path, headers=BINARY | headers, content=body)
        assert answer.status_code == 200
        return status(answer.content)

    missing = bytes(v2.GetObjectRequest(object_id="0x" + "ab" * 32))
    found, text = await post(LEDGER + "GetObject", frame(missing))
    assert (found, "not found" in text) == (Status.NOT_FOUND, True)
    found, _ = await post(LEDGER + "GetObject", frame(bytes(v2.GetObjectRequest(object_id="0xé"))))
    assert found is Status.INVALID_ARGUMENT
    assert (await post(LEDGER + "Nothing", frame(b"")))[0] is Status.UNIMPLEMENTED
    assert await post(LEDGER + "GetObject", b"") == (Status.INTERNAL, "Missing request message.")
    torn = (Status.INTERNAL, "Unexpected EOF decoding stream.")
    assert await post(LEDGER + "GetObject", b"\0\0") == torn
    assert await post(LEDGER + "GetObject", frame(missing)[:-1]) == torn
    for malformed in (b"\xff\xff\xff", missing[:-1], b"\x0b", b"\x0a\x01\xff", b"\x1a\x02\x0a\x01", b"\0"):
        found, text = await post(LEDGER + "GetObject", frame(malformed))
        assert (found, "failed to decode Protobuf message" in text) == (Status.INTERNAL, True)
    assert (await post(LEDGER + "GetObject", frame(missing, 1)))[0] is Status.UNIMPLEMENTED
    assert (await post(SUBSCRIBE, frame(b""), **{"grpc-timeout": "50m"}))[0] is Status.DEADLINE_EXCEEDED
    assert (await post(SUBSCRIBE, frame(b""), **{"grpc-timeout": "soon"}))[0] is Status.INVALID_ARGUMENT


async def test_what_is_no_grpc_web(http: httpx.AsyncClient) -> None:
    assert (await http.get("/")).status_code == 405
    native = await http.post(LEDGER + "GetServiceInfo", headers={"content-type": "application/grpc"})
    assert (native.status_code, "HTTP/2" in native.text) == (415, True)


async def test_pages_of_every_origin_may_ask(http: httpx.AsyncClient) -> None:
    asked = {
        "origin": "http://localhost:5173",
        "access-control-request-method": "POST",
        "access-control-request-headers": "content-type,x-grpc-web,x-sui-client-protocol-version",
    }
    preflight = await http.options(LEDGER + "GetServiceInfo", headers=asked)
    assert preflight.status_code == 200
    assert preflight.headers["access-control-allow-origin"] == "*"
    assert "x-sui-client-protocol-version" in preflight.headers["access-control-allow-headers"]
    headers = BINARY | {"origin": asked["origin"]}
    answer = await http.post(LEDGER + "GetServiceInfo", headers=headers, content=frame(b""))
    assert answer.headers["access-control-allow-origin"] == "*"
    assert "grpc-status" in answer.headers["access-control-expose-headers"]


async def test_a_stream_ends_with_its_client(net: Localnet, http: httpx.AsyncClient) -> None:
    async with http.stream("POST", SUBSCRIBE, headers=BINARY, content=frame(b"")) as answer:
        net.ledger.seal_empty_checkpoint()
        chunk = await asyncio.wait_for(anext(answer.aiter_bytes()), 5)
        assert v2.SubscribeCheckpointsResponse.parse(chunk[5:]).cursor == net.ledger.tip.sequence
        assert net.ledger.listeners
    async with asyncio.timeout(5):
        while net.ledger.listeners:
            await asyncio.sleep(0.01)


async def test_a_web_subscriber_that_does_not_read_is_dropped(net: Localnet, http: httpx.AsyncClient) -> None:
    async with http.stream("POST", SUBSCRIBE, headers=BINARY, content=frame(b"")) as answer:
        for _ in range(300):
            net.ledger.seal_empty_checkpoint()
        assert not net.ledger.listeners
        body = b"".join([chunk async for chunk in answer.aiter_bytes()])
    assert status(body)[0] is Status.RESOURCE_EXHAUSTED


async def test_over_http2(net: Localnet) -> None:
    """gRPC-Web on a connection that speaks HTTP/2, as behind a proxy."""
    where = urlparse(net.url)
    reader, writer = await asyncio.open_connection(where.hostname, where.port)
    connection = h2.connection.H2Connection(h2.config.H2Configuration(header_encoding="utf-8"))
    connection.initiate_connection()

    async def ask(path: str, body: bytes) -> tuple[dict[str, str], bytes]:
        number = connection.get_next_available_stream_id()
        headers = {":method": "POST", ":path": path, ":scheme": "http", ":authority": "localnet"} | BINARY
        connection.send_headers(number, list(headers.items()))
        connection.send_data(number, body, end_stream=True)
        answered: dict[str, str] = {}
        received = b""
        while True:
            writer.write(connection.data_to_send())
            for event in connection.receive_data(await asyncio.wait_for(reader.read(65_536), 5)):
                if isinstance(event, h2.events.ResponseReceived):
                    answered = dict(event.headers)
                elif isinstance(event, h2.events.DataReceived):
                    received += event.data
                elif isinstance(event, h2.events.StreamEnded):
                    return answered, received

    headers, body = await ask(LEDGER + "GetServiceInfo", frame(b""))
    assert (headers[":status"], headers["content-type"]) == ("200", BINARY["content-type"])
    (message,), _ = unframe(body)
    assert v2.GetServiceInfoResponse.parse(message).chain_id == net.chain_id
    _, body = await ask(LEDGER + "GetObject", frame(bytes(v2.GetObjectRequest(object_id="?"))))
    assert status(body)[0] is Status.INVALID_ARGUMENT
    _, body = await ask(LEDGER + "Nothing", frame(b""))
    assert status(body)[0] is Status.UNIMPLEMENTED
    writer.close()


# --- limits


async def test_messages_have_a_size_limit(net: Localnet, http: httpx.AsyncClient) -> None:
    limit = f"the limit is: {MAX_MESSAGE_BYTES} bytes"
    answer = await http.post(
        LEDGER + "GetObject", headers=BINARY, content=frame(bytes(MAX_MESSAGE_BYTES + 1))
    )
    found, text = status(answer.content)
    assert (found, limit in text) == (Status.OUT_OF_RANGE, True)
    where = urlparse(net.url)
    channel = Channel(where.hostname, where.port)
    try:
        stub = v2.LedgerServiceStub(channel)
        with pytest.raises(GRPCError, match=limit) as caught:
            await stub.get_object(v2.GetObjectRequest(object_id="0" * MAX_MESSAGE_BYTES))
        assert caught.value.status is Status.OUT_OF_RANGE
        with pytest.raises(GRPCError, match="exceed limit of 1000: 1001") as caught:
            await stub.batch_get_objects(v2.BatchGetObjectsRequest(requests=[v2.GetObjectRequest()] * 1001))
        assert caught.value.status is Status.INVALID_ARGUMENT
        assert (await stub.get_service_info(v2.GetServiceInfoRequest())).chain_id == net.chain_id
    finally:
        channel.close()


@pytest.mark.parametrize(
    ("sent", "closed"),
    [
        (b"GET / HTTP/1.1\r\n" + b"x: y\r\n" * 10_000, True),
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n", True),  # a client that speaks TLS
        (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + frame(b"\xff" * 100), True),
        (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + b"\xff" * 100, False),
        (b"PRI * HTTP/9\r\n\r\n", True),
        (b"PR", False),
        (b"", False),
    ],
)
async def test_broken_connections_hurt_nobody(
    net: Localnet, wallet: Wallet, sent: bytes, closed: bool
) -> None:
    where = urlparse(net.url)
    reader, writer = await asyncio.open_connection(where.hostname, where.port)
    writer.write(sent)
    if closed:
        await asyncio.wait_for(_closed(reader), 5)
    writer.close()
    assert (await wallet.ask(cmd.GetLatestCheckpoint())).checkpoint is not None


async def _closed(reader: asyncio.StreamReader) -> Any:
    try:
        return await reader.read()
    except ConnectionError:
        return None


async def test_verify_signature(net: Localnet, wallet: Wallet) -> None:
    where = urlparse(net.url)
    channel = Channel(where.hostname, where.port)
    try:
        stub = v2.SignatureVerificationServiceStub(channel)
        data = await wallet.raw([], [])
        signature = v2.UserSignature(bcs=v2.Bcs(value=wallet.sign(data)))
        message = v2.Bcs(name="TransactionData", value=data.raw)
        request = v2.VerifySignatureRequest(message=message, signature=signature, address=wallet.address)
        assert (await stub.verify_signature(request)).is_valid
        request.address = "0x1"
        answer = await stub.verify_signature(request)
        assert (answer.is_valid or False, "not by 0x1" in answer.reason) == (False, True)
        request.message = v2.Bcs(name="PersonalMessage", value=data.raw)
        assert "not valid" in (await stub.verify_signature(request)).reason
        request.message = v2.Bcs(name="Poem", value=b"")
        with pytest.raises(GRPCError, match="TransactionData, PersonalMessage"):
            await stub.verify_signature(request)
    finally:
        channel.close()


async def test_stopping_ends_streams_of_both_kinds() -> None:
    async with httpx.AsyncClient() as http, Localnet.start() as net:
        where = urlparse(net.url)
        channel = Channel(where.hostname, where.port)
        stub = v2.SubscriptionServiceStub(channel)
        native = stub.subscribe_checkpoints(v2.SubscribeCheckpointsRequest())
        first = asyncio.ensure_future(anext(native))
        async with http.stream("POST", net.url + SUBSCRIBE, headers=BINARY, content=frame(b"")) as answer:
            while len(net.ledger.listeners) < 2:
                await asyncio.sleep(0.01)
            net.ledger.seal_empty_checkpoint()
            await asyncio.wait_for(first, 5)
            async with asyncio.timeout(2):
                await net.stop()
            with pytest.raises((httpx.RemoteProtocolError, httpx.ReadError)):
                async for _ in answer.aiter_bytes():
                    pass
            with pytest.raises((GRPCError, StreamTerminatedError)):
                await asyncio.wait_for(anext(native), 5)
        channel.close()
        assert not net.ledger.listeners


async def test_a_deadline_ends_a_native_stream(net: Localnet) -> None:
    where = urlparse(net.url)
    channel = Channel(where.hostname, where.port)
    stub = v2.SubscriptionServiceStub(channel)
    with pytest.raises((TimeoutError, GRPCError)):
        async for _ in stub.subscribe_events(v2.SubscribeEventsRequest(), timeout=0.1):
            pass
    async with asyncio.timeout(5):
        while net.ledger.listeners:
            await asyncio.sleep(0.01)
    channel.close()
