"""Which k3s a stage runs: $K3S_BINARY, else the pinned release, else the stand-in."""

from __future__ import annotations

import hashlib
import os
import platform
import re
import urllib.error
import urllib.parse
import urllib.request
from dataclasses import dataclass
from pathlib import Path

from stage.errors import StageError

PROJECT = Path(__file__).resolve().parents[3]
STAND_IN = PROJECT / "molecule/resources/standin/k3s"


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
