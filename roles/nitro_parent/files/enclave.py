#!/usr/bin/python3
"""What the units of the role nitro_parent run: run and stop the enclave, look at it, forward its ports.

    enclave.py run | stop | health | forward      with /etc/k3s-daas/enclave.json

Standard library only, Python 3.9 and later. k3s_daas_nitro.py, the modules' own, lies beside it.
"""

from __future__ import annotations

import argparse
import http.client
import json
import os
import select
import socket
import subprocess
import sys
import time
from pathlib import Path

import k3s_daas_nitro as nitro

UNIT = "k3s-daas-enclave.service"
#: Exit codes. systemd starts nothing again after a refusal: it would be refused again.
FAILED, REFUSED = 1, 78
#: gvproxy gives the enclave this address, whose network 192.168.127.0/24 is its own.
ENCLAVE_ADDRESS = "192.168.127.2"
_SOCKET_WAIT_S, _TIMEOUT_S = 10.0, 10.0


class Refused(Exception):
    """Trying again wouldn't help."""


class Settings:
    """enclave.json, as the role writes it. Raises Refused."""

    def __init__(self, path):
        try:
            found = json.loads(Path(path).read_text())
            self.name = str(found["name"])
            self.eif = str(found["eif"])
            self.nitro_cli = str(found["nitro_cli"])
            self.wanted = nitro.Wanted(
                nitro.pcr(found["pcr0"], "pcr0"),
                *(int(found["cpu_count"]), int(found["memory_mib"]), int(found["enclave_cid"])),
                bool(found["debug"]),
            )
            self.ports = [int(port) for port in found["ports"]]
            self.gvproxy_socket = str(found["gvproxy_socket"])
            self.metrics_file = Path(found["metrics_file"])
        except (OSError, ValueError, KeyError, TypeError, nitro.NitroError) as error:
            raise Refused(f"{path} can't be used: {error!r}. Run playbooks/nitro_parent.yml again.") from None


# -- run and stop ------------------------------------------------------------------------------------------


def run(settings, cli):
    """Run the enclave, and end with it: systemd then starts it anew. nitro-cli itself doesn't stay."""
    measure(settings, cli)
    running = cli.named(settings.name)
    if running is not None:
        raise nitro.NitroError(
            f"Found the enclave {running.id} running, which {UNIT} did not start; wanted none. End it with "
            f"`nitro-cli terminate-enclave --enclave-id {running.id}`."
        )
    enclave_id, pid = cli.start(settings.name, settings.eif, settings.wanted)
    say(f"enclave {enclave_id} runs: {settings.wanted.cpus} CPUs, {settings.wanted.memory_mib} MiB")
    notify(f"READY=1\nSTATUS=enclave {enclave_id} runs")
    wait_for_end(pid)
    say(f"enclave {enclave_id} has ended")


def measure(settings, cli):
    """Raises Refused unless the image is there, and the wanted one."""
    try:
        nitro.check_image(cli.image(settings.eif), settings.wanted.pcr0, settings.eif)
    except nitro.NitroError as error:
        if error.code in (nitro.IMAGE, "E19", "E35"):  # another image, no file, or no image
            raise Refused(str(error)) from None
        raise


def wait_for_end(pid):
    try:
        descriptor = os.pidfd_open(pid)
    except ProcessLookupError:
        return
    try:
        select.select([descriptor], [], [])
    finally:
        os.close(descriptor)


def notify(state):
    """Tell systemd; see sd_notify(3)."""
    address = os.environ.get("NOTIFY_SOCKET", "")
    if address:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as told:
            told.sendto(state.encode(), "\0" + address[1:] if address.startswith("@") else address)


def stop(settings, cli):
    """End the enclave by its id; there being none is fine."""
    running = cli.named(settings.name)
    if running is not None:
        cli.terminate(running.id)
        say(f"enclave {running.id} ended")


# -- health ------------------------------------------------------------------------------------------------


def health(settings, cli):
    """Write the metrics, and fail with every finding unless all is as wanted."""
    findings, enclave, exposed = [], None, None
    try:
        enclave = cli.named(settings.name)
        found = ["no enclave runs"] if enclave is None else nitro.differences(enclave, settings.wanted)
        findings += found
    except nitro.NitroError as error:
        findings.append(str(error))
    try:
        exposed = forwards(settings)
        missing = [port for port in settings.ports if exposed.get(f":{port}") != remote(port)]
        findings += [f"port {port} isn't forwarded" for port in missing]
        findings += [f"{local} is forwarded and shouldn't be" for local in strange(settings, exposed)]
    except (OSError, ValueError, http.client.HTTPException) as error:
        findings.append(f"gvproxy gives no answer: {error}")
    write_metrics(settings, enclave, exposed, healthy=not findings)
    if findings:
        raise nitro.NitroError(f"The enclave isn't as wanted: {'; '.join(findings)}")
    say(f"enclave {enclave.id}: {enclave.state}, {enclave.flags}, PCR0 as wanted, ports forwarded")


