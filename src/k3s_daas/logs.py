"""JSON logs with the secrets taken out, for every process of ours.

One line of JSON per event on stderr (the journal's side of a unit). Records of libraries that use the
standard `logging` go the same way, so nothing reaches the journal unredacted.
"""

from __future__ import annotations

import logging
import re
import sys
from collections.abc import Mapping
from types import TracebackType
from typing import Any, TextIO

import structlog

REDACTED = "[redacted]"

_PATTERNS: tuple[re.Pattern[str], ...] = (
    # Seal tokens, also cut ones: 16 characters of one are 96 bits, too much to show and too long for a word.
    re.compile(r"seal_[A-Za-z0-9_-]{16,}"),
    # k3s' full token format, K10<ca hash>::<credentials>.
    re.compile(r"K10[0-9a-fA-F]*::[^\s\"'\\,;]+"),
    # Kubernetes bootstrap tokens, <id>.<secret>.
    re.compile(r"(?<![A-Za-z0-9])[a-z0-9]{6}\.[a-z0-9]{16}(?![A-Za-z0-9])"),
    # Sui private keys in bech32.
    re.compile(r"suiprivkey1[a-z0-9]+", re.IGNORECASE),
    re.compile(r"-----BEGIN [A-Z ]*PRIVATE KEY-----.*?(?:-----END [A-Z ]*PRIVATE KEY-----|\Z)", re.DOTALL),
    re.compile(r"(?<=[Bb]earer )[^\s\"'\\,;]+"),
    # JSON web tokens (service accounts).
    re.compile(r"eyJ[A-Za-z0-9_-]{8,}\.[A-Za-z0-9_-]{8,}\.[A-Za-z0-9_-]*"),
)

# Fields whose value is a secret whatever it looks like.
_SECRET_FIELDS = frozenset(
    {
        "authorization",
        "bootstrap_token",
        "join_token",
        "node_password",
        "password",
        "private_key",
        "seal_token",
        "secret",
        "token",
        "x-seal-token",
    }
)


# Loggers whose INFO says nothing to an operator: httpx tells every request with its URL, uvicorn's access log
# has the query string, "uvicorn.error" its start and end; the last four are pysui's.
_LOUD = (
    "httpx",
    "httpx2",
    "httpcore",
    "uvicorn.access",
    "uvicorn.error",
    "pysui",
    "pgrpc_client",
    "mtobcs",
    "async_funcs",
)


def redact(text: str) -> str:
    """`text` without seal tokens, join tokens, bootstrap tokens, private keys and bearer credentials."""
    for pattern in _PATTERNS:
        text = pattern.sub(REDACTED, text)
    return text


def clean(value: Any) -> Any:
    """`value` as plain JSON material, redacted at every depth; what JSON doesn't know becomes its repr."""
    if value is None or isinstance(value, bool | int | float):
        return value
    if isinstance(value, str):
        return redact(str(value))
    if isinstance(value, Mapping):
        return {
            redact(str(key)): REDACTED if str(key).lower() in _SECRET_FIELDS else clean(item)
            for key, item in value.items()
        }
    if isinstance(value, list | tuple | set | frozenset):
        return [clean(item) for item in value]
    if isinstance(value, bytes | bytearray):
        return redact(value.decode("utf-8", "backslashreplace"))
    return redact(repr(value))


def redaction_processor(_logger: Any, _method: str, event: structlog.typing.EventDict) -> Mapping[str, Any]:
    """structlog's last step before rendering: tracebacks and foreign records are text by then."""
    cleaned: dict[str, Any] = clean(dict(event))
    return cleaned


def configure(service: str, level: str = "INFO", stream: TextIO | None = None) -> None:
    """Send structlog's and the standard library's records as JSON lines to `stream` (default stderr).

    `service` is put in every line. Call once, first thing in a process.
    """

    def name_service(
        _logger: Any, _method: str, event: structlog.typing.EventDict
    ) -> structlog.typing.EventDict:
        event["service"] = service
        return event

    shared: list[structlog.typing.Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.stdlib.add_logger_name,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        name_service,
    ]
    handler = logging.StreamHandler(stream or sys.stderr)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared,
            processors=[
                structlog.stdlib.ProcessorFormatter.remove_processors_meta,
                structlog.processors.format_exc_info,
                redaction_processor,
                structlog.processors.JSONRenderer(),
            ],
        )
    )
    root = logging.getLogger()
    for old in list(root.handlers):
        root.removeHandler(old)
    root.addHandler(handler)
    root.setLevel(level)
    for name in _LOUD:
        logging.getLogger(name).setLevel(logging.WARNING)
    # A record that can't be formatted must not be printed raw.
    logging.raiseExceptions = False
    structlog.configure(
        processors=[
            structlog.stdlib.filter_by_level,
            structlog.stdlib.PositionalArgumentsFormatter(),
            *shared,
            structlog.stdlib.ProcessorFormatter.wrap_for_formatter,
        ],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
    )
    sys.excepthook = _log_uncaught


def get_logger(name: str) -> structlog.stdlib.BoundLogger:
    """A logger whose calls take fields: `log.info("worker registered", node_id=...)`."""
    logger: structlog.stdlib.BoundLogger = structlog.stdlib.get_logger(name)
    return logger


def _log_uncaught(kind: type[BaseException], error: BaseException, traceback: TracebackType | None) -> None:
    if issubclass(kind, KeyboardInterrupt):
        return
    logging.getLogger("k3s_daas").critical("uncaught error", exc_info=(kind, error, traceback))
