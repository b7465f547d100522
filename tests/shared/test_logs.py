"""Nothing secret gets through the logs, whichever way it comes."""

from __future__ import annotations

import io
import json
import logging
import subprocess
import sys
from typing import Any

import pytest

from k3s_daas import logs

SEAL = "seal_" + "Ab3-_xYz9" * 4 + "Ab3-_xY"
BOOTSTRAP = "abc123.0123456789abcdef"
FULL = "K10" + "ab" * 32 + "::" + BOOTSTRAP
SUI_KEY = "suiprivkey1" + "qz" * 29
SECRETS = [SEAL, SEAL[:30], BOOTSTRAP, FULL, SUI_KEY]


@pytest.fixture
def stream(own_logging: None) -> io.StringIO:
    out = io.StringIO()
    logs.configure("test", stream=out)
    return out


def lines(stream: io.StringIO) -> list[dict[str, Any]]:
    return [json.loads(line) for line in stream.getvalue().splitlines()]


@pytest.mark.parametrize("secret", SECRETS)
def test_a_secret_in_any_place_of_a_record_is_redacted(stream: io.StringIO, secret: str) -> None:
    log = logs.get_logger("here")
    log.info(
        f"got {secret}.", field=secret, nested={"a": [secret, {"b": secret.encode()}]}, obj=ValueError(secret)
    )
    log.info("new line before\n" + secret + "\nand after")
    log.info("percent %s", secret)
    try:
        raise RuntimeError(f"refused '{secret}'")
    except RuntimeError:
        log.exception("failed")
    logging.getLogger("some.library").warning("header %s", {"X-Seal-Token": secret})
    text = stream.getvalue()
    assert len(lines(stream)) == 5
    assert secret not in text
    assert logs.REDACTED in text


def test_fields_with_secret_names_are_redacted_whatever_they_hold(stream: io.StringIO) -> None:
    fields = {"node_password": "hunter2", "headers": {"Authorization": "Basic aHVudGVyMg=="}}
    logs.get_logger("here").info("x", **fields)
    assert "hunter2" not in stream.getvalue()
    assert "aHVudGVyMg" not in stream.getvalue()


def test_an_uncaught_error_is_logged_redacted(stream: io.StringIO) -> None:
    try:
        raise RuntimeError(SEAL)
    except RuntimeError:
        sys.excepthook(*sys.exc_info())  # type: ignore[arg-type]
    assert lines(stream)[0]["level"] == "critical"
    assert SEAL not in stream.getvalue()


def test_a_line_is_json_with_time_level_service_and_fields(stream: io.StringIO) -> None:
    logs.get_logger("here").warning("node removed", node_id="worker-1", stake_mist=1_000_000_000)
    (line,) = lines(stream)
    assert line["event"] == "node removed"
    assert line["level"] == "warning"
    assert line["service"] == "test"
    assert line["node_id"] == "worker-1"
    assert line["stake_mist"] == 1_000_000_000
    assert line["timestamp"].endswith("Z")


LIBRARIES = """
from k3s_daas import logs
logs.configure("test")
import asyncio, logging
import pysui, uvicorn
from starlette.applications import Starlette
server = uvicorn.Server(uvicorn.Config(Starlette(), host="127.0.0.1", port=0, log_config=None))
server.should_exit = True
asyncio.run(server.serve())
logging.getLogger("uvicorn.error").error("an application broke")
"""


def test_libraries_are_quiet_but_for_what_goes_wrong() -> None:
    """With the real ones: pysui greets when it is imported, uvicorn when it starts and when it ends."""
    done = subprocess.run(
        [sys.executable, "-c", LIBRARIES], capture_output=True, text=True, timeout=60, check=True
    )
    assert [json.loads(line)["event"] for line in done.stderr.splitlines()] == ["an application broke"]


@pytest.mark.parametrize(
    "text",
    [
        "seal token expired",
        "worker_seal_token rotated",
        "0x" + "ab" * 32,
        "https://10.123.1.11:8443/healthz",
        "1.2.3",
    ],
)
def test_ordinary_text_stays(text: str) -> None:
    assert logs.redact(text) == text


def test_private_key_blocks_and_bearers_are_redacted() -> None:
    pem = "-----BEGIN EC PRIVATE KEY-----\nMHcC\n-----END EC PRIVATE KEY-----"
    assert "MHcC" not in logs.redact(f"x {pem} y")
    assert "MHcC" not in logs.redact(pem[:40])
    assert logs.redact("Authorization: Bearer abc.def") == f"Authorization: Bearer {logs.REDACTED}"
