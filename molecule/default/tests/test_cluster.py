"""After converge, a second converge, and the slash of worker-2: what is true, asked from outside."""

from __future__ import annotations

import datetime as dt
import json
from collections.abc import Callable
from typing import Any
from urllib.parse import urlsplit

import pysui.sui.sui_grpc.suimsgs.sui.rpc.v2 as sui
import pytest
from grpclib.client import Channel
from pysui.sui.sui_grpc.suimsgs.google.protobuf import FieldMask
from testinfra.host import Host

from k3s_daas.chain import SuiClient
from k3s_daas.registry import Deployment, Registry, WorkerStatus
from scenario import is_enclave

SUI = 1_000_000_000


Nodes = Callable[[], dict[str, dict[str, Any]]]


def ready(node: dict[str, Any]) -> dict[str, Any]:
    return next(c for c in node["status"]["conditions"] if c["type"] == "Ready")


async def connect(stage: dict[str, Any]) -> SuiClient:
    return await SuiClient.connect([stage["rpc"]], "localnet", chain_id=stage["chain_id"])


async def test_the_cluster_has_exactly_the_worker_that_was_not_slashed(nodes: Nodes) -> None:
    found = nodes()
    assert set(found) == {"worker-1"}
    assert ready(found["worker-1"])["status"] == "True"


async def test_the_chain_took_the_stake_of_the_slashed_worker_only(
    stage: dict[str, Any], deployment: Deployment
) -> None:
    async with await connect(stage) as chain:
        registry = Registry(chain, deployment)
        workers = {worker.node_id: worker for worker in await registry.workers()}
        config = await registry.config()
    assert workers["worker-1"].status is WorkerStatus.ACTIVE
    assert workers["worker-1"].stake_mist == SUI
    assert workers["worker-2"].status is WorkerStatus.SLASHED
    taken = SUI * workers["worker-2"].slash_share_bps // 10_000
    assert taken > 0
    assert workers["worker-2"].stake_mist == SUI - taken
    assert config.treasury_mist == taken


async def test_the_operator_paid_for_each_step_once(stage: dict[str, Any]) -> None:
    """Publish, create the registry, appoint the master with its gas, stake for both workers, slash.

    An enclave is given gas and appoints itself, but its image is allowed first. The check before and the
    second run after sent nothing: these transactions and not one more.
    """
    address = urlsplit(stage["rpc"])
    channel = Channel(address.hostname, address.port)
    ledger = sui.LedgerServiceStub(channel)
    mask = FieldMask(paths=["transactions.digest", "transactions.transaction.sender"])
    try:
        last = (await ledger.get_checkpoint(sui.GetCheckpointRequest())).checkpoint.sequence_number
        checkpoints = [
            await ledger.get_checkpoint(sui.GetCheckpointRequest(sequence_number=number, read_mask=mask))
            for number in range(last + 1)
        ]
    finally:
        channel.close()
    transactions = [one for answer in checkpoints for one in answer.checkpoint.transactions]
    assert len([one for one in transactions if one.transaction.sender == stage["operator"]]) == (
        6 if is_enclave(stage) else 5
    )


async def test_worker_1_stayed_ready_while_worker_2_went(
    stage: dict[str, Any], deployment: Deployment, nodes: Nodes
) -> None:
    async with await connect(stage) as chain:
        registry = Registry(chain, deployment)
        slashed = await registry.worker("worker-2")
    assert slashed is not None
    since = dt.datetime.fromisoformat(ready(nodes()["worker-1"])["lastTransitionTime"])
    assert since.timestamp() * 1000 < slashed.status_changed_at_ms


@pytest.mark.parametrize("unit", ["k3s-daas-watcher.service", "k3s-agent.service"])
class TestSlashedWorker:
    def test_its_services_stopped(self, hosts: dict[str, Host], unit: str) -> None:
        assert not hosts["worker-2"].service(unit).is_running

    def test_its_services_stay_stopped(self, hosts: dict[str, Host], unit: str) -> None:
        # As a reboot would: systemd is asked to start what is enabled, and finds its condition unmet.
        hosts["worker-2"].run(f"systemctl start {unit}")
        assert not hosts["worker-2"].service(unit).is_running


def register_as(host: Host, node_id: str) -> str:
    """What the master answers to this host's seal token for a node id: the registration's error text."""
    done = host.run(
        "set -e; folder=$(mktemp -d); trap 'rm -r $folder' EXIT; "
        f'sed \'s/"node_id": "[^"]*"/"node_id": "{node_id}"/\' /etc/k3s-daas/watcher.json > $folder/c.json; '
        "/opt/k3s-daas/venv/bin/k3s-daas-watcher register --config $folder/c.json "
        "--seal-token-file /etc/k3s-daas/seal-token --joined-marker $folder/none --wait 2 "
        "--token-out $folder/token --password-out $folder/password"
    )
    assert done.rc != 0, done.stdout
    return done.stderr


def test_the_slashed_worker_gets_no_join_token(hosts: dict[str, Host]) -> None:
    assert "slashed" in register_as(hosts["worker-2"], "worker-2")


def test_a_worker_gets_no_join_token_for_another_name(hosts: dict[str, Host]) -> None:
    error = register_as(hosts["worker-1"], "worker-3")
    assert "worker-3" in error


