# Copyright the K3s-DaaS authors
# SPDX-License-Identifier: Apache-2.0
"""What nitro-cli says and does: its output read with care, its errors by their cause.

Standard library only, Python 3.9 and later: this runs on the parent, in modules and beside the program of
the role nitro_parent. Output and error codes as in aws-nitro-enclaves-cli 1.5.0: src/common/json_output.rs,
document_errors.rs.
"""

from __future__ import annotations

import json
import re
import subprocess
from typing import NamedTuple

#: Memory is given in huge pages of up to 1 GiB, so an enclave may have a little more than it was asked for.
LARGEST_PAGE_MIB = 1024
QUICK_S, RUN_S = 60, 240
#: Codes of our own, beside nitro-cli's: there is no such program; the image isn't the wanted one.
MISSING, IMAGE = "missing", "image"
_PCR = re.compile(r"[0-9a-f]{96}")
_CODE = re.compile(r"\[ (E[0-9]{2}) \] (.*)")
# They say only that another error happened, which stands before them.
_CONSEQUENCES = ("E38", "E39")


class NitroError(Exception):
    """What was found, what was wanted, what to do. `code` is nitro-cli's ("E27"), one of ours, or empty."""

    def __init__(self, message, code=""):
        super().__init__(message)
        self.code = code


class Enclave(NamedTuple):
    """One that nitro-cli knows. `pcr0` is what it measured of the file: it says nothing of debug mode."""

    id: str
    name: str
    cid: int
    cpus: int
    memory_mib: int
    state: str
    flags: str
    pid: int
    pcr0: str


class Image(NamedTuple):
    """An EIF. `pcr0` in 96 hex digits; `signature_ok` is None where there is no signature."""

    pcr0: str
    pcr1: str
    pcr2: str
    pcr8: str
    version: int
    crc_ok: bool
    signed: bool
    signature_ok: object
    name: str
    build_time: str


class Wanted(NamedTuple):
    """What is to run. Memory in MiB; a `cid` of 0 is any."""

    pcr0: str
    cpus: int
    memory_mib: int
    cid: int = 0
    debug: bool = False


def pcr(value, what):
    """A PCR in lower-case hex. Raises NitroError; all zeros are those of debug mode, and never wanted."""
    text = value.strip().lower() if isinstance(value, str) else ""
    if not _PCR.fullmatch(text) or set(text) == {"0"}:
        raise NitroError(
            f"Found {value!r} as {what}; wanted 96 hex digits that aren't all zero. "
            "`nitro-cli describe-eif` prints it, and so does building the image."
        )
    return text


def parse_enclaves(text):
    """[Enclave, …] of what `nitro-cli describe-enclaves` prints. Raises NitroError."""
    found = _json(text, "describe-enclaves")
    if not isinstance(found, list):
        raise _strange("describe-enclaves", "no list")
    return [_enclave(one) for one in found]


def parse_run(text):
    """(enclave's id, process id) of what `nitro-cli run-enclave` prints. Raises NitroError."""
    found = _json(text, "run-enclave")
    return _field(found, "EnclaveID", str, "run-enclave"), _field(found, "ProcessID", int, "run-enclave")


def parse_terminated(text):
    """Whether the enclave is gone, of what `nitro-cli terminate-enclave` prints. Raises NitroError."""
    return _field(_json(text, "terminate-enclave"), "Terminated", bool, "terminate-enclave")


def parse_image(text):
    """The Image of what `nitro-cli describe-eif` prints. Raises NitroError."""
    where = "describe-eif"
    found = _json(text, where)
    pcrs = _field(found, "Measurements", dict, where)
    metadata = _field(found, "Metadata", dict, where, {})
    signed = _field(found, "IsSigned", bool, where)
    return Image(
        pcr(pcrs.get("PCR0"), "PCR0 of the image"),
        *(_field(pcrs, name, str, where, "").lower() for name in ("PCR1", "PCR2", "PCR8")),
        version=_field(found, "EifVersion", int, where),
        crc_ok=_field(found, "CheckCRC", bool, where),
        signed=signed,
        signature_ok=_field(found, "SignatureCheck", bool, where, False) if signed else None,
        name=_field(found, "ImageName", str, where, ""),
        build_time=_field(metadata, "BuildTime", str, where, ""),
    )


def cause(status, errors):
    """(code, sentence) of a command that ended with `status` and wrote `errors` to stderr.

    One failure may be told by several errors: the enclave's process says what happened, and nitro-cli then
    that the process didn't answer (E39), which is also what its status says.
    """
    told = [(match[1], match[2].strip()) for match in _CODE.finditer(errors)]
    first = next((one for one in told if one[0] not in _CONSEQUENCES), told[0] if told else None)
    if first is not None:
        return first
    lines = [line.strip() for line in errors.splitlines() if line.strip()]
    return "", lines[-1][:300] if lines else f"it ended with status {status} and said nothing"


def differences(enclave, wanted):
    """What of a running enclave isn't as wanted, in words; empty when all is."""
    found = []
    if enclave.state != "RUNNING":
        found.append(f"state {enclave.state}, wanted RUNNING")
    debug = "DEBUG_MODE" in enclave.flags
    if debug != wanted.debug or (not debug and enclave.flags != "NONE"):
        found.append(f"flags {enclave.flags}, wanted {'DEBUG_MODE' if wanted.debug else 'NONE'}")
    if enclave.pcr0 != wanted.pcr0:
        found.append(f"PCR0 {enclave.pcr0 or 'unknown'}, wanted {wanted.pcr0}")
    if enclave.cpus != wanted.cpus:
        found.append(f"{enclave.cpus} CPUs, wanted {wanted.cpus}")
    if not 0 <= enclave.memory_mib - wanted.memory_mib < LARGEST_PAGE_MIB:
        found.append(f"{enclave.memory_mib} MiB, wanted {wanted.memory_mib}")
    if wanted.cid not in (0, enclave.cid):
        found.append(f"CID {enclave.cid}, wanted {wanted.cid}")
    return found


