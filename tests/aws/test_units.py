"""The timer and its service: what systemd says of them, and that they start what is there."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml
from aws_kit import REPOSITORY, ansible

ROLE = REPOSITORY / "roles/autoscaling"
NOBODYS = {"k3s_daas_registry_name": "nobodys", "aws_infrastructure_region": "eu-central-1"}


@pytest.fixture(scope="module")
def filled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the role's templates, filled by Ansible."""
    folder = tmp_path_factory.mktemp("units")
    (folder / "nobody.yml").write_text("all: {}")
    given: dict[str, Any] = {
        "k3s_daas_registry_name": "production",
        "aws_infrastructure_region": "eu-central-1",
    }
    given["role_path"] = str(ROLE)
    files = [ROLE / "defaults/main.yml", ROLE / "vars/main.yml"]
    steps: list[dict[str, Any]] = [{"ansible.builtin.include_vars": {"file": str(file)}} for file in files]
    for name in ("autoscaling.json", "autoscaling.service", "autoscaling.timer"):
        content = f"{{{{ lookup('ansible.builtin.template', '{ROLE}/templates/{name}.j2') }}}}"
        steps.append({"ansible.builtin.copy": {"content": content, "dest": str(folder / name)}})
    play = folder / "play.yml"
    play.write_text(
        yaml.safe_dump(
            [{"hosts": "localhost", "gather_facts": False, "vars": given, "tasks": steps}], width=1000
        )
    )
    done = ansible(folder, "ansible-playbook", play, "-i", folder / "nobody.yml")
    assert done.returncode == 0, done.stdout + done.stderr
    return folder


def test_the_service_takes_the_configuration(filled: Path) -> None:
    pytest.importorskip("botocore", reason="boto3 isn't installed: run `make .state/aws`")
    from k3s_daas_autoscaling.config import load

    config = load(filled / "autoscaling.json")
    assert config.fleet == "production"
    assert config.project == REPOSITORY
    assert (config.project / "playbooks/workers.yml").exists()
    assert config.inventory == filled / "nobody.yml"
    assert config.ansible_playbook.exists()
    assert str(config.state_dir) == "/var/lib/k3s-daas-autoscaling-production"


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="systemd-analyze is not installed")
def test_systemd_finds_nothing_wrong(filled: Path, tmp_path: Path) -> None:
    for kind in ("service", "timer"):
        shutil.copy(filled / f"autoscaling.{kind}", tmp_path / f"k3s-daas-autoscaling-production.{kind}")
    command = ["systemd-analyze", "verify", "--man=no", tmp_path / "k3s-daas-autoscaling-production.timer"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert [line for line in done.stderr.splitlines() if "autoscaling" in line] == []


def test_its_command_runs(filled: Path, tmp_path: Path) -> None:
    """As far as it comes without AWS: a configuration that is wrong is said, with nothing run."""
    pytest.importorskip("botocore", reason="boto3 isn't installed: run `make .state/aws`")
    unit = (filled / "autoscaling.service").read_text()
    (command,) = [
        line.removeprefix("ExecStart=") for line in unit.splitlines() if line.startswith("ExecStart=")
    ]
    (path,) = [
        line.removeprefix("Environment=PYTHONPATH=") for line in unit.splitlines() if "PYTHONPATH" in line
    ]
    words = command.split()
    assert words[-1] == "/etc/k3s-daas/autoscaling-production.json"
    given = json.loads((filled / "autoscaling.json").read_text()) | {"inventori": "x"}
    (tmp_path / "wrong.json").write_text(json.dumps(given))
    environment = os.environ | {"PYTHONPATH": f"{path}:{os.environ.get('PYTHONPATH', '')}"}
    done = subprocess.run(
        [*words[:-1], tmp_path / "wrong.json"],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        env=environment,
    )
    assert done.returncode == 2
    assert "inventori: Extra inputs are not permitted" in done.stderr


@pytest.mark.skipif(os.geteuid() != 0, reason="the play becomes root")
@pytest.mark.parametrize(
    ("state", "words"), [("present", "Description=K3s-DaaS: look"), ("absent", "changed=0")]
)
def test_check_mode_says_what_would_be_written(tmp_path: Path, state: str, words: str) -> None:
    (tmp_path / "nobody.yml").write_text("all: {}")
    given = NOBODYS | {"autoscaling_state": state}
    done = ansible(
        *(tmp_path, "ansible-playbook", "playbooks/autoscaling.yml", "-i", tmp_path / "nobody.yml"),
        *("--check", "--diff", "-e", json.dumps(given)),
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert words in done.stdout
    assert not Path("/etc/systemd/system/k3s-daas-autoscaling-nobodys.timer").exists()


def test_it_wants_one_inventory(tmp_path: Path) -> None:
    for name in ("one.yml", "two.yml"):
        (tmp_path / name).write_text("all: {}")
    given = NOBODYS | {"ansible_become": False}
    done = ansible(
        *(tmp_path, "ansible-playbook", "playbooks/autoscaling.yml", "--check", "-e", json.dumps(given)),
        *("-i", tmp_path / "one.yml", "-i", tmp_path / "two.yml"),
    )
    assert done.returncode != 0
    assert "two.yml; wanted one directory or file" in " ".join(done.stdout.split())
