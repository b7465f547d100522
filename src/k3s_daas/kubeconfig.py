"""A kubeconfig for an owner: the API server, its CA, the owner's namespace, and no secret at all.

The token comes from `k3s-daas credential` each time. Made by the command line and by the master's API alike.
"""

from __future__ import annotations

import base64
import os
import secrets
import stat
from pathlib import Path
from typing import Any

import yaml

from k3s_daas import tenancy
from k3s_daas.credential import API_VERSION

NAME = "k3s-daas"
_MAX_BYTES = 1 << 20
_HINT = (
    "k3s-daas isn't installed where kubectl looks for it. Install it, or make the kubeconfig anew with it."
)


class CantWrite(Exception):
    """A kubeconfig that isn't written, because something would be lost or a file can't be used."""


def build(
    server: str,
    ca_pem: bytes,
    owner: str,
    *,
    command: str = "k3s-daas",
    token_file: Path | None = None,
    name: str = NAME,
) -> dict[str, Any]:
    """The kubeconfig of `owner` (an address) at `server` (https://host:port), as kubectl reads it."""
    arguments = ["credential"] if token_file is None else ["credential", "--token-file", str(token_file)]
    plugin = {
        "apiVersion": API_VERSION,
        "command": command,
        "args": arguments,
        "interactiveMode": "Never",
        "provideClusterInfo": False,
        "installHint": _HINT,
    }
    cluster = {"server": server, "certificate-authority-data": base64.b64encode(ca_pem).decode("ascii")}
    context = {"cluster": name, "user": name, "namespace": tenancy.tenant_namespace(owner)}
    return {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": name, "cluster": cluster}],
        "users": [{"name": name, "user": {"exec": plugin}}],
        "contexts": [{"name": name, "context": context}],
        "current-context": name,
    }


def text(content: dict[str, Any]) -> str:
    """`content` as YAML."""
    written: str = yaml.safe_dump(content, sort_keys=False)
    return written


def put(path: Path, content: dict[str, Any], *, merge: bool = False, force: bool = False) -> bool:
    """Have `content` in `path` (0600); whether the file changed. Raises CantWrite, and then nothing changed.

    A file that is there is left alone, unless `merge` (our entries go in, everything else stays) or `force`
    (it is replaced).
    """
    present = _read(path)
    if present is None or force:
        wanted = content
    elif merge:
        wanted = merged(present, content, path)
    elif present == content:
        wanted = present
    else:
        raise CantWrite(
            f"Found {path}, which has something else in it; wanted no file there. Use --merge to add to it, "
            "--force to replace it, or another --out."
        )
    if present == wanted and stat.S_IMODE(path.stat().st_mode) == 0o600:
        return False
    write(path, text(wanted))
    return True


def merged(present: dict[str, Any], ours: dict[str, Any], path: Path) -> dict[str, Any]:
    """`present` with our cluster, user and context; the current context changes only where there is none."""
    result = dict(present)
    for kind in ("clusters", "users", "contexts"):
        entries = present.get(kind) or []
        if not isinstance(entries, list) or not all(isinstance(entry, dict) for entry in entries):
            raise CantWrite(f"Found {path} with {kind} that are no list of entries; wanted a kubeconfig.")
        (own,) = ours[kind]
        taken = next((entry for entry in entries if entry.get("name") == own["name"]), None)
        server = taken.get("cluster", {}).get("server") if taken and kind == "clusters" else None
        if server is not None and server != own["cluster"]["server"]:
            raise CantWrite(
                f"Found a cluster {own['name']} at {server} in {path}, wanted that name free or for "
                f"{own['cluster']['server']}. Choose another --name."
            )
        result[kind] = [own if entry is taken else entry for entry in entries]
        if taken is None:
            result[kind].append(own)
    result["current-context"] = present.get("current-context") or ours["current-context"]
    result.setdefault("apiVersion", "v1")
    result.setdefault("kind", "Config")
    return result


def write(path: Path, content: str) -> None:
    """Put `content` in place whole, 0600 from its first moment. Raises CantWrite."""
    draft = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        descriptor = os.open(
            draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600
        )
        try:
            with os.fdopen(descriptor, "w", encoding="utf-8") as file:
                os.fchmod(file.fileno(), 0o600)
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            draft.replace(path)
        except BaseException:
            draft.unlink(missing_ok=True)
            raise
    except OSError as error:
        raise CantWrite(
            f"{path}: {error.strerror or error}. Wanted a file in a directory that you may write."
        ) from None


def _read(path: Path) -> dict[str, Any] | None:
    """The kubeconfig in `path`, None when there is no file (or an empty one)."""
    try:
        with path.open("rb") as file:
            raw = file.read(_MAX_BYTES + 1)
        found = yaml.safe_load(raw[:_MAX_BYTES]) if len(raw) <= _MAX_BYTES else "too large"
    except FileNotFoundError:
        return None
    except OSError as error:
        raise CantWrite(f"{path}: {error.strerror}. Wanted a kubeconfig or no file.") from None
    except (yaml.YAMLError, UnicodeDecodeError):
        found = "no YAML"
    if found is None:
        return None
    if not isinstance(found, dict):
        raise CantWrite(
            f"Found {path}, which is no kubeconfig; wanted one, or no file. Use --force to replace it."
        )
    return found
