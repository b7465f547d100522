"""Runs our modules as Ansible does: arguments in, one JSON document out, then the process would exit."""

from __future__ import annotations

import asyncio
import contextlib
import importlib.util
import io
import json
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import Any
from unittest import mock

import ansible.module_utils
import pytest
import pytest_asyncio
from ansible.module_utils.testing import patch_module_args

from k3s_daas.chain import Key
from k3s_daas.registry import Deployment, Registry

REPOSITORY = Path(__file__).parents[2]
SUI = 1_000_000_000


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
    ansible.module_utils.__path__.append(str(REPOSITORY / "module_utils"))
    loaded: dict[str, ModuleType] = {}

    def get(name: str) -> ModuleType:
        if name not in loaded:
            loaded[name] = load(REPOSITORY / "library" / f"{name}.py", f"k3s_daas_library_{name}")
        return loaded[name]

    return get


@pytest.fixture(scope="session")
def seal_files(ansible_module: Callable[[str], ModuleType]) -> ModuleType:
    """module_utils/k3s_daas_seal.py, as seal_commitment uses it."""
    ansible_module("seal_commitment")
    return sys.modules["ansible.module_utils.k3s_daas_seal"]


@pytest.fixture(scope="session")
def run_module(ansible_module: Callable[[str], ModuleType]) -> Callable[..., dict[str, Any]]:
    """`run_module(name, check=False, **arguments)`: the module's result, `failed` among it."""

    def run(name: str, /, check: bool = False, **arguments: Any) -> dict[str, Any]:
        module = ansible_module(name)
        given = {key: value for key, value in arguments.items() if value is not None}
        given |= {"_ansible_check_mode": check, "_ansible_diff": True, "_ansible_remote_tmp": "/tmp"}  # noqa: S108
        out = io.StringIO()
        # As Ansible starts it: `main` with its arguments, which ends the process with a JSON document. Other
        # tests of this process may have imported a plugin, which makes it a controller in Ansible's eyes.
        a_host = mock.patch("ansible.module_utils._internal.is_controller", False)
        with (
            a_host,
            patch_module_args(given),
            contextlib.redirect_stdout(out),
            contextlib.suppress(SystemExit),
        ):
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


@dataclass
class Operator:
    """A wallet with its key file, and modules run with it."""

    run: Callable[..., Awaitable[dict[str, Any]]]
    chain: Any
    key_file: Path
    url: str
    ids: dict[str, str] = field(default_factory=dict)

    async def __call__(self, module: str, /, check: bool = False, **arguments: Any) -> dict[str, Any]:
        usual = {"network": "localnet", "endpoints": [self.url], **self.ids}
        if module != "sui_registry_info":
            usual["key_file"] = str(self.key_file)
        return await self.run(module, check, **usual | arguments)

    @property
    def registry(self) -> Registry:
        return Registry(self.chain, Deployment(**self.ids))

    async def sent(self) -> int:
        """Grows with every transaction of this wallet."""
        coins = [
            c async for c in self.chain.owned_objects(self.chain.address, "0x2::coin::Coin<0x2::sui::SUI>")
        ]
        return max((coin.version for coin in coins), default=0)


@pytest_asyncio.fixture(loop_scope="session")
async def new_operator(
    arun: Any, live_net: Any, tmp_path: Path
) -> AsyncIterator[Callable[..., Awaitable[Operator]]]:
    from k3s_daas.chain import SuiClient

    async def make(mist: int = 100 * SUI) -> Operator:
        path = tmp_path / f"key-{len(list(tmp_path.iterdir()))}"
        key = Key.create(path)
        if mist:
            await live_net.faucet(key.address, mist)
        chain = await SuiClient.connect([live_net.url], "localnet", key)
        opened.append(chain)
        return Operator(arun, chain, path, live_net.url)

    opened: list[Any] = []
    yield make
    for chain in opened:
        await chain.close()


@pytest_asyncio.fixture(loop_scope="session")
async def fleet(new_operator: Any, new_registry: Any) -> Operator:
    """An operator with a registry of its own."""
    operator = await new_operator()
    registry: Registry = await new_registry(operator.chain)
    operator.ids = {
        "package_id": registry.deployment.package_id,
        "registry_id": registry.deployment.registry_id,
    }
    return operator
