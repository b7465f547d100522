"""What the role nitro_parent refuses before it touches anything; its units; its settings."""

from __future__ import annotations

import hashlib
import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import jinja2
import pytest
import yaml
from playbook_kit import ansible_playbook, failures

ROLE = Path(__file__).parents[2] / "roles/nitro_parent"
PCR0 = "0123456789abcdef" * 6


def test_what_the_inventory_can_get_wrong(tmp_path: Path) -> None:
    """Each host is a case; the good one gets as far as the host's own checks."""
    image, program = tmp_path / "one.eif", tmp_path / "gvproxy"
    image.write_bytes(b"x" * (1 << 20))
    program.write_text("gvproxy")
    good = {
        "nitro_parent_image": str(image),
        "nitro_parent_pcr0": PCR0.upper(),
        "nitro_parent_gvproxy_path": str(program),
        "nitro_parent_gvproxy_sha256": hashlib.sha256(b"gvproxy").hexdigest(),
        "k3s_daas_tee_mode": "nitro",
        "k3s_daas_network": "testnet",
        "nitro_parent_chain_id": "69WiPg3DAQiwdxfncX6wYQ2siKwAe6L9BZthQea3JNMD",
        "nitro_parent_package_id": "0x" + "1" * 64,
        "nitro_parent_registry_id": "0x" + "2" * 64,
        "nitro_parent_address": "10.0.0.11",
    }
    wrong: dict[str, tuple[dict[str, Any], str]] = {
        "simulated": ({"k3s_daas_tee_mode": "simulated"}, "Found k3s_daas_tee_mode simulated and"),
        "debug-testnet": ({"nitro_parent_debug": True}, "Found nitro_parent_debug on testnet; wanted it off"),
        "debug-mainnet": (
            {"nitro_parent_debug": True, "k3s_daas_network": "mainnet"}, "Found nitro_parent_debug on mainnet"
        ),
        "zero-pcr0": ({"nitro_parent_pcr0": "0" * 96}, "wanted a PCR0 of 96 hex digits that aren't all zero"),
        "short-pcr0": ({"nitro_parent_pcr0": "ab"}, "wanted a PCR0 of 96 hex digits"),
        "no-cpus": ({"nitro_parent_cpu_count": 0}, "nitro_parent_cpu_count 0"),
        "odd-memory": ({"nitro_parent_memory_mib": 4097}, "an even number of MiB from 64 on"),
        "parents-cid": ({"nitro_parent_enclave_cid": 3}, "a CID of 0 or from 4 on"),
        "name": ({"nitro_parent_enclave_name": "a b"}, "a name of letters, digits"),
        "low-port": ({"nitro_parent_ports": [443]}, "ports from 1024 to 65535"),
        "port-twice": ({"nitro_parent_ports": [6443, 6443]}, "unlike ports"),
        "no-chain": ({"nitro_parent_chain_id": ""}, "set k3s_daas_chain_id"),
        "no-registry": ({"nitro_parent_registry_id": ""}, "nitro_parent_registry_id ''"),
        "no-address": ({"nitro_parent_address": "master.internal"}, "and an IPv4 address"),
        "no-image": ({"nitro_parent_image": str(tmp_path / "absent")}, "Found no file in"),
        "little-memory": (
            {"nitro_parent_memory_mib": 64, "nitro_parent_image": str(tmp_path / "large.eif")},
            "memory of four times its size",
        ),
    }  # fmt: skip
    (tmp_path / "large.eif").write_bytes(b"x" * (17 << 20))
    cases = {"good": good} | {name: good | change for name, (change, _) in wrong.items()}
    play = {
        "hosts": "nitro_parents",
        "connection": "local",
        "gather_subset": ["!all", "!min", "distribution", "service_mgr"],
        "tasks": [{"ansible.builtin.include_role": {"name": "nitro_parent", "tasks_from": "preflight"}}],
    }
    _, said = ansible_playbook(tmp_path, [play], {"nitro_parents": {"hosts": cases}})
    refused = failures(said)
    for name, (_, words) in wrong.items():
        assert words in refused.get(name, ""), f"{name}: {refused.get(name)}"
    # It got past the inventory: this machine is no parent, or the programs that it would need aren't given.
    assert re.search("wanted Amazon Linux 2023 or Ubuntu|nitro_parent_cli_path", refused["good"]), said


# -- units -------------------------------------------------------------------------------------------------


