"""What is needed here of AWS: credentials of the instance, signatures, and calls of a JSON API.

An SDK would be 80 MB in an image whose every file has to be trusted. Source: AWS "Signature Version 4 for API
requests", "Instance metadata service version 2".
"""

from __future__ import annotations

import datetime as dt
import hashlib
import hmac
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import httpx

METADATA = "http://169.254.169.254"
_TIMEOUT_S = 10.0
_MAX_ANSWER = 64 * 1024


class AwsError(Exception):
    """No answer, or a refusal; says which."""


@dataclass(frozen=True)
class Credentials:
    key_id: str
    secret: str = field(repr=False)
    token: str = field(default="", repr=False)


def sign(
    method: str,
    host: str,
    headers: Mapping[str, str],
    body: bytes,
    *,
    region: str,
    service: str,
    credentials: Credentials,
    now: dt.datetime,
    path: str = "/",
    query: str = "",
) -> dict[str, str]:
    """All headers of a signed request. Pure.

    `path` and `query` are as they are sent, percent-encoded; the query's parts sorted by name.
    """
    content = hashlib.sha256(body).hexdigest()
    moment = now.strftime("%Y%m%dT%H%M%SZ")
    scope = f"{moment[:8]}/{region}/{service}/aws4_request"
    all_ = {name.lower(): value for name, value in headers.items()} | {"host": host, "x-amz-date": moment}
    if service == "s3":
        all_["x-amz-content-sha256"] = content
    if credentials.token:
        all_["x-amz-security-token"] = credentials.token
    names = ";".join(sorted(all_))
    canonical = "\n".join(
        (
            method,
            path,
            query,
            *(f"{name}:{all_[name]}" for name in sorted(all_)),
            "",
            names,
            content,
        )
    )
    text = "\n".join(("AWS4-HMAC-SHA256", moment, scope, hashlib.sha256(canonical.encode()).hexdigest()))
    key = f"AWS4{credentials.secret}".encode()
    for part in (moment[:8], region, service, "aws4_request"):
        key = hmac.digest(key, part.encode(), "sha256")
    signature = hmac.digest(key, text.encode(), "sha256").hex()
    all_["authorization"] = (
        f"AWS4-HMAC-SHA256 Credential={credentials.key_id}/{scope}, SignedHeaders={names}, "
        f"Signature={signature}"
    )
    return all_


def instance_credentials(client: httpx.Client, metadata: str = METADATA) -> Credentials:
    """Those of the instance's IAM role, which the parent's metadata service gives out. Raises AwsError."""
    try:
        ttl = {"X-aws-ec2-metadata-token-ttl-seconds": "300"}
        token = _body(client.put(f"{metadata}/latest/api/token", headers=ttl, timeout=_TIMEOUT_S))
        asking = {"X-aws-ec2-metadata-token": token}
        path = f"{metadata}/latest/meta-data/iam/security-credentials/"
        role = _body(client.get(path, headers=asking, timeout=_TIMEOUT_S)).strip()
        found = json.loads(_body(client.get(path + role, headers=asking, timeout=_TIMEOUT_S)))
        return Credentials(found["AccessKeyId"], found["SecretAccessKey"], found["Token"])
    except (httpx.HTTPError, ValueError, KeyError, TypeError, httpx.InvalidURL) as error:
        raise AwsError(
            f"no credentials from the instance's metadata service ({type(error).__name__}: {error})"
        ) from None


def call(
    client: httpx.Client,
    *,
    host: str,
    region: str,
    service: str,
    target: str,
    body: Mapping[str, Any],
    credentials: Callable[[], Credentials],
    now: Callable[[], dt.datetime],
) -> dict[str, Any]:
    """The answer of one JSON call (`target` is its name, like TrentService.Decrypt). Raises AwsError."""
    content = json.dumps(body).encode()
    headers = sign(
        "POST",
        host,
        {"content-type": "application/x-amz-json-1.1", "x-amz-target": target},
        content,
        region=region,
        service=service,
        credentials=credentials(),
        now=now(),
    )
    try:
        answer = client.post(f"https://{host}/", headers=headers, content=content, timeout=_TIMEOUT_S)
        found = json.loads(_body(answer, refusals=True))
    except (httpx.HTTPError, ValueError) as error:
        raise AwsError(f"{host} gave no answer ({type(error).__name__}: {error})") from None
    if not isinstance(found, dict):
        raise AwsError(f"{host} answered with {type(found).__name__}, wanted a map")
    if answer.status_code != 200:
        kind = str(found.get("__type", "")).rpartition("#")[2]
        said = found.get("message") or found.get("Message") or ""
        raise AwsError(f"{host} answered {answer.status_code} {kind}: {said!s:.300}")
    return found


def _body(answer: httpx.Response, *, refusals: bool = False) -> str:
    if not refusals:
        answer.raise_for_status()
    if len(answer.content) > _MAX_ANSWER:
        raise ValueError(f"an answer of {len(answer.content)} bytes")
    return answer.text
