"""Run by test_real_k3s in namespaces of its own: one k3s server, and the executor against it.

Prints one JSON line with what came out. Usage: real_k3s.py K3S_BINARY FOLDER
"""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from lightkube.config.kubeconfig import KubeConfig

from k3s_daas.requests.policy import Policy
from k3s_daas.requests.schema import encode, parse
from k3s_daas.tenancy import tenant_namespace
from k3s_daas_master.cluster import Cluster
from k3s_daas_master.executor import Executor, Refusal, Work, result_of
from k3s_daas_master.owner_api import NotExecuted, OwnerApi

OWNER, OTHER = "0x" + "0a" * 32, "0x" + "0b" * 32
DISABLED = "coredns,traefik,metrics-server,local-storage,servicelb"


def start(k3s: str, folder: Path) -> subprocess.Popen[bytes]:
    subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
    for command in (
        ["link", "add", "br9", "type", "bridge"],
        ["addr", "add", "10.99.0.2/24", "dev", "br9"],
        ["link", "set", "br9", "up"],
        ["route", "add", "default", "via", "10.99.0.1"],
    ):
        subprocess.run(["ip", *command], check=True)
    for path in ("/run", "/etc/rancher", "/var/lib/rancher", "/var/lib/kubelet"):
        Path(path).mkdir(parents=True, exist_ok=True)
        subprocess.run(["mount", "-t", "tmpfs", "tmpfs", path], check=True)
    command = [k3s, "server", "--disable-agent", f"--data-dir={folder / 'data'}", f"--disable={DISABLED}"]
    command += [
        "--disable-helm-controller",
        f"--write-kubeconfig={folder / 'kubeconfig'}",
        "--node-ip=10.99.0.2",
    ]
    with (folder / "k3s.log").open("wb") as log:
        return subprocess.Popen(command, stdout=log, stderr=log)


class Kubectl:
    def __init__(self, k3s: str, folder: Path) -> None:
        self.command = [k3s, "kubectl", f"--kubeconfig={folder / 'kubeconfig'}"]

    def __call__(self, *arguments: str, given: str | None = None) -> str:
        done = subprocess.run(
            [*self.command, *arguments], input=given, capture_output=True, text=True, timeout=60
        )
        if done.returncode:
            raise AssertionError(f"kubectl {arguments}: {done.stderr}")
        return done.stdout

    def up(self, k3s: subprocess.Popen[bytes]) -> None:
        until = time.monotonic() + 300
        while k3s.poll() is None and time.monotonic() < until:
            try:
                self("get", "--raw=/readyz")
                self("get", "serviceaccount", "default", "--namespace=default")
            except (AssertionError, subprocess.TimeoutExpired):
                time.sleep(1)
            else:
                return
        raise AssertionError("k3s didn't come up")


def work(number: int, owner: str = OWNER, **fields: Any) -> Work:
    envelope = parse(encode(**fields))
    namespace = tenant_namespace(OWNER)
    resource = Policy().check(envelope, namespace)
    return Work(number, owner, namespace, "worker-1", envelope, resource)


def applied(number: int, resource: str, payload: dict[str, Any], **more: Any) -> Work:
    return work(
        number, method="apply", resource=resource, name=payload["metadata"]["name"], payload=payload, **more
    )


CONFIGMAP = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "web"}, "data": {"a": "1"}}
POD = {"restartPolicy": "Never", "containers": [{"name": "c", "image": "localhost/none:1"}]}
JOB = {
    "apiVersion": "batch/v1",
    "kind": "Job",
    "metadata": {"name": "once"},
    "spec": {"template": {"spec": POD}},
}
DEPLOYMENT = {
    "apiVersion": "apps/v1",
    "kind": "Deployment",
    "metadata": {"name": "web"},
    "spec": {
        "replicas": 1,
        "selector": {"matchLabels": {"app": "web"}},
        "template": {
            "metadata": {"labels": {"app": "web"}},
            "spec": {"containers": [{"name": "c", "image": "localhost/none:1"}]},
        },
    },
}


