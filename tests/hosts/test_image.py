"""The image appears whole or not at all."""

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from testhosts import host, image, system
from testhosts.errors import HostsError

PROGRAM = Path(__file__).resolve().parents[2] / "molecule/resources/testhosts"
# Stands in for a minute of mmdebstrap: hangs with a child while the file `slow` is beside it.
MMDEBSTRAP = """\
#!/bin/sh
for folder; do :; done
mkdir -p "$folder/etc/systemd/system" "$folder/etc/ssh"
touch "$folder/etc/ssh/ssh_host_rsa_key"
if [ -e "${0%/*}/slow" ]; then
  sleep 600 &
  echo $! > "${0%/*}/child"
  touch "$folder/half"
  wait
fi
if [ -e "${0%/*}/broken" ]; then echo "no such suite"; exit 7; fi
touch "$folder/whole"
"""


def _has_no_root() -> str:
    try:
        system.check_machine()
    except HostsError as error:
        return str(error)
    return ""


needs_root = pytest.mark.skipif(bool(_has_no_root()), reason=f"no test hosts here: {_has_no_root()}")


@pytest.fixture
def tools(tmp_path: Path) -> Path:
    tools = tmp_path / "bin"
    tools.mkdir()
    system.write(tools / "mmdebstrap", MMDEBSTRAP, 0o755)
    return tools


def start(tools: Path) -> "subprocess.Popen[str]":
    return subprocess.Popen(
        [sys.executable, str(PROGRAM), "--image-dir", str(tools.parent / "images"), "image"],
        env=os.environ | {"PATH": f"{tools}:{os.environ['PATH']}"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def is_alive(pid: int) -> bool:
    try:
        return "\nState:\tZ" not in Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return False


@needs_root
def test_a_killed_build_is_stopped_removed_and_made_again(tools: Path) -> None:
    (tools / "slow").touch()
    killed = start(tools)
    images = tools.parent / "images"
    assert system.wait_until(lambda: bool(list(images.glob("*/half"))), timeout_s=20)
    killed.kill()
    killed.communicate()
    child = int((tools / "child").read_text())
    assert is_alive(child), "wanted: the build goes on by itself, as mmdebstrap's does"
    (tools / "slow").unlink()

    output, errors = start(tools).communicate(timeout=30)
    made = Path(output.strip())
    assert made == image.path(images, kubernetes=False), errors
    assert (made / "whole").exists()
    assert not (made / "half").exists()
    assert not list(images.glob("*.building"))
    assert not list((made / "etc/ssh").iterdir()), "wanted: each host makes a key of its own"
    assert system.wait_until(lambda: not is_alive(child), timeout_s=5)

    (tools / "broken").touch()  # would fail, were it called
    started = time.monotonic()
    assert start(tools).communicate(timeout=30)[0] == output
    assert time.monotonic() - started < 10


@needs_root
def test_a_failed_build_tells_why_and_leaves_nothing(tools: Path) -> None:
    (tools / "broken").touch()
    build = start(tools)
    output, errors = build.communicate(timeout=30)
    assert (build.returncode, output) == (1, "")
    assert "mmdebstrap: exit 7" in errors
    assert "no such suite" in errors
    assert {path.suffix for path in (tools.parent / "images").iterdir()} == {"", ".log"}
    assert not [path for path in (tools.parent / "images").iterdir() if path.is_dir()]


def test_the_two_kinds_of_hosts_have_images_of_their_own(monkeypatch: pytest.MonkeyPatch) -> None:
    plain, kubernetes = image.key(kubernetes=False), image.key(kubernetes=True)
    assert plain != kubernetes
    monkeypatch.setattr(image, "PACKAGES", (*image.PACKAGES, "jq"))
    assert image.key(kubernetes=False) not in (plain, kubernetes)


def test_kubernetes_hosts_get_real_folders(tmp_path: Path) -> None:
    binds = [argument for argument in host.kubernetes_arguments(tmp_path) if argument.startswith("--bind=/")]
    for target in ("/var/lib/rancher", "/var/lib/kubelet"):
        source = next(bind for bind in binds if bind.endswith(f":{target}"))
        folder = Path(source.removeprefix("--bind=").removesuffix(f":{target}"))
        assert folder.is_dir()
        assert folder.is_relative_to(tmp_path), "wanted: goes away with the host"


def test_name_servers_on_loopback_are_left_out() -> None:
    text = "search x\nnameserver 127.0.0.53\nnameserver 10.0.0.2\nnameserver ::1\noptions edns0\n"
    assert host.resolv_conf(text) == "search x\nnameserver 10.0.0.2\noptions edns0\n"


def test_files_are_replaced_with_the_wanted_mode(tmp_path: Path) -> None:
    file = tmp_path / "key"
    file.write_text("old")
    file.chmod(0o644)
    system.write(file, "new", 0o600)
    assert (file.read_text(), file.stat().st_mode & 0o777) == ("new", 0o600)
    assert list(tmp_path.iterdir()) == [file]
