"""A k3s server alone on loopback, that asks the master about tokens and nodes as the roles have it asked."""

from __future__ import annotations

from pathlib import Path

import yaml

FILES = Path(__file__).parents[2] / "roles/k3s_server/files"


def configure(
    folder: Path, port: int, other_ports: tuple[int, int], webhook_url: str, *manifests: str
) -> Path:
    """The configuration for `k3s server --config`, in `folder` with all that it needs.

    `port` and the next one are the API's; `other_ports` are for the controller manager and the scheduler.
    The API server asks `webhook_url`/token-review and `webhook_url`/node-access. `manifests` (YAML) are
    applied after the role's own. `folder`/admin.kubeconfig appears when the server is up.
    """
    for name in ("token-review", "node-access"):
        webhook = {
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [{"name": "master", "cluster": {"server": f"{webhook_url}/{name}"}}],
            "users": [{"name": "api-server", "user": {}}],
            "contexts": [{"name": "c", "context": {"cluster": "master", "user": "api-server"}}],
            "current-context": "c",
        }
        (folder / f"{name}.kubeconfig").write_text(yaml.safe_dump(webhook))
    rules = (FILES / "authorization.yaml").read_text().replace("/etc/rancher/k3s/", f"{folder}/")
    (folder / "authorization.yaml").write_text(rules)
    applied = folder / "data/server/manifests"
    applied.mkdir(parents=True)
    ours = [(FILES / name).read_text() for name in ("rbac.yaml", "admission.yaml")]
    (applied / "k3s-daas.yaml").write_text("\n---\n".join([*ours, *manifests]))
    manager, scheduler = other_ports
    config = {
        "data-dir": str(folder / "data"),
        "disable-agent": True,
        "egress-selector-mode": "disabled",
        "disable": ["traefik", "servicelb", "metrics-server", "local-storage", "coredns"],
        "disable-cloud-controller": True,
        "disable-network-policy": True,
        "disable-helm-controller": True,
        "bind-address": "127.0.0.1",
        "https-listen-port": port,
        # Nobody is there: agents would look for the server at it, and there are none.
        "node-ip": "192.0.2.1",
        "advertise-address": "192.0.2.1",
        "write-kubeconfig": str(folder / "admin.kubeconfig"),
        "kube-controller-manager-arg": [f"secure-port={manager}"],
        "kube-scheduler-arg": [f"secure-port={scheduler}"],
        "kube-apiserver-arg": [
            f"authentication-token-webhook-config-file={folder}/token-review.kubeconfig",
            "authentication-token-webhook-version=v1",
            "authentication-token-webhook-cache-ttl=8s",
            f"authorization-config={folder}/authorization.yaml",
            "anonymous-auth=false",
        ],
    }
    path = folder / "config.yaml"
    path.write_text(yaml.safe_dump(config))
    return path
