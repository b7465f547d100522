"""Enclave files: written, read and measured; whatever isn't a sound one is refused."""

import hashlib
import io
import json
import struct
import zlib
from pathlib import Path

import cbor2
import pytest
from cryptography.hazmat.primitives.serialization import Encoding
from hypothesis import given, settings
from hypothesis import strategies as st

from k3s_daas.image import build, eif
from k3s_daas.image.errors import ImageError
from k3s_daas_localnet.nsm import NsmEmulator

METADATA = {"ImageName": "k3s-daas", "BuildMetadata": {"BuildTime": "2026-11-21T00:00:00+00:00"}}


def extended(*parts: bytes) -> bytes:
    """A register by its definition, in one line, apart from the code under test."""
    return hashlib.sha384(bytes(48) + hashlib.sha384(b"".join(parts)).digest()).digest()


def write(folder: Path, kernel: bytes, cmdline: str, ramdisks: list[bytes], **more: object) -> Path:
    (folder / "kernel").write_bytes(kernel)
    paths = []
    for number, content in enumerate(ramdisks):
        paths.append(folder / f"ramdisk-{number}")
        paths[-1].write_bytes(content)
    path = folder / "image.eif"
    eif.write(
        path,
        kernel=folder / "kernel",
        cmdline=cmdline,
        ramdisks=paths,
        metadata=METADATA,
        **more,  # type: ignore[arg-type]
    )
    return path


@pytest.fixture
def image(tmp_path: Path) -> Path:
    return write(tmp_path, b"kernel", "console=ttyS0", [b"boot", b"root"])


contents = st.binary(max_size=300)
words = st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=40)


class TestMeasuring:
    @given(kernel=contents, cmdline=words, ramdisks=st.lists(contents, min_size=1, max_size=5))
    @settings(max_examples=60, deadline=None)
    def test_what_is_read_is_what_was_written_and_measures_by_the_definition(
        self, tmp_path_factory: pytest.TempPathFactory, kernel: bytes, cmdline: str, ramdisks: list[bytes]
    ) -> None:
        folder = tmp_path_factory.mktemp("eif")
        path = write(folder, kernel, cmdline, ramdisks)
        found = eif.read(path)
        assert (found.cmdline, found.metadata, found.arm64) == (cmdline, METADATA, False)
        data = path.read_bytes()
        disks = [data[s.offset : s.offset + s.size] for s in found.sections if s.kind is eif.Kind.RAMDISK]
        assert disks == ramdisks
        line = cmdline.encode()
        assert found.measurements == eif.Measurements(
            extended(kernel, line, *ramdisks), extended(kernel, line, ramdisks[0]), extended(*ramdisks[1:])
        )
        inputs = [folder / f"ramdisk-{number}" for number in range(len(ramdisks))]
        assert eif.measure(folder / "kernel", cmdline, inputs) == found.measurements

    def test_what_eif_build_measured_and_wrote(self, tmp_path: Path) -> None:
        """Recorded of AWS's eif_build 0.2.1, run on these inputs as `run_eif_build` runs it: to the byte."""
        (tmp_path / "kernel").write_bytes(b"kernel\n")
        disks = [tmp_path / "boot", tmp_path / "root"]
        for disk in disks:
            disk.write_text(f"{disk.name}\n")
        path = tmp_path / "image.eif"
        epoch = 1_795_219_200  # 2026-11-21T00:00:00Z
        eif.write(
            path,
            kernel=tmp_path / "kernel",
            cmdline="console=ttyS0 reboot=k",
            ramdisks=disks,
            metadata=build.metadata(epoch),
        )
        assert eif.read(path).measurements.as_hex() == RECORDED
        assert hashlib.sha256(path.read_bytes()).hexdigest() == RECORDED_SHA256

    def test_the_same_inputs_give_the_same_bytes(self, image: Path) -> None:
        before = image.read_bytes()
        assert write(image.parent, b"kernel", "console=ttyS0", [b"boot", b"root"]).read_bytes() == before

    def test_metadata_and_architecture_are_in_no_register(self, image: Path) -> None:
        before = eif.read(image)
        write(image.parent, b"kernel", "console=ttyS0", [b"boot", b"root"], arm64=True)
        after = eif.read(image)
        assert (before.arm64, after.arm64) == (False, True)
        assert after.measurements == before.measurements

    def test_a_signed_file_has_pcr8_of_its_certificate(self, image: Path) -> None:
        root = NsmEmulator(1_763_000_000_000)
        section = cbor2.dumps([{"signing_certificate": list(root.root_pem), "signature": [1, 2]}])
        before = eif.read(image)
        signed = with_section(image, 4, section)
        found = eif.read(signed).measurements
        der = root._root.public_bytes(Encoding.DER)
        assert found.pcr8 == extended(der)
        assert (found.pcr0, found.pcr1, found.pcr2) == (
            before.measurements.pcr0,
            before.measurements.pcr1,
            before.measurements.pcr2,
        )


