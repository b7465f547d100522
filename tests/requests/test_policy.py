"""What may be asked for, and that nothing else gets through, however it is written."""

from __future__ import annotations

import copy
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from k3s_daas import seal
from k3s_daas.requests.manifest import prepared
from k3s_daas.requests.policy import RESOURCES, Policy
from k3s_daas.requests.schema import (
    MAX_BODY_BYTES,
    Envelope,
    NotAllowed,
    canonical,
    encode,
    parse,
    strict_json,
)
from k3s_daas.tenancy import groups_of, tenant_namespace

OWNER = "0x" + "0a" * 32
MINE = tenant_namespace(OWNER)
POLICY = Policy()


def body(**fields: Any) -> bytes:
    return json.dumps({"apiVersion": "k3s-daas/v1", "kind": "Request"} | fields).encode()


def configmap(**changes: Any) -> dict[str, Any]:
    return {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": "web"},
        "data": {"a": "b"},
    } | changes


def applied(payload: Any, resource: str = "configmaps", name: str = "web") -> bytes:
    return body(method="apply", resource=resource, name=name, payload=payload)


def pod(**spec: Any) -> dict[str, Any]:
    return {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "web"}, "spec": {"containers": []} | spec}


def allowed(raw: bytes, policy: Policy = POLICY) -> Envelope:
    envelope = parse(raw)
    policy.check(envelope, MINE)
    return envelope


GOOD = [
    body(method="list", resource="pods"),
    body(method="list", resource="pods", label_selector="app=web,tier in (a, b)"),
    body(method="get", resource="jobs", name="a.b-c"),
    body(method="logs", resource="pods", name="web", container="c", tail_lines=5),
    body(method="scale", resource="deployments", name="web", replicas=0),
    body(method="delete", resource="services", name="web", nonce="7"),
    applied(configmap()),
    applied(configmap(metadata={"name": "web", "namespace": MINE, "labels": {"a": "b"}})),
    body(method="get", resource="pods", name="web", namespace=MINE),
    applied(
        pod(serviceAccountName="default", volumes=[{"name": "v", "secret": {"secretName": "s"}}]), "pods"
    ),
]


@pytest.mark.parametrize("raw", GOOD)
def test_what_may_be_asked(raw: bytes) -> None:
    allowed(raw)


