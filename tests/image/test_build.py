"""A build from its inputs to its record, with Debian's tree given; and every input that is refused."""

import gzip
import io
import json
import os
import tarfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from k3s_daas.image import build, cpio, eif, rootfs
from k3s_daas.image.build import File, Inputs, Kernel
from k3s_daas.image.entries import Entry
from k3s_daas.image.errors import ImageError
from k3s_daas.image.lock import Lock, Package
from k3s_daas.image.rootfs import User

EPOCH = 1_700_000_000
PACKAGE = Package("base-files", "12.4+deb12u1", "amd64", "0" * 64, 100)
LOCK = Lock("bookworm", "amd64", EPOCH, ("python3",), (PACKAGE,))
PASSWD = b"root:x:0:0:root:/root:/bin/bash\nk3s-daas-master:x:900:900::/:/usr/sbin/nologin\n"
# Stands in for eif_build: writes an image as it does, by our own writer, and says PCRs; FALSE makes it lie.
EIF_BUILD = """\
#!{python}
import json, os, sys
from pathlib import Path
from k3s_daas.image import eif
words = sys.argv[1:]
given = lambda name: [words[at + 1] for at, word in enumerate(words) if word == name]
measured = eif.write(
    Path(given("--output")[0]), kernel=Path(given("--kernel")[0]), cmdline=given("--cmdline")[0],
    ramdisks=[Path(one) for one in given("--ramdisk")], metadata={{}},
)
print("Output file:", given("--output")[0])
print(json.dumps(measured.as_hex() | json.loads(os.environ.get("FALSE", "{{}}"))))
"""


def base_tar(path: Path) -> None:
    with tarfile.open(path, "w") as archive:
        for name, content in {
            "./etc/passwd": PASSWD,
            "./etc/hostname": b"of the builder\n",
            "./etc/machine-id": b"1234\n",
            "./usr/bin/python3.11": b"python",
            "./etc/apt/sources.list": b"deb copy:///of/the/builder ./\n",
            "./var/log/dpkg.log": b"a time\n",
            "./var/cache/ldconfig/aux-cache": b"an inode\n",
        }.items():
            member = tarfile.TarInfo(name)
            member.size, member.mtime = len(content), EPOCH + 500
            archive.addfile(member, io.BytesIO(content))
        link = tarfile.TarInfo("./lib")
        link.type, link.linkname = tarfile.SYMTYPE, "usr/lib"
        archive.addfile(link)


def wheelhouse(path: Path, extra: str = "") -> None:
    """Two compressed tars in one, as the module makes it."""
    with path.open("wb") as output:
        for files in (
            {"lib/python3.11/site-packages/dependency.py": b"1"},
            {
                "lib/python3.11/site-packages/k3s_daas/__init__.py": b"2",
                "bin/k3s-daas-master": b"#!/of/the/builder\nrest\n",
                **({extra: b"3"} if extra else {}),
            },
        ):
            with gzip.open(output, "wb") as part, tarfile.open(fileobj=part, mode="w") as archive:
                for name, content in files.items():
                    member = tarfile.TarInfo(name)
                    member.size, member.mode = len(content), 0o755 if name.startswith("bin/") else 0o644
                    archive.addfile(member, io.BytesIO(content))


@pytest.fixture
def inputs(tmp_path: Path) -> Inputs:
    base_tar(tmp_path / "base.tar")
    wheelhouse(tmp_path / "wheelhouse.tar.gz")
    (tmp_path / "kernel").write_bytes(b"kernel")
    (tmp_path / "k3s").write_bytes(b"k3s")
    users = (User("k3s-daas-master", 900, "/var/lib/k3s-daas-master"),)
    cache = tmp_path / "cache"
    cache.mkdir()
    (tmp_path / "base.tar").rename(cache / f"base-{rootfs.base_key(LOCK, users)}.tar")
    return Inputs(
        lock=LOCK,
        users=users,
        files=(
            File("/usr/local/bin/k3s", 0o755, source=tmp_path / "k3s"),
            File("/var/lib/k3s-daas-master", 0o700, "k3s-daas-master"),
            File("/lib/systemd/system/x.service", content="[Unit]\n"),
            File("/etc/systemd/system/y.service", target="/dev/null"),
        ),
        init="#!/bin/sh\n",
        wheelhouse=tmp_path / "wheelhouse.tar.gz",
        wheelhouse_name="k3s-daas-1",
        python="3.11",
        nsm_module=None,
        kernel=Kernel(tmp_path / "kernel", "console=ttyS0"),
    )


