"""The object that is applied: the payload in its owner's namespace, marked and sent to the picked worker.

The contract picked a worker and pays it, so its pods should run there. A Pod and a Job must (nodeSelector):
they end, and nobody else is paid for them. What goes on running prefers that worker (affinity of the highest
weight), so that it outlives it.
"""

from __future__ import annotations

import copy
from typing import Any

from k3s_daas.requests.schema import NotAllowed

LABEL_REQUEST = "k3s-daas/request"
HOSTNAME = "kubernetes.io/hostname"


def field_manager(request_id: int) -> str:
    """The name under which a request writes: no other write ever has it."""
    return f"k3s-daas-request-{request_id}"


def prepared(
    payload: dict[str, Any],
    pod: tuple[str, ...] | None,
    runs_once: bool,
    namespace: str,
    node_id: str,
    request_id: int,
) -> dict[str, Any]:
    """A copy of `payload` to apply. Raises NotAllowed for what can't be placed."""
    made = copy.deepcopy(payload)
    made["metadata"]["namespace"] = namespace
    made["metadata"].setdefault("labels", {})[LABEL_REQUEST] = str(request_id)
    if pod is not None:
        spec = pod_spec_of(made, pod)
        # Nothing of ours calls the API server from a pod.
        spec["automountServiceAccountToken"] = False
        if runs_once:
            _pin(spec, node_id)
        else:
            _prefer(spec, node_id)
    return made


def pod_spec_of(payload: dict[str, Any], path: tuple[str, ...]) -> dict[str, Any]:
    """The pod's spec in an object. Raises NotAllowed when there is none."""
    found: Any = payload
    for step in path:
        found = found.get(step) if isinstance(found, dict) else None
    if not isinstance(found, dict):
        raise NotAllowed(f"no object at {'.'.join(path)}", "a pod's spec there")
    return found


def _pin(spec: dict[str, Any], node_id: str) -> None:
    selector = spec.setdefault("nodeSelector", {})
    if not isinstance(selector, dict) or HOSTNAME in selector:
        raise NotAllowed(f"a nodeSelector with {HOSTNAME}", "none: the contract picked the worker")
    selector[HOSTNAME] = node_id


def _prefer(spec: dict[str, Any], node_id: str) -> None:
    affinity = spec.setdefault("affinity", {})
    node = affinity.setdefault("nodeAffinity", {}) if isinstance(affinity, dict) else None
    key = "preferredDuringSchedulingIgnoredDuringExecution"
    terms = node.setdefault(key, []) if isinstance(node, dict) else None
    if not isinstance(terms, list):
        raise NotAllowed(f"affinity without a list at nodeAffinity.{key}", "affinity as Kubernetes has it")
    wanted = {"key": HOSTNAME, "operator": "In", "values": [node_id]}
    terms.append({"weight": 100, "preference": {"matchExpressions": [wanted]}})
