"""Writing Secrets again: what is asked of the API server, and what each of its answers comes to.

The API server here is a list of answers; molecule/rotate asks a real one.
"""

from __future__ import annotations

import http.client
import json
import ssl
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

Run = Callable[..., dict[str, Any]]
SECRET = "c2VjcmV0IG9mIHRoZSB0ZXN0"  # noqa: S105 - what must not come back


@dataclass
class Answers:
    """Stands in for http.client.HTTPSConnection."""

    ready: list[tuple[int, Any]] = field(default_factory=list)
    asked: list[tuple[str, str, str | None, dict[str, str]]] = field(default_factory=list)
    where: tuple[str, int] | None = None

    def __call__(self, host: str, port: int, **_: Any) -> Answers:
        self.where = (host, port)
        return self

    def request(self, method: str, path: str, body: str | None, headers: dict[str, str]) -> None:
        self.asked.append((method, path, body, headers))

    def getresponse(self) -> Answers:
        if not self.ready:
            raise http.client.RemoteDisconnected("Remote end closed connection without response")
        self.status, self.content = self.ready.pop(0)
        return self

    def read(self) -> bytes:
        return self.content if isinstance(self.content, bytes) else json.dumps(self.content).encode()


@pytest.fixture
def api(monkeypatch: pytest.MonkeyPatch) -> Answers:
    answers = Answers()

    class Context:
        def load_cert_chain(self, cert: Path, key: Path) -> None:
            assert (cert.name, key.name) == ("client-admin.crt", "client-admin.key")

    monkeypatch.setattr(ssl, "create_default_context", lambda cafile: Context())
    monkeypatch.setattr(http.client, "HTTPSConnection", answers)
    return answers


@pytest.fixture
def run(run_module: Run) -> Run:
    return lambda *names, **given: run_module("k3s_secrets", names=list(names) or None, **given)


def about(namespace: str, name: str, version: str) -> dict[str, Any]:
    return {"metadata": {"namespace": namespace, "name": name, "resourceVersion": version}}


def test_it_lists_them_page_by_page_without_their_content(run: Run, api: Answers) -> None:
    api.ready = [
        (200, {"metadata": {"continue": "a/b=="}, "items": [about("default", "z", "9")]}),
        (200, {"metadata": {}, "items": [about("kube-system", "a", "4"), about("default", "b", "7")]}),
    ]
    listed = run(server="https://127.0.0.1:7443")
    assert listed["names"] == ["default/b@7", "default/z@9", "kube-system/a@4"]
    assert not listed["changed"]
    assert api.where == ("127.0.0.1", 7443)
    assert [path for _, path, _, _ in api.asked] == [
        "/api/v1/secrets?limit=500&continue=",
        "/api/v1/secrets?limit=500&continue=a/b%3D%3D",
    ]
    assert all("as=PartialObjectMetadataList" in headers["Accept"] for *_, headers in api.asked)


def test_it_counts_those_that_were_stored_anew(run: Run, api: Answers) -> None:
    api.ready = [
        (200, about("default", "b", "12")),
        (200, about("default", "z", "9")),  # it was under the key that writes already
        (404, {"message": 'secrets "gone" not found'}),
    ]
    done = run("default/b@7", "default/z@9", "owner-1/gone@3")
    assert (done["changed"], done["written"]) == (True, 1)
    assert [(method, path, body) for method, path, body, _ in api.asked] == [
        ("PATCH", "/api/v1/namespaces/default/secrets/b", "{}"),
        ("PATCH", "/api/v1/namespaces/default/secrets/z", "{}"),
        ("PATCH", "/api/v1/namespaces/owner-1/secrets/gone", "{}"),
    ]
    for *_, headers in api.asked:
        assert headers["Content-Type"] == "application/merge-patch+json"
        assert "as=PartialObjectMetadata;" in headers["Accept"]


def test_a_second_time_nothing_is_changed(run: Run, api: Answers) -> None:
    api.ready = [(200, about("default", "b", "12"))]
    assert run("default/b@12")["changed"] is False


def test_check_mode_sends_nothing(run: Run, api: Answers) -> None:
    done = run("default/b@7", check=True)
    assert (done["changed"], done["written"], api.asked) == (False, 0, [])


def test_content_that_came_all_the_same_is_not_returned(run: Run, api: Answers) -> None:
    api.ready = [(200, about("default", "b", "12") | {"data": {"password": SECRET}})]
    assert SECRET not in json.dumps(run("default/b@7"))
    api.ready = [(200, {"metadata": {}, "items": [about("d", "b", "1") | {"data": {"password": SECRET}}]})]
    assert SECRET not in json.dumps(run())


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ({"message": "unable to decrypt: no matching key was found"}, "no matching key was found"),
        (b"<html>", "no reason given"),
        ([], "no reason given"),
    ],
)
def test_one_that_cannot_be_written_ends_it(run: Run, api: Answers, content: Any, reason: str) -> None:
    api.ready = [(200, about("default", "a", "12")), (500, content)]
    refused = run("default/a@7", "default/b@7", "default/c@7")
    assert refused["failed"]
    for words in (
        "status 500",
        "/secrets/b",
        reason,
        "No key was dropped",
        "restore the file, and run this again",
    ):
        assert words in refused["msg"]
    assert len(api.asked) == 2


def test_a_server_that_is_not_there_is_said(run: Run, api: Answers) -> None:
    refused = run()
    assert refused["failed"]
    assert "Can't talk to the API server at https://127.0.0.1:6443: Remote end closed" in refused["msg"]


def test_certificates_that_are_not_there_are_said(run: Run, tmp_path: Path) -> None:
    refused = run(tls=str(tmp_path))
    assert refused["failed"]
    assert "No such file" in refused["msg"]
