"""The Sui framework's bytecode, out of the installed sui-sandbox wheel.

The wheel carries the modules of 0x1, 0x2 and 0x3 inside its shared object. They are read from there on
every start (about 0.1 s) and held in memory: nothing of the wheel is stored elsewhere.
"""

from __future__ import annotations

import importlib.util
from functools import cache
from pathlib import Path

from .bytecode import Module, order_by_dependencies
from .deserializer import find_modules

_EXPECTED = {1: 22, 2: 61, 3: 11}  # modules per address in sui-sandbox 0.22.0


class FrameworkMissing(RuntimeError):
    """The sui-sandbox wheel is absent or does not carry the framework."""


def _shared_object() -> Path:
    # find_spec does not import the 22 MB extension, which this module has no need to run.
    spec = importlib.util.find_spec("sui_sandbox")
    for folder in (spec.submodule_search_locations or []) if spec else []:
        for found in sorted(Path(folder).glob("*.so")):
            return found
    raise FrameworkMissing("sui-sandbox is not installed: pip install sui-sandbox==0.22.0")


@cache
def framework_modules() -> tuple[Module, ...]:
    """All framework modules, dependencies before their users. Raises FrameworkMissing."""
    path = _shared_object()
    found = {module.id: module for module in find_modules(path.read_bytes())}
    counts = {n: sum(1 for m in found if int.from_bytes(m.address, "big") == n) for n in _EXPECTED}
    if counts != _EXPECTED or len(found) != sum(_EXPECTED.values()):
        raise FrameworkMissing(
            f"{path} holds framework modules {counts} (address: count), wanted {_EXPECTED}; "
            "install sui-sandbox==0.22.0"
        )
    return tuple(order_by_dependencies(found[module_id] for module_id in sorted(found)))


def load_framework() -> list[bytes]:
    """Raw bytes of all framework modules (0x1, 0x2, 0x3), dependencies before their users."""
    return [module.raw for module in framework_modules()]
