"""The body of a request: JSON whose exact bytes hash to the payload hash on-chain.

    {"apiVersion": "k3s-daas/v1", "kind": "Request", "method": "apply", "resource": "configmaps",
     "name": "web", "payload": {"apiVersion": "v1", "kind": "ConfigMap", …}}

`namespace` may be left out: it is the owner's own and can be no other.
"""

from __future__ import annotations

import hashlib
import json
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

API_VERSION = "k3s-daas/v1"
MAX_BODY_BYTES = 64 * 1024
#: Kubernetes' own objects nest about 20 deep.
MAX_DEPTH = 40
METHODS = ("get", "list", "apply", "delete", "scale", "logs")
WRITES = frozenset({"apply", "delete", "scale"})

Method = Literal["get", "list", "apply", "delete", "scale", "logs"]

_FIELDS_OF: dict[str, frozenset[str]] = {
    "apply": frozenset({"payload"}),
    "scale": frozenset({"replicas"}),
    "list": frozenset({"label_selector"}),
    "logs": frozenset({"container", "tail_lines"}),
}


class NotAllowed(ValueError):
    """A request that is not run, and why: what was found, what was wanted, what to do."""

    def __init__(self, found: str, wanted: str, fix: str = "Correct the request and submit it anew.") -> None:
        super().__init__(f"Found {found}; wanted {wanted}. {fix}")
        self.found = found
        self.wanted = wanted
        self.fix = fix


class Envelope(BaseModel):
    """A request's body. Which optional field belongs to which method: see `_FIELDS_OF`."""

    model_config = ConfigDict(strict=True, extra="forbid", frozen=True)

    api_version: Literal["k3s-daas/v1"] = Field(alias="apiVersion")
    kind: Literal["Request"]
    method: Method
    resource: Annotated[str, Field(max_length=64)]
    namespace: Annotated[str, Field(max_length=64)] | None = None
    #: For every method but list.
    name: Annotated[str, Field(max_length=253)] | None = None
    #: apply: the whole object.
    payload: dict[str, Any] | None = None
    #: scale
    replicas: Annotated[int, Field(ge=0, le=10_000)] | None = None
    #: list
    label_selector: Annotated[str, Field(max_length=512, pattern=r"^[-A-Za-z0-9_./=!, ()]+$")] | None = None
    #: logs; without a number the last 1000 lines
    container: Annotated[str, Field(max_length=63, pattern=r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?$")] | None = None
    tail_lines: Annotated[int, Field(ge=1, le=100_000)] | None = None
    #: Any text, to give two requests that say the same two hashes, or to keep a hash from being guessed.
    nonce: Annotated[str, Field(max_length=128)] | None = None

    @property
    def writes(self) -> bool:
        return self.method in WRITES


def encode(**fields: Any) -> bytes:
    """The body with `fields`, always the same bytes for the same content. Raises NotAllowed."""
    said = {key: value for key, value in fields.items() if value is not None}
    raw = canonical({"apiVersion": API_VERSION, "kind": "Request"} | said)
    parse(raw)
    return raw


def canonical(value: Any) -> bytes:
    """JSON with sorted keys and without blanks, as UTF-8."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
    return text.encode("utf-8")


def payload_hash(raw: bytes) -> bytes:
    """What stands on-chain for a body: the SHA-256 of its exact bytes."""
    return hashlib.sha256(raw).digest()


def parse(raw: bytes) -> Envelope:
    """The request in `raw`, of at most 64 KiB and strictly JSON. Raises NotAllowed."""
    if len(raw) > MAX_BODY_BYTES:
        raise NotAllowed(f"a body of {len(raw)} bytes", f"at most {MAX_BODY_BYTES}")
    body = strict_json(raw)
    if not isinstance(body, dict):
        raise NotAllowed(f"a JSON {type(body).__name__}", "a JSON object")
    try:
        envelope = Envelope.model_validate(body)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        where = ".".join(str(part) for part in first["loc"])[:80]
        raise NotAllowed(
            f"{where}: {first['msg']}", f"a request of {API_VERSION} (docs/requests.md)"
        ) from None
    _check_fields(envelope)
    return envelope


def _check_fields(envelope: Envelope) -> None:
    """That exactly the fields of its method are there."""
    method = envelope.method
    if (envelope.name is None) != (method == "list"):
        found = "no name" if envelope.name is None else "a name"
        raise NotAllowed(f"{method} with {found}", "a name with every method but list")
    for owner, fields in _FIELDS_OF.items():
        for field in fields - _FIELDS_OF.get(method, frozenset()):
            if getattr(envelope, field) is not None:
                raise NotAllowed(f"{field} with {method}", f"{field} with {owner} only")
    for field in ("payload", "replicas"):
        if field in _FIELDS_OF.get(method, frozenset()) and getattr(envelope, field) is None:
            raise NotAllowed(f"{method} without {field}", f"{method} with {field}")


def strict_json(raw: bytes) -> Any:
    """The value in `raw`: no key twice, no NaN or infinity, at most MAX_DEPTH deep. Raises NotAllowed."""
    try:
        value = json.loads(
            raw.decode("utf-8"), object_pairs_hook=_once, parse_constant=_no_constant, parse_float=_finite
        )
        # Half a surrogate pair can be written in JSON, and in nothing else.
        json.dumps(value, ensure_ascii=False).encode("utf-8")
    except (ValueError, RecursionError) as error:
        # Its own text can be as long as what it quotes.
        raise NotAllowed(f"{len(raw)} bytes that aren't strict JSON ({error!s:.80})", "JSON") from None
    level, depth = [value], 0
    while level:
        depth += 1
        if depth > MAX_DEPTH:
            raise NotAllowed(f"JSON more than {MAX_DEPTH} levels deep", f"at most {MAX_DEPTH} levels")
        level = [
            child
            for item in level
            if isinstance(item, dict | list)
            for child in (item.values() if isinstance(item, dict) else item)
        ]
    return value


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a key that is there twice")
    return found


def _no_constant(name: str) -> None:
    raise ValueError(f"{name} is not JSON")


def _finite(text: str) -> float:
    number = float(text)
    if number in (float("inf"), float("-inf")):
        raise ValueError("a number too large")
    return number