def check_image(image, wanted_pcr0, path):
    """Raises NitroError unless the image is whole and the wanted one."""
    if not image.crc_ok or image.signature_ok is False:
        what = "signature" if image.crc_ok else "checksum"
        raise NitroError(
            f"Found an image in {path} whose {what} doesn't hold; wanted a whole one. Copy it again.", IMAGE
        )
    if image.pcr0 != wanted_pcr0:
        raise NitroError(
            f"Found an image with PCR0 {image.pcr0} in {path}; wanted {wanted_pcr0}. Nothing was stopped. "
            "Bring the image that was allowed on-chain, or correct the wanted PCR0 if this is the one.",
            IMAGE,
        )


class Cli:
    """nitro-cli, run with an argument list. Every method raises NitroError."""

    def __init__(self, program="nitro-cli"):
        self.program = program

    def enclaves(self):
        return parse_enclaves(self._run("describe-enclaves"))

    def named(self, name):
        """The enclave of that name, or None. Raises NitroError also when there are two."""
        # nitro-cli itself never gives a name twice: it appends _1 to the second.
        found = [one for one in self.enclaves() if re.fullmatch(re.escape(name) + r"(_[0-9]+)?", one.name)]
        if len(found) > 1:
            raise NitroError(
                f"Found {len(found)} enclaves {name}: {', '.join(one.id for one in found)}; "
                "wanted at most one. End those that shouldn't be there with "
                "`nitro-cli terminate-enclave --enclave-id ID`."
            )
        return found[0] if found else None

    def image(self, path):
        return parse_image(self._run("describe-eif", "--eif-path", path))

    def start(self, name, path, wanted):
        """Run an enclave; (its id, the id of the process that holds it)."""
        cid = ["--enclave-cid", str(wanted.cid)] if wanted.cid else []
        return parse_run(
            self._run(
                "run-enclave",
                *("--enclave-name", name),
                *("--eif-path", path),
                *("--cpu-count", str(wanted.cpus)),
                *("--memory", str(wanted.memory_mib)),
                *cid,
                *(["--debug-mode"] if wanted.debug else []),
                timeout_s=RUN_S,
            )
        )

    def terminate(self, enclave_id):
        if not parse_terminated(self._run("terminate-enclave", "--enclave-id", enclave_id)):
            raise NitroError(f"Found the enclave {enclave_id} still there after it was ended. Run it again.")

    def _run(self, *arguments, timeout_s=QUICK_S):
        try:
            done = subprocess.run(
                [self.program, *arguments],
                stdin=subprocess.DEVNULL,
                capture_output=True,
                timeout=timeout_s,
                check=False,
            )
        except FileNotFoundError:
            raise NitroError(
                f"Found no {self.program}; wanted nitro-cli. The role nitro_parent installs it.", MISSING
            ) from None
        except OSError as error:
            raise NitroError(f"{self.program}: {error.strerror}. Check that it is nitro-cli.") from None
        except subprocess.TimeoutExpired:
            raise NitroError(
                f"`nitro-cli {arguments[0]}` gave no answer for {timeout_s} s; wanted one. Look at "
                "/var/log/nitro_enclaves/nitro_enclaves.log."
            ) from None
        if done.returncode:
            code, sentence = cause(done.returncode, done.stderr.decode(errors="replace"))
            raise NitroError(
                f"`nitro-cli {arguments[0]}` failed: {code + ' ' if code else ''}{sentence}", code
            )
        return done.stdout.decode(errors="replace")


def _enclave(found):
    where = "describe-enclaves"
    measurements = _field(found, "Measurements", dict, where, {})
    return Enclave(
        id=_field(found, "EnclaveID", str, where),
        name=_field(found, "EnclaveName", str, where, ""),
        cid=_field(found, "EnclaveCID", int, where),
        cpus=_field(found, "NumberOfCPUs", int, where),
        memory_mib=_field(found, "MemoryMiB", int, where),
        state=_field(found, "State", str, where),
        flags=_field(found, "Flags", str, where),
        pid=_field(found, "ProcessID", int, where),
        pcr0=_field(measurements, "PCR0", str, where, "").lower(),
    )


def _json(text, where):
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        raise _strange(where, "no JSON") from None


def _field(found, name, kind, where, default=None):
    """A member of an object, of the wanted kind; an absent one, or null, is the default if there is one."""
    if not isinstance(found, dict):
        raise _strange(where, "no object")
    value = found.get(name)
    if value is None and default is not None:
        return default
    # True is an int in Python, and a number is no answer to a yes-or-no question.
    if not isinstance(value, kind) or (kind is int and (isinstance(value, bool) or value < 0)):
        raise _strange(where, f"{name} {value!r}"[:200])
    return value


def _strange(where, found):
    return NitroError(
        f"`nitro-cli {where}` answered with {found}; wanted what aws-nitro-enclaves-cli 1.2 to 1.5 prints. "
        "Check that it is nitro-cli, and its version."
    )
