"""Which reference borrows from which. Source: Sui's move-borrow-graph crate.

An edge parent -> child says that child points into parent along a path of fields. A *strong* edge knows the
exact path; a *weak* one says the child may be anything below that path.
"""

from __future__ import annotations

from collections.abc import Hashable

Label = Hashable
Path = tuple[Label, ...]
Edge = tuple[bool, Path]  # strong, path

# Above this many edges between two references they become one weak edge without path (as in the source).
MAX_EDGES = 10
_ANYTHING: Edge = (False, ())


def _covers(edge: Edge, other: Edge) -> bool:
    """Whether an edge says at least what the other one says."""
    return edge == other or (not edge[0] and other[1][: len(edge[1])] == edge[1])


class BorrowGraph:
    """`work` counts edges looked at, so that the analysis can stop at code made to be slow."""

    __slots__ = ("_children", "_mutable", "_parents", "work")

    def __init__(self) -> None:
        self.work = 0
        self._mutable: dict[int, bool] = {}
        self._children: dict[int, dict[int, frozenset[Edge]]] = {}
        self._parents: dict[int, set[int]] = {}

    def copy(self) -> BorrowGraph:
        made = BorrowGraph()
        made.work = self.work + len(self._mutable)
        made._mutable = dict(self._mutable)
        made._children = {node: dict(edges) for node, edges in self._children.items()}
        made._parents = {node: set(parents) for node, parents in self._parents.items()}
        return made

    def add(self, node: int, mutable: bool) -> None:
        self._mutable[node] = mutable
        self._children[node] = {}
        self._parents[node] = set()

    def is_mutable(self, node: int) -> bool:
        return self._mutable[node]

    def _add_edge(self, parent: int, edge: Edge, child: int) -> None:
        self.work += 1
        edges = self._children[parent].get(child, frozenset())
        if edge not in edges:
            edges = edges | {edge}
            if len(edges) > MAX_EDGES:
                edges = frozenset((_ANYTHING,))
            self._children[parent][child] = edges
        self._parents[child].add(parent)

    def borrow_weakly(self, parent: int, child: int) -> None:
        """The child may point anywhere into the parent."""
        self._add_edge(parent, _ANYTHING, child)

    def borrow_exactly(self, parent: int, path: Path, child: int) -> None:
        """The child is exactly the parent's field at `path`; borrows below that field move to the child."""
        moved: list[tuple[int, Edge]] = []
        children = self._children[parent]
        self.work += len(children)
        for other, edges in list(children.items()):
            below = {edge for edge in edges if edge[1][: len(path)] == path}
            if not below:
                continue
            moved.extend((other, edge) for edge in below)
            if below == edges:
                del children[other]
                self._parents[other].discard(parent)
            else:
                children[other] = edges - below
        for other, (strong, full) in moved:
            self._add_edge(child, (strong, full[len(path) :]), other)
        self._add_edge(parent, (True, path), child)

    def release(self, node: int) -> None:
        """Drop a reference; what borrowed from it now borrows from its parents."""
        children = self._children.pop(node)
        parents = self._parents.pop(node)
        del self._mutable[node]
        self.work += (1 + len(parents)) * len(children)
        for parent in parents:
            for strong, path in self._children[parent].pop(node):
                for child, edges in children.items():
                    if child == parent:
                        continue
                    for child_strong, child_path in edges:
                        full = path + child_path if strong else path
                        self._add_edge(parent, (strong and child_strong, full), child)
        for child in children:
            self._parents[child].discard(node)

    def borrower_count(self, node: int) -> int:
        return len(self._children[node])

    def has_full_borrows(self, node: int) -> bool:
        return any(not path for edges in self._children[node].values() for _, path in edges)

    def is_borrowed(self, node: int, label: Label | None, mutable_only: bool) -> bool:
        """Whether anything (mutable) borrows the node as a whole, or its field `label` (any field when
        None).
        """
        return any(
            not path or label is None or path[0] == label
            for child, edges in self._children[node].items()
            if not mutable_only or self._mutable[child]
            for _, path in edges
        )

    def renamed(self, names: dict[int, int]) -> BorrowGraph:
        def name(node: int) -> int:
            return names.get(node, node)

        made = BorrowGraph()
        made.work = self.work
        made._mutable = {name(node): mutable for node, mutable in self._mutable.items()}
        made._children = {
            name(node): {name(child): edges for child, edges in children.items()}
            for node, children in self._children.items()
        }
        made._parents = {
            name(node): {name(parent) for parent in parents} for node, parents in self._parents.items()
        }
        return made

    def join(self, other: BorrowGraph) -> bool:
        """Add what the other graph (over the same references) has and this one does not cover. True if it
        did.
        """
        changed = False
        for parent, children in other._children.items():
            mine = self._children[parent]
            for child, edges in children.items():
                known = mine.get(child, frozenset())
                for edge in edges:
                    if not any(_covers(have, edge) for have in known):
                        self._add_edge(parent, edge, child)
                        changed = True
        return changed