def write_metrics(settings, enclave, exposed, healthy):
    """For node_exporter's textfile collector: whole or not at all."""
    wanted = settings.wanted
    gauges = [
        ("healthy", "Whether the enclave and its forwards are as wanted.", "", int(healthy)),
        ("running", "Whether an enclave runs.", "", int(enclave is not None and enclave.state == "RUNNING")),
        (
            "debug",
            "Whether it is in debug mode: its parent sees into it, and nobody accepts it.",
            "",
            int(enclave is not None and "DEBUG_MODE" in enclave.flags),
        ),
        (
            "image_wanted",
            "Whether its image file has the wanted PCR0.",
            "",
            int(enclave is not None and enclave.pcr0 == wanted.pcr0),
        ),
        ("cpus", "CPUs of the enclave.", "", 0 if enclave is None else enclave.cpus),
        ("memory_bytes", "Memory of the enclave.", "", 0 if enclave is None else enclave.memory_mib << 20),
        ("checked_timestamp_seconds", "When this was found.", "", int(time.time())),
        *(
            (
                "port_forwarded",
                "Whether a port of the parent leads into the enclave.",
                f'{{port="{port}"}}',
                int(exposed is not None and exposed.get(f":{port}") == remote(port)),
            )
            for port in settings.ports
        ),
    ]
    restarts = restarts_of(UNIT)
    if restarts is not None:
        gauges.append(("restarts", "How often systemd started it again by itself.", "", restarts))
    lines, told = [], set()
    for name, help_text, labels, value in gauges:
        full = f"k3s_daas_enclave_{name}"
        if full not in told:
            told.add(full)
            lines += [f"# HELP {full} {help_text}", f"# TYPE {full} gauge"]
        lines.append(f"{full}{labels} {value}")
    # The collector reads names that end in .prom, and nothing else.
    temporary = settings.metrics_file.with_name(f".{settings.metrics_file.name}.new")
    temporary.write_text("\n".join(lines) + "\n")
    temporary.chmod(0o644)
    temporary.replace(settings.metrics_file)


def restarts_of(unit):
    command = ["systemctl", "show", "--property=NRestarts", "--value", unit]
    try:
        done = subprocess.run(command, stdout=subprocess.PIPE, timeout=_TIMEOUT_S, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return None
    text = done.stdout.decode(errors="replace").strip()
    return int(text) if text.isdecimal() else None


# -- gvproxy -----------------------------------------------------------------------------------------------


class Api(http.client.HTTPConnection):
    """gvproxy's services, by its Unix socket."""

    def __init__(self, path):
        super().__init__("gvproxy", timeout=_TIMEOUT_S)
        self._path = path

    def connect(self):
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self._path)


def remote(port):
    return f"{ENCLAVE_ADDRESS}:{port}"


def ask(settings, method, path, body=None):
    api = Api(settings.gvproxy_socket)
    try:
        api.request(method, f"/services/forwarder/{path}", None if body is None else json.dumps(body))
        answer = api.getresponse()
        content = answer.read(1 << 20)
    finally:
        api.close()
    if answer.status != 200:
        raise ValueError(f"{path}: {answer.status} {content.decode(errors='replace').strip()[:200]}")
    return content


def forwards(settings):
    """{local: remote} of the TCP ports that gvproxy forwards, and of others under their protocol's name."""
    found = json.loads(ask(settings, "GET", "all"))
    if not isinstance(found, list):
        raise ValueError("no list of forwards")
    return {
        (one["local"] if one["protocol"] == "tcp" else f"{one['protocol']} {one['local']}"): one["remote"]
        for one in found
    }


def strange(settings, exposed):
    """What is forwarded that nobody asked for: the enclave, too, can ask gvproxy for more."""
    return sorted(set(exposed) - {f":{port}" for port in settings.ports})


def forward(settings, _cli):
    """Have gvproxy forward the wanted ports, and no others. Prints what it changed."""
    wait_for(settings.gvproxy_socket)
    exposed = forwards(settings)
    wanted = {f":{port}": remote(port) for port in settings.ports}
    for local in sorted(exposed):
        if exposed[local] != wanted.get(local):
            protocol, _, address = local.rpartition(" ")
            ask(settings, "POST", "unexpose", {"local": address, "protocol": protocol or "tcp"})
            say(f"no longer forwards {local}")
    for local, target in sorted(wanted.items()):
        if exposed.get(local) != target:
            ask(settings, "POST", "expose", {"local": local, "remote": target, "protocol": "tcp"})
            say(f"forwards {local} to {target}")


def wait_for(path):
    """gvproxy doesn't say when it listens."""
    end = time.monotonic() + _SOCKET_WAIT_S
    while not os.path.exists(path):  # noqa: PTH110
        if time.monotonic() > end:
            raise OSError(f"found no socket {path} within {_SOCKET_WAIT_S:.0f} s")
        time.sleep(0.1)


def say(line):
    print(line, flush=True)


def main():
    steps = {"run": run, "stop": stop, "health": health, "forward": forward}
    parser = argparse.ArgumentParser(prog="enclave.py", description=__doc__.splitlines()[0])
    parser.add_argument("--config", default="/etc/k3s-daas/enclave.json")
    parser.add_argument("step", choices=sorted(steps))
    given = parser.parse_args()
    try:
        settings = Settings(given.config)
        steps[given.step](settings, nitro.Cli(settings.nitro_cli))
    except Refused as error:
        print(error, file=sys.stderr)
        return REFUSED
    except (nitro.NitroError, OSError, ValueError, KeyError, TypeError, http.client.HTTPException) as error:
        print(error, file=sys.stderr)
        return FAILED
    return 0


if __name__ == "__main__":
    sys.exit(main())
