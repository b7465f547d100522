"""A worker can only be the node it staked for: by node passwords, and behind them by the admission policy."""

from __future__ import annotations

import asyncio
import json
import secrets
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from cluster_kit import MERGE, OWNER_A, OWNER_B, refused

from agent_kit import CONTROLLER, KUBELET, SERVING, Agent, connect, forge
from k3s_daas.registry import WorkerStatus
from k3s_daas_master.nodepasswords import NodePasswordKeeper

SECRETS = "/api/v1/namespaces/kube-system/secrets"


def is_refused(answer: httpx.Response) -> None:
    assert answer.status_code == 403, f"{answer.status_code} {answer.text}"
    assert "unable to verify password for node" in answer.text
    assert "CERTIFICATE" not in answer.text


async def test_an_agent_gets_the_certificates_of_its_own_name(join: Any, name: str) -> None:
    agent = await join(name, OWNER_A)
    kubelet = agent.fetch(KUBELET)
    assert kubelet.name == f"system:node:{name}"
    assert agent.fetch(SERVING).name == name


@pytest.mark.parametrize("status", list(WorkerStatus))
async def test_nobody_gets_those_of_another_whatever_becomes_of_it(
    server: Any, join: Any, keeper: NodePasswordKeeper, name: str, status: WorkerStatus
) -> None:
    """A's own token is good, and its own name is given to it; B's isn't, with A's password or any other."""
    a = await join(f"{name}-a", OWNER_A)
    b = f"{name}-b"
    server.stake(b, OWNER_B, WorkerStatus.PENDING)
    await keeper.cover()
    server.set_status(b, status)
    await keeper.reconcile()
    for what in (SERVING, KUBELET):
        for password in (a.password, secrets.token_hex(16)):
            is_refused(a.ask(what, b, password))
        assert a.ask(what).status_code == 200


async def test_a_name_stays_taken_when_its_worker_has_left(
    server: Any, join: Any, keeper: NodePasswordKeeper, name: str
) -> None:
    a, b = await join(f"{name}-a", OWNER_A), await join(f"{name}-b", OWNER_B)
    server.withdraw(b.node_id)
    await keeper.reconcile()
    server.until(lambda: b.ask(KUBELET).status_code == 403)
    is_refused(a.ask(KUBELET, b.node_id))


async def test_a_password_outlives_what_k3s_deletes(
    server: Any, join: Any, admin: httpx.Client, name: str
) -> None:
    """k3s deletes a password with its Node, and when it is old and has none. The very same deletions."""
    a, b = await join(f"{name}-a", OWNER_A), await join(f"{name}-b", OWNER_B)
    secret = f"{SECRETS}/{b.node_id}.node-password.k3s"
    admin.post("/api/v1/nodes", json={"metadata": {"name": b.node_id}}).raise_for_status()
    server.until(lambda: admin.get(secret).json()["metadata"].get("ownerReferences"))
    assert admin.delete(f"/api/v1/nodes/{b.node_id}").status_code == 200
    # The garbage collector's mark; and then the collector of orphans, which asks for the same.
    server.until(lambda: admin.get(secret).json()["metadata"].get("deletionTimestamp"))
    uid = admin.get(secret).json()["metadata"]["uid"]
    admin.request("DELETE", secret, json={"preconditions": {"uid": uid}})
    is_refused(a.ask(KUBELET, b.node_id))
    is_refused(a.ask(SERVING, b.node_id))
    assert b.ask(KUBELET).status_code == 200


async def test_a_certificate_is_no_way_to_anothers(
    server: Any, join: Any, admin: httpx.Client, name: str
) -> None:
    a, b = await join(f"{name}-a", OWNER_A), await join(f"{name}-b", OWNER_B)
    kubelet = a.fetch(KUBELET)
    admin.post("/api/v1/nodes", json={"metadata": {"name": a.node_id}}).raise_for_status()
    as_b = Agent(a.url, a.server_ca, a.folder, a.token, b.node_id, b.password)
    assert as_b.fetch_as(kubelet, KUBELET).status_code == 400
    # Of the removed not even its own: the Node is gone.
    admin.delete(f"/api/v1/nodes/{a.node_id}").raise_for_status()
    server.until(lambda: a.fetch_as(kubelet, KUBELET).status_code == 401)


def test_nobody_is_anonymous(server: Any) -> None:
    with connect(server.url, server.tls / "server-ca.crt") as client:
        for path in ("/api", "/readyz", "/version", "/v1-k3s/config"):
            assert client.get(path).status_code in (401, 403), path
        assert client.get("/api/v1/nodes").status_code == 401


