"""Executing one request, and finding out what became of an execution that was cut off.

At most once means: a write whose outcome isn't known is repeated only when it is known not to have happened,
or when repeating it changes nothing. What is known of each (`look` before, `find_out` when in doubt):

- get, list, logs: repeated, reading changes nothing.
- apply (looks at the uid): the object has our field manager: done. Pods and jobs do their work again when
  they are made again: only the very object that was there before is applied to again, else it is given up.
  Of everything else, applying again ends in the same object.
- delete (uid): gone, another uid, or going: done. Else repeated, for that uid only.
- scale (uid, generation): our field manager, or the wanted number: done. The same generation: nobody changed
  it, repeated. Else given up.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from k3s_daas.requests.manifest import field_manager, prepared
from k3s_daas.requests.policy import Resource
from k3s_daas.requests.schema import API_VERSION, Envelope, canonical
from k3s_daas_master.owner_api import Answer, InDoubt, NotExecuted, OwnerApi

MAX_RESULT_BYTES = 256 * 1024
_LIST_LIMIT = 500
_LOG_LINES = 1000


@dataclass(frozen=True)
class Work:
    """A request that passed the policy. `namespace` is the owner's."""

    request_id: int
    owner: str
    namespace: str
    node_id: str
    envelope: Envelope
    resource: Resource

    def path(self, sub: str = "") -> str:
        return self.resource.path(self.namespace, self.envelope.name, sub)

    @property
    def manager(self) -> str:
        return field_manager(self.request_id)


@dataclass(frozen=True)
class Refusal:
    """Why nothing came of it, for the owner."""

    code: str
    message: str


