"""A playbook's run as a controller's job: ansible-runner in an environment that has what the image has.

What AWX 24.6.1 does before it starts a job (awx/main/tasks/jobs.py, awx/main/models/credential.py) is done
here: a private data directory with the project's checkout, an inventory that is a program, and keys in files
of the job. What is missing is the container: its paths are below a temporary directory, its user is root.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml
from jinja2.sandbox import ImmutableSandboxedEnvironment

from scenario import PROJECT, Run

#: What `make .state/ee.ready` makes.
IMAGE = PROJECT / ".state/ee"
#: Where a container has what here is below a temporary directory.
RUNNER = "/runner"
_COLOUR = re.compile(r"\x1b\[[0-9;]*m")


class _Loader(yaml.SafeLoader):
    """YAML with Ansible's `!unsafe`, which is text here."""


_Loader.add_constructor("!unsafe", lambda loader, node: loader.construct_scalar(node))


def described(name: str) -> dict[str, Any]:
    """awx/NAME.yml."""
    found: dict[str, Any] = yaml.load((PROJECT / f"awx/{name}.yml").read_text(), _Loader)  # noqa: S506
    return found


def image_environment(runner: Path) -> dict[str, str]:
    """The variables that execution-environment.yml sets, with `runner` in the place of /runner."""
    steps = yaml.safe_load((PROJECT / "execution-environment.yml").read_text())["additional_build_steps"]
    pairs = [
        step.split(" ", 1)[1].partition("=") for step in steps["append_final"] if step.startswith("ENV ")
    ]
    return {name: value.replace(RUNNER, str(runner)) for name, _, value in pairs}


@dataclass(frozen=True)
class Controller:
    """`folder` is the controller's own; each job has a directory in it that is removed afterwards.

    `key`: content of the ssh key. `wallet`: content of the wallet's key.
    """

    folder: Path
    inventory: Mapping[str, Any]
    key: str
    wallet: str
    homes: list[list[str]] = field(default_factory=list)

    def __post_init__(self) -> None:
        if not (IMAGE.parent / "ee.ready").exists():
            raise RuntimeError(
                f"found no {IMAGE}, wanted what an execution environment has: run make .state/ee.ready"
            )
        # As the image has it in /: in a folder above the checkouts.
        compiler = PROJECT / "localnet/k3s_daas_localnet/compiler/node_modules"
        (self.folder / "node_modules").symlink_to(compiler.resolve())

    def launch(self, template: str, *, check: bool = False, **extra_vars: Any) -> Run:
        """Run the job template's playbook to its end."""
        runner = Path(tempfile.mkdtemp(prefix="awx_", dir=self.folder))
        home = Path(tempfile.mkdtemp(prefix="home_", dir=self.folder))
        try:
            return self._run(
                runner, home, template, check, described("controller")["awx_extra_vars"] | extra_vars
            )
        finally:
            self.homes.append(sorted(path.name for path in home.iterdir()))
            shutil.rmtree(home)
            shutil.rmtree(runner)

    def _run(self, runner: Path, home: Path, template: str, check: bool, extra_vars: dict[str, Any]) -> Run:
        for name in ("env", "inventory", "cp"):
            (runner / name).mkdir(mode=0o700)
        _checkout(runner / "project")
        hosts = runner / "inventory/hosts"
        hosts.write_text(f"#! /usr/bin/env python3\nprint({json.dumps(self.inventory)!r})\n")
        hosts.chmod(0o700)
        arguments = ["--check"] if check else []
        arguments += ["-u", "root", "--diff"]
        environment = {
            "ANSIBLE_FORCE_COLOR": "True",
            "ANSIBLE_HOST_KEY_CHECKING": "True",
            "ANSIBLE_SSH_CONTROL_PATH_DIR": str(runner / "cp"),
            "ANSIBLE_ROLES_PATH": f"{runner}/requirements_roles:roles:~/.ansible/roles",
            "AWX_PRIVATE_DATA_DIR": str(runner),
            "JOB_ID": "1",
        }
        self._inject(runner / "env", environment, arguments)
        write = {
            "extravars": yaml.safe_dump(extra_vars),
            "cmdline": " ".join(arguments),
            "envvars": json.dumps(environment),
            "ssh_key": self.key,
            "settings": json.dumps({"suppress_output_file": True}),
        }
        for name, content in write.items():
            (runner / "env" / name).write_text(content)
            (runner / "env" / name).chmod(0o600)
        command = [
            IMAGE / "bin/ansible-runner",
            "run",
            runner,
            "--ident",
            "1",
            "-p",
            f"playbooks/{template}.yml",
        ]
        done = subprocess.run(
            [*map(str, command)],
            cwd=runner,
            # Nothing of this environment's but where programs are.
            env={
                "HOME": str(home),
                "LC_ALL": "C.UTF-8",
                "PATH": f"{IMAGE / 'bin'}:{os.environ['PATH']}",
                **image_environment(runner),
            },
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=600,
            check=False,
        )
        return Run(done.returncode, _COLOUR.sub("", done.stdout + done.stderr))

    def _inject(self, env: Path, environment: dict[str, str], arguments: list[str]) -> None:
        """The wallet's credential, by its type's injectors."""
        types = described("controller")["awx_own_credential_types"]
        injectors = next(one["injectors"] for one in types if one["name"] == "K3s-DaaS wallet")
        render = ImmutableSandboxedEnvironment().from_string
        key = _file(env, render(injectors["file"]["template"]).render(key=self.wallet))
        told = {"tower": {"filename": key}}
        environment.update({key: render(text).render(told) for key, text in injectors["env"].items()})
        variables = {key: render(text).render(told) for key, text in injectors["extra_vars"].items()}
        arguments += ["-e", f"@{_file(env, yaml.safe_dump(variables))}"]


