"""What an owner has: kubectl by a kubeconfig, and pods of a small test image."""

from __future__ import annotations

import json
import os
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from scenario import STAGE

IMAGE = "localhost/echo:1"

RESTRICTED = {
    "runAsNonRoot": True,
    "runAsUser": 1000,
    "allowPrivilegeEscalation": False,
    "capabilities": {"drop": ["ALL"]},
    "seccompProfile": {"type": "RuntimeDefault"},
}


def until(what: Callable[[], Any], timeout_s: float) -> Any:
    """What `what` returns, as soon as it is something."""
    end = time.monotonic() + timeout_s
    while not (found := what()):
        assert time.monotonic() < end, f"not within {timeout_s:g} s"
        time.sleep(0.3)
    return found


@dataclass(frozen=True)
class Kubectl:
    """kubectl on the control node, by a kubeconfig and nothing else."""

    binary: str
    kubeconfig: Path

    def command(self, *arguments: str) -> list[str]:
        return [self.binary, "kubectl", "--kubeconfig", str(self.kubeconfig), *arguments]

    def run(self, *arguments: str, stdin: str | None = None) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            self.command(*arguments),
            input=stdin,
            env=self.environment,
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )

    def __call__(self, *arguments: str, stdin: str | None = None) -> str:
        done = self.run(*arguments, stdin=stdin)
        assert done.returncode == 0, f"{arguments}: {done.stderr}"
        return done.stdout

    def start(self, *arguments: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            self.command(*arguments),
            env=self.environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            bufsize=1,
        )

    @property
    def environment(self) -> dict[str, str]:
        # A k3s unpacks itself; what it unpacks goes with the stage.
        return os.environ | {"K3S_DATA_DIR": str(STAGE / "k3s-client"), "HOME": str(STAGE)}


def echo(name: str, node: str) -> dict[str, Any]:
    """A pod of the test image: HTTP at 8080, and a few commands."""
    return {
        "metadata": {"name": name, "labels": {"app": name}},
        "spec": {
            "nodeSelector": {"kubernetes.io/hostname": node},
            "containers": [{"name": "echo", "image": IMAGE, "securityContext": RESTRICTED}],
            "terminationGracePeriodSeconds": 1,
        },
    }


def deployment(name: str, node: str) -> str:
    return json.dumps(
        {
            "apiVersion": "apps/v1",
            "kind": "Deployment",
            "metadata": {"name": name},
            "spec": {
                "replicas": 1,
                "selector": {"matchLabels": {"app": name}},
                "template": echo(name, node),
            },
        }
    )
