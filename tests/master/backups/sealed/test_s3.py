"""Snapshots in S3: kept and found by their names, signed for, and nothing of it believed."""

from __future__ import annotations

import datetime as dt
import itertools
from collections.abc import Callable

import httpx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from s3_double import HOST, URL, S3Double

from k3s_daas_master.sealed import s3
from k3s_daas_master.sealed.aws import Credentials, sign
from k3s_daas_master.sealed.errors import SealedError
from k3s_daas_master.sealed.s3 import S3Store
from k3s_daas_master.sealed.store import name_of

FOLDER = "sealed/one/"


@pytest.fixture
def bucket() -> S3Double:
    return S3Double(page=2)


def names(*counters: int) -> list[str]:
    return [name_of(counter, bytes([counter]) * 32) for counter in counters]


def test_what_is_written_is_read_listed_and_let_go_of(bucket: S3Double) -> None:
    store = bucket.store()
    assert (store.names(), store.read(names(1)[0])) == ([], None)
    for name in names(3, 1, 2, 4, 5):
        store.write(name, name.encode())
    assert store.names() == names(1, 2, 3, 4, 5)  # of three pages
    assert store.read(names(3)[0]) == names(3)[0].encode()
    store.remove(names(1)[0])
    store.remove(names(1)[0])
    assert store.names() == names(2, 3, 4, 5)
    assert str(store) == URL


def test_only_what_is_right_below_its_folder_and_named_as_a_snapshot_counts(bucket: S3Double) -> None:
    (ours,) = names(1)
    for key in (FOLDER + ours, f"sealed/two/{ours}", f"{FOLDER}deeper/{ours}", f"{FOLDER}notes&<x>", ours):
        bucket.objects[key] = b""
    assert bucket.store().names() == [ours]


def test_each_request_is_signed_by_the_instances_role(bucket: S3Double) -> None:
    store = bucket.store()
    store.write(names(1)[0], b"sealed")
    store.names()
    put, get = bucket.requests
    assert (put.method, str(put.url)) == ("PUT", f"{URL}/{names(1)[0]}")
    assert str(get.url) == f"https://{HOST}/?list-type=2&prefix=sealed%2Fone%2F"
    for request in bucket.requests:
        assert request.headers["x-amz-security-token"] == "session"
        assert "secret-of-role" not in str(request.headers)
        assert "x-amz-content-sha256" in request.headers["authorization"]


# "Signature Calculations for the Authorization Header", the examples of Amazon's own page.
@pytest.mark.parametrize(
    ("path", "query", "headers", "signature"),
    [
        (
            "/test.txt",
            "",
            {"Range": "bytes=0-9"},
            "f0e8bdb87c964420e857bd35b5d6ed310bd44f0170aba48dd91039c6036bdb41",
        ),
        (
            "/",
            "max-keys=2&prefix=J",
            {},
            "34b48302e7b5fa45bde8084f4b7868a86f0a534bc59db6670ed5711ef69dc6f7",
        ),
        ("/", "lifecycle=", {}, "fea454ca298b7da1c68078a5d1bdbfbbe0d65c699e0f91ac7a200a0136783543"),
    ],
)
def test_amazons_own_examples(path: str, query: str, headers: dict[str, str], signature: str) -> None:
    found = sign(
        "GET",
        "examplebucket.s3.amazonaws.com",
        headers,
        b"",
        path=path,
        query=query,
        region="us-east-1",
        service="s3",
        credentials=Credentials("AKIAIOSFODNN7EXAMPLE", "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY"),
        now=dt.datetime(2013, 5, 24, tzinfo=dt.UTC),
    )
    assert found["authorization"].endswith(f"Signature={signature}")


Act = Callable[[S3Store], object]
ACTS: dict[str, Act] = {
    "names": lambda store: store.names(),
    "read": lambda store: store.read(names(1)[0]),
    "write": lambda store: store.write(names(1)[0], b"sealed"),
    "remove": lambda store: store.remove(names(1)[0]),
}


