"""After two runs of site.yml on hosts without a way out: a whole cluster, and nothing tried it."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from testinfra.host import Host

from scenario import STAGE

BROUGHT = STAGE / "airgap"
CANARIES = (b"canary-of-the-proxy", b"canary-of-the-registry")


def dropped(host: Host) -> tuple[int, list[Any]]:
    """(packets, [address, protocol, port] of each target) that the host's rule kept from leaving."""
    counter = json.loads(host.check_output("nft --json list counter inet airgap outside"))
    tried = json.loads(host.check_output("nft --json list set inet airgap tried"))
    packets = next(entry["counter"]["packets"] for entry in counter["nftables"] if "counter" in entry)
    elements = next(entry["set"].get("elem", []) for entry in tried["nftables"] if "set" in entry)
    return packets, [element.get("elem", element) for element in elements]


@pytest.mark.parametrize("name", ["master", "worker-1"])
class TestTheWayOut:
    def test_nothing_tried_it(self, hosts: dict[str, Host], name: str) -> None:
        assert dropped(hosts[name]) == (0, [])

    def test_what_tries_it_is_dropped_and_counted(self, hosts: dict[str, Host], name: str) -> None:
        # The address is documentation's (RFC 5737).
        hosts[name].run("python3 -c \"import socket; socket.create_connection(('192.0.2.1', 443), 0.1)\"")
        packets, tried = dropped(hosts[name])
        hosts[name].check_output(
            "nft reset counter inet airgap outside && nft flush set inet airgap tried"
        )  # for the next verify of hosts that were kept
        assert packets > 0
        assert [entry["concat"] for entry in tried] == [["192.0.2.1", "tcp", 443]]


def test_the_worker_is_ready(nodes: Callable[[], dict[str, dict[str, Any]]]) -> None:
    found = nodes()
    assert set(found) == {"worker-1"}
    conditions = {one["type"]: one["status"] for one in found["worker-1"]["status"]["conditions"]}
    assert conditions["Ready"] == "True"


@pytest.mark.parametrize("name", ["master", "worker-1"])
def test_the_environment_is_the_wheelhouse_that_was_brought(hosts: dict[str, Host], name: str) -> None:
    (tar,) = (BROUGHT / "wheelhouse").iterdir()  # and nothing that a download would leave beside it
    environment = tar.name.removesuffix(".tar.gz")
    assert hosts[name].check_output("readlink /opt/k3s-daas/venv") == f"{environment}/env"


def test_the_binary_is_the_one_that_was_brought(hosts: dict[str, Host], stage: dict[str, Any]) -> None:
    wanted = hosts["master"].file("/usr/local/bin/k3s").sha256sum
    assert hosts["worker-1"].file("/usr/local/bin/k3s").sha256sum == wanted
    assert Path(stage["k3s_binary"]).stat().st_size == hosts["master"].file("/usr/local/bin/k3s").size


def test_the_image_is_where_k3s_imports_it_from(hosts: dict[str, Host]) -> None:
    file = hosts["worker-1"].file("/var/lib/rancher/k3s/agent/images/images.tar")
    assert file.content == (BROUGHT / "images.tar").read_bytes()
    assert not hosts["master"].file("/var/lib/rancher/k3s/agent/images").exists


def environment(host: Host, unit: str) -> dict[str, str]:
    """What of the proxy a unit's process has in its environment."""
    pid = host.check_output("systemctl show --property=MainPID --value %s", unit)
    words = host.check_output("tr '\\0' '\\n' < /proc/%s/environ", pid.strip()).splitlines()
    return dict(word.split("=", 1) for word in words if "PROXY=" in word.partition("=")[0] + "=")


@pytest.mark.parametrize(("name", "unit"), [("master", "k3s.service"), ("worker-1", "k3s-agent.service")])
def test_k3s_knows_the_proxy_and_what_is_nearer(
    hosts: dict[str, Host], stage: dict[str, Any], name: str, unit: str
) -> None:
    found = environment(hosts[name], unit)
    gateway = stage["rpc"].removeprefix("http://").partition(":")[0]
    assert found["HTTP_PROXY"] == f"http://airgap:canary-of-the-proxy@{gateway}:3128"
    assert found["HTTPS_PROXY"] == found["HTTP_PROXY"]
    past = found["NO_PROXY"].split(",")
    assert set(stage["hosts"].values()) <= set(past)
    assert {
        "127.0.0.0/8",
        "10.42.0.0/16",
        "10.43.0.0/16",
        ".svc",
        ".cluster.local",
        "registry.internal",
    } <= set(past)
    file = hosts[name].file("/etc/rancher/k3s/proxy.env")
    assert (file.user, file.mode) == ("root", 0o600)
    assert "canary" not in hosts[name].check_output("systemctl show --all %s; systemctl cat %s", unit, unit)


def test_the_mirrors_are_as_in_the_inventory(hosts: dict[str, Host], stage: dict[str, Any]) -> None:
    file = hosts["worker-1"].file("/etc/rancher/k3s/registries.yaml")
    assert (file.user, file.mode) == ("root", 0o600)
    mirror = stage["rpc"].removeprefix("http://").partition(":")[0] + ":5000"
    assert yaml.safe_load(file.content_string) == {
        "mirrors": {"*": {"endpoint": [f"https://{mirror}"]}},
        "configs": {mirror: {"auth": {"username": "airgap", "password": "canary-of-the-registry"}}},
    }
    assert not hosts["master"].file("/etc/rancher/k3s/registries.yaml").exists


def test_no_password_in_ansible_s_output() -> None:
    log = Path(os.environ["ANSIBLE_LOG_PATH"]).read_bytes()
    assert b"EXEC" in log, "the log was not made with -vvv"
    assert [canary for canary in CANARIES if canary in log] == []


@pytest.mark.parametrize("name", ["master", "worker-1"])
def test_no_password_where_others_than_root_can_read(hosts: dict[str, Host], name: str) -> None:
    done = hosts[name].run(
        "journalctl --no-pager --output=cat --all; cat /proc/[0-9]*/cmdline | tr '\\0' '\\n'; "
        "find / -xdev \\( -path /proc -o -path /sys -o -path /usr \\) -prune "
        "-o -type f -perm /044 -size -4M -print0 | xargs -0 cat 2>/dev/null"
    )
    assert len(done.stdout_bytes) > 1000, "nothing was searched"
    assert [canary for canary in CANARIES if canary in done.stdout_bytes] == []
