#!/usr/bin/python
# Copyright: the K3s-DaaS authors
# SPDX-License-Identifier: Apache-2.0
"""Build the tar of wheels that gives hosts the daemons."""

from __future__ import annotations

DOCUMENTATION = r"""
module: k3s_daas_wheelhouse
short_description: Build the wheelhouse of the K3s-DaaS daemons
description:
  - Builds one tar with the wheels of C(k3s-daas) and of all it needs, for one Python and architecture.
  - The tar is named by what went into it, so that a host installs only when the name changes.
  - Runs on the control node (C(delegate_to=localhost)); hosts then need no package index.
options:
  project:
    description: The project's root, where C(pyproject.toml) is.
    type: path
    required: true
  requirements:
    description: The locked requirements with hashes.
    type: path
    required: true
  cache_dir:
    description: Where the tar and the downloaded wheels are kept.
    type: path
    required: true
  python_version:
    description: Python of the hosts, as C(major.minor).
    type: str
    required: true
  architecture:
    description: Architecture of the hosts, as C(uname -m) prints it.
    type: str
    required: true
    choices: [x86_64, aarch64]
attributes:
  check_mode:
    support: full
  diff_mode:
    support: none
author: [K3s-DaaS authors (@k3s-daas)]
"""

EXAMPLES = r"""
- name: Build the wheelhouse
  k3s_daas_wheelhouse:
    project: "{{ playbook_dir }}/.."
    requirements: "{{ playbook_dir }}/../requirements/hosts.txt"
    cache_dir: "{{ playbook_dir }}/../.state/wheelhouse"
    python_version: "3.11"
    architecture: x86_64
  delegate_to: localhost
  run_once: true
  register: wheelhouse
"""

RETURN = r"""
name:
  description: The wheelhouse's name, made of the hash of its content.
  returned: always
  type: str
  sample: k3s-daas-cp311-x86_64-3f1c2b7d90aa4e55
path:
  description: The tar on the control node.
  returned: always
  type: str
"""

import hashlib
import shutil
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path

from ansible.module_utils.basic import AnsibleModule

SOURCES = ("src/k3s_daas", "roles/master/files/k3s_daas_master", "roles/watcher/files/k3s_daas_watcher")
# From old to new glibc: pip takes a wheel that fits any of them.
MANYLINUX = ("manylinux2014", "manylinux_2_17", "manylinux_2_28", "manylinux_2_34")


def digest(*parts: bytes) -> str:
    """16 hex digits that change with any part."""
    total = hashlib.sha256()
    for part in parts:
        total.update(len(part).to_bytes(8, "big"))
        total.update(part)
    return total.hexdigest()[:16]


def source_files(project: Path) -> list[Path]:
    """Every file that ends up in the project's own wheel."""
    files = [project / "pyproject.toml", project / "README.md", project / "LICENSE"]
    for folder in SOURCES:
        files += [path for path in (project / folder).rglob("*") if path.is_file() and path.suffix != ".pyc"]
    return sorted(files)


def pip(*arguments: str) -> None:
    subprocess.run(
        [sys.executable, "-m", "pip", "--disable-pip-version-check", "--quiet", *arguments],
        check=True,
        capture_output=True,
        text=True,
    )


def download(requirements: Path, target: Path, python_version: str, architecture: str) -> None:
    """Fetch the locked wheels into target; a half-done download is never left under that name."""
    if target.is_dir():
        return
    target.parent.mkdir(parents=True, exist_ok=True)
    tag = "cp" + python_version.replace(".", "")
    with tempfile.TemporaryDirectory(dir=target.parent) as temporary:
        platforms = [word for name in MANYLINUX for word in ("--platform", f"{name}_{architecture}")]
        pip(
            "download", "--require-hashes", "--no-deps", "--only-binary=:all:",
            "--requirement", str(requirements),
            "--python-version", python_version, "--implementation", "cp", *platforms,
            "--abi", tag, "--abi", "abi3", "--abi", "none", "--dest", f"{temporary}/wheels",
        )  # fmt: skip
        Path(temporary, "wheels").replace(target)


def pack(wheels: list[Path], tar: Path) -> None:
    """Write the tar in a fixed order and with fixed times; it appears whole or not at all."""

    def fixed(member: tarfile.TarInfo) -> tarfile.TarInfo:
        member.mtime, member.uid, member.gid, member.uname, member.gname, member.mode = 0, 0, 0, "", "", 0o644
        return member

    temporary = tar.with_suffix(".new")
    with tarfile.open(temporary, "w") as archive:
        for wheel in sorted(wheels, key=lambda path: path.name):
            archive.add(wheel, arcname=wheel.name, filter=fixed)
    temporary.replace(tar)


def build(project: Path, dependencies: Path, tar: Path) -> None:
    with tempfile.TemporaryDirectory(dir=tar.parent) as temporary:
        # Built from a copy: a build must not leave anything in the checkout, which may be read-only.
        copy = Path(temporary) / "project"
        for path in source_files(project):
            target = copy / path.relative_to(project)
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, target)
        own = Path(temporary, "own")
        pip(
            "wheel", "--no-deps", "--no-build-isolation", "--no-index", "--wheel-dir", str(own), str(copy)
        )  # fmt: skip
        pack([*dependencies.glob("*.whl"), *own.glob("*.whl")], tar)


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "project": {"type": "path", "required": True},
            "requirements": {"type": "path", "required": True},
            "cache_dir": {"type": "path", "required": True},
            "python_version": {"type": "str", "required": True},
            "architecture": {"type": "str", "required": True, "choices": ["x86_64", "aarch64"]},
        },
        supports_check_mode=True,
    )
    project, requirements = Path(module.params["project"]).resolve(), Path(module.params["requirements"])
    cache, python_version = Path(module.params["cache_dir"]).resolve(), module.params["python_version"]
    architecture = module.params["architecture"]
    for path in (project / "pyproject.toml", requirements):
        if not path.is_file():
            module.fail_json(
                msg=f"Found no {path}; wanted the project's own. "
                "Set `project` and `requirements` to those of the checkout."
            )

    tag = f"cp{python_version.replace('.', '')}-{architecture}"
    locked = digest(requirements.read_bytes(), tag.encode())
    files = [(str(path.relative_to(project)).encode(), path.read_bytes()) for path in source_files(project)]
    name = f"k3s-daas-{tag}-{digest(locked.encode(), *(part for pair in files for part in pair))}"
    tar = cache / f"{name}.tar"
    changed = not tar.is_file()
    if changed and not module.check_mode:
        try:
            cache.mkdir(parents=True, exist_ok=True)
            dependencies = cache / f"wheels-{locked}"
            download(requirements, dependencies, python_version, architecture)
            build(project, dependencies, tar)
        except subprocess.CalledProcessError as error:
            module.fail_json(
                msg=f"The wheelhouse for {tag} could not be built: {error.stderr.strip()[-2000:]}. "
                "Wanted every locked wheel; check that the package index is reachable from the control node, "
                f"or put a ready {tar.name} into {cache}."
            )
    module.exit_json(changed=changed, name=name, path=str(tar))


if __name__ == "__main__":
    main()
