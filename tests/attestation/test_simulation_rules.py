"""Simulation can never pass as production: what no configuration and no build may undo.

The rules about documents are beside what they belong to: tests/attestation/test_serving.py (roots),
tests/master/test_attester_on_chain.py (no contract loads such a document), tests/watcher/test_attested.py.
"""

from __future__ import annotations

import ast
import json
import re
import tomllib
from pathlib import Path

import pytest
import yaml

from k3s_daas.attestation import AWS_ROOT
from k3s_daas.enclave import cluster, configure
from k3s_daas_master.config import Config, ConfigError, load
from k3s_daas_watcher.config import WatcherConfig

REPOSITORY = Path(__file__).parents[2]
SHIPPED = ("src/k3s_daas", "roles/master/files/k3s_daas_master", "roles/watcher/files/k3s_daas_watcher")


def test_the_wheel_is_these_packages_and_nothing_else() -> None:
    build = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["tool"]["hatch"]["build"]
    assert build["targets"]["wheel"] == {"packages": list(SHIPPED)}


def test_the_emulator_is_no_dependency_of_what_is_shipped() -> None:
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]
    assert not [name for name in project["dependencies"] if "localnet" in name]
    assert "localnet" not in (REPOSITORY / "requirements" / "hosts.txt").read_text()


@pytest.mark.parametrize("folder", SHIPPED)
def test_nothing_that_is_shipped_imports_the_emulator(folder: str) -> None:
    files = sorted((REPOSITORY / folder).rglob("*.py"))
    assert files
    for path in files:
        for node in ast.walk(ast.parse(path.read_text())):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            if isinstance(node, ast.ImportFrom):
                names = [node.module or ""]
            found = [name for name in names if name.split(".")[0] == "k3s_daas_localnet"]
            # The Move compiler of a localnet is started as a command, by operators.
            assert not found, f"{path} imports {found}"


def test_the_mode_has_no_default() -> None:
    for model in (Config, WatcherConfig):
        assert model.model_fields["tee_mode"].is_required()
    said = defaults("tee_mode")
    assert set(said) >= {"contracts", "master", "nitro_parent", "watcher", "aws_infrastructure"}
    assert set(said.values()) == {"{{ k3s_daas_tee_mode }}"}, "it is the inventory's to say"


def test_no_role_trusts_an_emulator_by_itself() -> None:
    assert defaults("simulation_root_file") == {"contracts": "", "watcher": ""}
    assert defaults("nsm_socket") == {"master": ""}
    assert set(defaults("accept_simulated").values()) == {"{{ k3s_daas_accept_simulated | default(false) }}"}


def test_no_inventory_does_and_those_for_real_networks_have_a_real_enclave() -> None:
    found = {}
    for path in sorted((REPOSITORY / "inventories").glob("*/group_vars/*.yml")):
        text = path.read_text()
        assert not re.search(r"simulation_root|nsm_socket", text), path
        variables = yaml.safe_load(text) or {}
        if "k3s_daas_tee_mode" in variables:
            found[path.parts[-3]] = variables["k3s_daas_network"], variables["k3s_daas_tee_mode"]
    assert {found.pop("production"), found.pop("enterprise")} == {("mainnet", "nitro")}
    assert "mainnet" not in dict(found.values())


@pytest.mark.parametrize("network", ["devnet", "testnet", "mainnet"])
def test_an_image_without_a_security_module_is_no_master_of_a_real_network(
    network: str, tmp_path: Path
) -> None:
    """Whoever starts it elsewhere, and whatever they tell it."""
    told = cluster.parse(
        json.dumps(
            {
                "network": network,
                "endpoints": ["https://one.example:443", "https://two.example:443"],
                "chain_id": "4btiuiMPvEENsttpZC7CZ53DruC3MAgfznDbASZ7DR6S",
                "package_id": "0x" + "a1" * 32,
                "registry_id": "0x" + "b2" * 32,
                "address": "10.0.0.11",
            }
        ).encode()
    )
    policy = {"kubeconfig": "/k", "key_file": "/w", "state_dir": "/s"}
    (tmp_path / "usr/lib/k3s-daas").mkdir(parents=True)
    (tmp_path / "usr/lib/k3s-daas/master.json").write_text(json.dumps(policy))
    configure.configure(told, configure.Place(tmp_path))
    with pytest.raises(ConfigError, match=r"for tee_mode simulated on a localnet|refused on mainnet"):
        load(tmp_path / "etc/k3s-daas/master.json")


def test_a_real_enclave_takes_no_file_for_its_sealing_key(tmp_path: Path) -> None:
    """What seals a simulation's state never opens, or seals, that of a real one."""
    config = tmp_path / "master.json"
    values = {
        "network": "localnet",
        "endpoints": ["http://10.0.0.1:9000"],
        "chain_id": "4btiuiMPvEENsttpZC7CZ53DruC3MAgfznDbASZ7DR6S",
        "package_id": "0x" + "a1" * 32,
        "registry_id": "0x" + "b2" * 32,
        "endpoint": "https://10.0.0.11:8443",
        "api_server": "https://10.0.0.11:6443",
        "kubeconfig": "/k",
        "key_file": "/w",
        "state_dir": "/s",
        "snapshot_url": "https://fleet-snapshots.s3.eu-central-1.amazonaws.com/sealed",
        "snapshot_key_file": "/sealing.key",
    }
    config.write_text(json.dumps(values | {"tee_mode": "simulated"}))
    assert load(config).seals
    config.write_text(json.dumps(values | {"tee_mode": "nitro"}))
    with pytest.raises(ConfigError, match="opens the state to whoever has the file"):
        load(config)


def defaults(name: str) -> dict[str, str]:
    """Of each role that has a variable of this name, its default."""
    found = {}
    for path in (REPOSITORY / "roles").glob("*/defaults/main.yml"):
        role = path.parts[-3]
        variables = yaml.safe_load(path.read_text()) or {}
        if f"{role}_{name}" in variables:
            found[role] = variables[f"{role}_{name}"]
    return found


def test_the_trusted_root_is_awss_own() -> None:
    """As AWS publishes it: sha256 of the DER of the G1 root."""
    assert AWS_ROOT.fingerprint.startswith("641a0321")
    assert AWS_ROOT.fingerprint.endswith("bb5b")
    assert not AWS_ROOT.simulated
