"""Fakes of the two sides of a request.

`Book` is a fake of the contract's book, beside `FakeChain`. `OwnersKube` fakes what the API server does
with an impersonated owner's calls: server-side apply with field managers, uid preconditions, dry runs, the
scale subresource, and no rights outside of the owner's namespace. It records every call and every effect.
"""

from __future__ import annotations

import base64
import copy
import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Route

from k3s_daas.chain import MoveAbort, Receipt
from k3s_daas.registry import OpenRequest, WorkerStatus
from k3s_daas.requests.schema import encode
from k3s_daas.tenancy import tenant_namespace

WINDOW_MS = 600_000
OWNER = "0x" + "0a" * 32
OTHER = "0x" + "0b" * 32


def abort(name: str) -> MoveAbort:
    return MoveAbort("k8s_scheduler", "fake", 1, name, name)


class Book:
    """The contract's rules for requests, on top of a FakeChain that carries the events."""

    def __init__(self, chain: Any) -> None:
        self.chain = chain
        self.open: dict[int, OpenRequest] = {}
        self.ended: dict[int, tuple[str, bytes]] = {}
        self.last_id = 0
        #: What happened, in order; the cluster writes into it, too.
        self.log: list[tuple[str, Any]] = []
        self.refuse: Callable[[str, int], Exception | None] = lambda call, request_id: None

    def submit(
        self, raw: bytes, owner: str = OWNER, node_id: str = "worker-1", priority: int = 5, seen: bool = True
    ) -> int:
        """Put a request on-chain; returns its id. Not `seen`: its event is lost."""
        self.last_id += 1
        now = self.chain.clock.ms
        request = OpenRequest(
            self.last_id,
            owner,
            "0x" + "9f" * 32,
            node_id,
            hashlib.sha256(raw).digest(),
            priority,
            10**6,
            False,
            now,
            now + WINDOW_MS,
        )
        self.open[self.last_id] = request
        if seen:
            self.chain.emit(
                "k8s_scheduler::K8sAPIRequestScheduledEvent",
                request_id=str(request.request_id),
                requester=owner,
                node_id=node_id,
                payload_hash=b64(request.payload_hash),
                priority=priority,
                deposit=str(request.deposit_mist),
                deadline_ms=str(request.deadline_ms),
            )
        return self.last_id

    async def open_requests(self) -> list[OpenRequest]:
        self.chain._reading()
        return sorted(self.open.values(), key=lambda request: request.request_id)

    async def open_request(self, request_id: int) -> OpenRequest | None:
        self.chain._reading()
        return self.open.get(request_id)

    async def claim_request(self, request_id: int) -> Receipt:
        request = self._checked("claim", request_id)
        if request.claimed:
            raise abort("ERequestClaimed")
        if self.chain.clock.ms >= request.deadline_ms:
            raise abort("ERequestExpired")
        self.open[request_id] = replace(request, claimed=True)
        self.log.append(("claimed", request_id))
        return self._done("Claimed", request_id)

    async def complete_request(self, request_id: int, result_hash: bytes) -> Receipt:
        request = self._checked("complete", request_id)
        if not request.claimed:
            raise abort("ERequestNotClaimed")
        if self.chain.clock.ms >= request.deadline_ms:
            raise abort("ERequestExpired")
        if self.chain.workers[request.node_id].status is WorkerStatus.SLASHED:
            raise abort("EWorkerSlashed")
        del self.open[request_id]
        self.ended[request_id] = ("completed", result_hash)
        self.log.append(("completed", request_id))
        return self._done(
            "Completed",
            request_id,
            payload_hash=b64(request.payload_hash),
            result_hash=b64(result_hash),
            deposit=str(request.deposit_mist),
            reward="0",
        )

    async def time_out_request(self, request_id: int) -> Receipt:
        request = self._checked("time_out", request_id)
        if self.chain.clock.ms < request.deadline_ms:
            raise abort("ERequestNotExpired")
        del self.open[request_id]
        self.ended[request_id] = ("timed out", b"")
        self.log.append(("timed out", request_id))
        return self._done(
            "TimedOut",
            request_id,
            requester=request.requester,
            refund=str(request.deposit_mist),
            missed=request.claimed,
        )

    def _checked(self, call: str, request_id: int) -> OpenRequest:
        if (error := self.refuse(call, request_id)) is not None:
            raise error
        if request_id not in self.open:
            raise abort("ERequestNotFound")
        return self.open[request_id]

    def _done(self, what: str, request_id: int, **fields: Any) -> Receipt:
        node_id = fields.pop("node_id", None) or self._node(request_id)
        batch = self.chain.emit(
            f"k8s_scheduler::K8sAPIRequest{what}Event", request_id=str(request_id), node_id=node_id, **fields
        )
        return Receipt("digest", batch.sequence, 1000, [], {})

    def _node(self, request_id: int) -> str:
        return self.open[request_id].node_id if request_id in self.open else "worker-1"


