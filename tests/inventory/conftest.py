"""The inventory plugin as Ansible loads it, with the chain's answers given or from the localnet."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from ansible.errors import AnsibleError
from ansible.inventory.manager import InventoryManager
from ansible.parsing.dataloader import DataLoader
from ansible.plugins.loader import init_plugin_loader, inventory_loader
from ansible.utils.collection_loader import AnsibleCollectionConfig
from ansible.utils.display import Display

sys.path.insert(0, str(Path(__file__).parent))  # importlib mode leaves test folders off the path
from inventory_kit import PACKAGE, REGISTRY, Chain, view

REPOSITORY = Path(__file__).parents[2]


@pytest.fixture
def warnings(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What Ansible warns of."""
    told: list[str] = []

    def failed(_self: Any, exception: BaseException, *_: Any, **__: Any) -> None:
        told.append(str(exception))

    monkeypatch.setattr(Display, "warning", lambda _self, msg, *_, **__: told.append(str(msg)))
    monkeypatch.setattr(
        Display, "error_as_warning", lambda self, msg, exception, *_, **__: failed(self, exception)
    )
    return told


@pytest.fixture
def chain(monkeypatch: pytest.MonkeyPatch) -> Chain:
    """The chain of `parsed`; without workers until the test gives it some."""
    if AnsibleCollectionConfig.collection_finder is None:
        init_plugin_loader()
    inventory_loader.add_directory(str(REPOSITORY / "inventory_plugins"))
    assert inventory_loader.get("sui_workers") is not None
    stub = Chain(view([]))
    monkeypatch.setattr(sys.modules["ansible.plugins.inventory.sui_workers"], "read_fleet", stub)
    return stub


@pytest.fixture
def parsed(
    tmp_path: Path, chain: Chain, warnings: list[str], monkeypatch: pytest.MonkeyPatch
) -> Callable[..., InventoryManager]:
    """`parsed(before=None, after=None, flush=False, **options)`: the inventory of a file with these
    options, with other sources (YAML inventories as dicts) before and after it; `flush` is --flush-cache."""

    # As our ansible.cfg has it, wherever the tests are run.
    monkeypatch.setattr("ansible.constants.INVENTORY_ANY_UNPARSED_IS_FAILED", True)

    def parse(before: Any = None, after: Any = None, flush: bool = False, **options: Any) -> InventoryManager:
        usual = {
            "plugin": "sui_workers",
            "network": "localnet",
            "endpoints": ["http://127.0.0.1:1"],
            "package_id": PACKAGE,
            "registry_id": REGISTRY,
        }
        given = {name: value for name, value in (usual | options).items() if value is not None}
        sources = []
        for name, content in (("a.yml", before), ("b.sui_workers.yml", given), ("c.yml", after)):
            if content is not None:
                (tmp_path / name).write_text(yaml.safe_dump(content))
                sources.append(str(tmp_path / name))
        try:
            return InventoryManager(DataLoader(), sources, cache=not flush)
        except AnsibleError as error:
            error.add_note("\n".join(warnings))  # Ansible only warns of what it was
            raise

    return parse
