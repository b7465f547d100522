#!/usr/bin/python
# Copyright the K3s-DaaS authors
# SPDX-License-Identifier: Apache-2.0
"""Build the tar that gives hosts the daemons and all they need."""

from __future__ import annotations

DOCUMENTATION = r"""
module: k3s_daas_wheelhouse
short_description: Build the wheelhouse of the K3s-DaaS daemons
version_added: "0.1.0"
description:
  - Builds one tar with C(k3s-daas) and all it needs, unpacked and compiled, for one Python and architecture.
    Its C(lib) and C(bin) belong into a virtual environment. That takes a host a second, where installing the
    wheels would take it ten.
  - The tar is named by what went into it, so that a host installs only when the name changes.
  - Runs on the control node (C(delegate_to=localhost)); hosts then need no package index, nor pip.
  - Where the control node's Python isn't the hosts', nothing is compiled, and they do it themselves.
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
    description: Says whether the tar is there, and under which name.
  diff_mode:
    support: none
    description: A tar is made or there.
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

import contextlib
import fcntl
import gzip
import hashlib
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Iterator
from pathlib import Path

from ansible.module_utils.basic import AnsibleModule

SOURCES = ("src/k3s_daas", "roles/master/files/k3s_daas_master", "roles/watcher/files/k3s_daas_watcher")
# Part of each name: changes when what is in a tar is laid out otherwise.
FORM = b"reproducible"
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


class Target:
    """The hosts' Python, and how pip is told of it."""

    def __init__(self, python_version: str, architecture: str) -> None:
        self.python_version, self.architecture = python_version, architecture
        self.tag = f"cp{python_version.replace('.', '')}"
        self.library = f"lib/python{python_version}/site-packages"

    @property
    def options(self) -> list[str]:
        platforms = [word for name in MANYLINUX for word in ("--platform", f"{name}_{self.architecture}")]
        python = ["--python-version", self.python_version, "--implementation", "cp"]
        return [
            "--only-binary=:all:",
            *python,
            *platforms,
            "--abi",
            self.tag,
            "--abi",
            "abi3",
            "--abi",
            "none",
        ]

    @property
    def is_ours(self) -> bool:
        return self.python_version == f"{sys.version_info.major}.{sys.version_info.minor}"


def run(*arguments: str) -> None:
    environment = os.environ | {"PYTHONHASHSEED": "0"}
    subprocess.run([sys.executable, *arguments], check=True, capture_output=True, text=True, env=environment)


def pip(*arguments: str) -> None:
    run("-m", "pip", "--disable-pip-version-check", "--quiet", *arguments)


def unpack(wheels: list[Path], target: Target, folder: Path) -> None:
    """Install wheels into folder as into a virtual environment's, compiled where this Python can.

    Of programs only our own are there. Their first line names this machine's Python: the host changes it.
    """
    library = folder / target.library
    paths = [str(path) for path in wheels]
    how = ["--no-index", "--no-deps", "--no-compile", *target.options]
    pip("install", *how, "--target", str(library), *paths)
    for record in (*library.glob("*.dist-info/RECORD"), *library.glob("*.dist-info/direct_url.json")):
        record.unlink()  # of this folder and this machine's Python; nothing is ever uninstalled
    if target.is_ours:
        # Unchecked: nothing in an environment is ever edited, and its files' times aren't kept. In one
        # process and without this folder's name, so that the same sources give the same bytes: what is
        # compiled tells which strings its process has seen before.
        how = ["-q", "-s", str(folder), "--invalidation-mode", "unchecked-hash"]
        run("-m", "compileall", *how, str(library))
    (folder / "bin").mkdir()
    for program in (library / "bin").glob("k3s-daas*"):
        program.replace(folder / "bin" / program.name)
    shutil.rmtree(library / "bin", ignore_errors=True)


def pack(folder: Path, tar: Path) -> None:
    """Write a compressed tar in a fixed order and with fixed times; it appears whole or not at all."""
    temporary = tar.with_suffix(".new")
    with temporary.open("wb") as output:
        compressed = gzip.GzipFile(filename="", mode="wb", compresslevel=6, fileobj=output, mtime=0)
        with compressed, tarfile.open(fileobj=compressed, mode="w") as archive:
            for path in sorted(path for path in folder.rglob("*") if path.is_file()):
                member = tarfile.TarInfo(str(path.relative_to(folder)))
                member.size = path.stat().st_size
                member.mode = 0o755 if path.parent.name == "bin" else 0o644
                with path.open("rb") as content:
                    archive.addfile(member, content)
    temporary.replace(tar)


def dependencies(requirements: Path, target: Target, cache: Path, locked: str) -> Path:
    """The tar of the locked wheels, made once; a half-done one is never left under that name."""
    tar = cache / f"wheels-{locked}.tar.gz"
    if not tar.is_file():
        with tempfile.TemporaryDirectory(dir=cache) as name:
            wheels, unpacked = Path(name, "wheels"), Path(name, "unpacked")
            pip(
                "download", "--require-hashes", "--no-deps", "--requirement", str(requirements),
                *target.options, "--dest", str(wheels),
            )  # fmt: skip
            unpack(sorted(wheels.glob("*.whl")), target, unpacked)
            pack(unpacked, tar)
    return tar


def build(project: Path, below: Path, target: Target, tar: Path) -> None:
    """Our own wheel's tar behind that of what it needs: two in one, which `tar --ignore-zeros` reads."""
    with tempfile.TemporaryDirectory(dir=tar.parent) as temporary:
        # Built from a copy: a build must not leave anything in the checkout, which may be read-only.
        copy = Path(temporary) / "project"
        for path in source_files(project):
            copied = copy / path.relative_to(project)
            copied.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, copied)
        own, unpacked, top = (Path(temporary, name) for name in ("own", "unpacked", "own.tar.gz"))
        pip(
            "wheel", "--no-deps", "--no-build-isolation", "--no-index", "--wheel-dir", str(own), str(copy)
        )  # fmt: skip
        unpack(list(own.glob("*.whl")), target, unpacked)
        pack(unpacked, top)
        both = Path(temporary, "both")
        with both.open("wb") as output:
            for part in (below, top):
                with part.open("rb") as content:
                    shutil.copyfileobj(content, output)
        both.replace(tar)


@contextlib.contextmanager
def alone(cache: Path) -> Iterator[None]:
    """Runs that share a cache build one after another: the later ones find what the first one made."""
    cache.mkdir(parents=True, exist_ok=True)
    with (cache / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


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

    target = Target(python_version, architecture)
    tag = f"{target.tag}-{architecture}"
    locked = digest(requirements.read_bytes(), tag.encode(), FORM)
    files = [(str(path.relative_to(project)).encode(), path.read_bytes()) for path in source_files(project)]
    name = f"k3s-daas-{tag}-{digest(locked.encode(), *(part for pair in files for part in pair))}"
    tar = cache / f"{name}.tar.gz"
    changed = not tar.is_file()
    if changed and not module.check_mode:
        try:
            with alone(cache):
                if not tar.is_file():
                    build(project, dependencies(requirements, target, cache, locked), target, tar)
        except subprocess.CalledProcessError as error:
            module.fail_json(
                msg=f"The wheelhouse for {tag} could not be built: {error.stderr.strip()[-2000:]}. "
                "Wanted every locked wheel; check that the package index is reachable from the control node, "
                f"or put a ready {tar.name} into {cache}."
            )
    module.exit_json(changed=changed, name=name, path=str(tar))


if __name__ == "__main__":
    main()
