"""Random programs over references: the borrow checker says what the real VM says, both ways.

The programs are right in types and stack: what is left to refuse is unset locals and broken borrowing.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

import pytest

from k3s_daas_localnet.vm import CodeStore, Module, VerificationError
from k3s_daas_localnet.vm import opcodes as op
from k3s_daas_localnet.vm.bytecode import Ability
from k3s_daas_localnet.vm.verifier import verify_module

_PROGRAMS = 60
_Code = list[tuple[int, ...]]


class _Program:
    """A function `f(&mut S, &mut S, S)` over S { t: T, n: u64 } and T { n: u64, v: vector<u64> }."""

    def __init__(self, assembler: Any, seed: int) -> None:
        a = self.a = assembler
        self.rng = random.Random(seed)  # noqa: S311 - reproducible inputs, nothing secret
        value = Ability.COPY | Ability.DROP | Ability.STORE
        inner, outer = a.datatype("T", value), a.datatype("S", value)
        t, s = a.datatype_token(inner), a.datatype_token(outer)
        v = a.vector(a.U64)
        t_definition = a.struct(inner, ("n", a.U64), ("v", v))
        s_definition = a.struct(outer, ("t", t), ("n", a.U64))
        self.elements = a.signature(a.U64)
        # type -> [(type it is a field of, index of the field handle)]
        self.fields = {
            t: [(s, a.add(0xD, bytes([s_definition, 0])))],
            a.U64: [(s, a.add(0xD, bytes([s_definition, 1]))), (t, a.add(0xD, bytes([t_definition, 0])))],
            v: [(t, a.add(0xD, bytes([t_definition, 1])))],
            s: [],
        }
        enum = a.datatype("E", value)
        e = a.datatype_token(enum)
        self.fields[e] = []
        variants = b"\x02" + a.identifier("A") + b"\x02" + a.identifier("n") + a.U64 + a.identifier("v") + v
        a.add(0x11, bytes([enum, 2]) + variants + a.identifier("B") + b"\x00")
        self.variants = [a.add(0x13, bytes([0, tag])) for tag in range(2)]
        self.u64, self.s, self.t, self.v, self.e = a.U64, s, t, v, e
        self.locals = [a.mut(s), a.mut(s), s, a.U64, v, t, e]
        self.locals += [wrap(x) for x in (s, t, a.U64, v, e) for wrap in (a.mut, a.ref, a.mut)]
        self.parameters = 3
        self.available: set[int] = set()
        self.code: _Code = []
        self.helpers = {
            "pick_mut": self._helper("pick_mut", [a.mut(a.U64), a.mut(a.U64)], [a.mut(a.U64)]),
            "pick": self._helper("pick", [a.ref(a.U64), a.mut(a.U64)], [a.ref(a.U64)]),
            "part": self._helper("part", [a.mut(s)], [a.mut(t)]),
            "look": self._helper("look", [a.ref(s), a.mut(t)], []),
        }

    def _helper(self, name: str, parameters: list[bytes], results: list[bytes]) -> int:
        code: _Code = [(op.LD_U64, 1), (op.ABORT,)]
        return int(self.a.function(name, code, parameters, results))

    def build(self) -> bytes:
        self.available = set(range(self.parameters))
        self.emit(op.PACK_VARIANT, self.variants[1])
        self.store(6)
        for local in (3, 4, 5):
            self.value(self.locals[local], 0)
            self.store(local)
        for _ in range(self.rng.randrange(4, 12)):
            self.statement(2)
        results = []
        if self.rng.random() < 0.3:
            results = [self.a.mut(self.u64)]
            self.value(results[0], 0)
        self.emit(op.RET)
        self.a.function(
            "f", self.code, self.locals[: self.parameters], results, self.locals[self.parameters :]
        )
        self.a.function("probe", [(op.RET,)])
        return bytes(self.a.build())

    def emit(self, *instruction: int) -> None:
        self.code.append(instruction)

    def store(self, local: int) -> None:
        self.emit(op.ST_LOC, local)
        self.available.add(local)

    def statement(self, nesting: int) -> None:
        choice = self.rng.random()
        if choice < 0.55:
            local = self.rng.randrange(self.parameters, len(self.locals))
            self.value(self.locals[local], 0)
            self.store(local)
        elif choice < 0.68:
            target = self.rng.choice([self.u64, self.t, self.v, self.e])
            self.value(target, 0)
            self.value(self.a.mut(target), 0)
            self.emit(op.WRITE_REF)
        elif choice < 0.74:
            self.value(self.a.mut(self.v), 0)
            self.emit(op.LD_U64, 1)
            if self.rng.random() < 0.5:
                self.emit(op.VEC_PUSH_BACK, self.elements)
            else:
                self.emit(op.LD_U64, 1)
                self.emit(op.VEC_SWAP, self.elements)
        elif choice < 0.8:
            self.unpack_variant()
        elif choice < 0.86:
            self.value(self.a.ref(self.s), 0)
            self.value(self.a.mut(self.t), 0)
            self.emit(op.CALL, self.helpers["look"])
        elif nesting:
            self.branch(nesting - 1) if self.rng.random() < 0.6 else self.loop(nesting - 1)

    def unpack_variant(self) -> None:
        wrap, opcode = self.rng.choice(
            [(self.a.mut, op.UNPACK_VARIANT_MUT_REF), (self.a.ref, op.UNPACK_VARIANT_IMM_REF)]
        )
        self.value(wrap(self.e), 0)
        self.emit(opcode, self.variants[0])
        for token in (wrap(self.v), wrap(self.u64)):
            self.store(self.rng.choice([n for n, local in enumerate(self.locals) if local == token]))

    def branch(self, nesting: int) -> None:
        self.emit(op.LD_TRUE)
        hole = len(self.code)
        self.emit(op.BR_FALSE, 0)
        before = set(self.available)
        for _ in range(self.rng.randrange(1, 4)):
            self.statement(nesting)
        second_hole = len(self.code)
        self.emit(op.BRANCH, 0)
        self.code[hole] = (op.BR_FALSE, len(self.code))
        after, self.available = self.available, before
        for _ in range(self.rng.randrange(3)):
            self.statement(nesting)
        self.code[second_hole] = (op.BRANCH, len(self.code))
        self.available &= after

    def loop(self, nesting: int) -> None:
        head = len(self.code)
        self.emit(op.LD_TRUE)
        hole = len(self.code)
        self.emit(op.BR_FALSE, 0)
        before = set(self.available)
        for _ in range(self.rng.randrange(1, 4)):
            self.statement(nesting)
        self.emit(op.BRANCH, head)
        self.code[hole] = (op.BR_FALSE, len(self.code))
        self.available &= before

    def value(self, token: bytes, depth: int) -> None:
        """Code that leaves a value of this type on the stack."""
        ways: list[Callable[[], None]] = []
        for local in sorted(self.available):
            if self.locals[local] == token:
                ways += [lambda at=local: self.emit(op.COPY_LOC, at)] * 2
                if token[0] in (0x6, 0x7):
                    ways.append(lambda at=local: self.move(at))
        if token[0] == 0x7:
            self._mutable_references(token[1:], depth, ways)
        elif token[0] == 0x6:
            self._immutable_references(token[1:], depth, ways)
        else:
            if token == self.u64:
                ways.append(lambda: self.emit(op.LD_U64, 7))
                if depth < 3:
                    read = self.rng.choice([self.a.mut, self.a.ref])(self.v)
                    ways.append(self._through(read, depth, (op.VEC_LEN, self.elements)))
                    ways.append(self._through(self.a.mut(self.v), depth, (op.VEC_POP_BACK, self.elements)))
            if depth < 3:
                ways.append(lambda: self._read(token, depth))
            if token == self.v:
                ways.append(lambda: self.emit(op.VEC_PACK, self.elements, 0))
            if token == self.e:
                ways.append(lambda: self.emit(op.PACK_VARIANT, self.variants[1]))
            if token == self.t and not ways:
                ways.append(lambda: self._read(token, depth))
        self.rng.choice(ways)()

    def move(self, local: int) -> None:
        self.emit(op.MOVE_LOC, local)
        self.available.discard(local)

    def _read(self, token: bytes, depth: int) -> None:
        reference = self.rng.choice([self.a.mut, self.a.ref])(token)
        self.value(reference, depth + 1)
        self.emit(op.READ_REF)

    def _borrow_local(self, opcode: int, target: bytes, ways: list[Callable[[], None]]) -> None:
        for local in sorted(self.available):
            if self.locals[local] == target:
                ways.append(lambda at=local: self.emit(opcode, at))

    def _through(self, token: bytes, depth: int, *then: tuple[int, ...]) -> Callable[[], None]:
        def run() -> None:
            self.value(token, depth + 1)
            for instruction in then:
                self.emit(*instruction)

        return run

    def _mutable_references(self, target: bytes, depth: int, ways: list[Callable[[], None]]) -> None:
        a = self.a
        self._borrow_local(op.MUT_BORROW_LOC, target, ways)
        for owner, field in self.fields[target] if depth < 3 or not ways else []:
            ways.append(self._through(a.mut(owner), depth, (op.MUT_BORROW_FIELD, field)))
        if depth < 3 and target == self.u64:
            element = [(op.LD_U64, 0), (op.VEC_MUT_BORROW, self.elements)]
            ways.append(self._through(a.mut(self.v), depth, *element))
            ways.append(lambda: self._pick(a.mut(target), depth, "pick_mut"))
        if depth < 3 and target == self.t:
            ways.append(self._through(a.mut(self.s), depth, (op.CALL, self.helpers["part"])))

    def _immutable_references(self, target: bytes, depth: int, ways: list[Callable[[], None]]) -> None:
        a = self.a
        self._borrow_local(op.IMM_BORROW_LOC, target, ways)
        ways.append(self._through(a.mut(target), depth, (op.FREEZE_REF,)))
        for owner, field in self.fields[target] if depth < 3 else []:
            wrap = self.rng.choice([a.mut, a.ref])
            ways.append(self._through(wrap(owner), depth, (op.IMM_BORROW_FIELD, field)))
        if depth < 3 and target == self.u64:
            element = [(op.LD_U64, 0), (op.VEC_IMM_BORROW, self.elements)]
            ways.append(self._through(self.rng.choice([a.mut, a.ref])(self.v), depth, *element))
            ways.append(lambda: self._pick(a.ref(target), depth, "pick"))

    def _pick(self, first: bytes, depth: int, helper: str) -> None:
        self.value(first, depth + 1)
        self.value(self.a.mut(self.u64), depth + 1)
        self.emit(op.CALL, self.helpers[helper])


@pytest.mark.parametrize("batch", range(4))
def test_verdicts_are_those_of_the_real_vm(
    store: CodeStore,
    make_assembler: Callable[[], Any],
    real_vm_loads: Callable[[Sequence[bytes], str, str, int], bool],
    batch: int,
) -> None:
    verdicts: Counter[str] = Counter()
    for seed in range(batch * _PROGRAMS, (batch + 1) * _PROGRAMS):
        raw = _Program(make_assembler(), seed).build()
        code = ""
        try:
            verify_module(Module.parse(raw), store.module)
        except VerificationError as error:
            code = error.code
        verdicts[code] += 1
        assert real_vm_loads([raw], "m", "probe", 0) == (code == ""), f"program {seed}: ours {code or 'good'}"
    refusals = [code for code in verdicts if "BORROW" in code or "SAFE" in code]
    assert verdicts[""] > 5
    assert len(refusals) >= 5, verdicts
