"""Puts a pip into an empty virtual environment, by get-pip.py's arguments: `pip==24.2 --no-setuptools`."""

from __future__ import annotations

import subprocess
import sys

# In a process of its own: it makes this one forget pip's configuration.
subprocess.run([sys.executable, "-m", "ensurepip"], check=True, stdout=subprocess.DEVNULL)
wanted = [argument for argument in sys.argv[1:] if argument not in ("--no-setuptools", "--no-wheel")]
sys.exit(subprocess.run([sys.executable, "-m", "pip", "install", "--quiet", *wanted]).returncode)
