"""What a request may do. The client checks it before it pays, the master before it claims.

Kubernetes' own rules (the owner's Role, quota, Pod Security) come on top: the master acts as the owner.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from k3s_daas import logs
from k3s_daas.requests.manifest import pod_spec_of, prepared
from k3s_daas.requests.schema import METHODS, Envelope, NotAllowed, canonical

_NAME = re.compile(r"[a-z0-9](?:[-a-z0-9]*[a-z0-9])?(?:\.[a-z0-9](?:[-a-z0-9]*[a-z0-9])?)*", re.ASCII)
_METADATA = frozenset({"name", "namespace", "labels", "annotations"})


@dataclass(frozen=True)
class Resource:
    """A kind that requests may touch. `pod` is where its pods' spec is; `runs_once`: making it twice would
    do its work twice."""

    plural: str
    api_version: str
    kind: str
    fields: frozenset[str]
    pod: tuple[str, ...] | None = None
    runs_once: bool = False
    scales: bool = False

    def path(self, namespace: str, name: str | None = None, sub: str = "") -> str:
        """Its path at the API server. The parts are checked names by then."""
        root = "api" if "/" not in self.api_version else "apis"
        path = f"/{root}/{self.api_version}/namespaces/{namespace}/{self.plural}"
        return "/".join(part for part in (path, name, sub) if part)


_SPEC = frozenset({"spec"})
_TEMPLATE = ("spec", "template", "spec")
#: Everything that can be allowed. Secrets and what gives rights are not among it and can't be configured.
RESOURCES = {
    resource.plural: resource
    for resource in (
        Resource("configmaps", "v1", "ConfigMap", frozenset({"data", "binaryData", "immutable"})),
        Resource("services", "v1", "Service", _SPEC),
        Resource("persistentvolumeclaims", "v1", "PersistentVolumeClaim", _SPEC),
        Resource("pods", "v1", "Pod", _SPEC, ("spec",), runs_once=True),
        Resource("deployments", "apps/v1", "Deployment", _SPEC, _TEMPLATE, scales=True),
        Resource("statefulsets", "apps/v1", "StatefulSet", _SPEC, _TEMPLATE, scales=True),
        Resource("jobs", "batch/v1", "Job", _SPEC, _TEMPLATE, runs_once=True),
        Resource("cronjobs", "batch/v1", "CronJob", _SPEC, ("spec", "jobTemplate", *_TEMPLATE)),
    )
}


class Policy:
    """The methods and resources that an operator lets requests use."""

    def __init__(self, methods: Iterable[str] = METHODS, resources: Iterable[str] = RESOURCES) -> None:
        self.methods = frozenset(methods)
        self.resources = frozenset(resources)

    def check(self, envelope: Envelope, namespace: str) -> Resource:
        """The resource of a request that may run in the owner's `namespace`. Raises NotAllowed."""
        if envelope.method not in self.methods:
            raise NotAllowed(f"method {envelope.method}", f"one of {_listed(self.methods)}", _ALLOW)
        resource = RESOURCES.get(envelope.resource)
        if resource is None or resource.plural not in self.resources:
            raise NotAllowed(f"resource {envelope.resource!r}", f"one of {_listed(self.resources)}", _ALLOW)
        if envelope.namespace not in (None, namespace):
            raise NotAllowed(f"namespace {envelope.namespace!r}", f"{namespace}, the owner's, or none")
        if envelope.name is not None:
            _check_name(envelope.name)
        if envelope.method == "scale" and not resource.scales:
            raise NotAllowed(f"scale of {resource.plural}", "deployments or statefulsets")
        if envelope.method == "logs" and resource.plural != "pods":
            raise NotAllowed(f"logs of {resource.plural}", "logs of pods")
        if envelope.payload is not None:
            _check_object(envelope, resource, envelope.payload, namespace)
        return resource


_ALLOW = "The master's operator sets what requests may do; kubectl may do more."


