"""nitro_enclave and nitro_eif_info against the stand-in for nitro-cli, and what is read of its output."""

from __future__ import annotations

import json
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nitro_standin.make_image import make, pcr0

STAND_INS = Path(__file__).parents[2] / "molecule/resources/nitro_standin"
NITRO_CLI = str(STAND_INS / "nitro-cli")
Run = Callable[..., dict[str, Any]]

# As pasted in aws/aws-nitro-enclaves-cli#516, with the sentences cut short.
BOOT_FAILURE = """Start allocating memory...
[ E36 ] Enclave boot failure. Such error appears when attempting to receive.

For more details, please visit https://docs.aws.amazon.com/enclaves/latest/user/cli-errors.html#E36

If you open a support ticket, please provide the error log found at "/var/log/nitro_enclaves/err.log"
Failed connections: 1
[ E39 ] Enclave process connection failure. Such error appears when the enclave manager fails to connect.

For more details, please visit https://docs.aws.amazon.com/enclaves/latest/user/cli-errors.html#E39
"""
# As EnclaveDescribeInfo is serialized (src/common/json_output.rs).
DESCRIBED = {
    "EnclaveName": "k3s-daas-master",
    "EnclaveID": "i-04e1bfe628305b166-enc17aab64b3f7703d",
    "ProcessID": 7885,
    "EnclaveCID": 16,
    "NumberOfCPUs": 2,
    "CPUIDs": [1, 3],
    "MemoryMiB": 4096,
    "State": "RUNNING",
    "Flags": "NONE",
    "Measurements": {"HashAlgorithm": "Sha384 { ... }", "PCR0": pcr0("one"), "PCR1": "", "PCR2": ""},
}


@pytest.fixture(scope="module")
def nitro(ansible_module: Callable[[str], ModuleType]) -> ModuleType:
    ansible_module("nitro_enclave")
    import sys

    return sys.modules["ansible.module_utils.k3s_daas_nitro"]


