"""What the API answers when it refuses: one shape, one code per reason."""

from __future__ import annotations

from dataclasses import dataclass

_MAX_SHOWN = 120

STATUS_OF = {
    "token_malformed": 400,
    "token_unknown": 401,
    "token_expired": 401,
    "token_revoked": 401,
    "signature_invalid": 401,
    "node_mismatch": 403,
    "worker_slashed": 403,
    "worker_not_eligible": 403,
    "not_operator": 403,
    "clock_skew": 400,
    "timestamp_replayed": 409,
    "body_too_large": 413,
    "wrong_content_type": 415,
    "bad_request": 400,
    "not_found": 404,
    "not_attested": 404,
    "method_not_allowed": 405,
    "request_unknown": 404,
    "payload_mismatch": 422,
    "request_refused": 422,
    "request_over": 409,
    "request_expired": 410,
    "owner_not_eligible": 403,
    "rate_limited": 429,
    "internal": 500,
    "not_ready": 503,
}


@dataclass(eq=False)
class ApiError(Exception):
    """A refusal. `found` never holds any part of a token; it may hold a caller's text, so it is cut."""

    code: str
    message: str
    found: str = ""
    wanted: str = ""
    fix: str = ""

    def __post_init__(self) -> None:
        super().__init__(f"{self.code}: {self.message}")

    @property
    def status(self) -> int:
        return STATUS_OF[self.code]

    def body(self) -> dict[str, dict[str, str]]:
        return {
            "error": {
                "code": self.code,
                "message": self.message,
                "found": shown(self.found),
                "wanted": self.wanted,
                "fix": self.fix,
            }
        }


class StateError(Exception):
    """The master's own state directory or files can't be used; the message says what to do."""


def shown(text: str) -> str:
    """`text` short enough for an answer or a log line, and sure to be text that either can hold."""
    text = text.encode("utf-8", "backslashreplace").decode("utf-8")
    return text if len(text) <= _MAX_SHOWN else f"{text[:_MAX_SHOWN]}… ({len(text)} characters)"
