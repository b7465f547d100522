"""Read masks: which fields of an answer the client wants."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from typing import Any

from grpclib.const import Status
from grpclib.exceptions import GRPCError

from .protocol import Message

_Tree = dict[str, Any]


class Mask:
    """A tree of field names; an empty tree means everything below."""

    def __init__(self, tree: _Tree | None = None) -> None:
        self._tree: _Tree = tree or {}

    @staticmethod
    def of(requested: Message | None, default: Iterable[str], message: type) -> Mask:
        """The mask a request carries, or ``default`` when it carries none.

        :param message: class of the message the mask is about.
        :raises GRPCError: INVALID_ARGUMENT, when a path names no field of ``message``.
        """
        paths = list(requested.paths) if requested is not None and requested.paths else list(default)
        if "*" in paths:
            return Mask()
        known = {field.name for field in dataclasses.fields(message)}
        tree: _Tree = {}
        for path in paths:
            parts = path.split(".")
            if parts[0] not in known:
                raise GRPCError(
                    Status.INVALID_ARGUMENT,
                    f"invalid read_mask path: {path!r} is no field of {message.__name__}",
                )
            _add(tree, parts)
        return Mask(tree)

    def __contains__(self, name: str) -> bool:
        return not self._tree or name in self._tree

    def under(self, name: str) -> Mask:
        """The mask for what is below field ``name``."""
        return Mask(self._tree.get(name))

    def prune(self, message: Message) -> Message:
        """Clears what was not asked for, in place, and returns the message."""
        if not self._tree or message is None:
            return message
        for field in dataclasses.fields(message):
            found = getattr(message, field.name)
            if field.name not in self._tree:
                if found is not None:
                    empty: Any = [] if isinstance(found, list) else {} if isinstance(found, dict) else None
                    setattr(message, field.name, empty)
                continue
            below = self.under(field.name)
            for item in found if isinstance(found, list) else [found]:
                if dataclasses.is_dataclass(item):
                    below.prune(item)
        return message


def _add(tree: _Tree, parts: list[str]) -> None:
    """Adds a path; an emptied subtree (everything) swallows longer paths below it."""
    head, rest = parts[0], parts[1:]
    if not rest or rest == ["*"]:
        tree[head] = {}
    elif head not in tree:
        tree[head] = {}
        _add(tree[head], rest)
    elif tree[head]:
        _add(tree[head], rest)
