"""`make image-check`: build the enclave image twice, apart, and say whether the bytes are the same.

Packages come out of one download, since the lock names their hashes. All else is made anew for the second
build: the wheelhouse, Debian's tree, every archive; in other folders, with another umask, time zone and
language.

The environment says what to build from: K3S_BINARY (else what a stage would take: the release, or the
stand-in), KERNEL with KERNEL_CMDLINE and NSM_MODULE (else Debian's cloud kernel, which measures as well as
any, but finds no device in a Nitro enclave), GVFORWARDER, EIF_BUILD (else `eif_build` on the PATH, if it is
there).
"""

from __future__ import annotations

import gzip
import hashlib
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

from k3s_daas.image import apt, cpio
from k3s_daas.image.errors import ImageError
from stage import k3s
from stage.errors import StageError

PROJECT = Path(__file__).resolve().parents[2]
STATE = PROJECT / ".state"
FOLDER = STATE / "image-check"
_KERNEL_PACKAGE = "linux-image-cloud-amd64"
_SOURCE = apt.Source((), "bookworm", "amd64")


def say(line: str) -> None:
    print(f"== {line}", file=sys.stderr, flush=True)


def binary(folder: Path) -> Path:
    """The k3s to put in. The stand-in runs with the Python of the daemons, whose libraries it needs."""
    chosen = k3s.choose(STATE / "k3s")
    say(f"k3s: {chosen.says}")
    if chosen.real:
        return chosen.path
    path = folder / "k3s-stand-in"
    rest = chosen.path.read_text().partition("\n")[2]
    path.write_text(f"#!/opt/k3s-daas/venv/bin/python\n{rest}")
    path.chmod(0o755)
    return path


def debian_kernel(folder: Path) -> Path:
    """Debian's newest cloud kernel, out of its package."""
    kept = sorted(folder.glob("vmlinuz-*"))
    if kept:
        return kept[-1]
    ours = apt.Apt(folder / "apt", _SOURCE)
    ours.update()
    found = [one for one in ours.resolve([_KERNEL_PACKAGE]).packages if one.name.startswith("linux-image-6")]
    ours.download(found, folder / "kernel")
    (package,) = (folder / "kernel").glob("*.deb")
    subprocess.run(["dpkg-deb", "--extract", package, folder / "kernel/content"], check=True)
    (kernel,) = (folder / "kernel/content/boot").glob("vmlinuz-*")
    path = folder / kernel.name
    kernel.replace(path)
    shutil.rmtree(folder / "kernel")
    return path


def variables(folder: Path) -> dict[str, str]:
    """What both builds are made from, with the hashes that it has now."""
    given = {
        "k3s": binary(folder),
        "kernel": Path(os.environ["KERNEL"]) if os.environ.get("KERNEL") else debian_kernel(folder),
        "gvforwarder": Path(os.environ.get("GVFORWARDER", "")),
        "nsm_module": Path(os.environ.get("NSM_MODULE", "")),
    }
    found: dict[str, str] = {}
    for name, path in given.items():
        if path != Path():
            say(f"{name}: {path}")
            found |= {
                f"enclave_image_{name}_path": str(path.resolve()),
                f"enclave_image_{name}_sha256": apt.sha256(path),
            }
    if os.environ.get("KERNEL_CMDLINE"):
        found["enclave_image_kernel_cmdline"] = os.environ["KERNEL_CMDLINE"]
    eif_build = os.environ.get("EIF_BUILD") or shutil.which("eif_build") or ""
    say(f"eif_build: {eif_build or 'not here; the file is written by this project'}")
    return found | {"enclave_image_eif_build": eif_build}


def build(name: str, given: dict[str, str], environment: dict[str, str], umask: int) -> dict[str, Any]:
    """One build by the playbook, as an operator would; returns its record."""
    folder = FOLDER / name
    shutil.rmtree(folder / "image", ignore_errors=True)
    extra = given | {
        "enclave_image_dir": str(folder / "image"),
        "enclave_image_cache_dir": str(folder / "cache"),
    }
    if name != "first":
        extra["enclave_image_wheelhouse_dir"] = str(folder / "wheelhouse")
    program = Path(sys.executable).parent / "ansible-playbook"
    command = [str(program), "--extra-vars", json.dumps(extra), str(PROJECT / "playbooks/build_image.yml")]
    say(f"{name} build")
    done = subprocess.run(
        command, cwd=PROJECT, env=os.environ | environment, stdout=sys.stderr, umask=umask, check=False
    )
    if done.returncode:
        raise ImageError(f"the {name} build failed; what it said stands above")
    return dict(json.loads((folder / "image/image.json").read_text()))


def differences(name: str) -> list[str]:
    """Paths that are not the same in the two archives of this name."""
    trees = []
    for which in ("first", "second"):
        with gzip.open(FOLDER / which / "image" / name) as content:
            trees.append({
                entry.path: (
                    oct(entry.mode), entry.uid, entry.gid, entry.mtime, entry.size,
                    hashlib.sha256(entry.content().read()).hexdigest(),
                )
                for entry in cpio.read(content)
            })  # fmt: skip
    first, second = trees
    return [
        f"{name}: /{path}: {first.get(path)} and {second.get(path)}"
        for path in sorted(first.keys() | second.keys())
        if first.get(path) != second.get(path)
    ]


def main() -> int:
    """Exit code 0 when the bytes are the same, 1 when not, or when there was no build.

    `variables` as an argument only prints what would be built from, as variables of the playbook.
    """
    FOLDER.mkdir(parents=True, exist_ok=True)
    if sys.argv[1:] == ["variables"]:
        print(json.dumps(variables(FOLDER)))
        return 0
    for tar in (FOLDER / "first/cache").glob("base-*.tar"):
        tar.unlink()
    shutil.rmtree(FOLDER / "second", ignore_errors=True)
    try:
        given = variables(FOLDER)
        first = build("first", given, {}, 0o022)
        packages = FOLDER / "second/cache/packages"
        packages.mkdir(parents=True)
        for file in (FOLDER / "first/cache/packages").glob("*.deb"):
            (packages / file.name).hardlink_to(file)
        other = {
            "TZ": "Asia/Seoul",
            "LANG": "C",
            "HOME": str(FOLDER / "second"),
            "SOURCE_DATE_EPOCH": "900000000",
        }
        second = build("second", given, other, 0o077)
    except (ImageError, StageError, OSError, subprocess.CalledProcessError) as error:
        print(f"image-check: {error}", file=sys.stderr)
        return 1
    same = first["files"] == second["files"] and first["pcrs"] == second["pcrs"]
    if not same:
        archives = [name for name in first["files"] if name.endswith(".cpio.gz")]
        found = [line for name in archives for line in differences(name)]
        print("\n".join(found[:50] or [f"{first['files']} and {second['files']}"]), file=sys.stderr)
    answer = {
        "reproducible": same,
        "sha256": first["files"]["enclave.eif"],
        "pcr0": first["pcrs"]["PCR0"],
        "size_mb": round(first["size_bytes"] / 1e6, 1),
    }
    print(json.dumps(answer), flush=True)
    return 0 if same else 1


if __name__ == "__main__":
    sys.exit(main())