BAD: list[tuple[bytes, str]] = [
    # not a request
    (b"", "strict JSON"),
    (b"[]", "a JSON list"),
    (b"\xff", "strict JSON"),
    (b'{"a": 1, "a": 2}', "twice"),
    (b'{"a": NaN}', "NaN"),
    (b'{"a": 1e999}', "too large"),
    (b'{"a": "\\ud800"}', "strict JSON"),
    (b'{"a": ' + b"9" * 5000 + b"}", "strict JSON"),
    (b"[" * 60_000, "strict JSON"),
    (b'{"a":' + b"[" * 50 + b"]" * 50 + b"}", "levels deep"),
    (b'"' + b"x" * MAX_BODY_BYTES + b'"', "at most 65536"),
    (body(method="list", resource="pods", apiVersion="v1"), "apiVersion"),
    (body(method="list", resource="pods", more=1), "more"),
    (body(method="exec", resource="pods", name="p"), "method"),
    (body(method="scale", resource="deployments", name="d", replicas=True), "replicas"),
    (body(method="scale", resource="deployments", name="d", replicas=-1), "replicas"),
    (body(method="scale", resource="deployments", name="d"), "scale without replicas"),
    (body(method="apply", resource="configmaps", name="web"), "apply without payload"),
    (body(method="get", resource="pods"), "no name"),
    (body(method="list", resource="pods", name="p"), "a name"),
    (body(method="get", resource="pods", name="p", payload={}), "payload with get"),
    (body(method="list", resource="pods", label_selector="a=b&limit=0"), "label_selector"),
    # out of bounds
    (body(method="get", resource="secrets", name="s"), "secrets"),
    (body(method="get", resource="serviceaccounts", name="s"), "serviceaccounts"),
    (body(method="get", resource="../secrets", name="s"), "secrets"),
    (body(method="get", resource="pods/exec", name="s"), "pods/exec"),
    (body(method="get", resource="pods", name="p", namespace="kube-system"), "kube-system"),
    (
        body(method="get", resource="pods", name="p", namespace=tenant_namespace("0x" + "0b" * 32)),
        "namespace",
    ),
    (body(method="get", resource="pods", name="../../kube-system/secrets/x"), "name"),
    (body(method="get", resource="pods", name=".."), "name"),
    (body(method="get", resource="pods", name="a/log"), "name"),
    (body(method="get", resource="pods", name="a%2flog"), "name"),
    (body(method="get", resource="pods", name="a?x=y"), "name"),
    (body(method="get", resource="pods", name="a\n"), "name"),
    (body(method="get", resource="pods", name="ä"), "name"),
    (body(method="get", resource="pods", name="a" * 254), "name"),
    (body(method="scale", resource="jobs", name="j", replicas=1), "scale of jobs"),
    (body(method="logs", resource="jobs", name="j"), "logs of jobs"),
    # another object than the request says
    (applied(configmap(kind="Secret")), "Secret"),
    (applied({"apiVersion": "v1", "kind": "List", "items": [configmap(kind="Secret")]}), "List"),
    (applied(configmap(kind="ConfigMapList")), "ConfigMapList"),
    (applied(configmap(apiVersion="v1beta1")), "v1beta1"),
    (applied(configmap(kind=["ConfigMap"])), "kind"),
    (applied(configmap(metadata={"name": "other"})), "metadata.name"),
    (applied(configmap(metadata={"name": "web", "namespace": "default"})), "metadata.namespace"),
    (applied(configmap(metadata={"name": "web", "namespace": None})), "metadata.namespace"),
    (applied(configmap(metadata={"generateName": "web"})), "generateName"),
    (applied(configmap(metadata={"name": "web", "ownerReferences": []})), "ownerReferences"),
    (applied(configmap(metadata={"name": "web", "managedFields": []})), "managedFields"),
    (applied(configmap(metadata={"name": "web", "uid": "u"})), "uid"),
    (applied(configmap(metadata={"name": "web", "labels": {"k3s-daas/request": "1"}})), "k3s-daas/"),
    (applied(configmap(metadata={"name": "web", "labels": ["a"]})), "labels"),
    (applied(configmap(metadata="web")), "without metadata"),
    (applied(configmap(stringData={"a": "b"})), "stringData"),
    (applied(configmap(status={})), "status"),
    # secrets in it
    (applied(configmap(data={"t": seal.make()})), "a token"),
    (applied(configmap(data={"t": "suiprivkey1qqqqqqqqqqqqqqqqqq"})), "a token"),
    (applied(configmap(data={"k": "-----BEGIN PRIVATE KEY-----\nMC4C\n"})), "a token"),
    (applied(configmap(data={"j": "eyJhbGciOiJSUzI1.eyJzdWIiOiIxMjM0.c2ln"})), "a token"),
    (applied(pod(serviceAccountName="admin"), "pods"), "serviceAccountName"),
    (applied(pod(automountServiceAccountToken=True), "pods"), "automount"),
    (
        applied(pod(volumes=[{"projected": {"sources": [{"serviceAccountToken": {}}]}}]), "pods"),
        "serviceAccountToken",
    ),
    # placed by itself
    (applied(pod(nodeName="worker-2"), "pods"), "nodeName"),
    (applied(pod(nodeSelector={"kubernetes.io/hostname": "worker-2"}), "pods"), "nodeSelector"),
    (applied(pod(nodeSelector=["x"]), "pods"), "nodeSelector"),
    (applied({**pod(), "spec": []}, "pods"), "no object at spec"),
]


@pytest.mark.parametrize(("raw", "wrong"), BAD, ids=range(len(BAD)))
def test_what_may_not_be_asked(raw: bytes, wrong: str) -> None:
    with pytest.raises(NotAllowed) as refused:
        allowed(raw)
    assert wrong in str(refused.value)
    assert len(str(refused.value)) < 600


def test_deployments_are_looked_into_as_deep_as_their_pods() -> None:
    deployment: dict[str, Any] = {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": "web"},
        "spec": {"template": {"spec": {"containers": []}}},
    }
    allowed(applied(deployment, "deployments"))
    for hostile in (
        {"nodeName": "x"},
        {"serviceAccount": "admin"},
        {"affinity": []},
        {"affinity": {"nodeAffinity": 1}},
    ):
        made = copy.deepcopy(deployment)
        made["spec"]["template"]["spec"] |= hostile
        with pytest.raises(NotAllowed):
            allowed(applied(made, "deployments"))
    for shape in ({}, {"template": None}, {"template": {"spec": "x"}}, None, [1]):
        with pytest.raises(NotAllowed, match="no object at"):
            allowed(applied(deployment | {"spec": shape}, "deployments"))
    cron = {"apiVersion": "batch/v1", "kind": "CronJob", "metadata": {"name": "web"}}
    inner = {"jobTemplate": {"spec": {"template": {"spec": {"nodeName": "x"}}}}}
    with pytest.raises(NotAllowed, match="nodeName"):
        allowed(applied(cron | {"spec": inner}, "cronjobs"))


