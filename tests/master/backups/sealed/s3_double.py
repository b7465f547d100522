"""A test double of one bucket of S3, in the place of the network: it keeps objects, and may lie.

It lists in pages of `page` names, knows `start-after` and `prefix`, and refuses whoever doesn't sign for S3
in its region with the instance's key. That a signature is right is the vectors' matter.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from html import escape

import httpx

from k3s_daas_master.sealed.aws import METADATA
from k3s_daas_master.sealed.s3 import S3Store

HOST = "fleet-snapshots.s3.eu-central-1.amazonaws.com"
URL = f"https://{HOST}/sealed/one"


class S3Double:
    def __init__(self, page: int = 1000) -> None:
        self.objects: dict[str, bytes] = {}
        self.requests: list[httpx.Request] = []
        self.page = page
        #: Changes an answer, where the test wants it to.
        self.change: Callable[[httpx.Request, httpx.Response], httpx.Response] = lambda _, answer: answer

    def store(self) -> S3Store:
        return S3Store(URL, client=httpx.Client(transport=httpx.MockTransport(self.answer)))

    def answer(self, request: httpx.Request) -> httpx.Response:
        if str(request.url).startswith(METADATA):
            return _metadata(request)
        self.requests.append(request)
        return self.change(request, self._of_the_bucket(request))

    def _of_the_bucket(self, request: httpx.Request) -> httpx.Response:
        body = request.read()
        signed = request.headers.get("authorization", "")
        content = request.headers.get("x-amz-content-sha256")
        if "/eu-central-1/s3/aws4_request" not in signed or content != hashlib.sha256(body).hexdigest():
            return httpx.Response(403, text="<Error><Code>SignatureDoesNotMatch</Code></Error>")
        key = request.url.path.lstrip("/")
        match request.method, key:
            case "GET", "":
                return self._list(request.url.params)
            case "GET", _ if key in self.objects:
                return httpx.Response(200, content=self.objects[key])
            case "PUT", _:
                self.objects[key] = body
                return httpx.Response(200)
            case "DELETE", _:
                self.objects.pop(key, None)
                return httpx.Response(204)
        return httpx.Response(404, text="<Error><Code>NoSuchKey</Code></Error>")

    def _list(self, params: httpx.QueryParams) -> httpx.Response:
        assert params["list-type"] == "2"
        keys = sorted(
            key
            for key in self.objects
            if key.startswith(params["prefix"]) and key > params.get("start-after", "")
        )
        shown = "".join(f"<Contents><Key>{escape(key)}</Key></Contents>" for key in keys[: self.page])
        more = str(len(keys) > self.page).lower()
        text = f"<ListBucketResult><IsTruncated>{more}</IsTruncated>{shown}</ListBucketResult>"
        return httpx.Response(200, text=text)


def _metadata(request: httpx.Request) -> httpx.Response:
    if request.method == "PUT":
        return httpx.Response(200, text="token")
    if request.url.path.endswith("/security-credentials/"):
        return httpx.Response(200, text="master")
    said = {"AccessKeyId": "AKIDEXAMPLE", "SecretAccessKey": "secret-of-role", "Token": "session"}
    return httpx.Response(200, json=said)
