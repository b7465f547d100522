"""From a slash on-chain to an agent that stays stopped."""

from __future__ import annotations

import asyncio
import json
import stat
from dataclasses import replace
from pathlib import Path

import pytest

from k3s_daas.chain.errors import ChainUnreachable
from k3s_daas.registry.model import WorkerStatus
from k3s_daas_watcher import agent_control
from k3s_daas_watcher.chainview import Outcome
from k3s_daas_watcher.errors import Exit
from k3s_daas_watcher.watcher import Slashed


class FakeSystemd:
    """FAKE service manager with one unit."""

    def __init__(self) -> None:
        self.state = "active"
        self.calls: list[str] = []
        self.sticky = False

    def stop(self, unit: str, timeout_s: float) -> None:
        self.calls.append(f"stop {unit}")
        if not self.sticky:
            self.state = "inactive"

    def kill(self, unit: str) -> None:
        self.calls.append(f"kill {unit}")

    def restart(self, unit: str) -> None:
        self.calls.append(f"restart {unit}")

    def start(self, unit: str) -> None:
        self.calls.append(f"start {unit}")

    def show(self, unit: str) -> dict[str, str]:
        return {"ActiveState": self.state, "ControlGroup": f"/system.slice/{unit}"}


@pytest.fixture
def systemd():
    return FakeSystemd()


@pytest.fixture
def root(systemd, tmp_path, clock):
    """Root's path unit: as soon as a request lies there, the oneshot runs."""

    def run(watcher) -> Exit:
        return agent_control.run(
            watcher.config,
            tmp_path.stat().st_uid,
            systemd,
            agent_control.Pods(tmp_path / "no-cgroups"),
            clock.now_ms,
        )

    (tmp_path / "no-cgroups").mkdir()
    return run


async def test_a_slash_on_chain_is_seen_by_the_next_look(make_watcher, chain):
    watcher = make_watcher()
    await watcher.check_chain()
    chain.set_status(WorkerStatus.SLASHED)
    with pytest.raises(Slashed):
        await watcher.check_chain()
    assert watcher.store.state.status == "slashed"


@pytest.mark.parametrize("status", [s for s in WorkerStatus if s is not WorkerStatus.SLASHED])
async def test_no_other_status_stops_anything(make_watcher, chain, status):
    watcher = make_watcher()
    chain.set_status(status)
    await watcher.check_chain()
    assert watcher.store.state.status == status.value


async def test_neither_silence_nor_disagreement_is_a_slash(make_watcher, chain):
    other = replace(chain, name="fake://other")
    watcher = make_watcher([chain, other])
    await watcher.check_chain()
    other.set_status(WorkerStatus.SLASHED)
    await watcher.check_chain()
    assert watcher.live.outcome is Outcome.DISAGREE
    assert watcher.store.state.status == "active"
    chain.error = other.error = ChainUnreachable({})
    await watcher.check_chain()
    assert watcher.live.outcome is Outcome.UNREACHABLE
    chain.error = other.error = None
    chain.set_status(WorkerStatus.SLASHED)
    with pytest.raises(Slashed):
        await watcher.check_chain()


async def test_slashed_to_stopped_for_good(make_watcher, systemd, root, clock, tmp_path):
    watcher = make_watcher()

    async def path_unit():
        while not (tmp_path / "state" / "agent-control.json").exists():
            await asyncio.sleep(0)
        return root(watcher)

    code, done = await asyncio.gather(watcher.shut_down_agent(), path_unit())
    assert (code, done) == (Exit.SLASHED, Exit.OK)
    assert systemd.calls == ["stop k3s-agent.service"]
    assert json.loads((tmp_path / "root" / "agent-stopped").read_text())["reason"] == "slashed"
    assert (tmp_path / "state" / "slashed").exists()
    assert not (tmp_path / "state" / "agent-control.json").exists()
    assert sum(clock.slept) < 20


