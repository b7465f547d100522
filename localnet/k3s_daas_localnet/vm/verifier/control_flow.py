"""Basic blocks of a function, and that its loops are well nested. Source: move-bytecode-verifier
`control_flow.rs`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from .. import opcodes as op
from ..bytecode import FunctionDef
from ..errors import VerificationError

S = TypeVar("S")

# Sui's protocol config.
MAX_BASIC_BLOCKS = 1024
MAX_LOOP_DEPTH = 5
# Sui meters verification; this bound is ours, generous for real code, and stops code made to be slow.
MAX_BLOCK_VISITS = 100_000

_ENDS = frozenset((op.RET, op.ABORT, op.BRANCH, op.BR_TRUE, op.BR_FALSE, op.VARIANT_SWITCH))
_NO_FALL_THROUGH = frozenset((op.RET, op.ABORT, op.BRANCH, op.VARIANT_SWITCH))


class ControlFlow:
    """Blocks as (first, last) offsets, by the offset of their first instruction. Raises VerificationError."""

    def __init__(self, function: FunctionDef) -> None:
        code = function.code
        if not code:
            raise VerificationError("EMPTY_CODE_UNIT", "a function without code")
        if code[-1][0] not in _NO_FALL_THROUGH:
            raise VerificationError("INVALID_FALL_THROUGH", "the code runs off its end")
        starts = {0}
        jumps: dict[int, tuple[int, ...]] = {}
        for offset, (opcode, operand, _) in enumerate(code):
            if opcode not in _ENDS:
                continue
            if opcode in op.BRANCH_OPERAND:
                jumps[offset] = (operand,)
            elif opcode == op.VARIANT_SWITCH:
                jumps[offset] = function.jump_tables[operand].targets
            starts.update(jumps.get(offset, ()))
            if offset + 1 < len(code):
                starts.add(offset + 1)
        ordered = sorted(starts)
        if len(ordered) > MAX_BASIC_BLOCKS:
            raise VerificationError(
                "TOO_MANY_BASIC_BLOCKS", f"{len(ordered)} blocks, at most {MAX_BASIC_BLOCKS}"
            )
        self.blocks: dict[int, tuple[int, int]] = {}
        self.successors: dict[int, list[int]] = {}
        for first, after in zip(ordered, [*ordered[1:], len(code)], strict=True):
            last = after - 1
            self.blocks[first] = (first, last)
            targets = dict.fromkeys(jumps.get(last, ()))
            if code[last][0] not in _NO_FALL_THROUGH:
                targets[after] = None
            self.successors[first] = list(targets)
        self._verify_loops()

    def _verify_loops(self) -> None:
        """Reducible (every loop is entered at one place), and loops nested no deeper than allowed."""
        order, on_path_edges = self._depth_first()
        position = {block: n for n, block in enumerate(order)}
        predecessors: dict[int, list[int]] = {block: [] for block in order}
        for block in order:
            for successor in self.successors[block]:
                predecessors[successor].append(block)
        dominator = self._dominators(order, position, predecessors)
        loops: dict[int, set[int]] = {}
        for tail, head in on_path_edges:
            above = tail
            while above != head:
                if above == order[0]:
                    raise VerificationError("INVALID_LOOP_SPLIT", f"loop at {head} is entered in its middle")
                above = dominator[above]
            body = loops.setdefault(head, {head})
            open_ = [tail]
            while open_:
                block = open_.pop()
                if block not in body:
                    body.add(block)
                    open_.extend(predecessors[block])
        for head in loops:
            depth = sum(1 for body in loops.values() if head in body)
            if depth > MAX_LOOP_DEPTH:
                raise VerificationError("LOOP_MAX_DEPTH_REACHED", f"loop at {head} is nested {depth} deep")

    def _depth_first(self) -> tuple[list[int], list[tuple[int, int]]]:
        """Reverse post-order of the reachable blocks, and the edges that lead back to an open block."""
        post: list[int] = []
        back: list[tuple[int, int]] = []
        open_, done = {0}, set()
        stack = [(0, iter(self.successors[0]))]
        while stack:
            block, targets = stack[-1]
            for target in targets:
                if target in open_:
                    back.append((block, target))
                elif target not in done:
                    open_.add(target)
                    stack.append((target, iter(self.successors[target])))
                    break
            else:
                stack.pop()
                open_.discard(block)
                done.add(block)
                post.append(block)
        return post[::-1], back

    @staticmethod
    def _dominators(
        order: list[int], position: dict[int, int], predecessors: dict[int, list[int]]
    ) -> dict[int, int]:
        """Immediate dominators (Cooper, Harvey, Kennedy)."""
        dominator = {order[0]: order[0]}
        changed = True
        while changed:
            changed = False
            for block in order[1:]:
                known = [p for p in predecessors[block] if p in dominator]
                best = known[0]
                for other in known[1:]:
                    while best != other:
                        while position[best] > position[other]:
                            best = dominator[best]
                        while position[other] > position[best]:
                            other = dominator[other]
                if dominator.get(block) != best:
                    dominator[block] = best
                    changed = True
        return dominator

    def analyze(self, initial: S, run: Callable[[S, int, int], S], join: Callable[[S, S], S | None]) -> None:
        """Run blocks until nothing changes.

        `run(state, first, last)` gives the state after a block and must not change the one it got;
        `join(old, new)` gives the joined state, or None when it is no different from the old one.
        """
        states = {0: initial}
        pending = {0}
        visits = 0
        while pending:
            block = min(pending)
            pending.discard(block)
            visits += 1
            if visits > MAX_BLOCK_VISITS:
                raise VerificationError("PROGRAM_TOO_COMPLEX", f"more than {MAX_BLOCK_VISITS} block visits")
            after = run(states[block], *self.blocks[block])
            for successor in self.successors[block]:
                if successor not in states:
                    states[successor] = after
                    pending.add(successor)
                else:
                    joined = join(states[successor], after)
                    if joined is not None:
                        states[successor] = joined
                        pending.add(successor)
