"""Write down what is the cluster's own, and make the secrets that never leave the enclave.

Run again it changes nothing that is there: an enclave that is only restarted in place keeps its secrets.
"""

from __future__ import annotations

import base64
import datetime as dt
import grp
import json
import os
import secrets
import stat
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from k3s_daas.attestation.configuration import config_hash
from k3s_daas.enclave.cluster import SIMULATED_PARENT, Cluster

#: The address that the parent's gvproxy gives the enclave.
NITRO_ADDRESS = "192.168.127.2"
_GROUP = "k3s-daas-master"


@dataclass(frozen=True)
class Place:
    """A file system's root; another one than / in tests."""

    root: Path = Path("/")

    def __call__(self, path: str) -> Path:
        return self.root / path.lstrip("/")


def is_nitro(place: Place) -> bool:
    """Whether there is a security module: nothing that the parent says decides that."""
    try:
        return stat.S_ISCHR(place("/dev/nsm").stat().st_mode)
    except OSError:
        return False


def configure(cluster: Cluster, place: Place) -> None:
    """Everything that k3s and the master's service read. Raises OSError."""
    nitro = is_nitro(place)
    for folder in ("/etc/rancher/k3s/config.yaml.d", "/etc/k3s-daas", "/run/k3s-daas"):
        place(folder).mkdir(parents=True, exist_ok=True)
    _write(place("/etc/rancher/k3s/config.yaml.d/cluster.yaml"), yaml.safe_dump(k3s(cluster, nitro)), 0o600)
    settings = json.loads(place("/usr/lib/k3s-daas/master.json").read_text())
    group = _group()
    _write(
        place("/etc/k3s-daas/master.json"),
        json.dumps(settings | master(cluster, nitro), indent=2) + "\n",
        0o640,
        group,
    )
    names = [cluster.address, *cluster.names]
    _write(
        place("/run/k3s-daas/master.env"),
        f"K3S_DAAS_ADDRESS={names[0]}\nK3S_DAAS_NAME={names[1] if len(names) > 1 else names[0]}\n",
        0o644,
    )
    _secret(place("/etc/rancher/k3s/agent-token"), f"{secrets.token_hex(32)}\n")
    _secret(place("/etc/rancher/k3s/encryption.json"), encryption())
    if nitro and group is not None:
        os.chown(place("/dev/nsm"), 0, group)
        place("/dev/nsm").chmod(0o660)


def k3s(cluster: Cluster, nitro: bool) -> dict[str, Any]:
    """What the server's configuration needs beside the image's own. Addresses only."""
    return {
        "node-ip": NITRO_ADDRESS if nitro else cluster.address,
        "advertise-address": cluster.address,
        "tls-san": [cluster.address, *cluster.names],
    }


def master(cluster: Cluster, nitro: bool) -> dict[str, Any]:
    """What the service's configuration needs beside the image's own policy."""
    return {
        "network": cluster.network,
        "endpoints": cluster.endpoints,
        "chain_id": cluster.chain_id,
        "package_id": cluster.package_id,
        "original_package_id": cluster.original_package_id,
        "registry_id": cluster.registry_id,
        "operator_cap_id": cluster.operator_cap_id,
        "tee_mode": "nitro" if nitro else "simulated",
        "nsm_socket": None if nitro else str(SIMULATED_PARENT / "nsm.sock"),
        "endpoint": f"https://{cluster.address}:8443",
        "api_server": f"https://{cluster.address}:6443",
        "names": cluster.names,
    }


def told_hash(cluster: Cluster) -> bytes:
    """The hash, 32 bytes, that an enclave states of what it was told: see `attestation.configuration`."""
    return config_hash(master(cluster, nitro=True))


def encryption() -> str:
    """An EncryptionConfiguration for Secrets with one new AES-GCM key, as the role k3s_server makes it."""
    key = {
        "name": f"key-1-{dt.datetime.now(dt.UTC):%Y%m%d}",
        "secret": base64.b64encode(os.urandom(32)).decode("ascii"),
    }
    content = {
        "apiVersion": "apiserver.config.k8s.io/v1",
        "kind": "EncryptionConfiguration",
        "resources": [{"resources": ["secrets"], "providers": [{"aesgcm": {"keys": [key]}}]}],
    }
    return json.dumps(content, indent=2) + "\n"


def _secret(path: Path, content: str) -> None:
    if not path.exists():
        _write(path, content, 0o600)


def _write(path: Path, content: str, mode: int, group: int | None = None) -> None:
    temporary = path.with_name(f".{path.name}.new")
    temporary.unlink(missing_ok=True)
    with os.fdopen(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode), "w") as file:
        os.fchmod(file.fileno(), mode)
        if group is not None:
            os.fchown(file.fileno(), -1, group)
        file.write(content)
    temporary.replace(path)


def _group() -> int | None:
    """Number of the service's group; None where it is not, as in tests."""
    try:
        return grp.getgrnam(_GROUP).gr_gid
    except KeyError:
        return None