async def test_a_stop_that_root_does_not_confirm_is_asked_for_again(make_watcher, tmp_path, clock):
    watcher = make_watcher()
    start = clock.monotonic()
    assert await watcher.shut_down_agent() == Exit.STOP_UNCONFIRMED
    assert clock.monotonic() - start == pytest.approx(20, abs=0.5)
    assert (tmp_path / "state" / "agent-control.json").exists(), "root still finds it"
    # systemd starts the watcher again; it needs no chain to know.
    assert make_watcher().store.slashed


async def test_a_stop_that_failed_is_no_confirmation(make_watcher, systemd, root, tmp_path):
    systemd.sticky = True
    watcher = make_watcher()

    async def path_unit():
        while not (tmp_path / "state" / "agent-control.json").exists():
            await asyncio.sleep(0)
        return root(watcher)

    code, done = await asyncio.gather(watcher.shut_down_agent(), path_unit())
    assert (code, done) == (Exit.STOP_UNCONFIRMED, Exit.FAILED)
    marker = tmp_path / "root" / "agent-stopped"
    assert marker.exists(), "the agent must not be started again"
    assert marker.read_text() == "", "the watcher must be: it isn't done yet"


async def test_an_old_or_foreign_answer_confirms_nothing(make_watcher, tmp_path):
    confirmation = tmp_path / "run" / "agent-control.done"
    watcher = make_watcher()
    good = {"schema": 1, "id": "0" * 32, "action": "stop", "result": "done", "finished_at_ms": 1}
    for text in (json.dumps(good), json.dumps(good | {"more": 1}), "{", ""):
        confirmation.write_text(text)
        assert await watcher.shut_down_agent() == Exit.STOP_UNCONFIRMED


async def test_an_answer_that_root_did_not_write_confirms_nothing(make_watcher, tmp_path, monkeypatch):
    watcher = make_watcher(root_uid=12345)
    monkeypatch.setattr("secrets.token_hex", lambda _n=16: "a" * 32)
    confirmation = tmp_path / "run" / "agent-control.done"
    confirmation.write_text(
        json.dumps({"schema": 1, "id": "a" * 32, "action": "stop", "result": "done", "finished_at_ms": 1})
    )
    assert await watcher.shut_down_agent() == Exit.STOP_UNCONFIRMED


async def test_a_full_disk_is_no_reason_to_think_it_is_done(make_watcher, monkeypatch):
    watcher = make_watcher()

    def full(*_args, **_kwargs):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("k3s_daas_watcher.control.write_atomic", full)
    assert await watcher.shut_down_agent() == Exit.STOP_UNCONFIRMED


# --- the oneshot ---


@pytest.fixture
def ask(make_watcher, tmp_path, clock):
    """A watcher, and a way to put any request in its place."""
    watcher = make_watcher()
    good = {
        "schema": 1,
        "id": "ab" * 16,
        "action": "stop",
        "reason": "slashed",
        "node_id": "worker-1",
        "requested_at_ms": clock.now_ms(),
    }
    path = tmp_path / "state" / "agent-control.json"

    def write(text=None, **changes):
        path.write_text(json.dumps(good | changes) if text is None else text)
        path.chmod(0o600)
        return watcher

    return write


def nothing_happened(systemd, tmp_path) -> bool:
    return (
        systemd.calls == []
        and not (tmp_path / "root" / "agent-stopped").exists()
        and not (tmp_path / "run" / "agent-control.done").exists()
    )


async def test_a_restart_restarts(ask, root, systemd, tmp_path):
    assert root(ask(action="restart", reason="agent_unhealthy")) == Exit.OK
    assert systemd.calls == ["restart k3s-agent.service"]
    assert not (tmp_path / "root" / "agent-stopped").exists()


async def test_nothing_to_do_is_fine(make_watcher, root, systemd, tmp_path):
    assert root(make_watcher()) == Exit.OK
    assert nothing_happened(systemd, tmp_path)