def with_section(image: Path, kind: int, content: bytes) -> Path:
    """The file with one more section at its end, listed and with the right CRC."""
    data = bytearray(image.read_bytes())
    count = struct.unpack(">H", data[26:28])[0]
    struct.pack_into(">H", data, 26, count + 1)
    struct.pack_into(">Q", data, 28 + 8 * count, len(data))
    struct.pack_into(">Q", data, 28 + 8 * 32 + 8 * count, len(content))
    data += struct.pack(">HHQ", kind, 0, len(content)) + content
    struct.pack_into(">I", data, 544, zlib.crc32(data[548:], zlib.crc32(data[:544])))
    path = image.with_name("more.eif")
    path.write_bytes(data)
    return path


class TestRefusing:
    def test_every_flipped_byte(self, image: Path) -> None:
        data = image.read_bytes()
        for at in range(len(data)):
            changed = bytearray(data)
            changed[at] ^= 0x41
            with pytest.raises(ImageError, match="no sound enclave image"):
                eif._read(io.BytesIO(changed), len(changed), "it")

    def test_every_shorter_or_longer_file(self, image: Path) -> None:
        data = image.read_bytes()
        for size in range(len(data)):
            with pytest.raises(ImageError):
                eif._read(io.BytesIO(data[:size]), size, "it")
        with pytest.raises(ImageError):
            eif._read(io.BytesIO(data + b"\0" * 12), len(data) + 12, "it")

    @given(data=st.binary(max_size=2000), begun=st.booleans())
    @settings(max_examples=100, deadline=None)
    def test_arbitrary_bytes(self, data: bytes, begun: bool) -> None:
        data = b".eif\0\4" + data if begun else data
        with pytest.raises(ImageError):
            eif._read(io.BytesIO(data), len(data), "it")

    @pytest.mark.parametrize(
        ("kind", "content", "found"),
        [
            (1, b"another kernel", "two kernels"),
            (2, b"more=1", "CMDLINE"),
            (4, b"no cbor", "Error"),
            (4, cbor2.dumps([{"signing_certificate": [1]}]), "Error"),
            (5, b"{}", "METADATA"),
            (6, b"", "of kind 6"),
        ],
    )
    def test_sections_that_have_no_place(self, image: Path, kind: int, content: bytes, found: str) -> None:
        with pytest.raises(ImageError, match=found):
            eif.read(with_section(image, kind, content))

    def test_a_nul_in_the_command_line(self, tmp_path: Path) -> None:
        with pytest.raises(ImageError, match="NUL"):
            write(tmp_path, b"kernel", "a\0b", [b"boot"])

    @pytest.mark.parametrize("count", [0, 30])
    def test_too_few_or_too_many_ramdisks(self, tmp_path: Path, count: int) -> None:
        with pytest.raises(ImageError, match=f"{count} ramdisks"):
            write(tmp_path, b"kernel", "", [b"x"] * count)

    def test_metadata_that_is_no_object(self, image: Path) -> None:
        data = image.read_bytes().replace(json.dumps(METADATA, separators=(",", ":")).encode(), b"[]", 1)
        assert len(data) < image.stat().st_size  # it was there, and is not sound any more
        with pytest.raises(ImageError):
            eif._read(io.BytesIO(data), len(data), "it")


RECORDED = {
    "PCR0": "d022f8dce9497ee47ddd388791791e53db7cd6f33455856ea68b06bd6f98a714"
    "29cb20afd8f44187f5cf378474213d4f",
    "PCR1": "3317db788bdead0d0cbf0b1739d41aced7931d6e59e2719f7165d295e5737578"
    "2951edc4d6d794820e0ccba34df57f67",
    "PCR2": "df6a934bbe3a6f3ed8a10c7b07b7d2d68d407327afd1e765917ef2afbee9386c"
    "f027c3fe52215b026af95892fa229786",
}
RECORDED_SHA256 = "faa99fd91894b9d31c5826095a1afc9a0f0bff7fe8fa5aed82e2bca14c58daa1"
