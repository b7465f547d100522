"""The units: as tightly sandboxed as promised, and agreeing with what the code does."""

from __future__ import annotations

import argparse
import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import get_args

import jinja2
import pytest
import yaml

from k3s_daas_watcher import pods, register_command
from k3s_daas_watcher.config import WatcherConfig
from k3s_daas_watcher.errors import Exit

ROLES = Path(__file__).parents[2] / "roles"
TEMPLATES = ROLES / "watcher" / "templates"
VARIABLES = {
    "watcher_venv": "/opt/k3s-daas/venv",
    "watcher_network": "localnet",
    "watcher_endpoints": ["http://127.0.0.1:9000"],
    "watcher_chain_id": "",
    "watcher_package_id": "0x" + "1" * 64,
    "watcher_original_package_id": "",
    "watcher_registry_id": "0x" + "2" * 64,
    "watcher_node_id": "worker-1",
    "watcher_tee_mode": "simulated",
    "watcher_accept_simulated": True,
    "watcher_simulation_root_file": "",
    "watcher_heartbeat_s": 30,
    "watcher_chain_poll_s": 10,
    "watcher_listen": "127.0.0.1:10280",
    "watcher_metrics_listen": "10.0.0.12:10281",
    "watcher_agent_unit": "k3s-agent.service",
    "watcher_runtime": "containerd",
}


def render(name: str) -> str:
    """A template as Ansible fills it; an unknown variable is an error."""
    environment = jinja2.Environment(undefined=jinja2.StrictUndefined, autoescape=False)  # noqa: S701
    environment.filters["to_nice_json"] = lambda value, indent: json.dumps(
        value, indent=indent, sort_keys=True
    )
    return environment.from_string((TEMPLATES / f"{name}.j2").read_text()).render(VARIABLES)


def register_command_default(name: str) -> Path:
    parser = argparse.ArgumentParser()
    register_command.add_arguments(parser)
    default = parser.get_default(name)
    assert isinstance(default, Path)
    return default


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="systemd-analyze is not installed")
@pytest.mark.parametrize(
    "name",
    ["k3s-daas-watcher", "k3s-daas-agent-control", "k3s-daas-register", "k3s-daas-kubelet-credentials"],
)
def test_exposure_is_at_most_2(name, tmp_path):
    unit = tmp_path / f"{name}.service"
    unit.write_text(render(unit.name))
    done = subprocess.run(
        ["systemd-analyze", "security", "--offline=true", "--no-pager", str(unit)],
        capture_output=True,
        text=True,
        check=False,
    )
    found = re.search(r"Overall exposure level for .*?: ([0-9.]+)", done.stdout)
    assert found, done.stdout + done.stderr
    assert float(found[1]) <= 2.0, done.stdout


def test_the_watcher_is_not_restarted_into_a_slash():
    unit = render("k3s-daas-watcher.service")
    assert f"RestartPreventExitStatus={Exit.SLASHED.value}\n" in unit
    assert "Restart=always\n" in unit
    assert "SuccessExitStatus" not in unit


def test_units_and_code_mean_the_same_files():
    watcher, control = render("k3s-daas-watcher.service"), render("k3s-daas-agent-control.service")
    path, register = render("k3s-daas-agent-control.path"), render("k3s-daas-register.service")
    config = WatcherConfig.model_validate_json(render("watcher.json"))
    assert f"ConditionFileNotEmpty=!{config.stop_marker}\n" in watcher
    assert f"ConditionPathExists=!{config.stop_marker}\n" in register
    assert f"PathExists={config.state_dir}/agent-control.json\n" in path
    assert f"ReadWritePaths={config.state_dir}\n" in control
    assert config.stop_marker.startswith("/var/lib/k3s-daas/")
    assert "StateDirectory=k3s-daas\n" in control
    assert config.confirmation_file.startswith("/run/k3s-daas/")
    assert "RuntimeDirectory=k3s-daas\n" in control
    assert "RuntimeDirectoryPreserve=yes\n" in control


def test_the_agent_marks_its_join_where_registration_looks():
    agent = (ROLES / "k3s_agent" / "templates" / "k3s-agent.service.j2").read_text()
    # With Type=notify this runs after READY, never before.
    assert "Type=notify\n" in agent
    assert f"ExecStartPost=-/usr/bin/touch {register_command.JOINED_MARKER}\n" in agent
    assert register_command.JOINED_MARKER.parent == Path("/var/lib/k3s-daas")
    assert "StateDirectory=k3s-daas\n" in agent
    assert "Requires=k3s-daas-register.service\n" in agent
    directory = register_command_default("agent_dir")
    wanted = f"ReadWritePaths=/etc/rancher -{directory} -{register_command.JOINED_MARKER.parent}\n"
    assert wanted in render("k3s-daas-register.service")


def test_the_kubelets_credentials_are_put_where_the_watcher_looks():
    service, path = (render(f"k3s-daas-kubelet-credentials.{kind}") for kind in ("service", "path"))
    config = WatcherConfig.model_validate_json(render("watcher.json"))
    assert f"RuntimeDirectory={Path(config.kubelet_credentials_dir).name}\n" in service
    for name in (pods.CERTIFICATE, pods.KEY):
        source = register_command_default("agent_dir") / name
        wanted = f"install --mode=0440 -T {source} {config.kubelet_credentials_dir}/{name}\n"
        assert f"ExecStart=/usr/bin/{wanted}" in service
        assert f"PathChanged={source}\n" in path
        assert f"ConditionPathExists={source}\n" in service
    # Of two files that belong together the second is the sign that both are there.
    assert service.index(pods.CERTIFICATE) < service.rindex(pods.KEY)
    assert "Group=k3s-daas-watcher\n" in service
    assert "RuntimeDirectoryMode=0750\n" in service
    unit = render("k3s-daas-watcher.service")
    assert re.search(r"^Wants=.*k3s-daas-kubelet-credentials\.service", unit, re.MULTILINE)


def test_root_registers_with_the_unit_that_there_is():
    config = WatcherConfig.model_validate_json(render("watcher.json"))
    assert (TEMPLATES / f"{config.register_unit}.j2").exists()


def test_no_unit_carries_a_secret_or_a_way_to_one():
    for name in ("k3s-daas-watcher.service", "k3s-daas-register.service"):
        unit = render(name)
        assert "LoadCredential=seal-token:/etc/k3s-daas/seal-token\n" in unit
        assert "Environment" not in unit
        assert "seal_" not in unit


def test_the_configuration_template_is_accepted_by_the_code():
    config = WatcherConfig.model_validate_json(render("watcher.json"))
    assert (config.node_id, config.chain_id, config.original_package_id) == ("worker-1", None, None)


@pytest.mark.parametrize("role", ["watcher", "k3s_agent"])
def test_the_roles_take_the_runtimes_that_the_code_takes(role):
    specs = yaml.safe_load((ROLES / role / "meta" / "argument_specs.yml").read_text())
    option = specs["argument_specs"]["main"]["options"][f"{role}_runtime"]
    assert tuple(option["choices"]) == get_args(WatcherConfig.model_fields["runtime"].annotation)


def test_the_commands_in_the_units_exist():
    from k3s_daas_watcher.__main__ import main

    for name in ("k3s-daas-watcher.service", "k3s-daas-agent-control.service"):
        command = re.search(r"^ExecStart=\S+/k3s-daas-watcher (\S+) ", render(name), re.MULTILINE)
        assert command
        with pytest.raises(SystemExit) as caught:
            main([command[1], "--help"])
        assert caught.value.code == 0