@pytest.mark.parametrize("act", ACTS.values(), ids=ACTS)
class TestRefusals:
    def refused(self, act: Act, bucket: S3Double, words: str) -> None:
        with pytest.raises(SealedError, match=words) as caught:
            act(bucket.store())
        assert caught.value.kind == "store"
        assert "instance's role" in str(caught.value)

    def test_the_role_may_not(self, act: Act, bucket: S3Double) -> None:
        denied = httpx.Response(403, text="<Error><Code>AccessDenied</Code></Error>")
        bucket.change = lambda *_: denied
        self.refused(act, bucket, "answered 403 AccessDenied")

    def test_something_else_answers(self, act: Act, bucket: S3Double) -> None:
        bucket.change = lambda *_: httpx.Response(302, headers={"location": "https://evil.example/"})
        self.refused(act, bucket, "answered 302")

    def test_nobody_answers(self, act: Act, bucket: S3Double) -> None:
        def fail(request: httpx.Request, _: httpx.Response) -> httpx.Response:
            raise httpx.ConnectError("refused", request=request)

        bucket.change = fail
        self.refused(act, bucket, "ConnectError: refused")

    def test_no_credentials(self, act: Act, bucket: S3Double) -> None:
        client = httpx.Client(transport=httpx.MockTransport(lambda _: httpx.Response(404)))
        with pytest.raises(SealedError, match="no credentials from the instance"):
            act(S3Store(URL, client=client))


class TestLies:
    def test_an_endless_snapshot(self, bucket: S3Double, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(s3, "MAX_BYTES", 1000)
        endless = itertools.repeat(b"\0" * 65536)
        bucket.change = lambda *_: httpx.Response(200, content=endless)
        with pytest.raises(SealedError, match="an answer of more than"):
            bucket.store().read(names(1)[0])

    def test_endless_names(self, bucket: S3Double) -> None:
        numbers = itertools.count(1)

        def page(request: httpx.Request, _: httpx.Response) -> httpx.Response:
            key = FOLDER + name_of(next(numbers), bytes(32))
            return httpx.Response(200, text=f"<IsTruncated>true</IsTruncated><Key>{key}</Key>")

        bucket.change = page
        with pytest.raises(SealedError, match="pages of names"):
            bucket.store().names()

    def test_the_same_page_again_and_again_ends(self, bucket: S3Double) -> None:
        key = FOLDER + names(1)[0]
        said = f"<IsTruncated>true</IsTruncated><Key>{key}</Key>"
        bucket.change = lambda *_: httpx.Response(200, text=said)
        assert bucket.store().names() == names(1)

    @given(st.binary(max_size=300))
    @settings(deadline=None)
    def test_whatever_it_lists_names_are_snapshots_names(self, said: bytes) -> None:
        bucket = S3Double()
        bucket.change = lambda *_: httpx.Response(200, content=b"<Key>sealed/one/" + said + b"</Key>")
        assert bucket.store().names() == []


@pytest.mark.parametrize("url", ["https://evil.example/x", "http://b.s3.eu-central-1.amazonaws.com/x", ""])
def test_another_place_is_none(url: str) -> None:
    with pytest.raises(ValueError, match="wanted https://BUCKET"):
        S3Store(url)


def test_against_moto() -> None:
    """Another's S3: what the double knows is what that does, too."""
    server = pytest.importorskip("moto.server", reason="moto isn't installed: run `make .state/aws`")
    moto = server.ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    moto.start()
    try:
        host, port = moto.get_host_and_port()
        place = f"http://{host}:{port}/fleet-snapshots"
        region = "<LocationConstraint>eu-central-1</LocationConstraint>"
        made = f"<CreateBucketConfiguration>{region}</CreateBucketConfiguration>"
        httpx.put(place, content=made).raise_for_status()
        keys = Credentials("AKIDEXAMPLE", "secret", "session")
        store = S3Store(URL, endpoint=place, credentials=lambda: keys)
        assert (store.names(), store.read(names(1)[0])) == ([], None)
        for name in names(2, 1):
            store.write(name, name.encode() * 1000)
        assert store.names() == names(1, 2)
        assert store.read(names(2)[0]) == names(2)[0].encode() * 1000
        store.remove(names(1)[0])
        store.remove(names(1)[0])
        assert store.names() == names(2)
        elsewhere = S3Store(URL, endpoint=f"http://{host}:{port}/no-bucket", credentials=lambda: keys)
        with pytest.raises(SealedError, match="404 NoSuchBucket"):
            elsewhere.names()
    finally:
        moto.stop()
