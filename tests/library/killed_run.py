"""Runs our modules as playbooks do, in children of one warm process, and kills them with SIGKILL.

Started by test_killed.py, told what to do by lines of JSON on stdin: {"steps": "stake"|"rotate", "hosts":
{node id: folder}, "arguments": {of the chain modules}} and when to die: "after_s" seconds after the line, or
after the mark "mark"; or "at_line", the nth line run in module_utils/k3s_daas_seal.py. Answers with
{"reached": last mark, "killed": bool, "result": of the last module}.
"""

from __future__ import annotations

import contextlib
import importlib.util
import io
import json
import os
import select
import signal
import sys
import time
from pathlib import Path
from types import ModuleType
from typing import Any

import ansible.module_utils
from ansible.module_utils.testing import patch_module_args

import k3s_daas.chain.client  # noqa: F401 - pysui's second of importing is not what is tested

REPOSITORY = Path(__file__).parents[2]
SEAL = REPOSITORY / "module_utils" / "k3s_daas_seal.py"


def load(path: Path, name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None
    assert spec.loader is not None
    sys.modules[name] = module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def run(name: str, **arguments: Any) -> dict[str, Any]:
    out = io.StringIO()
    given = arguments | {"_ansible_remote_tmp": "/tmp"}  # noqa: S108
    with patch_module_args(given), contextlib.redirect_stdout(out), contextlib.suppress(SystemExit):
        MODULES[name].main()
    result: dict[str, Any] = json.loads(out.getvalue())
    if result.get("failed"):
        raise RuntimeError(result["msg"])
    result.pop("warnings", None)
    return result


def stake(hosts: dict[str, str], arguments: dict[str, Any], mark: Any) -> dict[str, Any]:
    """playbooks/workers.yml: a secret on each host, then one staking for all of them."""
    made = []
    for node_id, folder in hosts.items():
        mark(f"seal {node_id}")
        made.append(run("seal_commitment", node_id=node_id, path=f"{folder}/seal-token"))
    mark("chain")
    return run("sui_stake", workers=made, **arguments)


def rotate(hosts: dict[str, str], arguments: dict[str, Any], mark: Any) -> dict[str, Any]:
    """playbooks/rotate.yml: host, chain, host, one worker after the other."""
    result = {}
    for node_id, folder in hosts.items():
        usual = {"node_id": node_id, "path": f"{folder}/seal-token"}
        mark("next")
        made = run("seal_commitment", state="next", **usual)
        mark("chain")
        result = run("sui_seal_token", workers=[made], state="rotated", **arguments)
        mark("promote")
        run(
            "seal_commitment",
            state="promoted",
            commitment=result["tokens"][node_id]["commitment"],
            **usual,
        )
        mark("end")
    return result


def die_at(line: int) -> None:
    """SIGKILL to this process as it comes to the `line`th line of SEAL that it runs."""
    left = line

    def each(frame: Any, event: str, _argument: Any) -> Any:
        nonlocal left
        if event == "line":
            left -= 1
            if left == 0:
                os.kill(os.getpid(), signal.SIGKILL)
        return each

    sys.settrace(lambda frame, _event, _argument: each if frame.f_code.co_filename == str(SEAL) else None)


def child(order: dict[str, Any], marks: int) -> None:
    def mark(name: str) -> None:
        os.write(marks, name.encode() + b"\n")

    if order.get("at_line"):
        die_at(order["at_line"])
    steps = {"stake": stake, "rotate": rotate}[order["steps"]]
    try:
        mark("result " + json.dumps(steps(order["hosts"], order["arguments"], mark)))
    except RuntimeError as error:
        mark("result " + json.dumps({"failed": True, "msg": str(error)}))


def perform(order: dict[str, Any]) -> dict[str, Any]:
    reader, writer = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.close(reader)
        child(order, writer)
        os._exit(0)
    os.close(writer)
    started, buffer, deadline = time.monotonic(), b"", None
    if order.get("after_s") is not None and not order.get("mark"):
        deadline = started + order["after_s"]
    while True:
        wait = None if deadline is None else max(0.0, deadline - time.monotonic())
        if not select.select([reader], [], [], wait)[0]:
            os.kill(pid, signal.SIGKILL)
            deadline = None
            continue
        data = os.read(reader, 65536)
        if not data:
            break
        buffer += data
        if deadline is None and order.get("mark") and f"{order['mark']}\n".encode() in buffer:
            deadline = time.monotonic() + order.pop("after_s")
            order.pop("mark")
    _, status = os.waitpid(pid, 0)
    os.close(reader)
    lines = buffer.decode().splitlines()
    result = next((json.loads(line[7:]) for line in lines if line.startswith("result ")), None)
    reached = [line for line in lines if not line.startswith("result ")]
    return {
        "reached": reached[-1] if reached else "",
        "killed": os.WIFSIGNALED(status),
        "result": result,
        "seconds": time.monotonic() - started,
    }


if __name__ == "__main__":
    ansible.module_utils.__path__.append(str(REPOSITORY / "module_utils"))
    MODULES = {
        name: load(REPOSITORY / "library" / f"{name}.py", f"library_{name}")
        for name in ("seal_commitment", "sui_stake", "sui_seal_token")
    }
    if batch := os.environ.get("STAKE_BATCH"):
        from k3s_daas.registry import staking

        staking.StakePlan.operation.__defaults__ = (int(batch),)
    print("ready", flush=True)
    for text in sys.stdin:
        print(json.dumps(perform(json.loads(text))), flush=True)
