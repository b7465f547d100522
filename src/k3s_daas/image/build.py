"""One build: inputs, the files that come of them, and a record of both."""

from __future__ import annotations

import datetime as dt
import hashlib
import json
import platform
import subprocess
import zlib
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from k3s_daas.image import apt, cpio, eif, entries, rootfs
from k3s_daas.image.errors import ImageError
from k3s_daas.image.lock import Lock
from k3s_daas.image.rootfs import User

#: What a build leaves in its folder.
BOOT, ROOT, IMAGE, RECORD = "boot.cpio.gz", "rootfs.cpio.gz", "enclave.eif", "image.json"
_TOOL, _TOOL_VERSION = "k3s-daas", "1"


@dataclass(frozen=True)
class File:
    """One file of ours: `content`, or a copy of `source`, or a link to `target`; a folder when it has none.

    :ivar owner: a user of the image; the group is that user's.
    """

    path: str
    mode: int = 0o644
    owner: str = "root"
    content: str | None = None
    source: Path | None = None
    target: str | None = None

    def identity(self) -> list[Any]:
        """What of it is in the image."""
        source = apt.sha256(self.source) if self.source else None
        return [self.path, self.mode, self.owner, self.content, source, self.target]


@dataclass(frozen=True)
class Kernel:
    """What an enclave file is made with.

    :ivar eif_build: the program that writes the file; without it we do.
    """

    path: Path
    cmdline: str
    eif_build: str = ""


@dataclass(frozen=True)
class Inputs:
    """All that decides the image. `python`: of the image's own, as major.minor."""

    lock: Lock
    users: tuple[User, ...]
    files: tuple[File, ...]
    init: str
    wheelhouse: Path
    wheelhouse_name: str
    python: str
    nsm_module: Path | None
    kernel: Kernel | None

    def record(self) -> dict[str, Any]:
        """Every input by what identifies it, none by where it was on the machine that built."""
        kernel = self.kernel
        return {
            "lock": _sha256(self.lock.text()),
            "packages": len(self.lock.packages),
            "source_date_epoch": self.lock.source_date_epoch,
            "wheelhouse": self.wheelhouse_name,
            "users": [asdict(user) for user in self.users],
            "files": {file.path: _sha256(json.dumps(file.identity())) for file in self.files},
            "init": _sha256(self.init),
            "nsm_module": apt.sha256(self.nsm_module) if self.nsm_module else None,
            "kernel": {"sha256": apt.sha256(kernel.path), "cmdline": kernel.cmdline} if kernel else None,
        }


def tools() -> dict[str, str]:
    """Programs and libraries of this machine that the bytes may depend on."""
    said = subprocess.run(["mmdebstrap", "--version"], capture_output=True, text=True, check=False).stdout
    return {
        "mmdebstrap": said.removeprefix("mmdebstrap").strip(),
        "python": platform.python_version(),
        "zlib": zlib.ZLIB_RUNTIME_VERSION,
    }


def current(inputs: Inputs, folder: Path) -> dict[str, Any] | None:
    """The record in `folder` if it is of these inputs and its files are whole, else None."""
    try:
        record: dict[str, Any] = json.loads((folder / RECORD).read_text())
        whole = all(apt.sha256(folder / name) == sha256 for name, sha256 in record["files"].items())
        return record if whole and record["inputs"] == inputs.record() else None
    except (OSError, ValueError, LookupError, TypeError, AttributeError):
        return None


def build(inputs: Inputs, packages: Sequence[Path], cache: Path, folder: Path) -> dict[str, Any]:
    """Make the image in `folder` of packages that were checked; returns its record. Raises ImageError.

    The record is written last: a folder with one holds a whole image.
    """
    folder.mkdir(parents=True, exist_ok=True)
    (folder / RECORD).unlink(missing_ok=True)
    epoch = inputs.lock.source_date_epoch
    tar = rootfs.base(inputs.lock, packages, inputs.users, cache)
    tree = rootfs.tree(tar, inputs.wheelhouse, inputs.wheelhouse_name, inputs.python)
    owners = rootfs.numbers(tree)
    for file in inputs.files:
        entries.put(tree, _entry(file, owners))
    cpio.compress(rootfs.boot(inputs.init, inputs.nsm_module), folder / BOOT, epoch)
    cpio.compress(tree.values(), folder / ROOT, epoch)
    ramdisks = [folder / BOOT, folder / ROOT]
    made = list(ramdisks)
    record: dict[str, Any] = {"inputs": inputs.record(), "tools": tools()}
    if inputs.kernel:
        record |= _eif(inputs.kernel, ramdisks, folder / IMAGE, epoch, inputs.lock.architecture == "arm64")
        made.append(folder / IMAGE)
    else:
        (folder / IMAGE).unlink(missing_ok=True)
    record["files"] = {path.name: apt.sha256(path) for path in made}
    record["size_bytes"] = made[-1].stat().st_size
    temporary = folder / f"{RECORD}.new"
    temporary.write_text(json.dumps(record, indent=2) + "\n")
    temporary.replace(folder / RECORD)
    return record