def variables(**changes: Any) -> dict[str, Any]:
    defaults = yaml.safe_load((ROLE / "defaults/main.yml").read_text())
    internal = yaml.safe_load((ROLE / "vars/main.yml").read_text())
    run = internal["_nitro_parent_run"].replace("{{ _nitro_parent_code }}", internal["_nitro_parent_code"])
    return defaults | {"_nitro_parent_run": run} | changes


def render(name: str, **changes: Any) -> str:
    # As Ansible's: without the newline after a block.
    strict = jinja2.StrictUndefined
    environment = jinja2.Environment(undefined=strict, autoescape=False, trim_blocks=True)  # noqa: S701
    path = ROLE / "templates" / f"{name}.j2"
    if not path.exists():
        return (ROLE / "files" / name).read_text()
    return environment.from_string(path.read_text()).render(variables(**changes))


UNITS = [
    "k3s-daas-cluster@.service",
    "k3s-daas-gvproxy.service",
    "k3s-daas-enclave.service",
    "k3s-daas-enclave-health.service",
]


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="systemd-analyze is not installed")
@pytest.mark.parametrize(("name", "most"), list(zip(UNITS, (2.0, 2.5, 2.5, 2.0), strict=True)))
def test_units_are_sandboxed(name: str, most: float, tmp_path: Path) -> None:
    unit = tmp_path / name
    unit.write_text(render(name))
    done = subprocess.run(
        ["systemd-analyze", "security", "--offline=true", "--no-pager", str(unit)],
        capture_output=True,
        text=True,
        check=False,
    )
    found = re.search(r"Overall exposure level for .*?: ([0-9.]+)", done.stdout)
    assert found, done.stdout + done.stderr
    assert float(found[1]) <= most, done.stdout


def test_the_enclaves_unit_and_its_program_mean_the_same() -> None:
    unit, program = render("k3s-daas-enclave.service"), (ROLE / "files/enclave.py").read_text()
    assert "RestartPreventExitStatus=78\n" in unit
    assert "FAILED, REFUSED = 1, 78\n" in program
    # nitro-cli's process ends with 0 when its enclave hangs up, so whatever it ends with it is started again.
    assert "Restart=always\n" in unit
    assert "\nType=notify\n" in unit
    # Whoever restarts the allocator has the enclave stopped before and started after: both lines are needed.
    assert "Requires=nitro-enclaves-allocator.service\n" in unit
    assert re.search(r"^After=nitro-enclaves-allocator\.service", unit, re.M)
    for step in ("run", "stop"):
        assert f"enclave.py {step}\n" in unit
    assert "debug" not in unit, "the unit has no word in it: the settings have, and the role refuses it"


def test_gvproxy_gives_the_enclave_nothing_more() -> None:
    unit = render("k3s-daas-gvproxy.service")
    assert "--ssh-port -1\n" in unit, "by default it forwards 127.0.0.1:2222 into the enclave"
    assert "ec2-metadata-access" not in unit
    assert "169.254.169.254" not in unit
    ports = "SocketBindDeny=any\nSocketBindAllow=tcp:6443\nSocketBindAllow=tcp:8443\n"
    assert f"{ports}IPAddressDeny=localhost link-local\n" in unit
    more = render("k3s-daas-gvproxy.service", nitro_parent_metadata_access=True)
    assert "--ssh-port -1 --ec2-metadata-access\n" in more
    assert "IPAddressAllow=169.254.169.254/32\n" in more


def test_the_allocators_file_is_as_its_parser_wants_it(tmp_path: Path) -> None:
    tasks = yaml.safe_load((ROLE / "tasks/configure.yml").read_text())
    files = {one["path"]: one["content"] for one in tasks[0]["k3s_daas_files"]["files"]}
    text = jinja2.Environment(undefined=jinja2.StrictUndefined, keep_trailing_newline=True).from_string(  # noqa: S701
        files["/etc/nitro_enclaves/allocator.yaml"]
    ).render(variables())  # fmt: skip
    config = tmp_path / "etc/nitro_enclaves/allocator.yaml"
    config.parent.mkdir(parents=True)
    (tmp_path / "run").mkdir()
    config.write_text(text)
    allocator = Path(__file__).parents[2] / "molecule/resources/nitro_standin/nitro-enclaves-allocator"
    places = {"NITRO_CLI_INSTALL_DIR": str(tmp_path), "NITRO_CLI_SOCKETS_PATH": str(tmp_path)}
    done = subprocess.run([allocator], env=places, capture_output=True, text=True, check=False)
    assert (
        done.returncode,
        json.loads((tmp_path / "run/nitro-stand-in.json").read_text())["memory_mib"],
    ) == (0, 4096)