def b64(raw: bytes) -> str:
    return base64.b64encode(raw).decode()


@dataclass
class Call:
    """One call of an owner's, as the API server sees it."""

    method: str
    path: str
    query: dict[str, str]
    user: str
    groups: list[str]
    body: dict[str, Any]

    @property
    def dry(self) -> bool:
        # As the API server has it: the options of a DELETE come from its body, if there is one.
        if self.method == "DELETE" and self.body:
            return self.body.get("dryRun") == ["All"]
        return self.query.get("dryRun") == "All"


@dataclass
class OwnersKube:
    """Objects by (resource, namespace, name)."""

    log: list[tuple[str, Any]] = field(default_factory=list)
    objects: dict[tuple[str, str, str], dict[str, Any]] = field(default_factory=dict)
    calls: list[Call] = field(default_factory=list)
    #: Effects: (what, field manager or user, path).
    effects: list[tuple[str, str, str]] = field(default_factory=list)
    #: May answer a call itself; told before anything is done.
    intercept: Callable[[Call], Response | None] = lambda call: None
    made: int = 0

    def app(self) -> Starlette:
        methods = ["GET", "PATCH", "DELETE"]
        routes = []
        for root in ("/api/v1", "/apis/apps/v1", "/apis/batch/v1"):
            base = root + "/namespaces/{ns}/{resource}"
            routes += [
                Route(base, self._any, methods=["GET"]),
                Route(base + "/{name}", self._any, methods=methods),
                Route(base + "/{name}/{sub}", self._any, methods=methods),
            ]
        return Starlette(routes=routes)

    def put(self, resource: str, name: str, owner: str = OWNER, **parts: Any) -> dict[str, Any]:
        """Something that is there without any request."""
        self.made += 1
        namespace = tenant_namespace(owner)
        found = {
            "apiVersion": "v1",
            "kind": resource,
            "metadata": {
                "name": name,
                "namespace": namespace,
                "uid": f"uid-{self.made}",
                "generation": 1,
                "managedFields": [],
            },
            **parts,
        }
        self.objects[resource, namespace, name] = found
        return found

    def get(self, resource: str, name: str, owner: str = OWNER) -> dict[str, Any] | None:
        return self.objects.get((resource, tenant_namespace(owner), name))

    def wrote(self) -> list[Call]:
        """The calls that were to change something."""
        return [call for call in self.calls if call.method != "GET" and not call.dry]

    async def _any(self, request: Request) -> Response:
        raw = await request.body()
        call = Call(
            request.method,
            request.url.path,
            dict(request.query_params),
            request.headers.get("impersonate-user", ""),
            request.headers.getlist("impersonate-group"),
            json.loads(raw) if raw else {},
        )
        self.calls.append(call)
        assert request.headers["authorization"] == "Bearer admin", "the master's own identity"
        if (answer := self.intercept(call)) is not None:
            return answer
        params = request.path_params
        if not call.user or params["ns"] != tenant_namespace(call.user):
            return failure(403, "Forbidden", f'User "{call.user}" cannot {call.method.lower()} there')
        if call.groups != ["k3s-daas:owners"]:
            return failure(403, "Forbidden", f"groups {call.groups} have no rights")
        key = (params["resource"], params["ns"], params.get("name", ""))
        match (request.method, params.get("sub")):
            case ("GET", "log"):
                return PlainTextResponse("one\ntwo\n")
            case ("GET", None) if key[2]:
                return JSONResponse(self.objects[key]) if key in self.objects else failure(404, "NotFound")
            case ("GET", None):
                items = [item for at, item in self.objects.items() if at[:2] == key[:2]]
                return JSONResponse(
                    {"kind": "List", "metadata": {}, "items": items[: int(call.query["limit"])]}
                )
            case ("PATCH", None):
                assert request.headers["content-type"] == "application/apply-patch+yaml"
                return self._apply(key, call)
            case ("PATCH", "scale"):
                assert request.headers["content-type"] == "application/merge-patch+json"
                return self._scale(key, call)
            case ("DELETE", None):
                return self._delete(key, call)
        return failure(405, "MethodNotAllowed")

    def _apply(self, key: tuple[str, str, str], call: Call) -> Response:
        old, body = self.objects.get(key), copy.deepcopy(call.body)
        uid = body["metadata"].pop("uid", None)
        if uid is not None and (old is None or old["metadata"]["uid"] != uid):
            return failure(409, "Conflict", "uid mismatch")
        assert call.query["force"] == "true"
        manager = call.query["fieldManager"]
        meta: dict[str, Any]
        if old is None:
            meta = {"uid": f"uid-{self.made + 1}", "generation": 1, "managedFields": []}
            effect = "create"
        else:
            meta = dict(old["metadata"])
            same = all(old.get(part) == body[part] for part in body if part != "metadata")
            known = any(entry["manager"] == manager for entry in meta["managedFields"])
            effect = "nothing" if same and known else "update"
            meta["generation"] += 0 if same else 1
        entry = {"manager": manager, "operation": "Apply"}
        meta["managedFields"] = [e for e in meta["managedFields"] if e["manager"] != manager] + [entry]
        meta |= body.pop("metadata")
        made = {**(old or {}), **body, "metadata": meta}
        if not call.dry:
            self.made += 1
            self.objects[key] = made
            self._effect(effect, manager, call.path)
        return JSONResponse(made, 200 if old else 201)

    def _scale(self, key: tuple[str, str, str], call: Call) -> Response:
        old = self.objects.get(key)
        if old is None:
            return failure(404, "NotFound")
        uid = call.body["metadata"].get("uid")
        if uid is not None and uid != old["metadata"]["uid"]:
            return failure(409, "Conflict", "uid mismatch")
        manager, replicas = call.query["fieldManager"], call.body["spec"]["replicas"]
        if not call.dry:
            changed = old["spec"]["replicas"] != replicas
            old["spec"]["replicas"] = replicas
            old["metadata"]["generation"] += changed
            entry = {"manager": manager, "operation": "Update", "subresource": "scale"}
            old["metadata"]["managedFields"].append(entry)
            self._effect("scale" if changed else "nothing", manager, call.path)
        return JSONResponse({"kind": "Scale", "metadata": {"uid": uid}, "spec": {"replicas": replicas}})

    def _delete(self, key: tuple[str, str, str], call: Call) -> Response:
        old = self.objects.get(key)
        if old is None:
            return failure(404, "NotFound")
        uid = call.body.get("preconditions", {}).get("uid")
        if uid is not None and uid != old["metadata"]["uid"]:
            return failure(409, "Conflict", "uid mismatch")
        if not call.dry:
            del self.objects[key]
            self._effect("delete", call.user, call.path)
        return JSONResponse({"kind": "Status", "status": "Success"})

    def _effect(self, what: str, who: str, path: str) -> None:
        if what != "nothing":
            self.effects.append((what, who, path))
            self.log.append(("effect", path))


def failure(code: int, reason: str, message: str = "") -> JSONResponse:
    body = {
        "kind": "Status",
        "status": "Failure",
        "code": code,
        "reason": reason,
        "message": message or reason,
    }
    return JSONResponse(body, code)


def configmap(name: str = "web", **data: str) -> dict[str, Any]:
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}, "data": data or {"a": "1"}}


def job(name: str = "once") -> dict[str, Any]:
    pod = {"restartPolicy": "Never", "containers": [{"name": "c", "image": "busybox"}]}
    return {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": {"name": name},
        "spec": {"template": {"spec": pod}},
    }


def apply(payload: dict[str, Any], resource: str, **more: Any) -> bytes:
    name = payload["metadata"]["name"]
    return encode(method="apply", resource=resource, name=name, payload=payload, **more)


def attach(chain: Any) -> Book:
    book = chain.book = Book(chain)
    for name in ("open_requests", "open_request", "claim_request", "complete_request", "time_out_request"):
        setattr(chain, name, getattr(book, name))
    return book