# -- the second line ---------------------------------------------------------------------------------------


def node(name: str) -> dict[str, Any]:
    return {"apiVersion": "v1", "kind": "Node", "metadata": {"name": name}}


@pytest.fixture
def forged(server: Any, tmp_path: Path) -> Callable[[str], httpx.Client]:
    """`forged(name)`: the API with a kubelet's certificate of any name, however somebody came by it."""
    ca = (server.tls / "client-ca.crt", server.tls / "client-ca.key")

    def make(node_id: str) -> httpx.Client:
        pair = forge(*ca, f"system:node:{node_id}", tmp_path)
        return connect(server.url, server.tls / "server-ca.crt", pair)

    return make


@pytest.fixture
def webhook_has_no_opinion(server: Any) -> Iterator[None]:
    """As while the master hasn't read the registry, or is down."""
    server.index.loaded = False
    yield
    server.index.loaded = True


@pytest.mark.usefixtures("k3s_only", "webhook_has_no_opinion")
class TestPolicy:
    """The stand-in knows no admission; each of these asks a real API server."""

    def test_no_node_without_a_stake(self, forged: Callable[[str], httpx.Client], name: str) -> None:
        with forged(name) as kubelet:
            refused(kubelet.post("/api/v1/nodes", json=node(name)), "k3s-daas-nodes", f"worker called {name}")

    async def test_a_staked_name_becomes_a_node(
        self, server: Any, join: Any, forged: Callable[[str], httpx.Client], name: str
    ) -> None:
        await join(name, OWNER_A)
        server.index.loaded = False
        with forged(name) as kubelet:
            server.until(lambda: kubelet.post("/api/v1/nodes", json=node(name)).status_code in (201, 409))
            refused(kubelet.post("/api/v1/nodes", json=node(f"{name}-x")), "is not allowed to modify node")

    async def test_a_node_does_not_uncordon_itself(
        self, server: Any, join: Any, admin: httpx.Client, forged: Any, name: str
    ) -> None:
        await join(name, OWNER_A)
        server.index.loaded = False
        admin.post("/api/v1/nodes", json=node(name) | {"spec": {"unschedulable": True}}).raise_for_status()
        path = f"/api/v1/nodes/{name}"
        with forged(name) as kubelet:
            for content in ('{"spec": {"unschedulable": null}}', '{"spec": {"unschedulable": false}}'):
                refused(kubelet.patch(path, content=content, headers=MERGE), "uncordons itself")
            labelled = json.dumps({"metadata": {"labels": {"a": "b"}}})
            server.until(lambda: kubelet.patch(path, content=labelled, headers=MERGE).status_code == 200)

    async def test_what_all_nodes_share_writes_about_no_node(
        self, server: Any, join: Any, admin: httpx.Client, name: str
    ) -> None:
        """k3s lets system:k3s-controller patch the status of any node: its addresses, its conditions."""
        agent = await join(name, OWNER_A)
        server.index.loaded = False
        admin.post("/api/v1/nodes", json=node(name)).raise_for_status()
        controller = agent.fetch(CONTROLLER)
        with connect(server.url, agent.server_ca, controller) as client:
            assert client.get("/api/v1/nodes/worker-b").status_code == 200
            elsewhere = {"status": {"addresses": [{"type": "InternalIP", "address": "192.0.2.66"}]}}
            answer = client.patch(
                "/api/v1/nodes/worker-b/status", content=json.dumps(elsewhere), headers=MERGE
            )
            refused(answer, "k3s-daas-node-writes", "identity that all nodes share")

    def test_without_its_list_no_node_is_made(
        self, server: Any, admin: httpx.Client, forged: Any, name: str
    ) -> None:
        path = "/api/v1/namespaces/kube-system/configmaps/k3s-daas-nodes"
        admin.delete(path).raise_for_status()
        with forged(name) as kubelet:

            def tried() -> httpx.Response:
                return kubelet.post("/api/v1/nodes", json=node(name))

            server.until(lambda: "no params found" in tried().text)
            assert tried().status_code == 422
            # Nodes that there are go on being written about.
            label = '{"metadata": {"labels": {"a": "b"}}}'
            assert admin.patch("/api/v1/nodes/worker-b", content=label, headers=MERGE).status_code == 200
        server.index.loaded = True
        asyncio.run(server.reconcile())
        assert admin.get(path).status_code == 200
