"""The image itself: what it proves, what runs in it and what it holds. The rest is default's matter."""

from __future__ import annotations

import ipaddress
import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from testinfra.host import Host

from k3s_daas.chain import SuiClient
from k3s_daas.image import apt
from k3s_daas.registry import Deployment, Registry
from scenario import PROJECT, STAGE

IMAGE = PROJECT / ".state/enclave-image"


@pytest.fixture(scope="module")
def record() -> dict[str, Any]:
    return dict(json.loads((IMAGE / "image.json").read_text()))


@pytest.fixture(scope="module")
def cluster() -> dict[str, Any]:
    """What the parent said."""
    return dict(json.loads((STAGE / "cluster.json").read_text()))


@pytest.fixture(scope="module")
def enclave(hosts: dict[str, Host]) -> Host:
    return hosts["master"]


@pytest.fixture(scope="module")
def tree(record: dict[str, Any]) -> Path:
    """The image's file system, as it was unpacked."""
    return PROJECT / ".state/enclave-roots" / record["files"]["rootfs.cpio.gz"][:16]


async def test_the_chain_has_the_enclave_as_master_with_the_images_pcr0(
    stage: dict[str, Any], cluster: dict[str, Any], record: dict[str, Any]
) -> None:
    async with await SuiClient.connect([stage["rpc"]], "localnet", chain_id=stage["chain_id"]) as chain:
        master = await Registry(chain, Deployment(cluster["package_id"], cluster["registry_id"])).master()
    assert master is not None
    assert master.pcr0.hex() == record["pcrs"]["PCR0"]
    assert master.attestation_expires_at_ms > time.time() * 1000
    assert master.endpoint == f"https://{stage['hosts']['master']}:8443"


def test_a_client_that_trusts_the_emulators_root_has_it_proved(
    stage: dict[str, Any], cluster: dict[str, Any], record: dict[str, Any], tmp_path: Path
) -> None:
    root = "--simulation-root", stage["nitro_root"]
    done = attest(stage, cluster, tmp_path, *root, "--cluster", str(STAGE / "cluster.json"))
    assert done.returncode == 0, done.stderr
    assert record["pcrs"]["PCR0"] in done.stdout
    assert "SIMULATED" in done.stdout
    other = tmp_path / "other.json"
    other.write_text(json.dumps(cluster | {"endpoints": ["http://10.0.0.1:9000"]}))
    done = attest(stage, cluster, tmp_path, *root, "--cluster", str(other))
    assert (done.returncode, "config_mismatch" in done.stderr) == (19, True)


def test_a_client_that_does_not_has_nothing(
    stage: dict[str, Any], cluster: dict[str, Any], tmp_path: Path
) -> None:
    assert attest(stage, cluster, tmp_path).returncode == 19
    assert list(tmp_path.iterdir()) == []


def attest(
    stage: dict[str, Any], cluster: dict[str, Any], folder: Path, *more: str
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [
            sys.executable, "-m", "k3s_daas.cli", "attest", "--network=localnet",
            f"--endpoint={stage['rpc']}", f"--chain-id={stage['chain_id']}",
            f"--package-id={cluster['package_id']}", f"--registry-id={cluster['registry_id']}",
            f"--ca-out={folder / 'ca.crt'}", *more,
        ],
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip


class TestWhatRuns:
    def test_systemd_is_content(self, enclave: Host) -> None:
        found = enclave.run("systemctl is-system-running").stdout.strip()
        assert found == "running", enclave.run("systemctl --failed --plain --no-legend").stdout

    def test_nothing_listens_but_the_two_apis(self, enclave: Host) -> None:
        lines = enclave.check_output("ss --listening --tcp --numeric --no-header").splitlines()
        places = [line.split()[3].rpartition(":") for line in lines]
        outside = {
            int(port)
            for address, _, port in places
            if address == "*" or not ipaddress.ip_address(address.strip("[]").partition("%")[0]).is_loopback
        }
        assert outside == {6443, 8443}

    def test_its_parent_has_what_it_said_and_a_socket(self, cluster: dict[str, Any]) -> None:
        assert {path.name for path in (STAGE / "parent").iterdir()} == {"cluster.json", "nsm.sock"}
        assert json.loads((STAGE / "parent/cluster.json").read_text()) == cluster


class TestWhatIsInIt:
    def test_it_is_the_image_that_was_built(self, record: dict[str, Any]) -> None:
        assert apt.sha256(IMAGE / "rootfs.cpio.gz") == record["files"]["rootfs.cpio.gz"]

    def test_no_emulator(self, tree: Path) -> None:
        names = {path.name for path in tree.rglob("*")}
        assert {"k3s_daas", "k3s_daas_master"} <= names  # the right place was searched
        assert {"k3s_daas_localnet", "nsm_serve.py"} & names == set()

    def test_no_way_to_log_in(self, tree: Path) -> None:
        names = {path.name for path in tree.rglob("*")}
        assert {"sshd", "authorized_keys", "dropbear"} & names == set()
        locked = [line.split(":")[1] for line in (tree / "etc/shadow").read_text().splitlines()]
        assert {password[:1] for password in locked} <= {"*", "!"}

    def test_no_secret(self, tree: Path) -> None:
        found = {path.name for path in tree.rglob("*") if path.suffix in (".key", ".token")}
        assert found == set()
        for name in ("etc/rancher/k3s/encryption.json", "etc/rancher/k3s/agent-token", "etc/machine-id"):
            path = tree / name
            assert not path.exists() or path.read_text() == ""
