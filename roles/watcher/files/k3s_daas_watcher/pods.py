"""How many pods run on this node: asked of the API server with the node's own kubelet credentials.

The kubelet's read-only port is off, and its other one wants credentials that no kubelet has. A kubelet may
list the pods of its own node, so its certificate is what is needed. That is root's: the oneshot
`k3s-daas-kubelet-credentials` copies it to where this service may read it, whenever the agent has a new one.
"""

from __future__ import annotations

import json
import ssl
from pathlib import Path
from typing import Any

import httpx

from k3s_daas import logs

log = logs.get_logger(__name__)

CERTIFICATE, KEY = "client-kubelet.crt", "client-kubelet.key"
# Names and states of the most pods that a node holds, without the pods themselves, stay far below.
MAX_ANSWER_BYTES = 1024 * 1024
TIMEOUT_S = 5.0
# One row per pod instead of all of each pod; a server that has no tables sends the pods.
ACCEPT = "application/json;as=Table;v=v1;g=meta.k8s.io, application/json"


class PodsUnknown(Exception):
    """The pods can't be counted; the text says why."""


class KubeletPods:
    """Asks over one connection, made anew when the credentials or the API server change."""

    def __init__(self, node_id: str, credentials: Path) -> None:
        self._node_id = node_id
        self._certificate, self._key = credentials / CERTIFICATE, credentials / KEY
        self._client: httpx.AsyncClient | None = None
        self._client_of: tuple[Any, ...] = ()
        self._said = ""

    async def count(self, api_server: str, ca_pem: str) -> int | None:
        """Pods in phase Running on this node; None when nobody can say. Never raises."""
        try:
            running = await self._count(api_server, ca_pem)
        except PodsUnknown as why:
            if str(why) != self._said:
                log.info("running pods unknown", why=str(why))
                self._said = str(why)
            return None
        self._said = ""
        return running

    async def close(self) -> None:
        """Close the connection."""
        client, self._client, self._client_of = self._client, None, ()
        if client is not None:
            await client.aclose()

    async def _count(self, api_server: str, ca_pem: str) -> int:
        client = await self._connected(api_server, ca_pem)
        selector = f"spec.nodeName={self._node_id},status.phase=Running"
        query = {"fieldSelector": selector, "includeObject": "None"}
        raw = bytearray()
        try:
            async with client.stream("GET", "/api/v1/pods", params=query) as response:
                if response.status_code != httpx.codes.OK:
                    raise PodsUnknown(f"{api_server} answered {response.status_code}")
                async for chunk in response.aiter_bytes():
                    raw += chunk
                    if len(raw) > MAX_ANSWER_BYTES:
                        raise PodsUnknown(f"{api_server} sent more than {MAX_ANSWER_BYTES} bytes")
        except httpx.HTTPError as error:
            raise PodsUnknown(f"{api_server}: {type(error).__name__}") from None
        try:
            answer = json.loads(raw)
            found = answer["rows"] if answer["kind"] == "Table" else answer["items"]
            return len(found)
        except (ValueError, KeyError, TypeError, RecursionError):
            raise PodsUnknown(f"{api_server} sent no list of pods") from None

    async def _connected(self, api_server: str, ca_pem: str) -> httpx.AsyncClient:
        try:
            # A new certificate is a new file. The key first: it is copied last.
            files = tuple(
                (path.stat().st_ino, path.stat().st_mtime_ns) for path in (self._key, self._certificate)
            )
        except OSError as error:
            await self.close()
            raise PodsUnknown(f"no kubelet credentials: {error.filename}: {error.strerror}") from None
        wanted = (api_server, ca_pem, files)
        if self._client is None or self._client_of != wanted:
            await self.close()
            try:
                context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
                context.minimum_version = ssl.TLSVersion.TLSv1_2
                context.load_verify_locations(cadata=ca_pem)
                context.load_cert_chain(self._certificate, self._key)
                self._client = httpx.AsyncClient(
                    base_url=api_server,
                    verify=context,
                    timeout=TIMEOUT_S,
                    trust_env=False,
                    headers={"Accept": ACCEPT, "Accept-Encoding": "identity"},
                )
            except (OSError, ValueError, httpx.InvalidURL) as error:
                # ssl.SSLError is an OSError: only one of the files is new yet, or they are something else.
                raise PodsUnknown(f"unusable kubelet credentials: {type(error).__name__}") from None
            self._client_of = wanted
        return self._client