@pytest.fixture
def make(tmp_path: Path) -> Callable[[Inputs], dict]:
    return lambda inputs: build.build(inputs, [], tmp_path / "cache", tmp_path / "image")


def contents(path: Path) -> dict[str, Entry]:
    with gzip.open(path) as archive:
        return {entry.path: entry for entry in cpio.read(archive)}


class TestBuilding:
    def test_all_inputs_are_in_the_image_with_owner_and_mode(
        self, inputs: Inputs, make: Callable[[Inputs], dict], tmp_path: Path
    ) -> None:
        make(inputs)
        tree = contents(tmp_path / "image/rootfs.cpio.gz")
        text = {path: entry.content().read() for path, entry in tree.items()}
        assert text["usr/local/bin/k3s"] == b"k3s"
        assert oct(tree["usr/local/bin/k3s"].mode) == "0o100755"
        folder = tree["var/lib/k3s-daas-master"]
        assert (oct(folder.mode), folder.uid, folder.gid) == ("0o40700", 900, 900)
        assert text["usr/lib/systemd/system/x.service"] == b"[Unit]\n"  # through Debian's link
        assert text["etc/systemd/system/y.service"] == b"/dev/null"
        environment = "opt/k3s-daas/k3s-daas-1/env"
        assert text["opt/k3s-daas/venv"] == b"k3s-daas-1/env"
        assert text[f"{environment}/bin/k3s-daas-master"] == b"#!/" + environment.encode() + (
            b"/bin/python\nrest\n"
        )
        assert f"{environment}/lib/python3.11/site-packages/dependency.py" in text
        assert contents(tmp_path / "image/boot.cpio.gz")["init"].content().read() == b"#!/bin/sh\n"

    def test_nothing_of_the_builder_or_the_moment_is_in_it(
        self, inputs: Inputs, make: Callable[[Inputs], dict], tmp_path: Path
    ) -> None:
        make(inputs)
        tree = contents(tmp_path / "image/rootfs.cpio.gz")
        assert "etc/hostname" not in tree
        assert tree["etc/machine-id"].size == 0
        assert [path for path in tree if path.startswith(("var/log/", "var/cache/", "etc/apt/"))] == []
        assert max(entry.mtime for entry in tree.values()) == EPOCH

    def test_twice_is_the_same_and_the_record_says_so(
        self, inputs: Inputs, make: Callable[[Inputs], dict], tmp_path: Path
    ) -> None:
        first = make(inputs)
        data = {path.name: path.read_bytes() for path in (tmp_path / "image").iterdir()}
        assert make(inputs) == first
        assert {path.name: path.read_bytes() for path in (tmp_path / "image").iterdir()} == data
        assert build.current(inputs, tmp_path / "image") == first

    def test_the_record_has_the_pcrs_of_the_file(
        self, inputs: Inputs, make: Callable[[Inputs], dict], tmp_path: Path
    ) -> None:
        record = make(inputs)
        found = eif.read(tmp_path / "image/enclave.eif")
        assert record["pcrs"] == found.measurements.as_hex()
        assert found.cmdline == "console=ttyS0"

    def test_no_path_of_the_builder_is_in_the_record(
        self, inputs: Inputs, make: Callable[[Inputs], dict], tmp_path: Path
    ) -> None:
        assert str(tmp_path) not in json.dumps(make(inputs))

    def test_without_a_kernel_there_is_no_pcr(
        self, inputs: Inputs, make: Callable[[Inputs], dict], tmp_path: Path
    ) -> None:
        make(inputs)
        record = make(replace(inputs, kernel=None))
        assert "pcrs" not in record
        assert not (tmp_path / "image/enclave.eif").exists()

    @pytest.mark.parametrize(
        "change",
        [
            lambda i: replace(i, init="#!/bin/sh\nexit\n"),
            lambda i: replace(i, kernel=replace(i.kernel, cmdline="quiet")),
            lambda i: replace(i, files=(*i.files, File("/etc/x", content=""))),
            lambda i: replace(i, lock=replace(i.lock, source_date_epoch=EPOCH + 1)),
            lambda i: replace(i, wheelhouse_name="k3s-daas-2"),
            lambda i: replace(i, nsm_module=i.wheelhouse),
        ],
    )
    def test_another_input_is_another_image(
        self,
        inputs: Inputs,
        make: Callable[[Inputs], dict],
        change: Callable[[Inputs], Inputs],
        tmp_path: Path,
    ) -> None:
        make(inputs)
        assert build.current(change(inputs), tmp_path / "image") is None

    def test_a_file_that_was_changed_is_made_again(
        self, inputs: Inputs, make: Callable[[Inputs], dict], tmp_path: Path
    ) -> None:
        make(inputs)
        with (tmp_path / "image/enclave.eif").open("ab") as file:
            file.write(b"more")
        assert build.current(inputs, tmp_path / "image") is None


