"""`k3s-daas demand`: which pods another worker would help, and what it says when it can't ask."""

from __future__ import annotations

import json
import shlex
import sys
from pathlib import Path
from typing import Any

import pytest

from k3s_daas.cli import main
from k3s_daas.scaling.demand import unplaced

AFTER = (
    " no new claims to deallocate, preemption: 0/1 nodes are available: 1 Preemption is not helpful for "
    "scheduling."
)


def pending(message: str, reason: str = "Unschedulable") -> dict[str, Any]:
    condition = {"type": "PodScheduled", "status": "False", "reason": reason, "message": message}
    return {"status": {"phase": "Pending", "conditions": [condition]}}


@pytest.mark.parametrize(
    "message",
    [
        # As k3s 1.34.10 says it.
        f"0/1 nodes are available: 1 Insufficient cpu.{AFTER}",
        "0/3 nodes are available: 1 Insufficient memory, 2 Too many pods.",
        "0/2 nodes are available: 2 Insufficient ephemeral-storage.",
        "no nodes available to schedule pods",
    ],
)
def test_another_worker_would_help_where_there_is_no_room(message: str) -> None:
    assert unplaced(pending(message))


@pytest.mark.parametrize(
    "pod",
    [
        pending(f"0/1 nodes are available: 1 node(s) didn't match Pod's node affinity/selector.{AFTER}"),
        pending(f"0/1 nodes are available: 1 Insufficient example.com/gpu.{AFTER}"),
        pending("0/2 nodes are available: 2 Insufficient cpu-of-mine/x."),
        pending("0/2 nodes are available: 2 Insufficient cpu.of-mine/x."),
        pending("Insufficient cpu", reason="SchedulingGated"),
        {"status": {"phase": "Pending", "conditions": [{"type": "PodScheduled", "status": "True"}]}},
        {"status": {"phase": "Pending"}},
        {},
    ],
)
def test_and_nowhere_else(pod: dict[str, Any]) -> None:
    assert not unplaced(pod)


@pytest.fixture
def kubectl(tmp_path: Path) -> Any:
    """A FAKE kubectl: `kubectl(answers)` answers each `get --raw=PATH` with what `answers` has for PATH."""

    def make(answers: dict[str, Any]) -> str:
        (tmp_path / "answers").write_text(json.dumps(answers))
        program = tmp_path / "kubectl"
        program.write_text(
            f"#!{sys.executable}\n"
            "import json, pathlib, sys\n"
            f"answers = json.loads(pathlib.Path({str(tmp_path / 'answers')!r}).read_text())\n"
            "assert sys.argv[1] == 'get', sys.argv\n"
            "answer = answers[sys.argv[2].removeprefix('--raw=')]\n"
            "print(answer if isinstance(answer, str) else json.dumps(answer))\n"
        )
        program.chmod(0o755)
        return shlex.quote(str(program))

    return make


RUNNING = "/api/v1/pods?fieldSelector=status.phase%3DRunning&limit=500"
PENDING = "/api/v1/pods?fieldSelector=status.phase%3DPending&limit=500"


def test_it_counts_page_after_page(kubectl: Any, capsys: pytest.CaptureFixture[str]) -> None:
    answers = {
        RUNNING: {"metadata": {"continue": "a b&c"}, "items": [{}] * 2},
        f"{RUNNING}&continue=a%20b%26c": {"metadata": {}, "items": [{}]},
        PENDING: {"items": [pending("1 Insufficient cpu."), pending("no volume")]},
    }
    assert main(["demand", f"--kubectl={kubectl(answers)}"]) == 0
    assert json.loads(capsys.readouterr().out) == {"running": 3, "unplaced": 1}


@pytest.mark.parametrize(
    ("answers", "why"),
    [
        ({}, "said: Traceback"),
        ({RUNNING: "text"}, "no list of pods"),
        ({RUNNING: {"items": {}}}, "no list of pods"),
        ({RUNNING: []}, "no list of pods"),
    ],
)
def test_a_cluster_that_cant_be_read_is_no_empty_one(
    kubectl: Any, capsys: pytest.CaptureFixture[str], answers: dict[str, Any], why: str
) -> None:
    assert main(["demand", f"--kubectl={kubectl(answers)}"]) == 1
    said = capsys.readouterr()
    assert why in said.err
    assert said.out == ""


def test_without_kubectl_it_says_so(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["demand", f"--kubectl={tmp_path / 'nothing'}"]) == 1
    assert "can't be run" in capsys.readouterr().err
