"""The API server's authorization webhook: may the holder of this node's certificate still ask for anything?

k3s' certificates live for a year and can't be taken back, so what they open is decided with every request
(the API server keeps an answer for 2 s). Of three users, all that a node has:

- `system:node:NAME`: refused unless NAME is a registered worker that is neither slashed nor, when it leaves,
  without its Node already.
- `system:kube-proxy` and `system:k3s-controller`, the same on every node: refused unless a worker that is in
  claims the certificate (certificates.py). What tells nothing is left to everybody: whether the server is
  ready, what one may do, where the API server is. k3s' own server, which nobody staked for, wants no more.

For all others, and whenever nothing is known yet, it has no opinion, and the API server's own rules decide.
"""

from __future__ import annotations

from collections.abc import Callable, Container
from typing import Any, Literal

import msgspec

from k3s_daas.registry import WorkerStatus
from k3s_daas_master.certificates import Certificates, stake_of
from k3s_daas_master.errors import ApiError
from k3s_daas_master.index import TokenIndex

API_VERSION = "authorization.k8s.io/v1"
NODE_USER = "system:node:"
SHARED_USERS = frozenset({"system:kube-proxy", "system:k3s-controller"})
CREDENTIAL = "authentication.kubernetes.io/credential-id"
_SHA256 = "X509SHA256="


class _Resource(msgspec.Struct):
    group: str = ""
    resource: str = ""
    namespace: str = ""


class _Spec(msgspec.Struct):
    user: str = ""
    extra: dict[str, list[str]] | None = None
    resourceAttributes: _Resource | None = None


class _Review(msgspec.Struct):
    """What we read of a SubjectAccessReview; what else the API server puts in is let through."""

    apiVersion: Literal["authorization.k8s.io/v1"]
    kind: Literal["SubjectAccessReview"]
    spec: _Spec


_decode = msgspec.json.Decoder(_Review).decode


def _answer(**status: Any) -> bytes:
    body = {"apiVersion": API_VERSION, "kind": "SubjectAccessReview", "status": {"allowed": False, **status}}
    return msgspec.json.encode(body)


_NO_OPINION = _answer()


class NodeAccess:
    """Answers from the index and the workers' claims.

    `nodes()` is who is in the cluster, None while nobody has looked; `was_removed` says of a name, while the
    registry hasn't been read, whether its node was taken out.
    """

    def __init__(
        self,
        index: TokenIndex,
        certificates: Certificates,
        nodes: Callable[[], Container[str] | None],
        was_removed: Callable[[str], bool],
    ) -> None:
        self._index = index
        self._certificates = certificates
        self._nodes = nodes
        self._was_removed = was_removed

    def review(self, body: bytes) -> tuple[bool, bytes]:
        """(denied, the SubjectAccessReview to answer with). Raises ApiError for what isn't one."""
        try:
            spec = _decode(body).spec
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            raise ApiError(
                "bad_request",
                "This isn't a SubjectAccessReview.",
                f"{len(body)} bytes: {error}",
                f"a SubjectAccessReview of {API_VERSION} with spec.user",
                "Configure the API server's authorizer with subjectAccessReviewVersion: v1.",
            ) from None
        why = self.why_refused(spec)
        return (False, _NO_OPINION) if why is None else (True, _answer(denied=True, reason=why))

    def why_refused(self, spec: _Spec) -> str | None:
        if spec.user.startswith(NODE_USER):
            return self.why_out(spec.user.removeprefix(NODE_USER))
        if spec.user not in SHARED_USERS or not self._index.loaded or _tells_nothing(spec.resourceAttributes):
            return None
        for credential in (spec.extra or {}).get(CREDENTIAL, []):
            for stake in self._certificates.holders(credential.removeprefix(_SHA256)):
                worker = self._index.workers.get(stake[0])
                if worker is not None and stake_of(worker) == stake and self.why_out(stake[0]) is None:
                    return None
        return f"no worker of the fleet says that this certificate of {spec.user} is its own"

    def why_out(self, node_id: str, *, gone: bool = False) -> str | None:
        """Why this node may ask for nothing; None when it may. `gone`: its Node is known to be deleted."""
        if not self._index.loaded:
            return f"{node_id} was removed" if self._was_removed(node_id) else None
        worker = self._index.workers.get(node_id)
        if worker is None:
            return f"{node_id} is no registered worker"
        if worker.status is WorkerStatus.SLASHED:
            return f"{node_id} is slashed"
        if worker.status is WorkerStatus.UNBONDING:
            nodes = self._nodes()
            if gone or (nodes is not None and node_id not in nodes):
                return f"{node_id} has left"
        return None


def _tells_nothing(resource: _Resource | None) -> bool:
    """What k3s asks for, on servers and agents, before anything else works; None: not a resource, a path."""
    if resource is None or resource.group == "authorization.k8s.io":
        return True
    asked = (resource.group, resource.resource, resource.namespace)
    return asked == ("discovery.k8s.io", "endpointslices", "default")
