"""What an operator sends to those who help."""

from __future__ import annotations

import json
import tarfile
from pathlib import Path
from typing import Any

from testinfra.host import Host

from pages import told
from scenario import is_enclave, play


def test_it_brings_every_host_and_none_of_its_secrets(
    hosts: dict[str, Host], stage: dict[str, Any], tmp_path: Path
) -> None:
    command = told("docs/support.md", "playbooks/support.yml")
    run = play(*command, f"--extra-vars=support_folder={tmp_path}/support")
    assert run.code == 0, run.output
    assert set(run.changed.values()) == {0}
    secrets = {hosts[name].check_output("cat /etc/k3s-daas/seal-token") for name in ("worker-1", "worker-2")}
    for name, host in hosts.items():
        if name == "master" and is_enclave(stage):
            continue  # nothing is brought out of an enclave
        assert not host.file("/run/k3s-daas-support.tar.gz").exists
        with tarfile.open(tmp_path / "support" / f"{name}.tar.gz") as bundle:
            members = [(entry.name.partition("/")[2], bundle.extractfile(entry)) for entry in bundle]
            files = {path: file.read().decode() for path, file in members if file}
        went = {one["name"]: one["exit_code"] for one in json.loads(files["index.json"])}
        assert went["journal.txt"] == went["host/k3s-version.txt"] == 0
        assert "k3s-daas-" in files["units.txt"]
        if name == "master":
            assert went["status.txt"] == 0
            assert "worker-1" in files["status.txt"]
            assert "worker-1" in files["cluster/nodes.txt"]
        assert not any(secret in text for secret in secrets for text in files.values())
