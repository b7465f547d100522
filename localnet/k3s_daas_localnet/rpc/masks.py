"""Read masks: which fields of an answer the client wants."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from typing import Any

from grpclib.const import Status
from grpclib.exceptions import GRPCError

from .protocol import Message, protobuf

_Tree = dict[str, Any]
# What is below a google.protobuf.Value is the object's own, not the protocol's.
_ANYTHING = protobuf.__name__


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
        tree: _Tree = {}
        for path in paths:
            parts = path.split(".")
            _check(parts, path, message)
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


def _check(parts: list[str], path: str, message: type) -> None:
    """:raises GRPCError: INVALID_ARGUMENT, when a part of ``path`` is no field."""
    for part in parts:
        if part == "*" or message.__module__.startswith(_ANYTHING):
            return
        if not dataclasses.is_dataclass(message) or all(
            field.name != part for field in dataclasses.fields(message)
        ):
            raise GRPCError(
                Status.INVALID_ARGUMENT,
                f"invalid read_mask path: {path!r}: {part!r} is no field of {message.__name__}",
            )
        kinds: Any = message
        message = kinds._betterproto.cls_by_field[part]


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
