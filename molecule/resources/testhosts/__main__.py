"""Entry point, both for `python molecule/resources/testhosts` and for `python -m testhosts`."""

import sys
from pathlib import Path

if not __package__:
    # Started by its folder: Python put the folder itself on the path, where modules called `mounts` or
    # `network` could shadow others. The package's parent belongs there instead.
    sys.path[0] = str(Path(__file__).resolve().parent.parent)

from testhosts.cli import main

sys.exit(main())