def test_the_operator_can_allow_less_but_never_secrets() -> None:
    reading = Policy(methods=["get", "list"], resources=["pods"])
    allowed(body(method="list", resource="pods"), reading)
    for raw in (body(method="delete", resource="pods", name="p"), body(method="list", resource="jobs")):
        with pytest.raises(NotAllowed):
            allowed(raw, reading)
    with pytest.raises(NotAllowed, match="secrets"):
        allowed(body(method="list", resource="secrets"), Policy(resources=["secrets"]))
    with pytest.raises(NotAllowed, match="turned off"):
        allowed(body(method="list", resource="pods"), Policy(methods=[]))
    assert not {"secrets", "serviceaccounts", "roles", "rolebindings", "namespaces", "nodes"} & set(RESOURCES)


def test_the_same_request_is_the_same_bytes() -> None:
    fields: dict[str, Any] = {
        "method": "apply",
        "resource": "configmaps",
        "name": "web",
        "payload": configmap(),
    }
    assert encode(**fields) == encode(**dict(reversed(fields.items())), nonce=None)
    assert parse(encode(**fields)).payload == configmap()
    assert encode(**fields, nonce="1") != encode(**fields)
    with pytest.raises(NotAllowed):
        encode(method="get", resource="pods")


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda children: st.lists(children, max_size=4) | st.dictionaries(st.text(), children, max_size=4),
    max_leaves=30,
)
KEYS = st.sampled_from(
    [
        "apiVersion",
        "kind",
        "method",
        "resource",
        "name",
        "namespace",
        "payload",
        "replicas",
        "nonce",
        "metadata",
    ]
)
WORDS = st.sampled_from(
    [
        "k3s-daas/v1",
        "Request",
        "apply",
        "get",
        "delete",
        "secrets",
        "pods",
        "configmaps",
        "..",
        "web",
        "kube-system",
    ]
)


@given(st.binary(max_size=300) | JSON.map(lambda value: json.dumps(value).encode()))
def test_any_bytes_are_read_or_refused(raw: bytes) -> None:
    try:
        envelope = parse(raw)
    except NotAllowed:
        return
    assert envelope.kind == "Request"


@given(st.dictionaries(KEYS, WORDS | JSON, max_size=8))
def test_whatever_is_let_through_stays_in_its_namespace(fields: dict[str, Any]) -> None:
    raw = json.dumps({"apiVersion": "k3s-daas/v1", "kind": "Request"} | fields).encode()
    try:
        envelope = parse(raw)
        resource = POLICY.check(envelope, MINE)
    except NotAllowed:
        return
    path = resource.path(MINE, envelope.name)
    assert path.split("/namespaces/")[1].split("/") == [
        part for part in (MINE, resource.plural, envelope.name) if part
    ]
    assert set(path) <= set("abcdefghijklmnopqrstuvwxyz0123456789-./")
    assert ".." not in path


PARTS = st.sampled_from(
    ["spec", "template", "volumes", "projected", "sources", "affinity", "nodeAffinity", "nodeSelector"]
)
OBJECTS = st.recursive(
    st.none() | st.integers() | st.text(max_size=5),
    lambda inner: st.dictionaries(PARTS, inner, max_size=3) | st.lists(inner, max_size=2),
    max_leaves=12,
)


@given(st.sampled_from(sorted(RESOURCES)), OBJECTS)
def test_objects_of_any_shape_are_placed_or_refused(plural: str, spec: Any) -> None:
    resource = RESOURCES[plural]
    payload = {"apiVersion": resource.api_version, "kind": resource.kind, "metadata": {"name": "web"}}
    payload |= {"data": spec} if plural == "configmaps" else {"spec": spec}
    raw = applied(payload, plural)
    try:
        envelope = allowed(raw)
    except NotAllowed:
        return
    assert envelope.payload is not None
    made = prepared(envelope.payload, resource.pod, resource.runs_once, MINE, "worker-1", 7)
    assert made["metadata"] == {"name": "web", "namespace": MINE, "labels": {"k3s-daas/request": "7"}}
    assert (made["apiVersion"], made["kind"]) == (resource.api_version, resource.kind)
    assert envelope.payload == payload, "what was asked for is not touched"
    if resource.pod:
        assert "worker-1" in json.dumps(made["spec"])


@given(JSON)
def test_canonical_json_reads_back(value: Any) -> None:
    try:
        raw = canonical(value)
    except UnicodeEncodeError:
        return  # half a surrogate pair, which strict_json lets nobody send
    assert canonical(strict_json(raw)) == raw


@pytest.mark.parametrize(
    "owner", ["", "0x", "../x", "0x" + "0A" * 32, "0x" + "0a" * 31, "kube-system", "0x" + "0a" * 32 + "\n"]
)
def test_only_addresses_are_owners(owner: str) -> None:
    with pytest.raises(ValueError, match="64 lower-case hex"):
        tenant_namespace(owner)
    with pytest.raises(ValueError, match="64 lower-case hex"):
        groups_of(owner, stale=False, operator=False)
