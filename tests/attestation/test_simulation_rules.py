"""Simulation can never pass as production: what no configuration and no build may undo.

The rules about documents are beside what they belong to: tests/attestation/test_serving.py (roots),
tests/master/test_attester_on_chain.py (no contract loads such a document), tests/watcher/test_attested.py.
"""

from __future__ import annotations

import ast
import re
import tomllib
from pathlib import Path

import pytest

from k3s_daas.attestation import AWS_ROOT
from k3s_daas_master.config import Config
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
    for role in ("contracts", "master", "nitro_parent", "watcher"):
        text = (REPOSITORY / "roles" / role / "defaults" / "main.yml").read_text()
        (value,) = re.findall(rf"^{role}_tee_mode: (.*)$", text, re.M)
        assert value == '"{{ k3s_daas_tee_mode }}"', "it is the inventory's to say"


def test_the_trusted_root_is_awss_own() -> None:
    """As AWS publishes it: sha256 of the DER of the G1 root."""
    assert AWS_ROOT.fingerprint.startswith("641a0321")
    assert AWS_ROOT.fingerprint.endswith("bb5b")
    assert not AWS_ROOT.simulated
