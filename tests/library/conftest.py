"""Runs our modules as Ansible does: arguments in, one JSON document out, then the process would exit."""

from __future__ import annotations

import asyncio
import contextlib
import importlib.util
import io
import json
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from ansible.module_utils.testing import patch_module_args

REPOSITORY = Path(__file__).parents[2]


def load(path: Path, name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="session")
def ansible_module() -> Callable[[str], ModuleType]:
    """Loads library/<name>.py, with module_utils where Ansible puts them."""
    shared = "ansible.module_utils.k3s_daas_chain"
    if shared not in sys.modules:
        load(REPOSITORY / "module_utils" / "k3s_daas_chain.py", shared)
    loaded: dict[str, ModuleType] = {}

    def get(name: str) -> ModuleType:
        if name not in loaded:
            loaded[name] = load(REPOSITORY / "library" / f"{name}.py", f"k3s_daas_library_{name}")
        return loaded[name]

    return get


@pytest.fixture(scope="session")
def run_module(ansible_module: Callable[[str], ModuleType]) -> Callable[..., dict[str, Any]]:
    """`run_module(name, check=False, **arguments)`: the module's result, `failed` among it."""

    def run(name: str, /, check: bool = False, **arguments: Any) -> dict[str, Any]:
        module = ansible_module(name)
        given = {key: value for key, value in arguments.items() if value is not None}
        given |= {"_ansible_check_mode": check, "_ansible_diff": True, "_ansible_remote_tmp": "/tmp"}  # noqa: S108
        out = io.StringIO()
        # As Ansible starts it: `main` with its arguments, which ends the process with a JSON document.
        with patch_module_args(given), contextlib.redirect_stdout(out), contextlib.suppress(SystemExit):
            module.main()
        result: dict[str, Any] = json.loads(out.getvalue())
        result.pop("invocation", None)
        return {"failed": False} | result

    return run


@pytest.fixture(scope="session")
def arun(run_module: Callable[..., dict[str, Any]]) -> Callable[..., Any]:
    """The same beside a running network: the module has its own event loop, in a thread."""

    async def run(name: str, /, check: bool = False, **arguments: Any) -> dict[str, Any]:
        return await asyncio.to_thread(run_module, name, check, **arguments)

    return run