def _entry(file: File, owners: dict[str, tuple[int, int]]) -> entries.Entry:
    if file.owner not in owners:
        raise ImageError(
            f"Found no user {file.owner} in the image, wanted by {file.path}. Add it to its users."
        )
    path, owner = file.path.strip("/"), owners[file.owner]
    if file.target is not None:
        return entries.link(path, file.target)
    if file.content is not None:
        return entries.text(path, file.content, file.mode, owner)
    if file.source is not None:
        if not file.source.is_file():
            raise ImageError(f"Found no file {file.source}, wanted it as /{path} of the image.")
        return entries.copy(path, file.source, file.mode, owner)
    return entries.folder(path, file.mode, owner)


def _eif(kernel: Kernel, ramdisks: Sequence[Path], path: Path, epoch: int, arm64: bool) -> dict[str, Any]:
    """Write the enclave's file and measure it; with `eif_build`, hold what that says against it."""
    measured = eif.measure(kernel.path, kernel.cmdline, ramdisks)
    if kernel.eif_build:
        told = run_eif_build(kernel, ramdisks, path, epoch, arm64)
        check_same(told, measured.as_hex(), kernel.eif_build)
    else:
        eif.write(
            path,
            kernel=kernel.path,
            cmdline=kernel.cmdline,
            ramdisks=ramdisks,
            metadata=metadata(epoch),
            arm64=arm64,
        )
    check_same(eif.read(path).measurements.as_hex(), measured.as_hex(), str(path))
    return {"pcrs": measured.as_hex(), "eif_written_by": "eif_build" if kernel.eif_build else _TOOL}


def check_same(found: dict[str, str], wanted: dict[str, str], who: str) -> None:
    """Raises ImageError when two measurements of one image differ."""
    if found != wanted:
        raise ImageError(
            f"{who} says {found}, and measured here it is {wanted}; wanted the same. Don't use this image: "
            "find out which of them measures something else."
        )


def metadata(epoch: int) -> dict[str, Any]:
    """What the file says of itself, in the form and order of `eif_build`; in no PCR."""
    return {
        "ImageName": _TOOL,
        "ImageVersion": _TOOL,  # eif_build puts the name here, too
        "BuildMetadata": {
            "BuildTime": _time(epoch),
            "BuildTool": _TOOL,
            "BuildToolVersion": _TOOL_VERSION,
            "OperatingSystem": "Linux",
            "KernelVersion": "kernel",
        },
        "DockerInfo": None,
        "CustomMetadata": None,
    }


def run_eif_build(
    kernel: Kernel, ramdisks: Sequence[Path], path: Path, epoch: int, arm64: bool
) -> dict[str, str]:
    """Have `eif_build` write the file; returns the PCRs that it prints. Raises ImageError."""
    temporary = path.with_name(f"{path.name}.new")
    command = [
        kernel.eif_build,
        *("--kernel", str(kernel.path), "--cmdline", kernel.cmdline, "--output", str(temporary)),
        *(word for ramdisk in ramdisks for word in ("--ramdisk", str(ramdisk))),
        *("--name", _TOOL, "--build-time", _time(epoch), "--build-tool", _TOOL),
        *("--build-tool-version", _TOOL_VERSION, "--img-os", "Linux", "--img-kernel", "kernel"),
        *("--arch", "aarch64" if arm64 else "x86_64"),
    ]
    try:
        done = subprocess.run(command, capture_output=True, text=True, stdin=subprocess.DEVNULL)
    except OSError as error:
        raise ImageError(
            f"{kernel.eif_build}: {error.strerror}. Wanted the program eif_build; correct "
            "enclave_image_eif_build, or leave it empty."
        ) from None
    if done.returncode:
        raise ImageError(f"eif_build ended with {done.returncode}: {done.stderr.strip()[-1500:]}")
    temporary.replace(path)
    try:
        told = json.loads(done.stdout[done.stdout.index("{") :])
        return {name: str(told[name]) for name in ("PCR0", "PCR1", "PCR2")}
    except (ValueError, LookupError, TypeError):
        raise ImageError(f"eif_build printed {done.stdout[:500]!r}; wanted PCRs as JSON.") from None


def _time(epoch: int) -> str:
    return dt.datetime.fromtimestamp(epoch, dt.UTC).strftime("%Y-%m-%dT%H:%M:%S+00:00")


def _sha256(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