async def story(kubectl: Kubectl, folder: Path) -> dict[str, Any]:
    namespace = tenant_namespace(OWNER)
    kubectl("create", "namespace", namespace)
    kubectl(
        "create", "rolebinding", "owner", "--clusterrole=edit", f"--user={OWNER}", f"--namespace={namespace}"
    )
    cluster = Cluster(KubeConfig.from_file(folder / "kubeconfig"), timeout_s=20.0)
    executor = Executor(OwnerApi(cluster.plain, 20.0))
    out: dict[str, Any] = {}

    async def run(one: Work) -> dict[str, Any]:
        refusal = await executor.rehearse(one)
        if refusal is not None:
            return {"refused": refusal.code, "message": refusal.message}
        outcome = await executor.run(one, await executor.look(one))
        result: dict[str, Any] = json.loads(result_of(one, outcome, 0)[0])
        return result

    async def resolved(one: Work, seen: dict[str, Any]) -> str:
        try:
            found = await executor.find_out(one, seen)
        except NotExecuted:
            return "again"
        return found.code if isinstance(found, Refusal) else f"done {found.status}"

    first = applied(1, "configmaps", CONFIGMAP)
    out["rehearsed"] = await executor.rehearse(first)
    out["rehearsal_made_something"] = "web" in kubectl("get", "configmaps", f"--namespace={namespace}")
    out["in_doubt_before"] = await resolved(first, {})
    made = await run(first)
    out["applied"] = (made["outcome"], made["object"]["data"], made["object"]["metadata"]["labels"])
    out["in_doubt_after"] = await resolved(first, {})
    # Another request takes the object over; the first one's trace stays in what it still owns.
    second = await run(applied(2, "configmaps", CONFIGMAP | {"data": {"a": "2"}}))
    out["forced"] = second["object"]["data"]
    out["other_namespace"] = (await run(work(3, OTHER, method="list", resource="configmaps")))["error"][
        "code"
    ]
    out["owner_got"] = (await run(work(4, method="get", resource="configmaps", name="web")))["object"]["data"]
    listed = await run(work(5, method="list", resource="configmaps", label_selector="k3s-daas/request=2"))
    out["listed"] = [item["metadata"]["name"] for item in listed["items"]]

    job = applied(6, "jobs", JOB)
    seen = await executor.look(job)
    out["job"] = (await run(job))["outcome"]
    out["job_in_doubt"] = await resolved(job, seen)
    made = json.loads(kubectl("get", "job", "once", f"--namespace={namespace}", "--output=json"))
    spec = made["spec"]["template"]["spec"]
    out["job_node"] = (spec["nodeSelector"], spec["automountServiceAccountToken"])
    kubectl("delete", "job", "once", f"--namespace={namespace}")
    out["job_gone_in_doubt"] = await resolved(job, seen)

    out["deployment"] = (await run(applied(7, "deployments", DEPLOYMENT)))["outcome"]
    scale = work(8, method="scale", resource="deployments", name="web", replicas=3)
    seen = await executor.look(scale)
    out["scale_in_doubt_before"] = await resolved(scale, seen)
    out["scaled"] = (await run(scale))["object"]["spec"]
    out["scale_in_doubt_after"] = await resolved(scale, seen)
    kubectl("scale", "deployment", "web", "--replicas=5", f"--namespace={namespace}")
    out["scale_changed_in_doubt"] = await resolved(scale, seen)
    out["scale_of_another"] = (await executor.run(scale, {"uid": "another"})).status

    delete = work(9, method="delete", resource="configmaps", name="web")
    seen = await executor.look(delete)
    out["delete_of_another"] = (await executor.run(delete, {"uid": "another"})).status
    out["delete_in_doubt_before"] = await resolved(delete, seen)
    out["deleted"] = (await run(delete))["outcome"]
    out["delete_in_doubt_after"] = await resolved(delete, seen)
    out["deleted_again"] = await run(delete)
    # An object that was there is applied to, and no other of its name.
    out["apply_to_one_that_is_gone"] = (await executor.run(applied(10, "configmaps", CONFIGMAP), seen)).status
    out["logs"] = await run(work(11, method="logs", resource="pods", name="none"))

    kubectl("label", "namespace", namespace, "pod-security.kubernetes.io/enforce=restricted")
    hostile = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "root"}, "spec": dict(POD)}
    hostile["spec"]["containers"] = [{"name": "c", "image": "x", "securityContext": {"privileged": True}}]
    out["privileged"] = await run(applied(12, "pods", hostile))
    kubectl("create", "quota", "none", "--hard=configmaps=0", f"--namespace={namespace}")
    await asyncio.sleep(2)  # until the quota is counted
    out["quota"] = await run(applied(13, "configmaps", CONFIGMAP))
    await cluster.aclose()
    return out


def main() -> None:
    k3s, folder = sys.argv[1], Path(sys.argv[2])
    server = start(k3s, folder)
    try:
        kubectl = Kubectl(k3s, folder)
        kubectl.up(server)
        print(json.dumps(asyncio.run(story(kubectl, folder))))
    finally:
        server.terminate()
        try:
            server.wait(30)
        except subprocess.TimeoutExpired:
            server.kill()


if __name__ == "__main__":
    main()