def _file(folder: Path, content: str) -> str:
    """Path of a new file (0600) with a name that says nothing."""
    number, name = tempfile.mkstemp(dir=folder)
    with os.fdopen(number, "w") as file:
        file.write(content)
    return name


def imported(stage: Mapping[str, Any]) -> dict[str, Any]:
    """inventories/local as a controller has it after an update, `stage` being the stage's description.

    The wallet's path is nobody's: the credential has to bring another.
    """
    groups = {
        path.stem: {"vars": yaml.safe_load(path.read_text())}
        for path in (PROJECT / "inventories/local/group_vars").glob("*.yml")
    }
    known_hosts = Path(stage["ssh_config"]).parent / "known_hosts"
    del groups["all"]["vars"]["k3s_daas_stage_dir"]
    groups["all"]["vars"] |= {
        "k3s_daas_stage": {**stage, "wallet": "/nowhere/operator.key"},
        "ansible_ssh_common_args": f"-o UserKnownHostsFile={known_hosts} -o StrictHostKeyChecking=yes",
        # An image may bring it, as here, or each job fetches it.
        "runtime_cache_dir": str(PROJECT / ".state/wheelhouse"),
    }
    workers = [name for name in stage["hosts"] if name.startswith("worker-")]
    for group, hosts in (("k3s_daas_master", ["master"]), ("k3s_daas_workers", workers)):
        groups.setdefault(group, {})["hosts"] = hosts
    addresses = {name: {"ansible_host": address} for name, address in stage["hosts"].items()}
    return {**groups, "_meta": {"hostvars": addresses}}


def _checkout(folder: Path) -> None:
    """What the project's update leaves: a clone of the commit that is checked out here, and nothing else."""
    if not (PROJECT / ".git").exists():  # unpacked from an archive
        left = shutil.ignore_patterns(".state", ".venv", "node_modules", "__pycache__")
        shutil.copytree(PROJECT, folder, ignore=left)
        return
    trust = folder.with_name("gitconfig")
    trust.write_text("[safe]\n\tdirectory = *\n")  # of whomever this checkout is
    subprocess.run(
        ["git", "clone", "--quiet", "--depth=1", f"file://{PROJECT}", str(folder)],
        env=os.environ | {"GIT_CONFIG_GLOBAL": str(trust)},
        check=True,
    )
