"""Everything of the doctor that touches the host or the network. It only looks."""

from __future__ import annotations

import datetime as dt
import os
import socket
import ssl
import stat
import subprocess
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import psutil
import yaml
from cryptography import x509

from k3s_daas import join, release, seal
from k3s_daas.chain import ChainError, Key
from k3s_daas.doctor.facts import Disk, MasterSays, Port, SecretFile, Unit, WatcherSays

_TIMEOUT_S = 5.0
_MAX_SECRET_BYTES = 4096
_MAX_ANSWER_BYTES = 4 * 1024 * 1024
_UNIT_KEYS = (
    "Id",
    "ActiveState",
    "SubState",
    "Result",
    "LoadState",
    "NRestarts",
    "ExecMainStartTimestamp",
)


@dataclass(frozen=True)
class Paths:
    """Where things are on a host."""

    worker_config: Path = Path("/etc/k3s-daas/watcher.json")
    master_config: Path = Path("/etc/k3s-daas/master.json")
    seal_token: Path = Path("/etc/k3s-daas/seal-token")
    k3s_config: Path = Path("/etc/rancher/k3s/config.yaml")
    stop_marker: Path = Path("/var/lib/k3s-daas/agent-stopped")
    disks: tuple[Path, ...] = field(default=(Path("/"), Path("/var/lib")))
    release: Path = release.PATH


class Probes:
    """The real ones. None of them raises for what a check is about; each says what it saw."""

    def now_ms(self) -> int:
        return time.time_ns() // 1_000_000

    def unresolved(self, host: str) -> str | None:
        """Why a name has no address; None when it has one."""
        try:
            socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)
        except (OSError, UnicodeError) as error:
            return str(error.args[-1])
        return None

    def port(self, what: str, host: str, port: int) -> Port:
        """A TCP connection, closed at once."""
        address = f"{host}:{port}"
        if (why := self.unresolved(host)) is not None:
            return Port(what, address, unresolved=why)
        try:
            socket.create_connection((host, port), _TIMEOUT_S).close()
        except ConnectionRefusedError:
            return Port(what, address, refused=True, trouble="connection refused")
        except TimeoutError:
            return Port(what, address, trouble=f"no answer within {_TIMEOUT_S:g} s")
        except OSError as error:
            return Port(what, address, trouble=error.strerror or type(error).__name__)
        return Port(what, address)

    def seal_token(self, path: Path) -> SecretFile:
        """The seal token's file; of the token itself only the commitment, which is public."""
        try:
            mode, content = _secret(path)
        except FileNotFoundError:
            return SecretFile(str(path), missing=True)
        except OSError as error:
            return _unreadable(path, error)
        try:
            commitment = seal.commitment(seal.parse(content.decode("utf-8", "replace")))
        except seal.InvalidSealToken as error:
            return SecretFile(str(path), mode=mode, trouble=f"{path}: {error}")
        return SecretFile(str(path), mode=mode, commitment=commitment)

    def key(self, path: Path) -> tuple[SecretFile, str | None]:
        """The wallet key's file, and its address."""
        try:
            mode = stat.S_IMODE(path.stat().st_mode)
        except FileNotFoundError:
            return SecretFile(str(path), missing=True), None
        except OSError as error:
            return _unreadable(path, error), None
        try:
            return SecretFile(str(path), mode=mode), Key.load(path).address
        except ChainError as error:
            return SecretFile(str(path), mode=mode, trouble=str(error)), None

    def cacerts(self, api_server: str, ca_hash: bytes) -> bytes:
        """The CA bundle with that hash. Raises JoinError."""
        return join.fetch_cacerts(api_server, ca_hash, timeout_s=_TIMEOUT_S)

    def master(self, endpoint: str, ca: bytes, node_id: str | None) -> MasterSays:
        """What the master's API says of itself and of this worker."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.load_verify_locations(cadata=ca.decode("ascii"))
        try:
            with httpx.Client(
                base_url=endpoint, verify=context, timeout=_TIMEOUT_S, trust_env=False
            ) as client:
                ready = _json(client, "/readyz")
                rows = _json(client, "/api/v1/workers").get("workers") if node_id else []
        except httpx.HTTPError as error:
            if (why := _untrusted(error)) is not None:
                return MasterSays(untrusted=why)
            return MasterSays(trouble=f"{endpoint}: {error or type(error).__name__}")
        except ValueError as error:
            return MasterSays(trouble=f"{endpoint}: {error}")
        reasons = ready.get("reasons")
        mine = [row for row in rows or [] if isinstance(row, dict) and row.get("node_id") == node_id]
        return MasterSays(
            tuple(_plain(reason) for reason in reasons) if isinstance(reasons, list) else (),
            mine[0] if mine else None,
        )

    def addresses(self) -> dict[str, tuple[str, ...]]:
        wanted = (socket.AF_INET, socket.AF_INET6)
        return {
            name: tuple(a.address.partition("%")[0] for a in addresses if a.family in wanted)
            for name, addresses in psutil.net_if_addrs().items()
        }

    def yaml(self, path: Path) -> dict[str, Any]:
        """One file of k3s' configuration; empty when there is none that can be read."""
        try:
            found = yaml.safe_load(path.read_text(encoding="utf-8"))
        except (OSError, ValueError, yaml.YAMLError):
            return {}
        return found if isinstance(found, dict) else {}

    def k3s_config(self, path: Path) -> dict[str, Any]:
        """k3s' configuration as k3s takes it: the file's, then each one's beside it in FILE.d, by name."""
        found = self.yaml(path)
        for more in sorted(path.with_name(f"{path.name}.d").glob("*.yaml")):
            found |= self.yaml(more)
        return found

    def units(self, names: tuple[str, ...]) -> tuple[Unit, ...]:
        """What systemd says of these units; none where there is no systemd."""
        try:
            done = subprocess.run(
                ["systemctl", "show", "--timestamp=us+utc", f"--property={','.join(_UNIT_KEYS)}", *names],
                check=False,
                capture_output=True,
                text=True,
                timeout=_TIMEOUT_S,
            )
        except (OSError, subprocess.TimeoutExpired):
            return ()
        return parse_units(done.stdout)

    def exists(self, path: Path) -> bool:
        return path.exists()

    def kubelet(self, url: str) -> str:
        """What the kubelet's health page answers, "" when it doesn't."""
        try:
            return httpx.get(url, timeout=_TIMEOUT_S, trust_env=False).text.strip()
        except httpx.HTTPError:
            return ""

    def watcher(self, url: str) -> WatcherSays:
        """What the watcher's health page answers."""
        try:
            with httpx.Client(base_url=url, timeout=_TIMEOUT_S, trust_env=False) as client:
                said = _json(client, "/health")
            problems, beat = said["problems"], said["heartbeat"]["last_ms"]
            if not isinstance(problems, list) or not isinstance(beat, int | None):
                raise TypeError("problems or heartbeat are of another kind")
        except (httpx.HTTPError, ValueError) as error:
            return WatcherSays(trouble=_plain(f"{url}/health: {error or type(error).__name__}"))
        except (KeyError, TypeError) as error:
            return WatcherSays(
                trouble=_plain(f"{url}/health answers something else than a watcher: {error!r}")
            )
        return WatcherSays(tuple(_plain(problem) for problem in problems), beat)

    def disk(self, path: Path) -> Disk | None:
        try:
            usage = psutil.disk_usage(str(path))
        except OSError:
            return None
        return Disk(str(path), usage.free, usage.free + usage.used)

    def certificate_expires_ms(self, path: Path) -> int | None:
        try:
            certificate = x509.load_pem_x509_certificate(path.read_bytes())
        except (OSError, ValueError):
            return None
        return int(certificate.not_valid_after_utc.timestamp() * 1000)


