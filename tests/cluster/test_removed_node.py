"""A removed node stays out, with each of the three client certificates that k3s gave it."""

from __future__ import annotations

import os
from typing import Any

import httpx
import pytest
from cluster_kit import OWNER_A, OWNER_B, refused

from agent_kit import CONTROLLER, KUBE_PROXY, KUBELET, Agent, Watch, connect
from k3s_daas.registry import WorkerStatus
from k3s_daas_master.cut import cut

# The stand-in asks no authorization webhook, and signs for kubelets only.
pytestmark = pytest.mark.usefixtures("k3s_only")

SERVICES, PODS = "/api/v1/services", "/api/v1/pods"
LIMIT_S = 5.0  # the API server keeps an answer for 2 s


class Joined:
    """A worker with its three certificates, the two that all nodes share claimed, and a client for each."""

    def __init__(self, server: Any, agent: Agent) -> None:
        self.agent = agent
        self.pairs = {what: agent.fetch(what) for what in (KUBELET, KUBE_PROXY, CONTROLLER)}
        self._clients = {
            what: connect(server.url, agent.server_ca, pair) for what, pair in self.pairs.items()
        }
        worker = server.index.workers[agent.node_id]
        server.certificates.claim(worker, [self.pairs[what].sha256 for what in (KUBE_PROXY, CONTROLLER)])

    def tries(self) -> dict[str, httpx.Response]:
        """Something that each certificate is good for."""
        kubelet, proxy, controller = self._clients.values()
        return {
            KUBELET: kubelet.get(f"/api/v1/nodes/{self.agent.node_id}"),
            KUBE_PROXY: proxy.get(SERVICES),
            CONTROLLER: controller.get(PODS),
        }

    def may(self) -> bool:
        return all(answer.status_code == 200 for answer in self.tries().values())

    def may_not(self) -> bool:
        return all(answer.status_code == 403 for answer in self.tries().values())

    def close(self) -> None:
        for client in self._clients.values():
            client.close()


@pytest.fixture
async def pair(server: Any, join: Any, admin: httpx.Client, name: str) -> Any:
    """Two workers in the cluster: the one that will go, and the one that stays."""
    both = []
    for suffix, owner in (("goes", OWNER_A), ("stays", OWNER_B)):
        agent = await join(f"{name}-{suffix}", owner)
        server.set_status(agent.node_id, WorkerStatus.ACTIVE)
        admin.post("/api/v1/nodes", json={"metadata": {"name": agent.node_id}}).raise_for_status()
        both.append(Joined(server, agent))
    for one in both:
        server.until(one.may, LIMIT_S)
    yield both
    for one in both:
        one.close()


@pytest.mark.parametrize("how", ["slashed", "left"])
async def test_none_of_its_three_certificates_opens_anything(
    server: Any, pair: Any, admin: httpx.Client, how: str
) -> None:
    goes, stays = pair
    node_id = goes.agent.node_id
    if how == "slashed":
        server.slash(node_id)
    else:
        server.withdraw(node_id)
    server.until(goes.may_not, LIMIT_S)
    answers = goes.tries()
    refused(answers[KUBELET], node_id, "is slashed" if how == "slashed" else "is no registered worker")
    refused(answers[CONTROLLER], "no worker of the fleet says that this certificate")
    # As without the webhook nothing would: k3s itself would let it read all pods for a year.
    assert stays.may()
    admin.delete(f"/api/v1/nodes/{node_id}").raise_for_status()
    assert goes.may_not()
    assert stays.may()


async def test_one_that_leaves_works_on_until_its_node_is_gone(server: Any, pair: Any) -> None:
    goes, _ = pair
    node_id = goes.agent.node_id
    server.set_status(node_id, WorkerStatus.UNBONDING)
    server.nodes = {node_id}
    try:
        assert goes.may()
        server.nodes = set()
        server.until(goes.may_not, LIMIT_S)
    finally:
        server.nodes = None


async def test_new_certificates_that_it_still_gets_from_k3s_open_nothing(server: Any, pair: Any) -> None:
    """k3s signs what all nodes share for whoever shows a kubelet's certificate, asking nobody."""
    goes, _ = pair
    server.slash(goes.agent.node_id)
    server.until(goes.may_not, LIMIT_S)
    for what, path in ((KUBE_PROXY, SERVICES), (CONTROLLER, PODS)):
        minted = goes.agent.fetch(what)
        assert minted.sha256 != goes.pairs[what].sha256
        with connect(server.url, goes.agent.server_ca, minted) as client:
            refused(client.get(path), "no worker of the fleet says that this certificate")


async def test_a_shared_certificate_opens_nothing_before_its_worker_claims_it(server: Any, pair: Any) -> None:
    _, stays = pair
    fresh = stays.agent.fetch(CONTROLLER)
    with connect(server.url, stays.agent.server_ca, fresh) as client:
        refused(client.get(PODS), "no worker of the fleet")
        # What k3s waits for at its start, a server's too, tells nothing and is let through.
        assert client.get("/readyz").status_code == 200
        slices = "/apis/discovery.k8s.io/v1"
        assert client.get(f"{slices}/namespaces/default/endpointslices").status_code == 200
        refused(client.get(f"{slices}/endpointslices"), "no worker of the fleet")
        worker = server.index.workers[stays.agent.node_id]
        server.certificates.claim(worker, [fresh.sha256, stays.pairs[KUBE_PROXY].sha256])
        server.until(lambda: client.get(PODS).status_code == 200, LIMIT_S)


async def test_a_claim_ends_with_the_stake(server: Any, pair: Any) -> None:
    """Whoever stakes the name anew doesn't take over what its last holder claimed."""
    goes, _ = pair
    node_id = goes.agent.node_id
    server.withdraw(node_id)
    server.stake(node_id, OWNER_B)
    server.until(lambda: goes.tries()[CONTROLLER].status_code == 403, LIMIT_S)


@pytest.fixture
def watch(server: Any, pair: Any) -> Watch:
    goes, _ = pair
    watch = Watch(server.url, goes.agent.server_ca, goes.pairs[CONTROLLER])
    watch.start()
    assert watch.opened.wait(10)
    return watch


@pytest.mark.skipif(os.geteuid() != 0, reason="only root closes other processes' connections")
async def test_a_watch_outlives_the_removal_and_not_the_cut(server: Any, pair: Any, watch: Watch) -> None:
    goes, stays = pair
    server.slash(goes.agent.node_id)
    server.until(goes.may_not, LIMIT_S)
    assert not watch.ended.is_set()
    said = cut(server.port, "no-such-unit.service")
    assert "connections closed" in said
    assert watch.ended.wait(5)
    assert goes.may_not()
    server.until(stays.may)
