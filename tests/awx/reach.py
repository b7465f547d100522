"""What a playbook comes to: its plays, those it imports, and the task files of roles that they include."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

PROJECT = Path(__file__).parents[2]
PLAYBOOKS = PROJECT / "playbooks"
_INCLUDES = re.compile(r"(?:ansible\.builtin\.)?(?:include|import)_(role|tasks|playbook)")
_BELOW = ("block", "rescue", "always", "tasks", "pre_tasks", "post_tasks", "handlers")


class _Loader(yaml.SafeLoader):
    """YAML with Ansible's `!unsafe`, which is text here."""


_Loader.add_constructor("!unsafe", lambda loader, node: loader.construct_scalar(node))


def load(path: Path) -> Any:
    return yaml.load(path.read_text(), _Loader)  # noqa: S506


def signers() -> set[str]:
    """The modules that can send a transaction."""
    return {path.stem for path in (PROJECT / "library").glob("*.py") if "k3s_daas.signer" in path.read_text()}


class Reach:
    """`files` that a playbook may read, and the `modules` that its tasks run when it isn't in check mode."""

    def __init__(self, playbook: str) -> None:
        self.files: set[Path] = set()
        self.modules: set[str] = set()
        self._follow(PLAYBOOKS / f"{playbook}.yml")

    @property
    def text(self) -> str:
        return "\n".join(path.read_text() for path in sorted(self.files))

    def _follow(self, path: Path) -> None:
        if path in self.files:
            return
        self.files.add(path)
        for task in self._tasks(load(path) or []):
            if task.get("check_mode") is not True:
                self.modules.update(key.removeprefix("ansible.builtin.") for key in task)
            for key, value in task.items():
                if found := _INCLUDES.fullmatch(key):
                    self._include(found[1], value, path)
            for role in task.get("roles", []):
                self._role(role["role"] if isinstance(role, dict) else role, "main")

    def _tasks(self, entries: list[dict[str, Any]]) -> Iterator[dict[str, Any]]:
        for entry in entries:
            yield entry
            for key in _BELOW:
                yield from self._tasks(entry.get(key) or [])

    def _include(self, what: str, value: Any, path: Path) -> None:
        if what == "role":
            self._role(value["name"], value.get("tasks_from", "main"))
            return
        name = value["file"] if isinstance(value, dict) else value
        # Of a name that is worked out, every file that it may come to.
        for found in path.parent.glob(re.sub(r"\{\{.*?\}\}", "*", name)):
            self._follow(found)

    def _role(self, name: str, tasks_from: str) -> None:
        role = PROJECT / "roles" / name
        self.files.update(
            path for path in role.glob("*/main.yml") if path.parent.name in ("defaults", "vars")
        )
        for path in role.glob(f"tasks/{re.sub(r'{{.*?}}', '*', tasks_from).removesuffix('.yml')}.yml"):
            self._follow(path)
        if (handlers := role / "handlers/main.yml").exists():
            self._follow(handlers)
