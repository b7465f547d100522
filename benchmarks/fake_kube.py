"""A Kubernetes API for a master with a thousand workers. A fake, as small as that needs.

    python benchmarks/fake_kube.py PORT CA_PEM_FILE

It keeps Secrets, and lists a Ready node with a lease renewed just now for each bootstrap token it was ever
given: every worker joins at once and stays well. The nodes are about as big as real ones. Plain HTTP.
"""

from __future__ import annotations

import asyncio
import base64
import datetime as dt
import json
import sys
from pathlib import Path
from typing import Any

import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Route

SECRETS = "/api/v1/namespaces/kube-system/secrets"


class FakeKube:
    def __init__(self, ca_pem: bytes) -> None:
        self._ca_pem = ca_pem
        self._secrets: dict[str, dict[str, Any]] = {}
        self._nodes: dict[str, str] = {}

    def app(self) -> Starlette:
        leases = "/apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases"
        return Starlette(
            routes=[
                Route("/cacerts", self._cacerts),
                Route("/api/v1/nodes", self._list_nodes),
                Route(leases, self._list_leases),
                Route(SECRETS, self._list_secrets),
                Route(SECRETS, self._create_secret, methods=["POST"]),
                Route(SECRETS + "/{name}", self._secret, methods=["GET", "PUT", "DELETE"]),
            ]
        )

    async def _cacerts(self, _: Request) -> Response:
        return PlainTextResponse(self._ca_pem)

    async def _list_nodes(self, request: Request) -> Response:
        return _listed("v1", "Node", list(self._nodes.values()), request)

    async def _list_leases(self, request: Request) -> Response:
        renewed = dt.datetime.now(dt.UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
        meta = '{{"name":"{}","namespace":"kube-node-lease"}}'
        spec = f'{{"holderIdentity":"kubelet","leaseDurationSeconds":40,"renewTime":"{renewed}"}}'
        items = [f'{{"metadata":{meta.format(name)},"spec":{spec}}}' for name in self._nodes]
        return _listed("coordination.k8s.io/v1", "Lease", items, request)

    async def _list_secrets(self, request: Request) -> Response:
        type_ = request.query_params.get("fieldSelector", "").removeprefix("type=")
        node = request.query_params.get("labelSelector", "").removeprefix("k3s-daas/node=")
        items = [
            json.dumps(secret)
            for secret in self._secrets.values()
            if secret["type"] == type_ and node in ("", secret["metadata"]["labels"]["k3s-daas/node"])
        ]
        return _listed("v1", "Secret", items, request)

    async def _create_secret(self, request: Request) -> Response:
        secret = _stored(await request.json())
        name = secret["metadata"]["name"]
        if name in self._secrets:
            return _status(409, "AlreadyExists")
        self._secrets[name] = secret
        if name.startswith("bootstrap-token-"):
            node = secret["metadata"]["labels"]["k3s-daas/node"]
            self._nodes[node] = json.dumps(_node(node))
        return JSONResponse(secret, 201)

    async def _secret(self, request: Request) -> Response:
        name = request.path_params["name"]
        if name not in self._secrets:
            return _status(404, "NotFound")
        if request.method == "DELETE":
            del self._secrets[name]
            return _status(200, "Success")
        if request.method == "PUT":
            self._secrets[name] = _stored(await request.json())
        return JSONResponse(self._secrets[name])


def _listed(version: str, kind: str, items: list[str], request: Request) -> Response:
    start = int(request.query_params.get("continue", 0))
    end = start + int(request.query_params.get("limit", len(items)))
    more = json.dumps({"continue": str(end)} if end < len(items) else {})
    head = f'{{"apiVersion":"{version}","kind":"{kind}List","metadata":{more},"items":['
    return Response(head + ",".join(items[start:end]) + "]}", media_type="application/json")


def _status(code: int, reason: str) -> Response:
    outcome = "Success" if code < 400 else "Failure"
    body = {"kind": "Status", "apiVersion": "v1", "status": outcome, "code": code, "reason": reason}
    return JSONResponse(body | {"message": reason}, code)


def _stored(secret: dict[str, Any]) -> dict[str, Any]:
    plain = secret.pop("stringData", None) or {}
    coded = {key: base64.b64encode(value.encode()).decode() for key, value in plain.items()}
    return secret | {"data": (secret.get("data") or {}) | coded}


def _node(name: str) -> dict[str, Any]:
    now = dt.datetime.now(dt.UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    conditions = [
        {
            "type": kind,
            "status": "True" if kind == "Ready" else "False",
            "reason": f"Kubelet{kind}",
            "message": f"kubelet says what it has to say about {kind}",
            "lastHeartbeatTime": now,
            "lastTransitionTime": now,
        }
        for kind in ("MemoryPressure", "DiskPressure", "PIDPressure", "Ready")
    ]
    images = [
        {
            "names": [f"registry.example/app-{n}@sha256:{n:064x}", f"registry.example/app-{n}:1.0"],
            "sizeBytes": 10**8,
        }
        for n in range(15)
    ]
    return {
        "metadata": {
            "name": name,
            "labels": {f"kubernetes.io/label-{n}": "value" for n in range(8)},
        },
        "spec": {"podCIDR": "10.42.0.0/24", "providerID": f"k3s://{name}"},
        "status": {
            "addresses": [
                {"type": "InternalIP", "address": "10.0.0.1"},
                {"type": "Hostname", "address": name},
            ],
            "capacity": {"cpu": "8", "memory": "32Gi", "pods": "110", "ephemeral-storage": "100Gi"},
            "allocatable": {"cpu": "8", "memory": "32Gi", "pods": "110", "ephemeral-storage": "90Gi"},
            "conditions": conditions,
            "images": images,
        },
    }


def main() -> None:
    port, ca_file = sys.argv[1:]
    app = FakeKube(Path(ca_file).read_bytes()).app()
    config = uvicorn.Config(app, port=int(port), log_level="warning", access_log=False)
    asyncio.run(uvicorn.Server(config).serve())


if __name__ == "__main__":
    main()
