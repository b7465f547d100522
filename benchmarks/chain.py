"""The chain side in figures: each part prints its table, and one JSON line with all of them closes it.

python benchmarks/chain.py
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
PARTS = ("onboarding", "localnet", "oracle")


def main() -> int:
    figures: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as folder:
        for part in PARTS:
            written = Path(folder, f"{part}.json")
            print(f"== {part}", flush=True)
            done = subprocess.run([sys.executable, HERE / f"{part}.py", "--json", written])
            if done.returncode:
                print(f"benchmarks/{part}.py failed; what it said stands above", file=sys.stderr)
                return done.returncode
            figures |= json.loads(written.read_text())
    print(json.dumps(figures))
    return 0


if __name__ == "__main__":
    sys.exit(main())
