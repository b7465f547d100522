"""A programmable transaction, written down in plain values. The executor resolves its objects and turns it
into bytes; nothing here talks to the network or imports pysui."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Literal

from k3s_daas.chain import bcs

#: 0x6 is the Clock; the network refuses transactions that take it by mutable reference.
_CLOCK = bcs.normalize_address("0x6")


@dataclass(frozen=True)
class Arg:
    """A value inside a transaction: the gas coin, an input, or (part of) a command's result."""

    kind: Literal["gas", "input", "result"]
    index: int = 0
    part: int | None = None


@dataclass(frozen=True)
class Pure:
    encoded: bytes


@dataclass
class ObjectInput:
    id: str
    mutable: bool


@dataclass(frozen=True)
class Call:
    package: str
    module: str
    function: str
    type_args: tuple[str, ...]
    args: tuple[Arg, ...]


@dataclass(frozen=True)
class Split:
    coin: Arg
    amounts: tuple[Arg, ...]


@dataclass(frozen=True)
class Merge:
    into: Arg
    coins: tuple[Arg, ...]


@dataclass(frozen=True)
class Transfer:
    objects: tuple[Arg, ...]
    to: Arg


@dataclass(frozen=True)
class Publish:
    modules: tuple[bytes, ...]
    dependencies: tuple[str, ...]


@dataclass(frozen=True)
class Upgrade:
    modules: tuple[bytes, ...]
    dependencies: tuple[str, ...]
    package: str
    ticket: Arg


Command = Call | Split | Merge | Transfer | Publish | Upgrade


class Transaction:
    """Inputs and commands in order. Amounts in MIST."""

    GAS = Arg("gas")

    def __init__(self, sender: str) -> None:
        self.sender = sender
        self.inputs: list[Pure | ObjectInput] = []
        self.commands: list[Command] = []
        #: MIST taken out of the gas coin by splits: has to be there besides the gas budget.
        self.drawn_mist = 0

    # -- inputs --------------------------------------------------------------------------------------------

    def object(self, object_id: str, *, mutable: bool = True) -> Arg:
        """An object by id. `mutable` matters for shared objects only; one mutable use makes it mutable."""
        full = bcs.normalize_address(object_id)
        mutable = mutable and full != _CLOCK
        for index, known in enumerate(self.inputs):
            if isinstance(known, ObjectInput) and known.id == full:
                known.mutable = known.mutable or mutable
                return Arg("input", index)
        return self._input(ObjectInput(full, mutable))

    def pure(self, encoded: bytes) -> Arg:
        """A value that is BCS-encoded already."""
        return self._input(Pure(encoded))

    def boolean(self, value: bool) -> Arg:
        return self.pure(b"\1" if value else b"\0")

    def u8(self, value: int) -> Arg:
        return self.pure(bcs.unsigned(value, 1))

    def u64(self, value: int) -> Arg:
        return self.pure(bcs.unsigned(value, 8))

    def address(self, value: str) -> Arg:
        return self.pure(bcs.address(value))

    def string(self, value: str) -> Arg:
        return self.pure(bcs.string(value))

    def data(self, value: bytes) -> Arg:
        return self.pure(bcs.data(value))

    def strings(self, values: Sequence[str]) -> Arg:
        return self.pure(bcs.vector(bcs.string(value) for value in values))

    def u64s(self, values: Sequence[int]) -> Arg:
        return self.pure(bcs.vector(bcs.unsigned(value, 8) for value in values))

    def byte_vectors(self, values: Sequence[bytes]) -> Arg:
        return self.pure(bcs.vector(bcs.data(value) for value in values))

    # -- commands ------------------------------------------------------------------------------------------

    def call(self, target: str, args: Sequence[Arg] = (), type_args: Sequence[str] = ()) -> Arg:
        """Call `package::module::function`. Reference arguments are the caller's to get right."""
        package, module, function = target.split("::")
        package = bcs.normalize_address(package)
        return self._command(Call(package, module, function, tuple(type_args), tuple(args)))

    def split(self, amounts: Sequence[int], coin: Arg = GAS) -> list[Arg]:
        """New coins of `amounts` MIST, out of the gas coin unless another is named."""
        if coin == self.GAS:
            self.drawn_mist += sum(amounts)
        result = self._command(Split(coin, tuple(self.u64(amount) for amount in amounts)))
        return [Arg("result", result.index, part) for part in range(len(amounts))]

    def merge(self, into: Arg, coins: Sequence[Arg]) -> None:
        self._command(Merge(into, tuple(coins)))

    def transfer(self, objects: Sequence[Arg], to: str) -> None:
        self._command(Transfer(tuple(objects), self.address(to)))

    def publish(self, modules: Sequence[bytes], dependencies: Sequence[str]) -> Arg:
        """Publish compiled bytecode; the result is the UpgradeCap, which has to be transferred."""
        return self._command(Publish(tuple(modules), tuple(map(bcs.normalize_address, dependencies))))

    def upgrade(
        self, modules: Sequence[bytes], dependencies: Sequence[str], package: str, ticket: Arg
    ) -> Arg:
        """Publish bytecode as the next version of `package`; the result is the receipt to commit."""
        ids = tuple(map(bcs.normalize_address, dependencies))
        return self._command(Upgrade(tuple(modules), ids, bcs.normalize_address(package), ticket))

    def _input(self, value: Pure | ObjectInput) -> Arg:
        self.inputs.append(value)
        return Arg("input", len(self.inputs) - 1)

    def _command(self, command: Command) -> Arg:
        self.commands.append(command)
        return Arg("result", len(self.commands) - 1)


#: Writes one transaction; may be called again, on a fresh Transaction, when the first was refused as stale.
Build = Callable[[Transaction], Awaitable[None]]