class Executor:
    """The Kubernetes side of requests."""

    def __init__(self, api: OwnerApi) -> None:
        self._api = api

    async def rehearse(self, work: Work) -> Refusal | None:
        """What the API server would refuse about a write, without doing it. Raises NotExecuted, InDoubt."""
        if not work.envelope.writes:
            return None
        answer = await self._write(work, {}, rehearsal=True)
        return None if answer.ok else Refusal(answer.reason(), answer.message())

    async def look(self, work: Work) -> dict[str, Any]:
        """What is there right before a write: {} for nothing. Raises NotExecuted, InDoubt."""
        if not work.envelope.writes:
            return {}
        found = await self._api.call(work.owner, "GET", work.path())
        return _identity(found) if found.ok else {}

    async def run(self, work: Work, seen: dict[str, Any]) -> Answer:
        """Do it. Raises NotExecuted or InDoubt."""
        if work.envelope.writes:
            return await self._write(work, seen)
        try:
            return await self._read(work)
        except InDoubt as error:
            raise NotExecuted(str(error)) from None

    async def find_out(self, work: Work, seen: dict[str, Any]) -> Answer | Refusal:
        """What became of an execution that was cut off. NotExecuted: it may be run again. Raises InDoubt."""
        method = work.envelope.method
        if not work.envelope.writes:
            raise NotExecuted("reads are repeated")
        found = await self._api.call(work.owner, "GET", work.path())
        if not (found.ok or found.missing):
            return found  # the owner may not even look: the refusal is the result
        same = bool(seen) and found.ok and found.metadata().get("uid") == seen.get("uid")
        if method == "delete":
            if not same or "deletionTimestamp" in found.metadata():
                return Answer(200, {"kind": "Status", "status": "Success"})
            raise NotExecuted("the object is still there")
        if found.ok and work.manager in _managers(found):
            return found
        if method == "apply":
            if work.resource.runs_once and not same:
                return _GIVEN_UP
            raise NotExecuted("the object doesn't show the request")
        spec = found.object().get("spec")
        if same and isinstance(spec, dict) and spec.get("replicas") == work.envelope.replicas:
            return found
        if same and found.metadata().get("generation") == seen.get("generation"):
            raise NotExecuted("the object hasn't changed")
        return _GIVEN_UP

    # -- calls --------------------------------------------------------------------------------------------

    async def _write(self, work: Work, seen: dict[str, Any], *, rehearsal: bool = False) -> Answer:
        uid = seen.get("uid")
        envelope, owner = work.envelope, work.owner
        if envelope.method == "delete":
            return await self._delete(work, uid, rehearsal=rehearsal)
        params = {"dryRun": "All"} if rehearsal else {}
        params["fieldManager"] = work.manager
        lock = {"uid": uid} if uid else {}
        if envelope.method == "scale":
            change = {"metadata": lock, "spec": {"replicas": envelope.replicas}}
            kind = "application/merge-patch+json"
            return await self._api.call(
                owner, "PATCH", work.path("scale"), params=params, body=change, content_type=kind
            )
        made = _prepared(work)
        made["metadata"] |= lock
        # Another request may own the fields: the owner wants them as this one says.
        params["force"] = "true"
        return await self._api.call(
            owner,
            "PATCH",
            work.path(),
            params=params,
            body=made,
            content_type="application/apply-patch+yaml",
        )

    async def _delete(self, work: Work, uid: object, *, rehearsal: bool) -> Answer:
        options: dict[str, Any] = {
            "apiVersion": "v1",
            "kind": "DeleteOptions",
            "propagationPolicy": "Background",
        }
        if rehearsal:
            # Here and not in the query, which the API server doesn't read when there is a body.
            options["dryRun"] = ["All"]
        elif uid:
            options["preconditions"] = {"uid": uid}
        else:
            # Not there when it was looked for: what somebody makes now isn't what was to be deleted.
            found = await self._api.call(work.owner, "GET", work.path())
            if found.ok:
                raise NotExecuted("the object was made meanwhile")
            return found
        return await self._api.call(work.owner, "DELETE", work.path(), body=options)

    async def _read(self, work: Work) -> Answer:
        envelope = work.envelope
        if envelope.method == "list":
            params = {"limit": str(_LIST_LIMIT)}
            if envelope.label_selector:
                params["labelSelector"] = envelope.label_selector
            return await self._api.call(work.owner, "GET", work.path(), params=params)
        if envelope.method == "logs":
            params = {
                "tailLines": str(envelope.tail_lines or _LOG_LINES),
                "limitBytes": str(MAX_RESULT_BYTES // 2),
            }
            if envelope.container:
                params["container"] = envelope.container
            return await self._api.call(work.owner, "GET", work.path("log"), params=params)
        return await self._api.call(work.owner, "GET", work.path())


_GIVEN_UP = Refusal(
    "in_doubt",
    "The master was cut off while it executed the request, and the cluster doesn't show whether it happened. "
    "It isn't repeated, because it may have run. Look at the object, then submit a new request.",
)


def _prepared(work: Work) -> dict[str, Any]:
    payload, resource = work.envelope.payload, work.resource
    assert payload is not None
    return prepared(payload, resource.pod, resource.runs_once, work.namespace, work.node_id, work.request_id)


def _identity(found: Answer) -> dict[str, Any]:
    metadata = found.metadata()
    return {key: metadata[key] for key in ("uid", "generation") if key in metadata}


def _managers(found: Answer) -> set[object]:
    entries = found.metadata().get("managedFields")
    return {entry.get("manager") for entry in entries or [] if isinstance(entry, dict)}


# -- results -----------------------------------------------------------------------------------------------


def result_of(work: Work, outcome: Answer | Refusal, executed_ms: int) -> tuple[bytes, dict[str, str] | None]:
    """(the result's canonical bytes, the error for the owner if it failed), at most MAX_RESULT_BYTES."""
    envelope = work.envelope
    result: dict[str, Any] = {
        "apiVersion": API_VERSION,
        "kind": "Result",
        "request_id": work.request_id,
        "node_id": work.node_id,
        "namespace": work.namespace,
        "method": envelope.method,
        "resource": envelope.resource,
        "name": envelope.name,
        "outcome": "succeeded",
        "executed_at_ms": executed_ms,
        "truncated": False,
    }
    if isinstance(outcome, Refusal) or not outcome.ok:
        code, message = (
            (outcome.code, outcome.message)
            if isinstance(outcome, Refusal)
            else (outcome.reason(), outcome.message())
        )
        result |= {"outcome": "failed", "error": {"code": code, "message": message}}
        return canonical(result), {"code": code, "message": message}
    if envelope.method == "logs":
        result["log"] = outcome.body if isinstance(outcome.body, str) else canonical(outcome.body).decode()
    elif envelope.method == "list":
        _put_items(result, outcome.object())
    elif envelope.method != "delete":
        result["object"] = _shown(outcome.object())
    raw = canonical(result)
    if outcome.body is None or len(raw) > MAX_RESULT_BYTES:
        # The outcome stands; what is too large is left out.
        for key in ("log", "object", "items"):
            result.pop(key, None)
        raw = canonical(result | {"truncated": True})
    return raw, None


def _put_items(result: dict[str, Any], listed: dict[str, Any]) -> None:
    """As many of the items as fit."""
    items = listed.get("items")
    items = items if isinstance(items, list) else []
    room, shown = MAX_RESULT_BYTES - len(canonical(result)) - 1024, []
    for item in items:
        trimmed = _shown(item) if isinstance(item, dict) else item
        room -= len(canonical(trimmed)) + 1
        if room < 0:
            break
        shown.append(trimmed)
    metadata = listed.get("metadata")
    more = isinstance(metadata, dict) and bool(metadata.get("continue"))
    result |= {"items": shown, "truncated": more or len(shown) < len(items)}


def _shown(found: dict[str, Any]) -> dict[str, Any]:
    """The object without the bookkeeping of its fields' managers, which is longer than itself."""
    metadata = found.get("metadata")
    if not isinstance(metadata, dict):
        return found
    kept = {key: value for key, value in metadata.items() if key != "managedFields"}
    return found | {"metadata": kept}
