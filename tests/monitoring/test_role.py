"""playbooks/monitoring.yml for a Prometheus that is there already, in a folder of the test."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

PROJECT = Path(__file__).parents[2]
PEM = "-----BEGIN CERTIFICATE-----\nMIIB\n-----END CERTIFICATE-----\n"
GROUPS: dict[str, Any] = {
    "k3s_daas_master": {"hosts": {"master": {"ansible_host": "10.0.0.1"}}},
    "k3s_daas_workers": {
        "hosts": {
            "worker-1": {"ansible_host": "10.0.0.2", "watcher_metrics_listen": "{{ ansible_host }}:10281"},
            "worker-2": {"ansible_host": "10.0.0.3"},
            "worker-3": {"ansible_host": "10.0.0.4", "watcher_metrics_listen": ""},
        }
    },
    "k3s_daas_monitoring": {"hosts": {"here": {"ansible_connection": "local", "ansible_become": False}}},
}


def watch(folder: Path, groups: dict[str, Any] = GROUPS, **given: Any) -> tuple[int, str]:
    """(exit code, output as one line)."""
    (folder / "inventory.yml").write_text(yaml.safe_dump(groups))
    wanted = {
        "k3s_daas_registry_name": "mine",
        "ansible_python_interpreter": sys.executable,
        "monitoring_install": False,
        "monitoring_dir": str(folder / "prometheus"),
        "monitoring_ca_pem": PEM,
        **given,
    }
    command = [
        *(Path(sys.executable).parent / "ansible-playbook", PROJECT / "playbooks/monitoring.yml"),
        *("-i", folder / "inventory.yml", "--extra-vars", json.dumps(wanted)),
    ]
    done = subprocess.run(
        command,
        cwd=PROJECT,
        env=os.environ | {"ANSIBLE_NOCOLOR": "1", "HOME": str(folder), "LC_ALL": "C.UTF-8"},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    return done.returncode, " ".join((done.stdout + done.stderr).split())


def test_it_writes_what_a_prometheus_takes_in(tmp_path: Path) -> None:
    grafana = tmp_path / "grafana"
    code, output = watch(tmp_path, monitoring_grafana_dir=str(grafana))
    assert code == 0, output
    assert f"scrape_config_files: [{tmp_path}/prometheus/scrape-*.yml]" in output
    master, watchers = yaml.safe_load((tmp_path / "prometheus/scrape-mine.yml").read_text())["scrape_configs"]
    assert master["scheme"] == "https"
    assert Path(master["tls_config"]["ca_file"]).read_text() == PEM
    assert master["static_configs"] == [
        {"targets": ["10.0.0.1:8443"], "labels": {"job": "k3s-daas-master", "cluster": "mine"}}
    ]
    labels = {"job": "k3s-daas-watcher", "cluster": "mine", "node_id": "worker-1"}
    assert watchers["static_configs"] == [{"targets": ["10.0.0.2:10281"], "labels": labels}]
    # Its own braces are Prometheus': Ansible leaves them alone.
    rules = (PROJECT / "roles/monitoring/files/rules.yml").read_text()
    assert (tmp_path / "prometheus/rules.yml").read_text() == rules
    models = [json.loads(path.read_text()) for path in sorted((grafana / "k3s-daas").glob("*.json"))]
    assert [model["uid"] for model in models] == ["k3s-daas-fleet", "k3s-daas-master", "k3s-daas-worker"]
    provider = yaml.safe_load((grafana / "provisioning/dashboards/k3s-daas.yml").read_text())["providers"][0]
    assert provider["options"]["path"] == str(grafana / "k3s-daas")


@pytest.mark.parametrize(
    ("given", "found"),
    [
        ({"monitoring_cluster": "a b"}, "Found the cluster a b"),
        ({"monitoring_watchers": {"worker-1": "0.0.0.0:10281"}}, "10.0.0.1:8443, 0.0.0.0:10281"),
        ({"monitoring_master_target": "10.0.0.1"}, "to be asked or told 10.0.0.1,"),
        ({"monitoring_ca_pem": "text"}, "monitoring_ca_pem is no certificate"),
    ],
)
def test_what_cant_be_asked_is_refused_before_anything_is_written(
    tmp_path: Path, given: dict[str, Any], found: str
) -> None:
    code, output = watch(tmp_path, **given)
    assert code != 0
    assert found in output
    assert not (tmp_path / "prometheus").exists()


def test_it_wants_a_host(tmp_path: Path) -> None:
    code, output = watch(tmp_path, {**GROUPS, "k3s_daas_monitoring": {}})
    assert code != 0
    assert "Found 0 hosts in k3s_daas_monitoring and 1 in k3s_daas_master" in output
