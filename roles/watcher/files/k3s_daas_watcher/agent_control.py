"""The root oneshot: takes the watcher's request and stops or restarts the agent, or has it registered anew.

`stop` is for good: it first leaves a marker that the agent's `ConditionPathExists=!` looks at, so neither
systemd's own restart nor a reboot brings the agent back, then stops the unit and kills what it left. Only
when that is done the marker gets its content, which the watcher's own `ConditionFileNotEmpty=!` looks at:
until then a restarted watcher asks again.

k3s' own `k3s-killall.sh` is not used: it stops every `k3s*.service`, which includes this very unit and
the watcher, both of which it would kill half-way.
"""

from __future__ import annotations

import json
import os
import secrets
import signal
import stat
import subprocess
import time
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Protocol

from k3s_daas import logs

from .config import WatcherConfig
from .control import REQUEST_NAME, Answer, ControlError, Request, read_request
from .errors import Exit
from .files import write_atomic

log = logs.get_logger(__name__)

# Together below the 20 s for which the watcher waits.
STOP_TIMEOUT_S = 8.0
KILL_TIMEOUT_S = 5.0
_STOPPED = ("inactive", "failed")


class Systemd(Protocol):
    """The few things asked of the service manager."""

    def stop(self, unit: str, timeout_s: float) -> None: ...

    def kill(self, unit: str) -> None: ...

    def restart(self, unit: str) -> None: ...

    def start(self, unit: str) -> None: ...

    def show(self, unit: str) -> dict[str, str]: ...


class Systemctl:
    """`systemctl` as a process. Raises ControlError with systemctl's own words when it fails."""

    def stop(self, unit: str, timeout_s: float) -> None:
        try:
            self._run("stop", unit, timeout_s=timeout_s)
        except subprocess.TimeoutExpired:
            self.kill(unit)

    def kill(self, unit: str) -> None:
        # Fails when there is nothing left to kill, which is what is wanted.
        subprocess.run(
            ["systemctl", "kill", "--signal=SIGKILL", unit], check=False, capture_output=True, timeout=5
        )

    def restart(self, unit: str) -> None:
        # An agent that can't reach its server stays in "activating" for long; nobody waits for that.
        self._run("restart", "--no-block", unit, timeout_s=10)

    def start(self, unit: str) -> None:
        # A registration waits for chain and master, longer than this request may take.
        self._run("start", "--no-block", unit, timeout_s=10)

    def show(self, unit: str) -> dict[str, str]:
        text = self._run("show", "--property=ActiveState,ControlGroup", unit, timeout_s=5)
        return dict(line.split("=", 1) for line in text.splitlines() if "=" in line)

    @staticmethod
    def _run(*arguments: str, timeout_s: float) -> str:
        done = subprocess.run(
            ["systemctl", *arguments], check=False, capture_output=True, text=True, timeout=timeout_s
        )
        if done.returncode != 0:
            raise ControlError(f"systemctl {' '.join(arguments)}: {done.stderr.strip()[:300]}")
        return done.stdout


class Pods:
    """What an agent leaves running: k3s' units have KillMode=process, so that pods outlive a restart."""

    def __init__(self, cgroup_mount: Path = Path("/sys/fs/cgroup")) -> None:
        self._mount = cgroup_mount

    def pids(self, unit: str, control_group: str) -> set[int]:
        """Processes in the agent's own cgroup and in the kubelet's pods, in every hierarchy."""
        # Read by this process' own view: foreign pid namespaces show as 0.
        return {
            pid
            for directory in self._directories(unit, control_group)
            for path in [directory, *_below(directory)]
            for pid in _procs(path)
            if pid > 1 and pid != os.getpid()
        }

    def _directories(self, unit: str, control_group: str) -> Iterable[Path]:
        # A container's systemd sits below a prefix; the pods sit beside its system.slice.
        prefix = control_group.strip("/").removesuffix(f"system.slice/{unit}").strip("/")
        hierarchies = [self._mount]
        if not (self._mount / "cgroup.controllers").exists():
            hierarchies = [path for path in self._mount.iterdir() if path.is_dir()]
        for hierarchy in hierarchies:
            for parent in {hierarchy, hierarchy / prefix}:
                for name in (f"system.slice/{unit}", "kubepods", "kubepods.slice"):
                    if (parent / name).is_dir():
                        yield parent / name

    def kill(
        self, unit: str, control_group: str, timeout_s: float, sleep: Callable[[float], None] = time.sleep
    ) -> set[int]:
        """SIGKILL them all until none is left or `timeout_s` is over; returns those still there."""
        end = time.monotonic() + timeout_s
        while left := self.pids(unit, control_group):
            for pid in left:
                try:
                    os.kill(pid, signal.SIGKILL)
                except ProcessLookupError:
                    continue
            if time.monotonic() > end:
                return left
            sleep(0.1)
        return set()