def parse_units(text: str) -> tuple[Unit, ...]:
    """The output of `systemctl show`: one paragraph of KEY=VALUE lines a unit."""
    found = []
    for paragraph in text.split("\n\n"):
        values = dict(line.partition("=")[::2] for line in paragraph.splitlines())
        if "Id" in values:
            restarts = values.get("NRestarts", "")
            found.append(
                Unit(
                    values["Id"],
                    values.get("ActiveState", ""),
                    values.get("SubState", ""),
                    values.get("Result", ""),
                    values.get("LoadState", ""),
                    int(restarts) if restarts.isdigit() else 0,
                    _time_ms(values.get("ExecMainStartTimestamp", "")),
                )
            )
    return tuple(found)


def _time_ms(text: str) -> int | None:
    """Of `Sat 2026-11-21 22:49:25.123456 UTC`; None for "", which is systemd's never."""
    try:
        found = dt.datetime.strptime(text, "%a %Y-%m-%d %H:%M:%S.%f %Z")
    except ValueError:
        return None
    return int(found.replace(tzinfo=dt.UTC).timestamp() * 1000)


def _unreadable(path: Path, error: OSError) -> SecretFile:
    hint = "; run the doctor as root" if isinstance(error, PermissionError) else ""
    return SecretFile(str(path), mode=0o600, trouble=f"{path}: {error.strerror}{hint}")


def _secret(path: Path) -> tuple[int, bytes]:
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOCTTY)
    try:
        info = os.fstat(descriptor)
        content = os.read(descriptor, _MAX_SECRET_BYTES) if stat.S_ISREG(info.st_mode) else b""
    finally:
        os.close(descriptor)
    return stat.S_IMODE(info.st_mode), content


def _json(client: httpx.Client, path: str) -> dict[str, Any]:
    raw = b""
    with client.stream("GET", path) as response:
        for chunk in response.iter_bytes():
            raw += chunk
            if len(raw) > _MAX_ANSWER_BYTES:
                raise ValueError(f"{path} sent more than {_MAX_ANSWER_BYTES} bytes")
    found = httpx.Response(200, content=raw).json()
    if not isinstance(found, dict):
        raise ValueError(f"{path} answered without a JSON object")
    return found


def _untrusted(error: BaseException) -> str | None:
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, ssl.SSLCertVerificationError):
            return cause.verify_message
        cause = cause.__cause__ or cause.__context__
    return None


def _plain(text: object) -> str:
    """For a terminal: no control characters, no novel."""
    return "".join(c if c.isprintable() else "?" for c in str(text))[:300]