@pytest.fixture
def parent(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A directory where a stand-in parent lives, with 2 CPUs and 4 GiB set aside."""
    # Short: the path of a socket may have 107 bytes.
    with tempfile.TemporaryDirectory(prefix="nc") as name:
        root = Path(name)
        for folder in ("run", "s", "etc/nitro_enclaves"):
            (root / folder).mkdir(parents=True)
        monkeypatch.setenv("NITRO_CLI_INSTALL_DIR", name)
        monkeypatch.setenv("NITRO_CLI_SOCKETS_PATH", str(root / "s"))
        monkeypatch.setenv("NITRO_STAND_IN_ENDS_AFTER_S", "120")
        allocate(root, 2, 4096)
        yield root
        for one in described():
            subprocess.run([NITRO_CLI, "terminate-enclave", "--enclave-id", one["EnclaveID"]], check=True)


def allocate(root: Path, cpus: int, memory_mib: int) -> None:
    config = f"---\nmemory_mib: {memory_mib}\ncpu_count: {cpus}\n"
    (root / "etc/nitro_enclaves/allocator.yaml").write_text(config)
    subprocess.run([STAND_INS / "nitro-enclaves-allocator"], check=True, capture_output=True)


def described() -> list[dict[str, Any]]:
    done = subprocess.run([NITRO_CLI, "describe-enclaves"], check=True, capture_output=True)
    found: list[dict[str, Any]] = json.loads(done.stdout)
    return found


@pytest.fixture
def enclave(run_module: Run, parent: Path) -> Run:
    """The module with an image "one" that measures what is wanted; arguments change that."""
    make(parent / "one.eif", "one")
    usual = {"eif": str(parent / "one.eif"), "pcr0": pcr0("one"), "nitro_cli": NITRO_CLI}
    return lambda check=False, **given: run_module("nitro_enclave", check, **(usual | given))


# -- the module --------------------------------------------------------------------------------------------


def test_it_starts_once(enclave: Run) -> None:
    first, again = enclave(enclave_cid=16), enclave(enclave_cid=16)
    assert (first["changed"], again["changed"]) == (True, False), (first, again)
    assert first["enclave"] == again["enclave"]
    wanted = {"name": "k3s-daas-master", "cid": 16, "cpus": 2, "memory_mib": 4096, "flags": "NONE"}
    assert wanted.items() <= first["enclave"].items()
    assert first["enclave"]["pcr0"] == pcr0("one")
    assert first["reasons"] == ["none runs"]
    assert first["diff"]["before"] == {}
    assert first["diff"]["after"]["state"] == "RUNNING"


def test_check_mode_only_says_so(enclave: Run) -> None:
    planned = enclave(check=True)
    assert (planned["changed"], planned["enclave"], described()) == (True, None, [])
    assert planned["diff"]["after"]["pcr0"] == pcr0("one")
    running = enclave()["enclave"]["id"]
    assert not enclave(check=True)["changed"]
    for change in ({"state": "stopped"}, {"state": "restarted"}, {"memory_mib": 2048}):
        assert enclave(check=True, **change)["changed"]
    assert [one["EnclaveID"] for one in described()] == [running]


def test_check_mode_before_anything_is_installed(enclave: Run) -> None:
    planned = enclave(check=True, eif="/nonexistent.eif", nitro_cli="/nonexistent/nitro-cli")
    assert (planned["failed"], planned["changed"]) == (False, True)
    assert not enclave(check=True, state="stopped", nitro_cli="/nonexistent/nitro-cli")["changed"]
    failed = enclave(nitro_cli="/nonexistent/nitro-cli")
    assert "Found no /nonexistent/nitro-cli" in failed["msg"]


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"memory_mib": 2048}, "4096 MiB, wanted 2048"),
        ({"cpu_count": 1}, "2 CPUs, wanted 1"),
        ({"enclave_cid": 20}, "CID 17, wanted 20"),
        ({"debug": True}, "flags NONE, wanted DEBUG_MODE"),
        ({"state": "restarted"}, "a restart was asked for"),
    ],
)
def test_another_wish_starts_it_anew(enclave: Run, change: dict[str, Any], reason: str) -> None:
    before = enclave()["enclave"]["id"]
    changed = enclave(**change)
    assert (changed["failed"], changed["changed"], changed["reasons"]) == (False, True, [reason])
    assert changed["enclave"]["id"] != before
    assert [one["EnclaveID"] for one in described()] == [changed["enclave"]["id"]]
    assert enclave(**{key: value for key, value in change.items() if key != "state"})["changed"] is False


def test_a_new_image_takes_the_place_of_the_old_one(enclave: Run, parent: Path) -> None:
    enclave()
    wanted = make(parent / "two.eif", "two")
    changed = enclave(eif=str(parent / "two.eif"), pcr0=wanted.upper())
    assert changed["enclave"]["pcr0"] == wanted
    assert changed["diff"]["before"]["pcr0"] == pcr0("one")


def test_debug_mode_is_not_left_running(enclave: Run) -> None:
    assert enclave(debug=True)["enclave"]["flags"] == "DEBUG_MODE"
    changed = enclave()
    assert changed["reasons"] == ["flags DEBUG_MODE, wanted NONE"]
    assert changed["enclave"]["flags"] == "NONE"


@pytest.mark.parametrize("state", ["started", "restarted"])
@pytest.mark.parametrize(
    ("more", "words"),
    [
        ({}, "Found an image with PCR0"),
        ({"crc": False}, "checksum doesn't hold"),
        ({"signature": False}, "signature doesn't hold"),
    ],
)
def test_another_image_is_refused_before_anything_is_stopped(
    enclave: Run, parent: Path, state: str, more: dict[str, Any], words: str
) -> None:
    before = enclave()["enclave"]["id"]
    path = parent / "other.eif"
    make(path, "one" if more else "other", **more)
    if "signature" in more:
        content = json.loads(path.read_text())
        content["stand_in_eif"]["pcrs"]["PCR8"] = pcr0("signer")
        path.write_text(json.dumps(content))
    for check in (True, False):
        refused = enclave(check=check, eif=str(path), state=state)
        assert refused["failed"]
        assert words in refused["msg"]
    assert [one["EnclaveID"] for one in described()] == [before]


@pytest.mark.parametrize("wanted", ["0" * 96, "ab", "", "x" * 96])
def test_a_pcr0_that_nobody_can_want(enclave: Run, wanted: str) -> None:
    assert "wanted 96 hex digits that aren't all zero" in enclave(pcr0=wanted)["msg"]


def test_it_stops_once(enclave: Run) -> None:
    enclave()
    first, again = (enclave(state="stopped", eif=None, pcr0=None) for _ in range(2))
    assert (first["changed"], again["changed"], described()) == (True, False, [])
    assert first["diff"]["after"] == {}


@pytest.mark.parametrize(
    ("given", "code", "words"),
    [
        ({"memory_mib": 6000}, "E27", "is 6000 MB, which is more than the available hugepage memory"),
        ({"cpu_count": 4}, "E22", "Insufficient CPUs available in the pool"),
        ({"eif": "/nonexistent.eif"}, "E35", "EIF file parsing error"),
    ],
)
def test_what_nitro_cli_refuses_is_told_by_its_cause(
    enclave: Run, given: dict[str, Any], code: str, words: str
) -> None:
    failed = enclave(**given)
    assert (failed["failed"], failed["code"]) == (True, code)
    assert words in failed["msg"]
    assert "E39" not in failed["msg"]


def test_too_little_memory_for_its_image(enclave: Run, parent: Path) -> None:
    make(parent / "one.eif", "one", filler="x" * (1 << 20))
    assert enclave(memory_mib=4)["code"] == "E26"


@pytest.mark.parametrize(("boot", "words"), [("fails", "E36"), ("ends", "It ended at once")])
def test_an_image_that_does_not_boot(enclave: Run, parent: Path, boot: str, words: str) -> None:
    make(parent / "one.eif", "one", boot=boot)
    assert words in enclave()["msg"]
    assert described() == []


def test_two_of_a_name_are_nobodys_to_choose_from(enclave: Run, parent: Path) -> None:
    for _ in range(2):
        command = [NITRO_CLI, "run-enclave", "--enclave-name", "k3s-daas-master", "--cpu-count", "1"]
        command += ["--memory", "512", "--eif-path", str(parent / "one.eif")]
        subprocess.run(command, check=True, capture_output=True)
    assert {one["EnclaveName"] for one in described()} == {"k3s-daas-master", "k3s-daas-master_1"}
    for state in ("started", "stopped"):
        assert "Found 2 enclaves k3s-daas-master: i-" in enclave(state=state)["msg"]


def test_an_enclave_of_another_name_is_left_alone(enclave: Run) -> None:
    other = enclave(name="other", cpu_count=1, memory_mib=512)["enclave"]["id"]
    enclave(cpu_count=1, memory_mib=512)
    enclave(state="stopped")
    assert [one["EnclaveID"] for one in described()] == [other]


def test_no_directory_of_sockets(enclave: Run, parent: Path) -> None:
    (parent / "s").rmdir()
    assert enclave()["code"] == "E07"
    (parent / "s").mkdir()


# -- with a unit -------------------------------------------------------------------------------------------


@pytest.fixture
def unit(enclave: Run, parent: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Run]:
    """`unit(COMMAND)`: the module with a unit, whose start is COMMAND and whose stop ends every enclave."""

    def with_start(command: str) -> Run:
        (parent / "bin").mkdir()
        systemctl = parent / "bin/systemctl"
        systemctl.write_text(
            f"""#!/bin/sh
case $1 in
  show) cat {parent}/active 2> /dev/null || echo inactive ;;
  start) {command} && echo active > {parent}/active ;;
  stop) rm -f {parent}/active; for one in {parent}/s/*.sock; do test -e $one || continue
        {NITRO_CLI} terminate-enclave --enclave-id $(basename $one .sock) > /dev/null; done ;;
esac
"""
        )
        systemctl.chmod(0o755)
        (parent / "bin/journalctl").write_text("#!/bin/sh\necho its last words\n")
        (parent / "bin/journalctl").chmod(0o755)
        monkeypatch.setenv("PATH", f"{parent}/bin:/usr/bin:/bin")
        return lambda check=False, **given: enclave(check, unit="k3s-daas-enclave.service", **given)

    return with_start


def started_with(parent: Path, *options: str) -> str:
    usual = f"run-enclave --enclave-name k3s-daas-master --eif-path {parent}/one.eif --cpu-count 2"
    return " ".join([NITRO_CLI, usual, *options, "> /dev/null"])


def test_the_unit_runs_it(unit: Callable[..., Run], parent: Path) -> None:
    module = unit(started_with(parent, "--memory 4096"))
    first, again, anew, ended, twice = (
        module(), module(), module(state="restarted"), module(state="stopped"), module(state="stopped")
    )  # fmt: skip
    assert [one["changed"] for one in (first, again, anew, ended, twice)] == [True, False, True, True, False]
    assert described() == []


def test_one_that_the_unit_did_not_start_is_replaced(
    unit: Callable[..., Run], enclave: Run, parent: Path
) -> None:
    before = enclave()["enclave"]["id"]
    changed = unit(started_with(parent, "--memory 4096"))()
    assert changed["reasons"] == ["k3s-daas-enclave.service doesn't run it"]
    assert changed["enclave"]["id"] != before


def test_a_unit_that_tries_again_and_again_is_stopped(unit: Callable[..., Run], parent: Path) -> None:
    module = unit("false")
    (parent / "active").write_text("activating\n")
    assert module(state="stopped")["changed"]
    assert not module(state="stopped")["changed"]


def test_a_unit_that_does_not_start_says_why(unit: Callable[..., Run]) -> None:
    assert "Its last words: its last words" in unit("exit 1")()["msg"]


def test_a_unit_that_starts_something_else_is_stopped(unit: Callable[..., Run], parent: Path) -> None:
    failed = unit(started_with(parent, "--memory 4096", "--debug-mode"))()
    assert "flags DEBUG_MODE, wanted NONE" in failed["msg"]
    assert "Bring the unit's settings in line" in failed["msg"]
    assert described() == []


# -- nitro_eif_info ----------------------------------------------------------------------------------------


def test_an_image_is_measured(run_module: Run, parent: Path) -> None:
    make(parent / "one.eif", "one", name="k3s-daas")
    result = run_module("nitro_eif_info", path=str(parent / "one.eif"), nitro_cli=NITRO_CLI)
    image = result["image"]
    assert (result["changed"], image["pcr0"], image["name"]) == (False, pcr0("one"), "k3s-daas")
    assert (image["crc_ok"], image["signed"], image["signature_ok"], image["pcr8"]) == (True, False, None, "")


@pytest.mark.parametrize("content", [None, b"", b"{}", b"\xff"])
def test_no_image(run_module: Run, parent: Path, content: bytes | None) -> None:
    path = parent / "bad.eif"
    if content is not None:
        path.write_bytes(content)
    failed = run_module("nitro_eif_info", path=str(path), nitro_cli=NITRO_CLI)
    assert (failed["failed"], failed["code"]) == (True, "E35")


@pytest.mark.parametrize(
    ("program", "words"),
    [("#!/bin/sh\necho '[]'\n", "answered with no object"), ("not a program", "Check that it is nitro-cli")],
)
def test_something_else_than_nitro_cli(run_module: Run, parent: Path, program: str, words: str) -> None:
    path = parent / "nitro-cli"
    path.write_text(program)
    path.chmod(0o755)
    assert words in run_module("nitro_eif_info", path="/x.eif", nitro_cli=str(path))["msg"]


def test_one_that_gives_no_answer(nitro: ModuleType, parent: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = parent / "nitro-cli"
    path.write_text("#!/bin/sh\nexec sleep 60\n")
    path.chmod(0o755)
    monkeypatch.setattr(nitro, "QUICK_S", 0.05)
    with pytest.raises(nitro.NitroError, match="gave no answer"):
        nitro.Cli(str(path))._run("describe-enclaves", timeout_s=nitro.QUICK_S)


# -- what is read ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("errors", "found"),
    [
        (BOOT_FAILURE, ("E36", "Enclave boot failure. Such error appears when attempting to receive.")),
        ("[ E39 ] Enclave process connection failure.\n", ("E39", "Enclave process connection failure.")),
        ("error: unexpected argument '--x'\n\n", ("", "error: unexpected argument '--x'")),
        ("", ("", "it ended with status 7 and said nothing")),
    ],
)  # fmt: skip
def test_the_cause_of_an_error_comes_first(nitro: ModuleType, errors: str, found: tuple[str, str]) -> None:
    assert nitro.cause(7, errors) == found


def test_what_is_described_is_read(nitro: ModuleType) -> None:
    (one,) = nitro.parse_enclaves(json.dumps([DESCRIBED]))
    wanted = nitro.Wanted(pcr0("one"), 2, 4096, 16)
    assert nitro.differences(one, wanted) == []
    # nitro-cli 1.0 and 1.1 told neither name nor measurements.
    old = {key: value for key, value in DESCRIBED.items() if key not in ("EnclaveName", "Measurements")}
    (one,) = nitro.parse_enclaves(json.dumps([old]))
    assert (one.name, one.pcr0) == ("", "")
    assert nitro.differences(one, wanted) == [f"PCR0 unknown, wanted {pcr0('one')}"]


@pytest.mark.parametrize(("memory", "fits"), [(4095, False), (4096, True), (5119, True), (5120, False)])
def test_memory_comes_in_huge_pages(nitro: ModuleType, memory: int, fits: bool) -> None:
    (one,) = nitro.parse_enclaves(json.dumps([DESCRIBED | {"MemoryMiB": memory}]))
    assert (nitro.differences(one, nitro.Wanted(pcr0("one"), 2, 4096)) == []) is fits


@pytest.mark.parametrize("state", ["EMPTY", "TERMINATING", "", "running"])
def test_only_running_is_running(nitro: ModuleType, state: str) -> None:
    (one,) = nitro.parse_enclaves(json.dumps([DESCRIBED | {"State": state}]))
    assert nitro.differences(one, nitro.Wanted(pcr0("one"), 2, 4096)) == [f"state {state}, wanted RUNNING"]


@pytest.mark.parametrize("flags", ["DEBUG_MODE", "NONE|DEBUG_MODE", "", "none", "OTHER"])
def test_no_flag_but_none_is_as_wanted(nitro: ModuleType, flags: str) -> None:
    (one,) = nitro.parse_enclaves(json.dumps([DESCRIBED | {"Flags": flags}]))
    assert nitro.differences(one, nitro.Wanted(pcr0("one"), 2, 4096)) == [f"flags {flags}, wanted NONE"]


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=12), inner, max_size=3),
    max_leaves=8,
)
PARSERS = ["parse_enclaves", "parse_run", "parse_terminated", "parse_image"]
#: A whole answer of each command, of which one member is made something else.
WHOLE: dict[str, dict[str, Any]] = {
    "parse_enclaves": DESCRIBED,
    "parse_run": {"EnclaveID": "i-1-enc1", "ProcessID": 7},
    "parse_terminated": {"EnclaveID": "i-1-enc1", "Terminated": True},
    "parse_image": {
        "EifVersion": 4,
        "Measurements": {"PCR0": pcr0("one"), "PCR1": "", "PCR2": "", "PCR8": ""},
        "IsSigned": True,
        "CheckCRC": True,
        "SignatureCheck": True,
        "ImageName": "k3s",
        "Metadata": {"BuildTime": "2026"},
    },
}


#: What the members of an answer are read as.
KINDS = {
    **dict.fromkeys(["id", "name", "state", "flags", "pcr0", "pcr1", "pcr2", "pcr8", "build_time"], str),
    **dict.fromkeys(["cid", "cpus", "memory_mib", "pid", "version"], int),
    **dict.fromkeys(["crc_ok", "signed", "terminated"], bool),
    "signature_ok": (bool, type(None)),
}


def read(nitro: ModuleType, name: str, text: str) -> list[dict[str, Any]]:
    """What a parser takes the text for; nothing where it refuses it, which it does clearly."""
    try:
        found = getattr(nitro, name)(text)
    except nitro.NitroError as error:
        if "wanted" in str(error) and len(str(error)) < 1000:
            return []
        raise
    if name == "parse_enclaves":
        return [one._asdict() for one in found]
    if name == "parse_image":
        return [found._asdict()]
    return [
        {"terminated": found} if name == "parse_terminated" else dict(zip(("id", "pid"), found, strict=True))
    ]


@pytest.mark.parametrize("name", PARSERS)
def test_any_text_is_an_answer_or_a_clear_error(nitro: ModuleType, name: str) -> None:
    @settings(max_examples=100, deadline=None)
    @given(text=st.text() | JSON.map(json.dumps) | st.just("[" * 100_000))
    def check(text: str) -> None:
        read(nitro, name, text)

    check()


@pytest.mark.parametrize("name", PARSERS)
def test_no_member_is_taken_for_another_kind(nitro: ModuleType, name: str) -> None:
    whole = WHOLE[name]

    @settings(max_examples=100, deadline=None)
    @given(member=st.sampled_from(sorted(whole)), value=JSON)
    def check(member: str, value: Any) -> None:
        answer = whole | {member: value}
        for one in read(nitro, name, json.dumps([answer] if name == "parse_enclaves" else answer)):
            for key, found in one.items():
                assert isinstance(found, KINDS[key]), key
                # True is an int in Python.
                assert KINDS[key] is not int or (type(found) is int and found >= 0), key

    check()


@pytest.mark.parametrize("name", PARSERS)
def test_whole_answers_are_taken(nitro: ModuleType, name: str) -> None:
    answer = WHOLE[name]
    assert read(nitro, name, json.dumps([answer] if name == "parse_enclaves" else answer))
