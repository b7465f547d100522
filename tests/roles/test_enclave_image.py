"""The role enclave_image: what it refuses, and what other roles' files become in an image."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from playbook_kit import ansible_playbook


def play(folder: Path, tasks: list[dict[str, Any]], **variables: str) -> tuple[int, str]:
    """(exit code, output as one line)."""
    return ansible_playbook(
        folder, [{"hosts": "localhost", "gather_facts": False, "tasks": tasks}], {}, **variables
    )


PREFLIGHT = [{"ansible.builtin.include_role": {"name": "enclave_image", "tasks_from": "preflight"}}]


@pytest.mark.parametrize(
    ("sha256", "found"),
    [
        ("", 'and "" as enclave_image_kernel_sha256'),
        ("0" * 64, f"wanted {'0' * 64}, which enclave_image_kernel_sha256 says"),
    ],
)
def test_a_file_without_its_own_hash_is_refused(tmp_path: Path, sha256: str, found: str) -> None:
    (tmp_path / "bzImage").write_bytes(b"kernel")
    code, output = play(
        tmp_path,
        PREFLIGHT,
        enclave_image_kernel_path=str(tmp_path / "bzImage"),
        enclave_image_kernel_sha256=sha256,
    )
    assert code != 0
    assert found in output


def test_a_file_with_its_hash_is_taken(tmp_path: Path) -> None:
    (tmp_path / "bzImage").write_bytes(b"kernel")
    code, output = play(
        tmp_path,
        PREFLIGHT,
        enclave_image_kernel_path=str(tmp_path / "bzImage"),
        enclave_image_kernel_sha256=hashlib.sha256(b"kernel").hexdigest(),
    )
    assert code == 0, output


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, Any]]:
    """Everything that the role puts over Debian's tree, by path."""
    folder = tmp_path_factory.mktemp("image")
    tasks: list[dict[str, Any]] = [
        {"ansible.builtin.include_role": {"name": "enclave_image", "tasks_from": "files"}},
        {"ansible.builtin.copy": {"content": "{{ enclave_image_files | to_json }}", "dest": f"{folder}/out"}},
    ]
    code, output = play(folder, tasks, enclave_image_gvforwarder_path="/x/gvforwarder")
    assert code == 0, output
    return {file["path"]: file for file in json.loads((folder / "out").read_text())}


def test_nothing_of_a_cluster_is_in_the_image(files: dict[str, dict[str, Any]]) -> None:
    policy = json.loads(files["/usr/lib/k3s-daas/master.json"]["content"])
    assert {"network", "endpoints", "chain_id", "package_id", "registry_id", "tee_mode", "nsm_socket"} & set(
        policy
    ) == set()
    assert policy["slashing"] == "observe"
    server = yaml.safe_load(files["/etc/rancher/k3s/config.yaml"]["content"])
    assert {"node-ip", "advertise-address", "tls-san"} & set(server) == set()
    assert "anonymous-auth=false" in server["kube-apiserver-arg"]
    assert server["disable-agent"] is True


def test_units_get_their_address_when_they_start(files: dict[str, dict[str, Any]]) -> None:
    unit = files["/etc/systemd/system/k3s-daas-master.service"]["content"]
    assert "--san ${K3S_DAAS_ADDRESS} --san ${K3S_DAAS_NAME}" in unit
    assert "DeviceAllow=/dev/nsm rw" in unit
    addition = files["/etc/systemd/system/k3s-daas-master.service.d/enclave.conf"]["content"]
    assert "EnvironmentFile=/run/k3s-daas/master.env" in addition


def test_every_unit_that_is_started_is_there(files: dict[str, dict[str, Any]]) -> None:
    started = [path for path in files if ".wants/" in path]
    names = {Path(path).name for path in started}
    assert {
        "k3s.service",
        "k3s-daas-master.service",
        "k3s-daas-enclave.service",
        "gvforwarder.service",
    } <= names
    assert [name for name in names if f"/etc/systemd/system/{name}" not in files] == []


def test_sealed_state_is_restored_before_k3s_starts(tmp_path: Path) -> None:
    tasks: list[dict[str, Any]] = [
        {"ansible.builtin.include_role": {"name": "enclave_image", "tasks_from": "files"}},
        {
            "ansible.builtin.copy": {
                "content": "{{ enclave_image_files | to_json }}",
                "dest": f"{tmp_path}/out",
            }
        },
    ]
    url = "https://fleet-snapshots.s3.eu-central-1.amazonaws.com/sealed"
    key = "arn:aws:kms:eu-central-1:111122223333:key/1234"
    code, output = play(tmp_path, tasks, master_snapshot_url=url, master_snapshot_kms_key=key)
    assert code == 0, output
    found = {file["path"]: file for file in json.loads((tmp_path / "out").read_text())}
    units = "/etc/systemd/system"
    restore = "k3s-daas-master-restore.service"
    assert found[f"{units}/k3s.service.requires/{restore}"]["target"] == f"../{restore}"
    assert "Before=k3s.service" in found[f"{units}/{restore}"]["content"]
    assert "After=k3s-daas-enclave.service" in found[f"{units}/{restore}.d/enclave.conf"]["content"]
    assert f"{units}/multi-user.target.wants/k3s-daas-master-snapshot.path" in found
    assert "/var/lib/k3s-daas" in found  # the unit that makes snapshots may write there, so it has to be
    policy = json.loads(found["/usr/lib/k3s-daas/master.json"]["content"])
    assert (policy["snapshot_url"], policy["snapshot_kms_key"]) == (url, key)
    assert policy["snapshot_dir"] is policy["snapshot_key_file"] is None


@pytest.mark.parametrize(
    ("changes", "found"),
    [
        ({"master_snapshot_url": "https://b-1.s3.eu-central-1.amazonaws.com/s"}, "master_snapshot_kms_key"),
        ({"master_snapshot_dir": "/srv", "master_snapshot_kms_key": "arn:aws:kms:r:1:key/1"}, "has no disk"),
    ],
)
def test_an_image_whose_state_could_not_be_sealed_is_refused(
    tmp_path: Path, changes: dict[str, str], found: str
) -> None:
    code, output = play(tmp_path, PREFLIGHT, **changes)
    assert (code != 0, found in output) == (True, True), output


def test_no_file_that_could_hold_a_secret_is_open_to_others(files: dict[str, dict[str, Any]]) -> None:
    for path in ("/etc/rancher/k3s/config.yaml", "/etc/rancher/k3s/token-review.kubeconfig"):
        assert files[path]["mode"] == "0600"
