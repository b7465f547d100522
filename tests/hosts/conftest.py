"""The test hosts' program is no installed package: its parent folder goes on the path."""

import sys
from pathlib import Path

RESOURCES = str(Path(__file__).resolve().parents[2] / "molecule" / "resources")
if RESOURCES not in sys.path:
    sys.path.append(RESOURCES)
