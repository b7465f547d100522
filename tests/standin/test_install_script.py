"""The stand-in of k3s' install script leaves what the real one leaves, as far as k3s-ansible builds on it."""

import os
import stat
import subprocess
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[2] / "molecule/resources/standin/k3s-install.sh"


@pytest.fixture
def root(tmp_path: Path) -> Path:
    for folder in ("usr/local/bin", "etc/systemd/system"):
        (tmp_path / folder).mkdir(parents=True)
    (tmp_path / "usr/local/bin/k3s").touch(0o755)
    return tmp_path


def install(root: Path, **variables: str) -> subprocess.CompletedProcess[str]:
    environment = {"PATH": os.environ["PATH"], "K3S_STANDIN_ROOT": str(root)} | variables
    return subprocess.run([SCRIPT], env=environment, capture_output=True, text=True, check=False)


@pytest.mark.parametrize(
    ("words", "unit", "starts"),
    [
        ("", "k3s", "k3s server"),
        ("--disable-agent --disable=a,b", "k3s", "k3s server --disable-agent --disable=a,b"),
        ("agent --server https://10.0.0.1:6443", "k3s-agent", "k3s agent --server https://10.0.0.1:6443"),
    ],
)
def test_the_unit_runs_what_was_asked_for(root: Path, words: str, unit: str, starts: str) -> None:
    skip = {"INSTALL_K3S_SKIP_DOWNLOAD": "true", "INSTALL_K3S_SKIP_ENABLE": "true"}
    done = install(root, **skip, INSTALL_K3S_EXEC=words, **{"K3S_TOKEN": "a secret", "OTHER": "no"})
    assert done.returncode == 0, done.stderr
    bin_folder, units = root / "usr/local/bin", root / "etc/systemd/system"
    text = (units / f"{unit}.service").read_text()
    assert f"ExecStart={bin_folder}/{starts}" in [line.rstrip() for line in text.splitlines()]
    assert f"EnvironmentFile=-{units}/{unit}.service.env" in text.splitlines()
    environment = units / f"{unit}.service.env"
    assert "K3S_TOKEN=a secret" in environment.read_text().splitlines()
    assert "OTHER" not in environment.read_text()
    assert stat.S_IMODE(environment.stat().st_mode) == 0o600
    assert (bin_folder / "kubectl").readlink() == Path("k3s")
    assert os.access(bin_folder / f"{unit}-uninstall.sh", os.X_OK)


def test_it_downloads_nothing(root: Path) -> None:
    done = install(root)
    assert done.returncode == 1
    assert "STAND-IN: wanted INSTALL_K3S_SKIP_DOWNLOAD=true" in done.stderr


def test_without_a_binary_there_is_nothing_to_install(root: Path) -> None:
    (root / "usr/local/bin/k3s").unlink()
    assert install(root, INSTALL_K3S_SKIP_DOWNLOAD="true").returncode == 1