def _listed(names: Iterable[str]) -> str:
    return ", ".join(sorted(names)) or "nothing: requests are turned off"


def _check_name(name: str) -> None:
    if len(name) > 253 or not _NAME.fullmatch(name):
        raise NotAllowed(f"name {name!r:.80}", "a Kubernetes name: a-z, 0-9, '-' and '.'")


def _check_object(envelope: Envelope, resource: Resource, payload: dict[str, Any], namespace: str) -> None:
    found = (payload.get("apiVersion"), payload.get("kind"))
    if found != (resource.api_version, resource.kind):
        # Among others a Secret, and a List with anything in it.
        raise NotAllowed(
            f"payload of apiVersion {found[0]!r:.40}, kind {found[1]!r:.40}",
            f"{resource.api_version}, {resource.kind}, as {resource.plural} are",
        )
    unknown = set(payload) - {"apiVersion", "kind", "metadata"} - resource.fields
    if unknown:
        raise NotAllowed(
            f"payload with {_some(unknown)}", f"metadata and {_listed(resource.fields)} in a {resource.kind}"
        )
    _check_metadata(envelope, payload.get("metadata"), namespace)
    text = canonical(payload).decode()
    if logs.redact(text) != text:
        raise NotAllowed(
            "a payload with what looks like a token, a password or a private key in it",
            "no secrets: their hash would be on-chain, and the master keeps the payload for a while",
            "Make a Secret with kubectl and refer to it.",
        )
    pod = pod_spec_of(payload, resource.pod) if resource.pod else None
    if pod is not None:
        _check_pod(pod)
    # What can't be placed on a worker is found here, not after the claim.
    prepared(payload, resource.pod, resource.runs_once, namespace, "node", 0)


def _check_metadata(envelope: Envelope, metadata: Any, namespace: str) -> None:
    if not isinstance(metadata, dict):
        raise NotAllowed("a payload without metadata", "metadata with the object's name")
    if unknown := set(metadata) - _METADATA:
        raise NotAllowed(f"metadata with {_some(unknown)}", f"at most {_listed(_METADATA)}")
    if metadata.get("name") != envelope.name:
        raise NotAllowed(
            f"metadata.name {metadata.get('name')!r:.80}", f"{envelope.name}, as the request says"
        )
    if metadata.get("namespace", namespace) != namespace:
        raise NotAllowed(f"metadata.namespace {metadata['namespace']!r:.80}", f"{namespace}, or none")
    for part in ("labels", "annotations"):
        given = metadata.get(part, {})
        if not isinstance(given, dict) or not all(isinstance(value, str) for value in given.values()):
            raise NotAllowed(f"metadata.{part} that are no texts by name", "texts by name")
        if ours := [key for key in given if key.startswith("k3s-daas/")]:
            raise NotAllowed(f"metadata.{part} with {_some(ours)}", "none that begin with k3s-daas/")


def _check_pod(spec: dict[str, Any]) -> None:
    if "nodeName" in spec:
        raise NotAllowed("nodeName in a pod's spec", "none: the contract picked the worker")
    for field in ("serviceAccountName", "serviceAccount"):
        if spec.get(field, "default") != "default":
            raise NotAllowed(f"{field} {spec[field]!r:.60}", "the default service account, which may nothing")
    if spec.get("automountServiceAccountToken"):
        raise NotAllowed("automountServiceAccountToken", "pods without a service account's token")
    volumes = spec.get("volumes", [])
    for volume in volumes if isinstance(volumes, list) else []:
        projected = volume.get("projected") if isinstance(volume, dict) else None
        sources = projected.get("sources") if isinstance(projected, dict) else None
        for source in sources if isinstance(sources, list) else []:
            if isinstance(source, dict) and "serviceAccountToken" in source:
                raise NotAllowed("a volume with a serviceAccountToken", "no service account tokens")


def _some(names: Iterable[object]) -> str:
    return ", ".join(sorted(repr(name)[:40] for name in names)[:5])