async def test_a_registration_starts_its_unit_and_touches_no_agent(ask, root, systemd, tmp_path):
    assert root(ask(action="register", reason="commanded")) == Exit.OK
    assert systemd.calls == ["start k3s-daas-register.service"]
    answer = json.loads((tmp_path / "run" / "agent-control.done").read_text())
    assert (answer["result"], answer["action"]) == ("done", "register")


async def test_a_slashed_worker_is_never_registered(ask, root, systemd, tmp_path):
    (tmp_path / "root" / "agent-stopped").write_text("{}")
    assert root(ask(action="register", reason="commanded")) == Exit.FAILED
    assert systemd.calls == []


async def test_a_stopped_agent_is_never_restarted(ask, root, systemd, tmp_path):
    root(ask())
    systemd.calls.clear()
    assert root(ask(action="restart", reason="agent_unhealthy")) == Exit.FAILED
    assert systemd.calls == []
    answer = json.loads((tmp_path / "run" / "agent-control.done").read_text())
    assert (answer["result"], answer["action"]) == ("failed", "restart")


async def test_a_repeated_stop_is_fine(ask, root, tmp_path):
    assert root(ask()) == Exit.OK
    first = (tmp_path / "root" / "agent-stopped").read_text()
    assert root(ask()) == Exit.OK
    assert (tmp_path / "root" / "agent-stopped").read_text() == first


async def test_the_answer_may_be_read_by_the_watcher_and_written_by_root_alone(ask, root, tmp_path):
    root(ask())
    assert stat.S_IMODE((tmp_path / "run" / "agent-control.done").stat().st_mode) == 0o644
    assert stat.S_IMODE((tmp_path / "root" / "agent-stopped").stat().st_mode) == 0o644


@pytest.mark.parametrize(
    "changes",
    [
        {"action": "start"},
        {"action": "stop; reboot"},
        {"action": ["stop"]},
        {"reason": "because"},
        {"unit": "sshd.service"},
        {"schema": 2},
        {"schema": "1"},
        {"id": "../../etc/passwd"},
        {"id": "AB" * 16},
        {"node_id": "worker-2"},
        {"node_id": "-"},
        {"requested_at_ms": -1},
        {"requested_at_ms": "1"},
    ],
)
async def test_forged_contents_are_refused(ask, root, systemd, tmp_path, changes):
    assert root(ask(**changes)) == Exit.FAILED
    assert nothing_happened(systemd, tmp_path)
    assert not (tmp_path / "state" / "agent-control.json").exists(), "or the path unit would not rest"


@pytest.mark.parametrize("text", ["", "{", "[]", "null", "{}", '{"action":"stop"}', " " * 5000, "\0" * 100])
async def test_what_is_no_request_is_refused(ask, root, systemd, tmp_path, text):
    assert root(ask(text)) == Exit.FAILED
    assert nothing_happened(systemd, tmp_path)


async def test_a_missing_key_is_refused(ask, root, systemd, tmp_path):
    watcher = ask()
    path = tmp_path / "state" / "agent-control.json"
    whole = json.loads(path.read_text())
    for key in whole:
        path.write_text(json.dumps({k: v for k, v in whole.items() if k != key}))
        assert root(watcher) == Exit.FAILED, key
        assert nothing_happened(systemd, tmp_path), key


def _symlink(path: Path, tmp_path: Path) -> None:
    path.rename(tmp_path / "elsewhere")
    path.symlink_to(tmp_path / "elsewhere")


def _hard_link(path: Path, tmp_path: Path) -> None:
    (tmp_path / "second-name").hardlink_to(path)


def _fifo(path: Path, _tmp_path: Path) -> None:
    import os

    path.unlink()
    os.mkfifo(path, 0o600)


def _directory(path: Path, _tmp_path: Path) -> None:
    path.unlink()
    path.mkdir()
    (path / "file").write_text("x")


def _world_writable(path: Path, _tmp_path: Path) -> None:
    path.chmod(0o666)


def _loose_directory(path: Path, _tmp_path: Path) -> None:
    path.parent.chmod(0o777)


