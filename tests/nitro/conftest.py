"""A stand-in parent in a directory of its own, with the role's program as the role installs it."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from nitro_standin.make_image import make

REPOSITORY = Path(__file__).parents[2]
STAND_INS = REPOSITORY / "molecule/resources/nitro_standin"
NITRO_CLI = str(STAND_INS / "nitro-cli")


class Parent:
    """Paths below `root`, the stand-ins, and the program."""

    def __init__(self, root: Path) -> None:
        self.root = root
        for folder in ("run", "s", "etc/nitro_enclaves", "metrics", "code"):
            (root / folder).mkdir(parents=True)
        self.environment = os.environ | {
            "NITRO_CLI_INSTALL_DIR": str(root),
            "NITRO_CLI_SOCKETS_PATH": str(root / "s"),
            "NITRO_STAND_IN_ENDS_AFTER_S": "120",
        }
        shutil.copy(REPOSITORY / "roles/nitro_parent/files/enclave.py", root / "code")
        shutil.copy(REPOSITORY / "module_utils/k3s_daas_nitro.py", root / "code")
        self.settings: dict[str, Any] = {
            "name": "k3s-daas-master",
            "eif": str(root / "one.eif"),
            "pcr0": make(root / "one.eif", "one"),
            "cpu_count": 2,
            "memory_mib": 4096,
            "enclave_cid": 16,
            "debug": False,
            "nitro_cli": NITRO_CLI,
            "ports": [6443, 8443],
            "gvproxy_socket": str(root / "api"),
            "metrics_file": str(root / "metrics/k3s_daas_enclave.prom"),
        }
        self.processes: list[subprocess.Popen[str]] = []

    def allocate(self, config: str) -> subprocess.CompletedProcess[str]:
        (self.root / "etc/nitro_enclaves/allocator.yaml").write_text(config)
        return subprocess.run(
            [STAND_INS / "nitro-enclaves-allocator"],
            env=self.environment,
            capture_output=True,
            text=True,
            check=False,
        )

    def nitro(self, *arguments: str) -> Any:
        done = subprocess.run([NITRO_CLI, *arguments], env=self.environment, capture_output=True, check=True)
        return json.loads(done.stdout)

    def enclaves(self) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = self.nitro("describe-enclaves")
        return found

    def run_enclave(self, **changes: Any) -> dict[str, Any]:
        """As nitro-cli itself starts one."""
        debug = ["--debug-mode"] if changes.get("debug") else []
        cpus = str(changes.get("cpu_count", 2))
        found: dict[str, Any] = self.nitro(
            *("run-enclave", "--enclave-name", "k3s-daas-master", "--enclave-cid", "16", "--cpu-count", cpus),
            *("--memory", "4096", "--eif-path", changes.get("eif", self.settings["eif"]), *debug),
        )
        return found

    def command(self, step: str) -> list[str]:
        (self.root / "enclave.json").write_text(json.dumps(self.settings))
        return [
            sys.executable,
            "-B",
            str(self.root / "code/enclave.py"),
            "--config",
            f"{self.root}/enclave.json",
            step,
        ]

    def step(self, step: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            self.command(step), env=self.environment, capture_output=True, text=True, timeout=30, check=False
        )

    def metrics(self) -> dict[str, str]:
        lines = Path(self.settings["metrics_file"]).read_text().splitlines()
        return dict(line.rsplit(" ", 1) for line in lines if not line.startswith("#"))

    def start(self, command: list[str], **environment: str) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            command,
            env=self.environment | environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        self.processes.append(process)
        return process

    def gvproxy(self, *options: str) -> None:
        """Start it, and wait until it listens."""
        path = self.settings["gvproxy_socket"]
        given = ["--listen", "vsock://:1024", "--services", f"unix://{path}", "--ssh-port", "-1", *options]
        self.start([str(STAND_INS / "gvproxy"), *given])
        end = time.monotonic() + 10
        while True:
            try:
                with socket.socket(socket.AF_UNIX) as connection:
                    connection.connect(path)
                    return
            except OSError:
                assert time.monotonic() < end
                time.sleep(0.02)

    def close(self) -> None:
        for one in self.enclaves():
            self.nitro("terminate-enclave", "--enclave-id", one["EnclaveID"])
        for process in self.processes:
            process.kill()
            process.communicate()


@pytest.fixture
def parent() -> Iterator[Parent]:
    # Short: the path of a socket may have 107 bytes.
    with tempfile.TemporaryDirectory(prefix="np") as name:
        parent = Parent(Path(name))
        assert parent.allocate("---\nmemory_mib: 4096\ncpu_count: 2\n").returncode == 0
        yield parent
        parent.close()
