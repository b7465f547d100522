"""The lock of packages, and files that are held against it."""

import hashlib
import json
import shutil
import subprocess
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from k3s_daas.image import apt, lock
from k3s_daas.image.errors import ImageError
from k3s_daas.image.lock import Lock, Package

PROJECT = Path(__file__).parents[2]
OURS = PROJECT / "roles/enclave_image/files/packages-amd64.json"


def deb(folder: Path, name: str) -> tuple[Path, Package]:
    """A real package with nothing in it."""
    root = folder / name
    (root / "DEBIAN").mkdir(parents=True)
    (root / "DEBIAN/control").write_text(
        f"Package: {name}\nVersion: 1:2-3\nArchitecture: all\nMaintainer: nobody <n@example.com>\n"
        "Description: a test's\n"
    )
    file = folder / f"{name}_1%3a2-3_all.deb"
    subprocess.run(["dpkg-deb", "--build", root, file], check=True, capture_output=True)
    return file, Package(name, "1:2-3", "all", apt.sha256(file), file.stat().st_size)


class Mirror(apt.Apt):
    """An apt whose mirror is a folder."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.asked = folder, 0

    def update(self) -> None:
        self.asked += 1

    def download(self, packages, folder: Path) -> None:  # type: ignore[no-untyped-def]
        folder.mkdir()
        for package in packages:
            shutil.copy(self.folder / package.file, folder)


class TestLock:
    def test_ours_is_sound_and_made_from_what_the_role_wants(self) -> None:
        import yaml

        found = lock.load(OURS)
        defaults = yaml.safe_load((PROJECT / "roles/enclave_image/defaults/main.yml").read_text())
        found.check_wanted(defaults["enclave_image_packages"])
        assert found.suite == defaults["enclave_image_suite"]
        names = {package.name for package in found.packages}
        assert {"base-files", "libc6", "systemd", f"python{defaults['enclave_image_python']}"} <= names
        assert found.text() == OURS.read_text()

    @given(
        st.lists(
            st.builds(
                Package,
                st.from_regex(r"[a-z0-9][a-z0-9+.-]{1,9}", fullmatch=True),
                st.from_regex(r"([0-9]:)?[0-9][0-9A-Za-z.+~-]{0,9}", fullmatch=True),
                st.sampled_from(["all", "amd64"]),
                st.from_regex(r"[0-9a-f]{64}", fullmatch=True),
                st.integers(1, 2**31),
            ),
            min_size=1,
            max_size=5,
            unique_by=lambda package: package.name,
        )
    )
    @settings(max_examples=50, deadline=None)
    def test_what_is_written_is_read(self, packages: list[Package]) -> None:
        made = Lock("bookworm", "amd64", 1_700_000_000, ("python3", "systemd"), tuple(sorted(packages)))
        assert lock.parse(made.text(), "it") == made

    @given(st.text(max_size=200))
    @settings(max_examples=50, deadline=None)
    def test_arbitrary_text_is_refused(self, text: str) -> None:
        with pytest.raises(ImageError, match="no lock"):
            lock.parse(text, "it")

    @pytest.mark.parametrize(
        ("key", "value"),
        [
            ("name", "../x"), ("name", "a b"), ("version", "1/2"), ("sha256", "0"), ("size", -1), ("size",
            "1"), ("architecture", "arm64"),
        ],
    )  # fmt: skip
    def test_a_package_that_is_none_is_refused(self, key: str, value: object) -> None:
        content = json.loads(OURS.read_text())
        content["packages"][3][key] = value
        with pytest.raises(ImageError, match="no lock"):
            lock.parse(json.dumps(content), "it")

    def test_a_package_that_is_there_twice_is_refused(self) -> None:
        content = json.loads(OURS.read_text())
        content["packages"].append(content["packages"][0])
        with pytest.raises(ImageError, match="twice"):
            lock.parse(json.dumps(content), "it")

    def test_a_lock_of_another_list_is_refused(self) -> None:
        with pytest.raises(ImageError, match="update_lock"):
            lock.load(OURS).check_wanted(["python3"])

    def test_no_file_is_refused(self, tmp_path: Path) -> None:
        with pytest.raises(ImageError, match="can't be read"):
            lock.load(tmp_path / "none")


class TestFiles:
    @pytest.fixture
    def mirror(self, tmp_path: Path) -> Mirror:
        (tmp_path / "mirror").mkdir()
        return Mirror(tmp_path / "mirror")

    @pytest.fixture
    def locked(self, mirror: Mirror) -> Lock:
        packages = [deb(mirror.folder, name)[1] for name in ("aa", "bb")]
        return Lock("bookworm", "amd64", 1_700_000_000, ("aa",), tuple(packages))

    def test_they_are_fetched_once(self, mirror: Mirror, locked: Lock, tmp_path: Path) -> None:
        cache = tmp_path / "cache"
        for _ in range(2):
            files = apt.fetch(mirror, locked, cache)
        assert [file.name for file in files] == ["aa_1%3a2-3_all.deb", "bb_1%3a2-3_all.deb"]
        assert mirror.asked == 1

    def test_one_with_another_hash_is_refused_and_not_kept(
        self, mirror: Mirror, locked: Lock, tmp_path: Path
    ) -> None:
        (mirror.folder / locked.packages[1].file).write_bytes(b"another")
        with pytest.raises(ImageError, match="wanted " + locked.packages[1].sha256):
            apt.fetch(mirror, locked, tmp_path / "cache")
        assert not (tmp_path / "cache" / locked.packages[1].file).exists()

    def test_one_that_was_changed_in_the_cache_is_refused(
        self, mirror: Mirror, locked: Lock, tmp_path: Path
    ) -> None:
        (first, _) = apt.fetch(mirror, locked, tmp_path / "cache")
        with first.open("ab") as file:
            file.write(b"more")
        with pytest.raises(ImageError, match="SHA-256"):
            apt.fetch(mirror, locked, tmp_path / "cache")

    def test_apt_reads_the_repository_that_is_made_of_them(
        self, mirror: Mirror, locked: Lock, tmp_path: Path
    ) -> None:
        files = apt.fetch(mirror, locked, tmp_path / "cache")
        line = apt.repository(locked, files, tmp_path / "repository")
        assert line == f"deb [trusted=yes] copy://{tmp_path}/repository ./"
        source = apt.Source((line.removeprefix("deb [trusted=yes] "),), "bookworm", "amd64")
        ours = apt.Apt(tmp_path / "apt", source)
        sources = tmp_path / "apt/sources.list"
        sources.write_text(sources.read_text().replace("signed-by=", "trusted=yes signed-by="))
        ours.update()
        printed = ours._run("--print-uris", "--yes", "install", "aa", "bb")
        assert {match["sha256"] for match in apt._URI.finditer(printed)} == {
            package.sha256 for package in locked.packages
        }

    def test_a_mirror_without_a_package_says_what_to_do(self, tmp_path: Path) -> None:
        (tmp_path / "empty").mkdir()
        (tmp_path / "empty/Packages").write_text("")
        (tmp_path / "empty/Release").write_text(
            "Suite: x\nCodename: x\nDate: Thu, 01 Jan 1970 00:00:00 UTC\nSHA256:\n "
            f"{hashlib.sha256(b'').hexdigest()} 0 Packages\n"
        )
        source = apt.Source((f"copy://{tmp_path}/empty ./",), "bookworm", "amd64")
        ours = apt.Apt(tmp_path / "apt", source)
        with pytest.raises(ImageError, match="enclave_image_sources"):
            ours.download([Package("aa", "1", "all", "0" * 64, 1)], tmp_path / "cache")


class TestSourcesOfThisMachine:
    """Asked of apt itself, which reads a configuration of the test's."""

    @pytest.fixture
    def machine(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
        (tmp_path / "apt.conf").write_text(
            f'Dir::Etc::sourcelist "{tmp_path}/sources.list";\nDir::Etc::sourceparts "/dev/null";\n'
            f'Dir::State "{tmp_path}/state";\n'
        )
        monkeypatch.setenv("APT_CONFIG", str(tmp_path / "apt.conf"))
        return tmp_path

    def test_those_of_the_suite_are_taken_and_no_others(self, machine: Path) -> None:
        (machine / "sources.list").write_text(
            "deb http://mirror.example/debian bookworm main contrib\n"
            "deb-src http://mirror.example/debian bookworm main\n"
            "deb http://mirror.example/debian bookworm-updates main\n"
            "deb http://mirror.example/debian bookworm-backports main\n"
            "deb http://mirror.example/security bookworm-security main\n"
            "deb http://others.example/tool stable main\n"
        )
        assert apt.own_sources("bookworm") == (
            "http://mirror.example/debian/ bookworm main",
            "http://mirror.example/debian/ bookworm-updates main",
            "http://mirror.example/security/ bookworm-security main",
        )

    def test_a_machine_of_another_release_says_what_to_do(self, machine: Path) -> None:
        (machine / "sources.list").write_text("deb http://mirror.example/debian trixie main\n")
        ours = apt.Apt(machine / "ours", apt.Source((), "bookworm", "amd64"))
        with pytest.raises(
            ImageError, match=r"Found .* trixie main .*wanted.* bookworm main.*enclave_image_sources"
        ):
            ours.update()