class TestRefusing:
    def test_the_emulator_is_in_no_image(
        self, inputs: Inputs, make: Callable[[Inputs], dict], tmp_path: Path
    ) -> None:
        wheelhouse(tmp_path / "wheelhouse.tar.gz", "lib/python3.11/site-packages/k3s_daas_localnet/nsm.py")
        with pytest.raises(ImageError, match="k3s_daas_localnet"):
            make(inputs)
        assert not (tmp_path / "image/image.json").exists()

    def test_a_python_that_is_not_there(self, inputs: Inputs, make: Callable[[Inputs], dict]) -> None:
        with pytest.raises(ImageError, match=r"no usr/bin/python3\.13"):
            make(replace(inputs, python="3.13"))

    def test_an_owner_that_is_not_there(self, inputs: Inputs, make: Callable[[Inputs], dict]) -> None:
        with pytest.raises(ImageError, match="no user nobody"):
            make(replace(inputs, files=(File("/x", owner="nobody", content=""),)))

    def test_a_source_that_is_not_there(
        self, inputs: Inputs, make: Callable[[Inputs], dict], tmp_path: Path
    ) -> None:
        with pytest.raises(ImageError, match="wanted it as /usr/bin/x"):
            make(replace(inputs, files=(File("/usr/bin/x", source=tmp_path / "none"),)))

    def test_a_broken_wheelhouse(
        self, inputs: Inputs, make: Callable[[Inputs], dict], tmp_path: Path
    ) -> None:
        (tmp_path / "wheelhouse.tar.gz").write_bytes(b"no gzip")
        with pytest.raises(ImageError, match="wheelhouse"):
            make(inputs)


class TestEifBuild:
    @pytest.fixture
    def with_eif_build(self, inputs: Inputs, tmp_path: Path) -> Inputs:
        import sys

        program = tmp_path / "eif_build"
        program.write_text(EIF_BUILD.format(python=sys.executable))
        program.chmod(0o755)
        assert inputs.kernel is not None
        return replace(inputs, kernel=replace(inputs.kernel, eif_build=str(program)))

    def test_what_it_says_is_held_against_what_was_measured(
        self, with_eif_build: Inputs, make: Callable[[Inputs], dict], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        source = str(Path(__file__).parents[2] / "src")
        monkeypatch.setenv("PYTHONPATH", f"{source}:{os.environ.get('PYTHONPATH', '')}")
        assert make(with_eif_build)["eif_written_by"] == "eif_build"

    def test_another_pcr0_is_refused_and_there_is_no_image(
        self,
        with_eif_build: Inputs,
        make: Callable[[Inputs], dict],
        monkeypatch: pytest.MonkeyPatch,
        tmp_path: Path,
    ) -> None:
        source = str(Path(__file__).parents[2] / "src")
        monkeypatch.setenv("PYTHONPATH", f"{source}:{os.environ.get('PYTHONPATH', '')}")
        monkeypatch.setenv("FALSE", json.dumps({"PCR0": "ab" * 48}))
        with pytest.raises(ImageError, match="Don't use this image"):
            make(with_eif_build)
        assert not (tmp_path / "image/image.json").exists()

    def test_one_that_is_not_there(self, with_eif_build: Inputs, make: Callable[[Inputs], dict]) -> None:
        assert with_eif_build.kernel is not None
        kernel = replace(with_eif_build.kernel, eif_build="/nowhere/eif_build")
        with pytest.raises(ImageError, match="Wanted the program eif_build"):
            make(replace(with_eif_build, kernel=kernel))

    @pytest.mark.parametrize(
        ("script", "found"), [("exit 3", "ended with 3"), ("echo nothing", "wanted PCRs as JSON")]
    )
    def test_one_that_fails(
        self, with_eif_build: Inputs, make: Callable[[Inputs], dict], script: str, found: str
    ) -> None:
        assert with_eif_build.kernel is not None
        Path(with_eif_build.kernel.eif_build).write_text(
            f'#!/bin/sh\nwhile [ "$1" != --output ]; do shift; done; touch "$2"\n{script}\n'
        )
        with pytest.raises(ImageError, match=found):
            make(with_eif_build)