@pytest.mark.parametrize(
    "forge", [_symlink, _hard_link, _fifo, _directory, _world_writable, _loose_directory]
)
async def test_forged_files_are_refused_and_taken_away(ask, root, systemd, tmp_path, forge):
    watcher, path = ask(), tmp_path / "state" / "agent-control.json"
    forge(path, tmp_path)
    assert root(watcher) == Exit.FAILED
    assert nothing_happened(systemd, tmp_path)
    assert not path.exists()
    assert not path.is_symlink()


async def test_a_file_of_another_user_is_refused(ask, systemd, tmp_path):
    watcher = ask()
    other = tmp_path.stat().st_uid + 1
    (tmp_path / "state").chmod(0o700)
    code = agent_control.run(watcher.config, other, systemd, agent_control.Pods(tmp_path / "none"))
    assert code == Exit.FAILED
    assert nothing_happened(systemd, tmp_path)


# --- what an agent leaves behind ---


def test_processes_of_agent_and_pods_are_found_in_every_hierarchy(tmp_path):
    def procs(path: str, *pids: int) -> None:
        directory = tmp_path / path
        directory.mkdir(parents=True)
        (directory / "cgroup.procs").write_text("".join(f"{pid}\n" for pid in pids))

    procs("systemd/payload/system.slice/k3s-agent.service", 1001)
    procs("memory/payload/kubepods/burstable/pod1/c1", 1002, 1003)
    procs("memory/kubepods.slice/kubepods-pod2.slice", 1004)
    # 0 is a process of another pid namespace, 1 is this host's init.
    procs("pids/payload/kubepods", 0, 1, 1005)
    procs("memory/payload/system.slice/ssh.service", 1006)
    procs("memory/other-host/kubepods", 1007)
    found = agent_control.Pods(tmp_path).pids("k3s-agent.service", "/payload/system.slice/k3s-agent.service")
    assert found == {1001, 1002, 1003, 1004, 1005}


def test_the_unified_hierarchy_is_read_too(tmp_path):
    (tmp_path / "cgroup.controllers").write_text("")
    (tmp_path / "kubepods.slice" / "pod").mkdir(parents=True)
    (tmp_path / "kubepods.slice" / "pod" / "cgroup.procs").write_text("2001\n")
    found = agent_control.Pods(tmp_path).pids("k3s-agent.service", "/system.slice/k3s-agent.service")
    assert found == {2001}


def test_they_are_killed_and_waited_for(tmp_path):
    import subprocess
    import sys

    victim = subprocess.Popen([sys.executable, "-c", "import signal; signal.pause()"])
    (tmp_path / "cgroup.controllers").write_text("")
    (tmp_path / "kubepods").mkdir()
    procs = tmp_path / "kubepods" / "cgroup.procs"
    procs.write_text(f"{victim.pid}\n")

    def gone(_seconds: float) -> None:
        # The kernel takes a dead process out of its cgroup; here the test does.
        assert victim.wait(timeout=10) == -9
        procs.write_text("")

    assert agent_control.Pods(tmp_path).kill("k3s-agent.service", "", 10, sleep=gone) == set()


def test_what_outlives_sigkill_is_told(tmp_path, monkeypatch):
    (tmp_path / "cgroup.controllers").write_text("")
    (tmp_path / "kubepods").mkdir()
    (tmp_path / "kubepods" / "cgroup.procs").write_text("4194305\n")
    monkeypatch.setattr("os.kill", lambda pid, number: None)
    left = agent_control.Pods(tmp_path).kill("k3s-agent.service", "", 0, sleep=lambda _s: None)
    assert left == {4194305}


async def test_a_good_request_in_a_file_too_large_is_refused(ask, root, systemd, tmp_path):
    watcher, path = ask(), tmp_path / "state" / "agent-control.json"
    path.write_text(path.read_text() + " " * 5000)
    assert root(watcher) == Exit.FAILED
    assert nothing_happened(systemd, tmp_path)
