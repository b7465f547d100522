"""Which Debian packages an image is made of: exact versions, each file by its SHA-256.

The lock is JSON, made by `apt.resolve` and kept in the repository. It has the closure of what was asked for,
so a build has nothing left to decide. Its `source_date_epoch` (s) is the time that every newer file gets.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from k3s_daas.image.errors import ImageError

_NAME = re.compile(r"[a-z0-9][a-z0-9+.-]+", re.ASCII)
_VERSION = re.compile(r"[0-9A-Za-z.+:~-]+", re.ASCII)
_SHA256 = re.compile(r"[0-9a-f]{64}", re.ASCII)
_ARCHITECTURES = ("amd64", "arm64")


@dataclass(frozen=True, order=True)
class Package:
    """One binary package. `size` in bytes."""

    name: str
    version: str
    architecture: str
    sha256: str
    size: int

    @property
    def file(self) -> str:
        """Name of its file in a cache."""
        return f"{self.name}_{self.version.replace(':', '%3a')}_{self.architecture}.deb"


@dataclass(frozen=True)
class Lock:
    """`wanted` was asked for; `packages` is that and all it needs, sorted."""

    suite: str
    architecture: str
    source_date_epoch: int
    wanted: tuple[str, ...]
    packages: tuple[Package, ...]

    def text(self) -> str:
        """As it is kept: one package a line, so that a diff can be read."""
        head = {
            "suite": self.suite,
            "architecture": self.architecture,
            "source_date_epoch": self.source_date_epoch,
            "wanted": list(self.wanted),
        }
        lines = ",\n".join(f"    {json.dumps(asdict(package))}" for package in self.packages)
        return f'{json.dumps(head, indent=2)[:-2]},\n  "packages": [\n{lines}\n  ]\n}}\n'

    def check_wanted(self, packages: Sequence[str]) -> None:
        """Raises ImageError when another list was asked for than this lock was made from."""
        if set(packages) != set(self.wanted):
            raise ImageError(
                f"Found a lock made for {', '.join(self.wanted)}; wanted one for "
                f"{', '.join(sorted(packages))}. Make it anew: run playbooks/build_image.yml with -e "
                "enclave_image_update_lock=true."
            )


def parse(text: str, name: str) -> Lock:
    """The lock in `text`, which comes from `name`. Raises ImageError."""
    try:
        content = json.loads(text)
        packages = tuple(Package(**entry) for entry in content["packages"])
        lock = Lock(
            _text(content["suite"], _NAME),
            _text(content["architecture"], re.compile("|".join(_ARCHITECTURES))),
            _number(content["source_date_epoch"]),
            tuple(_text(one, _NAME) for one in content["wanted"]),
            packages,
        )
        for one in packages:
            _text(one.name, _NAME), _text(one.version, _VERSION), _text(one.sha256, _SHA256)
            _text(one.architecture, re.compile(f"all|{lock.architecture}")), _number(one.size)
    except (ValueError, LookupError, TypeError, AttributeError) as error:
        raise ImageError(
            f"Found no lock of packages in {name}: {type(error).__name__}: {error}. Wanted what "
            "playbooks/build_image.yml writes with -e enclave_image_update_lock=true. Restore the file."
        ) from None
    names = [package.name for package in packages]
    if not names or len(set(names)) != len(names):
        raise ImageError(f"Found {len(names)} packages in {name}, some twice or none; wanted each once.")
    return lock


def load(path: Path) -> Lock:
    """The lock in a file. Raises ImageError."""
    try:
        return parse(path.read_text(encoding="utf-8"), str(path))
    except (OSError, UnicodeDecodeError) as error:
        raise ImageError(f"The lock {path} can't be read: {error}. Restore it.") from None


def _text(value: Any, form: re.Pattern[str]) -> str:
    if not isinstance(value, str) or not form.fullmatch(value):
        raise ValueError(f"found {value!r:.80}, wanted {form.pattern}")
    return value


def _number(value: Any) -> int:
    if type(value) is not int or not 0 < value < 2**32:
        raise ValueError(f"found {value!r:.80}, wanted a number of 32 bits above 0")
    return value
