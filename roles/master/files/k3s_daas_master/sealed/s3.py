"""Snapshots in a bucket of S3: they outlive the parent, and a standby in another zone reads them.

It is a store as any other: nothing of it is believed. What it says is read up to a bound, and only by the
form that a snapshot's name has. Credentials are those of the instance's role.

Source: Amazon S3 API reference (ListObjectsV2, GetObject, PutObject, DeleteObject), "Signature Version 4".
"""

from __future__ import annotations

import datetime as dt
import html
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from urllib.parse import quote, urlencode

import httpx

from k3s_daas_master.config import SNAPSHOT_URL
from k3s_daas_master.sealed.aws import AwsError, Credentials, instance_credentials, sign
from k3s_daas_master.sealed.errors import SealedError
from k3s_daas_master.sealed.snapshot import MAX_BYTES
from k3s_daas_master.sealed.store import is_name

_TIMEOUT_S = 30.0
#: A page of names has 1,000, in less than this many bytes; so many pages are read.
_MAX_PAGE, _MAX_PAGES = 2 * 1024 * 1024, 20
_MAX_SAID = 300
_KEY = re.compile(r"<Key>([^<]{1,1024})</Key>")
_MORE = "<IsTruncated>true</IsTruncated>"
_CODE = re.compile(r"<Code>([A-Za-z0-9]{1,64})</Code>")


class S3Store:
    """`url` is https://BUCKET.s3.REGION.amazonaws.com/FOLDER; snapshots are right below the folder.

    `endpoint` stands for https://BUCKET.s3.REGION.amazonaws.com, where S3 is a double. Raises ValueError for
    no such URL.
    """

    def __init__(
        self,
        url: str,
        *,
        endpoint: str | None = None,
        client: httpx.Client | None = None,
        credentials: Callable[[], Credentials] | None = None,
        now: Callable[[], dt.datetime] = lambda: dt.datetime.now(dt.UTC),
    ) -> None:
        found = SNAPSHOT_URL.fullmatch(url)
        if found is None:
            raise ValueError(f"found {url[:120]!r}, wanted https://BUCKET.s3.REGION.amazonaws.com/FOLDER")
        self._url, self._region = url, found["region"]
        self._folder = f"{found['folder']}/"
        self._base = httpx.URL(endpoint or f"https://{found['host']}")
        # Nothing of the environment's: a proxy there would be the parent's choice.
        self._client = client or httpx.Client(trust_env=False, timeout=_TIMEOUT_S)
        self._credentials = credentials or (lambda: instance_credentials(self._client))
        self._now = now

    def __str__(self) -> str:
        return self._url

    def names(self) -> list[str]:
        found: set[str] = set()
        after = ""
        for _ in range(_MAX_PAGES):
            query = {"list-type": "2", "prefix": self._folder} | ({"start-after": after} if after else {})
            with self._ask("GET", "", query=query) as answer:
                page = self._read(answer, _MAX_PAGE).decode("utf-8", "replace")
            keys = [html.unescape(key) for key in _KEY.findall(page)]
            found |= {key.removeprefix(self._folder) for key in keys if key.startswith(self._folder)}
            if _MORE not in page or not keys or keys[-1] <= after:
                return sorted(name for name in found if is_name(name))
            after = keys[-1]
        raise self._unusable(f"more than {_MAX_PAGES} pages of names")

    def read(self, name: str) -> bytes | None:
        with self._ask("GET", name, missing=True) as answer:
            return (
                None if answer.status_code == httpx.codes.NOT_FOUND else self._read(answer, MAX_BYTES + 2**20)
            )

    def write(self, name: str, sealed: bytes) -> None:
        # S3 has it whole or not at all: the signature is over the content's hash.
        with self._ask("PUT", name, body=sealed):
            pass

    def remove(self, name: str) -> None:
        with self._ask("DELETE", name, missing=True):
            pass

    @contextmanager
    def _ask(
        self,
        method: str,
        name: str,
        *,
        query: Mapping[str, str] | None = None,
        body: bytes = b"",
        missing: bool = False,
    ) -> Iterator[httpx.Response]:
        """An answer that is no refusal, its body unread; also that there is none, if it may be `missing`."""
        path = f"{self._base.path.rstrip('/')}/{self._folder if name else ''}{name}"
        said = urlencode(sorted((query or {}).items()), quote_via=quote, safe="-_.~")
        url = self._base.copy_with(raw_path=(path + (f"?{said}" if said else "")).encode())
        try:
            headers = sign(
                method,
                url.netloc.decode(),
                {"accept-encoding": "identity"},
                body,
                path=path,
                query=said,
                region=self._region,
                service="s3",
                credentials=self._credentials(),
                now=self._now(),
            )
            with self._client.stream(method, url, headers=headers, content=body or None) as answer:
                if answer.is_success or (missing and answer.status_code == httpx.codes.NOT_FOUND):
                    yield answer
                    return
                code = _CODE.search(self._read(answer, _MAX_PAGE)[:4096].decode("utf-8", "replace"))
                raise self._unusable(
                    f"{method} answered {answer.status_code} {code[1] if code else ''}".strip()
                )
        except (httpx.HTTPError, AwsError) as error:
            raise self._unusable(f"{type(error).__name__}: {error!s:.{_MAX_SAID}}") from None

    def _read(self, answer: httpx.Response, most: int) -> bytes:
        # One that is packed could unpack to anything.
        if (encoding := answer.headers.get("content-encoding", "identity")) != "identity":
            raise self._unusable(f"an answer in the encoding {encoding[:40]!r}")
        found = bytearray()
        for part in answer.iter_bytes():
            found += part
            if len(found) > most:
                raise self._unusable(f"an answer of more than {most} bytes")
        return bytes(found)

    def _unusable(self, found: str) -> SealedError:
        return SealedError(
            "store",
            f"{self._url}: {found}",
            "a bucket whose objects below that folder this instance's role may list, read, write and delete",
            "Look at the bucket's policy, at the role's, at the way to S3 and to the metadata service; then "
            "this is tried again.",
        )
