"""watcher.json: one strict schema, and errors that name field, found and wanted."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from k3s_daas.chainconfig import InvalidConfig, load_chain
from k3s_daas_watcher import config
from k3s_daas_watcher.errors import Exit, Refusal

GOOD: dict[str, Any] = {
    "network": "testnet",
    "endpoints": ["https://fullnode.example:443"],
    "package_id": "0x" + "1" * 64,
    "registry_id": "0x" + "2" * 64,
    "node_id": "worker-1",
    "tee_mode": "simulated",
}


def write(tmp_path: Path, data: Any) -> Path:
    path = tmp_path / "watcher.json"
    path.write_text(data if isinstance(data, str) else json.dumps(data))
    return path


def test_a_good_file_gets_the_documented_defaults(tmp_path: Path) -> None:
    found = config.load(write(tmp_path, GOOD))
    assert (found.heartbeat_s, found.chain_poll_s, found.listen) == (30, 10, "127.0.0.1:10280")
    assert found.accept_simulated is False
    assert found.agent_unit == "k3s-agent.service"


@pytest.mark.parametrize(
    ("changes", "field", "wanted"),
    [
        ({"node_id": "Worker_1"}, "node_id", "RFC 1123"),
        ({"node_id": "a" * 64}, "node_id", "at most 63"),
        ({"node_id": "wörker"}, "node_id", "RFC 1123"),
        ({"node_id": "worker-1\n"}, "node_id", "RFC 1123"),
        ({"node_id": "ansible_host"}, "node_id", "RFC 1123"),
        ({"tee_mode": "none"}, "tee_mode", "nitro"),
        ({"heartbeat_s": "30"}, "heartbeat_s", "integer"),
        ({"accept_simulated": "yes"}, "accept_simulated", "boolean"),
        ({"package_id": "0x2"}, "package_id", "64 lowercase"),
        ({"endpoints": []}, "endpoints", "at least 1"),
        ({"endpoints": ["http://fullnode.example"]}, "endpoints", "plaintext"),
        ({"endpoints": ["ftp://fullnode.example"]}, "endpoints", "URLs like"),
        ({"endpoints": ["https://a.example", "https://a.example"]}, "endpoints", "named twice"),
        ({"network": "mainnet"}, "endpoints", "two of different providers"),
        ({"listen": "0.0.0.0:10280"}, "listen", "loopback"),
        ({"listen": "127.0.0.1"}, "listen", "<address>:<port>"),
        ({"metrics_listen": "10.0.0.12"}, "metrics_listen", "<address>:<port>"),
        ({"metrics_listen": "worker-1:10281"}, "metrics_listen", "IP address"),
        ({"kubelet_health_url": "http://10.0.0.1/healthz"}, "kubelet_health_url", "loopback"),
        ({"runtime": "crio"}, "runtime", "'containerd' or 'docker'"),
        ({"runtime": ""}, "runtime", "'containerd' or 'docker'"),
        ({"agent_unit": "--now.service"}, "agent_unit", "name of a systemd service"),
        ({"agent_unit": "k3s-agent.service; reboot"}, "agent_unit", "name of a systemd service"),
        ({"state_dir": "/var/lib/../etc"}, "state_dir", "absolute path"),
        ({"heartbeats": 30}, "heartbeats", "not permitted"),
    ],
)
def test_a_bad_value_is_named_with_what_was_wanted(
    tmp_path: Path, changes: dict[str, Any], field: str, wanted: str
) -> None:
    with pytest.raises(Refusal) as caught:
        config.load(write(tmp_path, GOOD | changes))
    assert caught.value.exit_code == Exit.CONFIG
    assert field in caught.value.found
    assert wanted in caught.value.wanted
    assert "playbook" in caught.value.text()


def test_every_problem_is_told_at_once(tmp_path: Path) -> None:
    broken = {key: value for key, value in GOOD.items() if key != "registry_id"} | {"node_id": "-"}
    with pytest.raises(Refusal) as caught:
        config.load(write(tmp_path, broken))
    assert "registry_id: nothing" in caught.value.found
    assert 'node_id: "-"' in caught.value.found


@pytest.mark.parametrize("content", ["", "{", "[]", "null", '"text"', "{" + " " * 70_000 + "}"])
def test_what_is_no_json_object_is_refused(tmp_path: Path, content: str) -> None:
    with pytest.raises(Refusal, match="config_invalid"):
        config.load(write(tmp_path, content))


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(Refusal, match=r"nowhere\.json"):
        config.load(tmp_path / "nowhere.json")


def test_the_chain_part_is_read_out_of_any_of_our_files(tmp_path: Path) -> None:
    chain = load_chain(write(tmp_path, GOOD | {"key_file": "/somewhere"}))
    assert chain.deployment.registry_id == GOOD["registry_id"]
    with pytest.raises(InvalidConfig, match="network: nothing"):
        load_chain(write(tmp_path, {key: value for key, value in GOOD.items() if key != "network"}))
