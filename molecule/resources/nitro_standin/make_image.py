"""Make what the stand-in for nitro-cli takes for an image, built of SEED: python make_image.py FILE SEED."""

from __future__ import annotations

import hashlib
import json
import sys
from pathlib import Path
from typing import Any


def pcr0(seed: str) -> str:
    """What such an image measures, in hex."""
    return hashlib.sha384(seed.encode()).hexdigest()


def make(path: Path, seed: str, **more: Any) -> str:
    """Write it, and return its PCR0; `more` is how it behaves, as `boot="ends"` or `crc=False`."""
    pcrs = {"PCR0": pcr0(seed), "PCR1": pcr0("kernel"), "PCR2": pcr0(f"{seed} files")}
    path.write_text(json.dumps({"stand_in_eif": {"pcrs": pcrs} | more}) + "\n")
    return pcrs["PCR0"]


if __name__ == "__main__":
    print(make(Path(sys.argv[1]), sys.argv[2]))