def run(
    config: WatcherConfig,
    owner_uid: int,
    systemd: Systemd,
    pods: Pods,
    now_ms: Callable[[], int] = lambda: time.time_ns() // 1_000_000,
) -> Exit:
    """Handle the one request that may lie in the state directory."""
    path = Path(config.state_dir) / REQUEST_NAME
    try:
        _check_directory(path.parent, owner_uid)
        request = read_request(path, owner_uid, config.node_id)
    except FileNotFoundError:
        log.info("no request to handle", path=str(path))
        return Exit.OK
    except ControlError as error:
        _take_away(path)
        log.error("request refused", why=str(error))
        return Exit.FAILED
    try:
        if request.action == "stop":
            detail = _stop(config, request, systemd, pods)
        elif request.action == "restart":
            detail = _restart(config, systemd)
        else:
            detail = _register(config, systemd)
        result = "done"
    except (ControlError, OSError, subprocess.TimeoutExpired) as error:
        result, detail = "failed", str(error)[:500]
    # After the work: killed in the middle, the path unit finds the request again.
    _take_away(path)
    answer = Answer.model_validate(
        {
            "schema": 1,
            "id": request.id,
            "action": request.action,
            "result": result,
            "detail": detail,
            "finished_at_ms": now_ms(),
        }
    )
    write_atomic(
        Path(config.confirmation_file), answer.model_dump_json(by_alias=True).encode() + b"\n", 0o644
    )
    level = log.info if result == "done" else log.error
    level("request handled", action=request.action, reason=request.reason, result=result, detail=detail)
    return Exit.OK if result == "done" else Exit.FAILED


def _stop(config: WatcherConfig, request: Request, systemd: Systemd, pods: Pods) -> str:
    why = {"node_id": request.node_id, "reason": request.reason, "requested_at_ms": request.requested_at_ms}
    stop_for_good(config, why, systemd, pods)
    return f"{config.agent_unit} stopped; {config.stop_marker} keeps it stopped"


def stop_for_good(config: WatcherConfig, why: Mapping[str, object], systemd: Systemd, pods: Pods) -> bool:
    """Stop the agent with its pods and keep it stopped; False when all of that was done before.

    `why` becomes the marker's content. Raises ControlError when a process outlives SIGKILL or the unit
    doesn't stop, OSError, subprocess.TimeoutExpired; calling it again goes on.
    """
    marker = Path(config.stop_marker)
    if not marker.exists():
        marker.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
        write_atomic(marker, b"", 0o644)
    before = systemd.show(config.agent_unit)
    control_group = before.get("ControlGroup", "")
    if (
        marker.stat().st_size
        and before.get("ActiveState") in _STOPPED
        and not pods.pids(config.agent_unit, control_group)
    ):
        return False
    systemd.stop(config.agent_unit, STOP_TIMEOUT_S)
    left = pods.kill(config.agent_unit, control_group, KILL_TIMEOUT_S)
    if left:
        raise ControlError(f"{len(left)} processes of {config.agent_unit} and its pods outlive SIGKILL")
    state = systemd.show(config.agent_unit).get("ActiveState", "")
    if state not in _STOPPED:
        raise ControlError(f"{config.agent_unit} is {state or 'in an unknown state'} after it was stopped")
    if not marker.stat().st_size:
        write_atomic(marker, json.dumps(why).encode() + b"\n", 0o644)
    return True


def _restart(config: WatcherConfig, systemd: Systemd) -> str:
    _check_not_stopped(config)
    systemd.restart(config.agent_unit)
    return f"{config.agent_unit} restarting"


def _register(config: WatcherConfig, systemd: Systemd) -> str:
    _check_not_stopped(config)
    systemd.start(config.register_unit)
    return f"{config.register_unit} started; its journal tells what came of it"


def _check_not_stopped(config: WatcherConfig) -> None:
    if Path(config.stop_marker).exists():
        raise ControlError(f"{config.stop_marker} is there: this worker's agent stays stopped")


def _check_directory(directory: Path, owner_uid: int) -> None:
    try:
        info = directory.lstat()
    except FileNotFoundError:
        raise
    except OSError as error:
        raise ControlError(f"{directory}: {error.strerror}") from None
    if not stat.S_ISDIR(info.st_mode) or info.st_uid not in {0, owner_uid} or info.st_mode & 0o022:
        raise ControlError(f"{directory} is not a directory that only uid {owner_uid} can write")


def _take_away(path: Path) -> None:
    """Remove whatever is there, so that the path unit doesn't start us again and again."""
    try:
        path.unlink(missing_ok=True)
    except OSError:
        # A directory: moving aside works whatever is in it.
        path.rename(path.with_name(f"{path.name}.refused-{secrets.token_hex(4)}"))


def _below(directory: Path) -> list[Path]:
    return [Path(root) / name for root, names, _ in os.walk(directory) for name in names]


def _procs(directory: Path) -> list[int]:
    try:
        return [int(line) for line in (directory / "cgroup.procs").read_text().split()]
    except (OSError, ValueError):
        # The cgroup went away while it was read.
        return []
