"""The hosts are cluttered, reset and set up again: an operator's runs of playbooks, one of them killed.

Looking, setting up, and looking for drift are a controller's jobs, run by ansible-runner.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from testinfra.host import Host

import leftovers
from controller_kit import Controller, imported
from k3s_daas.chain import Key, SuiClient
from k3s_daas.registry import Deployment, Registry
from pages import told
from scenario import Chain, Run, play, play_killed_at

WORKER = "worker-1"
RESET = told("docs/reset.md", "playbooks/reset.yml", "confirm")
# What pods and earlier clusters leave on a real node, where nothing but the reset would take it away.
CLUTTER = """set -e
mkdir -p /var/lib/kubelet/pods/1b2c/volumes/kubernetes.io~empty-dir/cache /run/k3s/containerd/shm /run/netns \
  /var/lib/cni/networks/cbr0 /var/lib/cni/flannel /var/log/pods/default_a_1b2c/c /var/log/containers \
  /var/lib/rancher/k3s/agent/containerd /run/flannel /root/.kube/cache/discovery
mount -t tmpfs clutter /var/lib/kubelet/pods/1b2c/volumes/kubernetes.io~empty-dir/cache
echo left > /var/lib/kubelet/pods/1b2c/volumes/kubernetes.io~empty-dir/cache/left
mount -t tmpfs clutter /run/k3s/containerd/shm
touch /run/netns/cni-1b2c && mount --bind /proc/self/ns/net /run/netns/cni-1b2c
echo worker > /var/lib/cni/networks/cbr0/10.42.0.2
echo log > /var/log/pods/default_a_1b2c/c/0.log
ln -sf /var/log/pods/default_a_1b2c/c/0.log /var/log/containers/a.log
touch /var/lib/rancher/k3s/agent/containerd/left /run/flannel/subnet.env
ip link show cni0 > /dev/null 2>&1 || ip link add cni0 type bridge
ip link add veth1b2c type veth peer name veth1b2d && ip link set veth1b2c master cni0
ip link show flannel.1 > /dev/null 2>&1 || ip link add flannel.1 type vxlan id 1 dstport 8472
iptables -t nat -N KUBE-SERVICES-LEFT && iptables -t nat -A PREROUTING -j KUBE-SERVICES-LEFT
iptables -N CNI-FORWARD-LEFT && iptables -A FORWARD -j CNI-FORWARD-LEFT
iptables -A INPUT -s 192.0.2.1 -j DROP
systemd-run --quiet --unit=k3s-daas-failed sh -c 'exit 3' || true
"""
OWN_RULE = "-A INPUT -s 192.0.2.1/32 -j DROP"


@dataclass(frozen=True)
class Look:
    """What is true between two runs; `left` is what the search finds on each host."""

    left: dict[str, dict[str, list[str]]]
    wallet_mist: int
    master_mist: int
    services: str


@dataclass(frozen=True)
class Story:
    """Each run, and what was true after it."""

    cluttered: Look
    refused: tuple[Run, Look]
    checked: tuple[Run, Look]
    reset: tuple[Run, Look]
    again: tuple[Run, Look]
    foretold: Run
    anew: Run
    nodes: dict[str, dict[str, Any]]
    drifted: Run
    # What each of the controller's jobs left in its home directory.
    homes: list[list[str]]


async def take_out(stage: dict[str, Any], deployment: Deployment) -> None:
    """The worker's stake, by its owner's wallet: what exit.yml does on-chain."""
    key = Key.load(stage["wallet"])
    async with await SuiClient.connect([stage["rpc"]], "localnet", key, stage["chain_id"]) as chain:
        registry = Registry(chain, deployment)
        await chain.execute(registry.leaving([WORKER], []))
        await chain.execute(registry.leaving([], [WORKER]))


@pytest.fixture(scope="session")
def controller(stage: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> Controller:
    key = Path(stage["ssh_config"]).with_name("id_ed25519").read_text()
    wallet = Path(stage["wallet"]).read_text()
    return Controller(tmp_path_factory.mktemp("controller"), imported(stage), key, wallet)


@pytest.fixture(scope="session")
def story(
    hosts: dict[str, Host],
    stage: dict[str, Any],
    chain: Chain,
    deployment: Deployment,
    nodes: Callable[[], dict[str, dict[str, Any]]],
    controller: Controller,
) -> Story:
    master = chain.master_account()

    def look() -> Look:
        return Look(
            {name: leftovers.search(host) for name, host in hosts.items()},
            chain.balance_mist(stage["operator"]),
            chain.balance_mist(master),
            hosts["master"].run("systemctl is-active k3s k3s-daas-master").stdout,
        )

    for host in hosts.values():
        host.check_output(CLUTTER)
    cluttered = look()
    refused = play(*RESET), look()
    asyncio.run(take_out(stage, deployment))
    checked = controller.launch("reset", check=True), look()
    play_killed_at("TASK [wipe : Remove keys, configuration, data and programs]", *RESET)
    reset = play(*RESET), look()
    again = play(*RESET), look()
    foretold = play(*told("docs/reset.md", "playbooks/reset.yml", "--check"))
    anew = controller.launch("site")
    found = nodes() if anew.code == 0 else {}
    hosts[WORKER].check_output("chmod 0640 /etc/systemd/system/k3s-daas-watcher.service")
    drifted = controller.launch("drift")
    return Story(cluttered, refused, checked, reset, again, foretold, anew, found, drifted, controller.homes)
