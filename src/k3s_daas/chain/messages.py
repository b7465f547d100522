"""pysui's generated `sui.rpc.v2` messages and stubs, without the rest of pysui.

Importing any module of pysui runs its own `__init__` first, which loads its client, its configuration and two
GraphQL libraries: 0.6 s and 15 MB that nothing here uses. The generated code needs none of it and refers to
itself only relatively, so it is loaded as a package of its own, from where pysui is installed.
"""

from __future__ import annotations

import importlib
import importlib.util
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

_NAME = "k3s_daas.chain._suimsgs"


def _load() -> ModuleType:
    found = importlib.util.find_spec("pysui")
    assert found is not None
    assert found.origin is not None
    folder = Path(found.origin).parent / "sui" / "sui_grpc" / "suimsgs"
    spec = importlib.util.spec_from_file_location(
        _NAME, folder / "__init__.py", submodule_search_locations=[str(folder)]
    )
    assert spec is not None
    assert spec.loader is not None
    package = importlib.util.module_from_spec(spec)
    sys.modules[_NAME] = package
    spec.loader.exec_module(package)
    return package


_load()
#: Half of the generated code is typed as optional of anything: taken for what it is.
rpc: Any = importlib.import_module(f"{_NAME}.sui.rpc.v2")
protobuf: Any = importlib.import_module(f"{_NAME}.google.protobuf")