def test_a_name_stays_taken_when_its_password_is_deleted(hosts: dict[str, Host]) -> None:
    # As k3s itself does for names without a node; with the password gone, anybody could take the name.
    which = "-n kube-system secret worker-2.node-password.k3s"
    before = hosts["master"].check_output(f"k3s kubectl get {which} -o json")
    hosts["master"].check_output(f"k3s kubectl delete {which} --wait=false")
    after = hosts["master"].check_output(f"k3s kubectl get {which} -o json")
    assert json.loads(after)["data"] == json.loads(before)["data"]


def test_the_bootstrap_tokens_are_gone(hosts: dict[str, Host]) -> None:
    secrets = json.loads(hosts["master"].check_output("k3s kubectl get secrets -n kube-system -o json"))
    names = [item["metadata"]["name"] for item in secrets["items"]]
    assert [name for name in names if name.startswith("bootstrap-token-")] == []


# The token goes from its file into a header: never through an argument vector.
ASK_WATCHER = """
import json, sys, urllib.error, urllib.request
path, body = sys.argv[1], sys.argv[2].encode() or None
headers = {"X-Seal-Token": open("/etc/k3s-daas/seal-token").read().strip()} if body else {}
request = urllib.request.Request(f"http://127.0.0.1:10280{path}", data=body, headers=headers)
try:
    print(urllib.request.urlopen(request, timeout=60).read().decode())
except urllib.error.HTTPError as error:
    print(error.read().decode())
"""


def ask_watcher(host: Host, path: str, body: str = "") -> dict[str, Any]:
    answer: dict[str, Any] = json.loads(host.check_output("python3 -c %s %s %s", ASK_WATCHER, path, body))
    return answer


def test_the_watcher_shows_the_stake(hosts: dict[str, Host]) -> None:
    found = ask_watcher(hosts["worker-1"], "/api/v1/staking")
    assert (found["node_id"], found["status"], found["stake_mist"]) == ("worker-1", "active", str(SUI))
    assert found["token"]["generation"] == 1


def test_the_watcher_counts_pods_with_the_kubelets_credentials(hosts: dict[str, Host]) -> None:
    found = ask_watcher(hosts["worker-1"], "/api/v1/metrics")
    assert isinstance(found["pods"]["running"], int), "unknown: were the credentials handed over?"
    assert found["host"]["memory_total_bytes"] > 0
    # Root's, for the watcher's group, and for nobody else.
    folder = hosts["worker-1"].file("/run/k3s-daas-kubelet")
    key = hosts["worker-1"].file("/run/k3s-daas-kubelet/client-kubelet.key")
    assert [(f.user, f.group, oct(f.mode)) for f in (folder, key)] == [
        ("root", "k3s-daas-watcher", "0o750"),
        ("root", "k3s-daas-watcher", "0o440"),
    ]


def test_root_registers_when_the_watcher_is_commanded(hosts: dict[str, Host]) -> None:
    host = hosts["worker-1"]
    assert ask_watcher(host, "/api/v1/register", '{"node_id": "worker-2"}')["error"]["code"] == "other_worker"
    found = ask_watcher(host, "/api/v1/register", '{"node_id": "worker-1"}')
    assert found["status"] == "started"
    assert host.service("k3s-agent.service").is_running


@pytest.mark.parametrize(
    ("host", "unit"),
    [("master", "k3s-daas-master.service"), ("worker-1", "k3s-daas-watcher.service")],
)
def test_the_daemons_are_sandboxed(hosts: dict[str, Host], host: str, unit: str) -> None:
    done = hosts[host].run(f"systemd-analyze security --threshold=20 {unit}")
    assert done.rc == 0, done.stdout


@pytest.mark.parametrize("host", ["master", "worker-1"])
def test_no_unit_failed(hosts: dict[str, Host], host: str) -> None:
    assert hosts[host].check_output("systemctl list-units --failed --plain --no-legend") == ""


def test_the_owner_has_its_place_with_the_worker_that_is_left(
    hosts: dict[str, Host], stage: dict[str, Any]
) -> None:
    owner = stage["operator"]
    space = f"owner-{owner[2:42]}"
    kubectl = hosts["master"].check_output
    namespace = json.loads(kubectl(f"k3s kubectl get namespace {space} -o json"))
    assert namespace["metadata"]["annotations"]["k3s-daas/owner"] == owner
    assert namespace["metadata"]["labels"]["pod-security.kubernetes.io/enforce"] == "restricted"
    role = json.loads(kubectl(f"k3s kubectl get clusterrole k3s-daas:owner:{owner[2:42]} -o json"))
    assert role["rules"][0]["resourceNames"] == ["worker-1"]
    for kind in ("resourcequota/k3s-daas", "limitrange/k3s-daas", "networkpolicy/k3s-daas-default-deny"):
        assert kubectl(f"k3s kubectl get {kind} -n {space} -o name")


def test_the_master_has_an_identity_of_its_own_and_not_the_admins(hosts: dict[str, Host]) -> None:
    file = hosts["master"].file("/etc/k3s-daas/kubernetes/kubeconfig")
    assert (file.user, file.mode) == ("k3s-daas-master", 0o600)
    assert json.loads(file.content_string)["users"][0]["name"] == "k3s-daas:master"
    unit = hosts["master"].check_output("systemctl cat k3s-daas-master.service")
    assert "k3s.yaml" not in unit
    assert hosts["master"].service("k3s-daas-master-identity.timer").is_running
    # The renewal itself: at once it finds the one that was just made still good.
    hosts["master"].check_output("systemctl start k3s-daas-master-identity.service")
