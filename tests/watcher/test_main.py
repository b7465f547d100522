"""The commands as systemd starts them, with their exit codes."""

from __future__ import annotations

import json
import pwd
import sys
from pathlib import Path

import pytest

from k3s_daas_watcher import agent_control
from k3s_daas_watcher.__main__ import main
from k3s_daas_watcher.errors import Exit


@pytest.fixture
def me(tmp_path) -> str:
    return pwd.getpwuid(tmp_path.stat().st_uid).pw_name


@pytest.fixture
def systemctl(tmp_path, monkeypatch):
    """A `systemctl` that writes down how it was called; its unit is active until it is stopped."""
    script, log = tmp_path / "bin" / "systemctl", tmp_path / "calls"
    script.parent.mkdir()
    script.write_text(
        f"""#!{sys.executable}
import pathlib, sys
log, args = pathlib.Path({str(log)!r}), sys.argv[1:]
before = log.read_text() if log.exists() else ""
log.write_text(before + " ".join(args) + chr(10))
if args[0] == "show":
    print("ActiveState=" + ("inactive" if "stop " in before else "active"))
    print("ControlGroup=/system.slice/k3s-agent-of-a-test.service")
"""
    )
    script.chmod(0o755)
    # Nothing of this machine may be killed: these cgroups have no processes.
    (tmp_path / "no-cgroups").mkdir()
    monkeypatch.setattr(agent_control.Pods.__init__, "__defaults__", (tmp_path / "no-cgroups",))
    monkeypatch.setenv("PATH", f"{script.parent}:/usr/bin:/bin")
    return lambda: log.read_text().splitlines() if log.exists() else []


def test_agent_control_stops_the_agent(write_config, tmp_path, systemctl, me, capsys):
    path = write_config(agent_unit="k3s-agent-of-a-test.service")
    request = {
        "schema": 1,
        "id": "0" * 32,
        "action": "stop",
        "reason": "slashed",
        "node_id": "worker-1",
        "requested_at_ms": 1,
    }
    (tmp_path / "state" / "agent-control.json").write_text(json.dumps(request))
    assert main(["agent-control", f"--config={path}", f"--owner={me}"]) == Exit.OK
    assert "stop k3s-agent-of-a-test.service" in systemctl()
    answer = json.loads((tmp_path / "run" / "agent-control.done").read_text())
    assert (answer["id"], answer["result"]) == ("0" * 32, "done")
    line = json.loads(capsys.readouterr().err.splitlines()[-1])
    assert (line["service"], line["event"]) == ("k3s-daas-agent-control", "request handled")


def test_stop_agent_stops_it_for_good_and_only_once(write_config, tmp_path, systemctl, capsys):
    path = write_config(agent_unit="k3s-agent-of-a-test.service")
    assert main(["stop-agent", f"--config={path}"]) == Exit.OK
    assert capsys.readouterr().out == "stopped\n"
    assert systemctl().count("stop k3s-agent-of-a-test.service") == 1
    marker = Path(json.loads(path.read_text())["stop_marker"])
    before = marker.read_text()
    assert json.loads(before)["reason"] == "leaving"
    assert main(["stop-agent", f"--config={path}"]) == Exit.OK
    assert capsys.readouterr().out == "found stopped\n"
    assert systemctl().count("stop k3s-agent-of-a-test.service") == 1
    assert marker.read_text() == before


def test_stop_agent_that_does_not_stop_says_so_and_leaves_the_marker_empty(
    write_config, tmp_path, systemctl, capsys
):
    path = write_config(agent_unit="k3s-agent-of-a-test.service")
    script = tmp_path / "bin" / "systemctl"
    script.write_text(script.read_text().replace('"inactive" if', '"active" if'))
    assert main(["stop-agent", f"--config={path}"]) == Exit.FAILED
    assert "agent_not_stopped" in capsys.readouterr().err
    assert Path(json.loads(path.read_text())["stop_marker"]).read_text() == "", "empty: nothing is confirmed"


def test_agent_control_without_its_user_says_so(write_config, capsys):
    assert main(["agent-control", f"--config={write_config()}", "--owner=no-such-user"]) == Exit.CONFIG
    assert "no user no-such-user" in capsys.readouterr().err


def test_serve_refuses_what_it_can_not_back_up(write_config, capsys):
    assert main(["serve", f"--config={write_config(accept_simulated=False)}"]) == Exit.NOT_ATTESTED
    assert "SIMULATED" in capsys.readouterr().err


def test_serve_without_a_token_says_where_it_belongs(write_config, capsys, monkeypatch):
    monkeypatch.delenv("CREDENTIALS_DIRECTORY", raising=False)
    assert main(["serve", f"--config={write_config()}"]) == Exit.CONFIG
    assert "LoadCredential" in capsys.readouterr().err
