"""Which k3s a stage runs: $K3S_BINARY, else the pinned release, else the stand-in.

An upgrade begins with an older one: $K3S_BINARY_OLD, or a stand-in that says it is.
"""

from __future__ import annotations

import hashlib
import os
import platform
import re
import subprocess
import urllib.error
import urllib.parse
import urllib.request
from dataclasses import dataclass
from pathlib import Path

from stage.errors import StageError

PROJECT = Path(__file__).resolve().parents[3]
STAND_IN = PROJECT / "molecule/resources/standin/k3s"
#: What the stand-in says to be where an upgrade begins.
STAND_IN_OLD = "v1.33.0+k3s-STAND-IN"


@dataclass(frozen=True)
class Binary:
    path: Path
    real: bool
    says: str


def choose(cache: Path) -> Binary:
    """The binary to use; a downloaded one is kept in `cache`, checked against the role's own SHA-256."""
    given = os.environ.get("K3S_BINARY")
    if given:
        path = Path(given).resolve()
        if not (path.is_file() and os.access(path, os.X_OK)):
            raise StageError(f"K3S_BINARY={given}: found no executable there; give the path of a k3s")
        return Binary(path, path != STAND_IN, f"{path} (K3S_BINARY)")
    version, sha256 = pinned()
    path = cache / version / "k3s"
    if path.exists() or download(version, sha256, path):
        return Binary(path, True, f"{version}, the pinned release")
    return Binary(STAND_IN, False, "STAND-IN, a test double: no K3S_BINARY is set, and no release can be had")


def version(binary: Binary) -> str:
    """What it says of itself. The stand-in is read: its libraries are the hosts', not this machine's."""
    if not binary.real:
        return str(_stand_in_version(binary.path.read_text())[1])
    try:
        asked = subprocess.run([binary.path, "--version"], capture_output=True, text=True, timeout=30)
        return asked.stdout.split()[2]
    except (OSError, subprocess.TimeoutExpired, IndexError):
        raise StageError(f"{binary.path} --version says no version; give the path of a k3s") from None


def older(binary: Binary, folder: Path) -> Binary | None:
    """A k3s to begin an upgrade to `binary` with: $K3S_BINARY_OLD, or a stand-in that is made in `folder`."""
    if binary.real:
        given = os.environ.get("K3S_BINARY_OLD")
        return Binary(Path(given).resolve(), True, f"{given} (K3S_BINARY_OLD)") if given else None
    text = binary.path.read_text()
    found = _stand_in_version(text)
    path = folder / "k3s-old"
    path.write_text(f"{text[: found.start(1)]}{STAND_IN_OLD}{text[found.end(1) :]}")
    path.chmod(0o755)
    return Binary(path, False, f"STAND-IN that says it is {STAND_IN_OLD}")


def _stand_in_version(text: str) -> re.Match[str]:
    found = re.search(r'^VERSION = "(\S+)"$', text, re.MULTILINE)
    if found is None:
        raise StageError("the stand-in has no line VERSION = …")
    return found


def pinned() -> tuple[str, str]:
    """Version and SHA-256 that the role k3s_binary installs. Read as text: a stage has no YAML library."""
    role = PROJECT / "roles/k3s_binary"
    version = re.search(
        r"^k3s_binary_version: (\S+)$", (role / "defaults/main.yml").read_text(), re.MULTILINE
    )
    if version is None:
        raise StageError(f"found no k3s_binary_version in {role}/defaults/main.yml")
    listed = (role / "vars/main.yml").read_text().partition(f"{version[1]}:\n")[2]
    sha256 = re.search(rf"{platform.machine()}: ([0-9a-f]{{64}})", listed)
    if sha256 is None:
        raise StageError(f"found no SHA-256 of k3s {version[1]} for {platform.machine()}; set K3S_BINARY")
    return version[1], sha256[1]


def download(version: str, sha256: str, path: Path) -> bool:
    """Fetch the release if it can be reached; raises StageError when it isn't what is pinned."""
    suffix = {"aarch64": "-arm64"}.get(platform.machine(), "")
    url = f"https://github.com/k3s-io/k3s/releases/download/{urllib.parse.quote(version)}/k3s{suffix}"
    try:
        with urllib.request.urlopen(url, timeout=5) as answer:
            content = answer.read()
    except (urllib.error.URLError, TimeoutError, ConnectionError):
        return False
    found = hashlib.sha256(content).hexdigest()
    if found != sha256:
        raise StageError(f"{url} has the SHA-256 {found}, wanted {sha256}; don't use it, set K3S_BINARY")
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_suffix(".new")
    temporary.write_bytes(content)
    temporary.chmod(0o755)
    temporary.replace(path)
    return True
