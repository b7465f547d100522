"""What survives a restart of the watcher, and what a broken state file costs."""

from __future__ import annotations

import json
import stat
from pathlib import Path

import pytest

from k3s_daas_watcher.files import write_atomic
from k3s_daas_watcher.state import StateStore


async def test_failures_and_last_times_survive(make_watcher, master, refusal, clock):
    watcher = make_watcher()
    await watcher.check_chain()
    await watcher.beat()
    clock.advance(30)
    master.on_heartbeat = lambda _: refusal(503, "not_ready")
    await watcher.check_chain()
    await watcher.beat()
    await watcher.beat()
    state = make_watcher().store.state
    assert (state.consecutive_failures, state.last_failure) == (2, "not_ready")
    assert state.last_heartbeat_ms == clock.now_ms() - 30_000
    assert state.last_validation_ms == clock.now_ms()
    assert (state.status, state.stake_mist, state.token_generation) == ("active", 1_500_000_000, 3)
    assert state.master is not None
    assert state.master.ca_pem.encode() == master.ca.pem


def test_the_file_is_private_and_whole(tmp_path):
    store = StateStore(tmp_path, "worker-1")
    store.state.consecutive_failures = 2
    store.save()
    path = tmp_path / "state.json"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert json.loads(path.read_text())["consecutive_failures"] == 2
    assert [entry.name for entry in tmp_path.iterdir()] == ["state.json"]


@pytest.mark.parametrize(
    "content", ["", "{", "[]", '{"schema": 2, "node_id": "worker-1"}', "\0" * 10, "9" * 300_000]
)
def test_a_broken_file_is_started_anew(tmp_path, content):
    (tmp_path / "state.json").write_text(content)
    store = StateStore(tmp_path, "worker-1")
    assert store.state.consecutive_failures == 0
    store.save()
    assert StateStore(tmp_path, "worker-1").state == store.state


def test_another_nodes_state_is_not_ours(tmp_path):
    store = StateStore(tmp_path, "worker-1")
    store.state.timestamp_floor_ms = 5
    store.save()
    assert StateStore(tmp_path, "worker-2").state.timestamp_floor_ms == 0


def test_a_full_disk_is_survived_and_written_later(tmp_path, monkeypatch):
    store = StateStore(tmp_path, "worker-1")
    store.state.consecutive_failures = 1

    def full(*_args):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("k3s_daas_watcher.state.write_atomic", full)
        store.save()
        assert store.problem == f"{tmp_path / 'state.json'}: No space left on device"
    assert not (tmp_path / "state.json").exists()
    store.save()
    assert store.problem == ""
    assert StateStore(tmp_path, "worker-1").state.consecutive_failures == 1


def test_an_interrupted_write_leaves_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "file"
    write_atomic(path, b"old")

    def broken(_descriptor):
        raise OSError(5, "Input/output error")

    with monkeypatch.context() as patch:
        patch.setattr("os.fsync", broken)
        with pytest.raises(OSError, match="Input/output"):
            write_atomic(path, b"new")
    assert path.read_bytes() == b"old"
    assert [entry.name for entry in tmp_path.iterdir()] == ["file"]


def test_a_symlink_is_replaced_and_not_followed(tmp_path):
    target = tmp_path / "target"
    target.write_text("mine")
    link: Path = tmp_path / "link"
    link.symlink_to(target)
    write_atomic(link, b"secret")
    assert target.read_text() == "mine"
    assert not link.is_symlink()


def test_a_slash_is_remembered_for_its_own_node_id_alone(tmp_path):
    StateStore(tmp_path, "worker-1").mark_slashed(1)
    assert StateStore(tmp_path, "worker-1").slashed
    assert not StateStore(tmp_path, "worker-2").slashed
    (tmp_path / "slashed").write_text("half a wo")
    assert StateStore(tmp_path, "worker-1").slashed
