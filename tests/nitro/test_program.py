"""enclave.py, which the parent's units run, against the stand-ins."""

from __future__ import annotations

import http.client
import json
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from nitro_standin.make_image import make, pcr0

if TYPE_CHECKING:
    from conftest import Parent

REFUSED = 78


class Unix(http.client.HTTPConnection):
    def __init__(self, path: str) -> None:
        super().__init__("gvproxy", timeout=10)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.connect(self._path)


def gvproxy(parent: Parent, path: str, body: dict[str, Any] | None = None) -> Any:
    connection = Unix(parent.settings["gvproxy_socket"])
    connection.request(
        "GET" if body is None else "POST", f"/services/forwarder/{path}", body and json.dumps(body)
    )
    answer = connection.getresponse()
    assert answer.status == 200
    content = answer.read()
    connection.close()
    return json.loads(content) if body is None else None


# -- run ---------------------------------------------------------------------------------------------------


def started(parent: Parent) -> tuple[subprocess.Popen[str], dict[str, Any]]:
    """The program that runs an enclave, once it has told systemd, and the enclave."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as systemd:
        systemd.bind(str(parent.root / "notify"))
        systemd.settimeout(20)
        process = parent.start(parent.command("run"), NOTIFY_SOCKET=str(parent.root / "notify"))
        told = systemd.recv(1000).decode()
    (parent.root / "notify").unlink()
    (enclave,) = parent.enclaves()
    assert told == f"READY=1\nSTATUS=enclave {enclave['EnclaveID']} runs"
    return process, enclave


def test_it_runs_as_long_as_the_enclave(parent: Parent) -> None:
    process, enclave = started(parent)
    wanted = {"EnclaveName": "k3s-daas-master", "EnclaveCID": 16, "NumberOfCPUs": 2, "MemoryMiB": 4096}
    assert wanted.items() <= enclave.items()
    assert (enclave["State"], enclave["Flags"]) == ("RUNNING", "NONE")
    assert process.poll() is None
    assert parent.step("stop").stdout == f"enclave {enclave['EnclaveID']} ended\n"
    output, _ = process.communicate(timeout=20)
    assert (process.returncode, f"enclave {enclave['EnclaveID']} has ended" in output) == (0, True)
    assert parent.step("stop").returncode == 0, "there being none is fine"


def test_it_ends_with_an_enclave_that_breaks_off(parent: Parent) -> None:
    process, _ = started(parent)
    (pid,) = {one["ProcessID"] for one in parent.enclaves()}
    os.kill(pid, signal.SIGKILL)
    process.communicate(timeout=20)
    assert process.returncode == 0
    assert parent.enclaves() == []


def test_an_enclave_that_has_ended_already(parent: Parent) -> None:
    make(parent.root / "one.eif", "one", boot="ends")
    done = parent.step("run")
    assert (done.returncode, "has ended" in done.stdout) == (0, True), done.stderr


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"pcr0": pcr0("two")}, f"wanted {pcr0('two')}"),
        ({"eif": "/nonexistent.eif"}, "E35"),
        ({"pcr0": "0" * 96}, "aren't all zero"),
        ({"ports": None}, "can't be used"),
        ({"cpu_count": "many"}, "can't be used"),
    ],
)
def test_what_would_be_refused_again_is_not_tried_again(
    parent: Parent, change: dict[str, Any], words: str
) -> None:
    parent.settings |= change
    done = parent.step("run")
    assert (done.returncode, parent.enclaves()) == (REFUSED, [])
    assert words in done.stderr


def test_a_damaged_image_is_refused(parent: Parent) -> None:
    make(parent.root / "one.eif", "one", crc=False)
    assert parent.step("run").returncode == REFUSED


def test_no_room_is_tried_again(parent: Parent) -> None:
    parent.settings["memory_mib"] = 6000
    done = parent.step("run")
    assert (done.returncode, "E27 Insufficient memory" in done.stderr) == (1, True), done.stderr


def test_one_that_runs_already_is_not_doubled(parent: Parent) -> None:
    running = parent.run_enclave(cpu_count=1)
    done = parent.step("run")
    assert (done.returncode, running["EnclaveID"] in done.stderr) == (1, True)
    assert len(parent.enclaves()) == 1


def test_no_settings(parent: Parent) -> None:
    command = parent.command("run")
    (parent.root / "enclave.json").unlink()
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, "playbooks/nitro_parent.yml" in done.stderr) == (REFUSED, True)


# -- health ------------------------------------------------------------------------------------------------


def test_all_is_well(parent: Parent) -> None:
    parent.run_enclave()
    parent.gvproxy()
    assert parent.step("forward").returncode == 0
    done = parent.step("health")
    assert done.returncode == 0, done.stderr
    found = parent.metrics()
    ones = (
        "healthy",
        "running",
        "image_wanted",
        'port_forwarded{port="6443"}',
        'port_forwarded{port="8443"}',
    )
    assert {name: found[f"k3s_daas_enclave_{name}"] for name in ones} == dict.fromkeys(ones, "1")
    assert found["k3s_daas_enclave_debug"] == "0"
    assert found["k3s_daas_enclave_memory_bytes"] == str(4 << 30)
    assert Path(parent.settings["metrics_file"]).stat().st_mode & 0o777 == 0o644
    assert [path.name for path in (parent.root / "metrics").iterdir()] == ["k3s_daas_enclave.prom"]


def test_the_metrics_are_what_prometheus_reads(parent: Parent) -> None:
    from prometheus_client.parser import text_string_to_metric_families

    parent.step("health")
    text = Path(parent.settings["metrics_file"]).read_text()
    families = {family.name: family for family in text_string_to_metric_families(text)}
    assert len(families) >= 8
    assert all(family.type == "gauge" and family.documentation for family in families.values())
    assert len(families["k3s_daas_enclave_port_forwarded"].samples) == 2


@pytest.mark.parametrize(
    ("running", "words", "gauge"),
    [
        (None, "no enclave runs", ("running", "0")),
        ({"debug": True}, "flags DEBUG_MODE, wanted NONE", ("debug", "1")),
        ({"eif": "two.eif"}, "PCR0", ("image_wanted", "0")),
        ({"cpu_count": 1}, "1 CPUs, wanted 2", ("cpus", "1")),
    ],
)
def test_what_is_not_as_wanted_is_told(
    parent: Parent, running: dict[str, Any] | None, words: str, gauge: tuple[str, str]
) -> None:
    make(parent.root / "two.eif", "two")
    if running is not None:
        if "eif" in running:
            running = running | {"eif": str(parent.root / running["eif"])}
        parent.run_enclave(**running)
    parent.gvproxy()
    parent.step("forward")
    done = parent.step("health")
    assert (done.returncode, words in done.stderr) == (1, True), done.stderr
    found = parent.metrics()
    assert found["k3s_daas_enclave_healthy"] == "0"
    assert found[f"k3s_daas_enclave_{gauge[0]}"] == gauge[1]


def test_without_gvproxy_nobody_reaches_it(parent: Parent) -> None:
    parent.run_enclave()
    done = parent.step("health")
    assert (done.returncode, "gvproxy gives no answer" in done.stderr) == (1, True)
    assert parent.metrics()['k3s_daas_enclave_port_forwarded{port="6443"}'] == "0"
    assert parent.metrics()["k3s_daas_enclave_running"] == "1"


def test_a_nitro_cli_that_fails_is_told_and_measured(parent: Parent) -> None:
    parent.settings["nitro_cli"] = "/nonexistent/nitro-cli"
    done = parent.step("health")
    assert (done.returncode, "Found no /nonexistent/nitro-cli" in done.stderr) == (1, True)
    assert parent.metrics()["k3s_daas_enclave_running"] == "0"


# -- forward -----------------------------------------------------------------------------------------------


def test_the_wanted_ports_are_forwarded_and_no_others(parent: Parent) -> None:
    parent.gvproxy()
    # As the enclave itself might ask for, by gvproxy's address inside.
    gvproxy(parent, "expose", {"local": ":22", "remote": "192.168.127.2:22"})
    gvproxy(parent, "expose", {"local": ":53", "remote": "192.168.127.2:53", "protocol": "udp"})
    gvproxy(parent, "expose", {"local": ":6443", "remote": "192.168.127.9:6443"})
    parent.run_enclave()
    done = parent.step("health")
    assert ":22 is forwarded and shouldn't be" in done.stderr
    assert "port 6443 isn't forwarded" in done.stderr
    assert parent.step("forward").returncode == 0
    assert gvproxy(parent, "all") == [
        {"local": f":{port}", "remote": f"192.168.127.2:{port}", "protocol": "tcp"} for port in (6443, 8443)
    ]
    again = parent.step("forward")
    assert (again.returncode, again.stdout) == (0, ""), "nothing is left to change"


def test_gvproxy_without_a_socket_is_waited_for_and_told(parent: Parent) -> None:
    program = parent.root / "code/enclave.py"
    program.write_text(
        program.read_text().replace("_SOCKET_WAIT_S, _TIMEOUT_S = 10.0", "_SOCKET_WAIT_S, _TIMEOUT_S = 0.1")
    )
    done = parent.step("forward")
    assert (done.returncode, "found no socket" in done.stderr) == (1, True)


def test_the_program_needs_nothing_but_the_standard_library(parent: Parent) -> None:
    command = parent.command("stop")
    done = subprocess.run(
        [sys.executable, "-S", *command[1:]],
        env=parent.environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
