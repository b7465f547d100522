"""Executes one transaction against a view of the ledger and works out what it changed and cost.

Nothing is written here: the caller commits the outcome, or, for a simulation, doesn't.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from ..vm import Ability, CodeStore, Interpreter, Value, to_bcs
from . import clever, gas, limits
from .arguments import Arguments, Slot
from .effects import Change, Executed
from .encoding import blake2b, hex_address, u64
from .errors import ExecutionFailure
from .executor import Executor
from .gas import GasSummary
from .inputs import Find, Inputs
from .objects import IMMUTABLE, SUI_COIN, LedgerObject, Owner
from .runtime import Context, ObjectRuntime, Placed
from .transaction import TransactionData

# A simulation without payment is paid by a coin that exists only in it (MIST).
_IMAGINARY_BALANCE = 10**18


@dataclass(frozen=True)
class Surroundings:
    """What a transaction runs in.

    :ivar code: where published code goes; to be committed or thrown away with the outcome.
    :ivar keep_returns: whether the outcome lists what every command returned.
    """

    code: CodeStore
    find: Find
    context: Context
    keep_returns: bool = False


def execute(
    transaction: TransactionData, signatures: tuple[bytes, ...], inputs: Inputs, around: Surroundings
) -> Executed:
    """Runs a transaction whose inputs have been checked. Its failure is part of the result."""
    return _Run(transaction, signatures, inputs, around).execute()


class _Run:
    def __init__(
        self,
        transaction: TransactionData,
        signatures: tuple[bytes, ...],
        inputs: Inputs,
        around: Surroundings,
    ) -> None:
        self._transaction = transaction
        self._signatures = signatures
        self._inputs = inputs
        self._around = around
        self._code = around.code
        self._digest = around.context.digest
        if inputs.payment:
            self._gas_id = inputs.payment[0].object_id
            self._paid_with = sum(coin.coin_value for coin in inputs.payment)
        else:
            self._gas_id = blake2b(b"gas of a simulation" + self._digest)
            self._paid_with = _IMAGINARY_BALANCE
        # The budget is set aside while the commands run, so that they can't spend what pays for them.
        spendable = self._paid_with - transaction.budget
        self._gas_value: Value = [[[self._gas_id]], [spendable]]
        used = [*inputs.objects.values(), *inputs.receiving.values(), *inputs.payment]
        self._lamport = 1 + max((item.version for item in used), default=0)
        shared = frozenset(key for key, item in inputs.objects.items() if item.owner.kind == "shared")
        self._runtime = ObjectRuntime(self._code, around.context, around.find, shared)
        self._runtime.receivable = {key: item.version for key, item in inputs.receiving.items()}
        bound = gas.step_bound(transaction.budget, transaction.price)
        self._vm = Interpreter(self._code, self._runtime, bound)
        gas_slot = Slot(SUI_COIN, [self._gas_value], is_gas=True)
        self._arguments = Arguments(
            self._code, transaction, inputs, gas_slot, keep_returns=around.keep_returns
        )
        self._executor = Executor(self._vm, self._runtime, self._arguments, around.find)

    def execute(self) -> Executed:
        failure: ExecutionFailure | None = None
        changes: list[Change] = []
        try:
            self._executor.run(self._transaction.commands)
            changes = self._changes()
        except ExecutionFailure as found:
            failure = found
        bill = self._bill(changes) if failure is None else None
        if bill is not None and bill.net > self._transaction.budget:
            failure = ExecutionFailure(
                "INSUFFICIENT_GAS",
                f"Insufficient Gas: it costs {bill.net} MIST, the budget is {self._transaction.budget} MIST",
            )
        if failure is not None:
            changes = self._touched()
            bill = self._capped(self._bill(changes))
        assert bill is not None
        return self._finish(failure, changes, bill)

    # --- what changed

    def _changes(self) -> list[Change]:
        """Changes of a successful transaction, without the gas coins."""
        runtime, inputs = self._runtime, self._inputs
        written: dict[bytes, Placed] = {}
        gone: dict[bytes, LedgerObject] = dict(runtime.received)
        for slot in self._arguments.inputs:
            if slot.origin is None or slot.read_only:
                continue
            if slot.box[0] is None:
                gone[slot.origin.object_id] = slot.origin
            else:
                assert slot.origin.type is not None
                written[slot.origin.object_id] = Placed(slot.origin.type, slot.box[0], slot.origin.owner)
        children = runtime.children()
        for object_id, loaded in runtime.loaded.items():
            if object_id not in children:
                gone[object_id] = loaded
        written |= runtime.placed
        for object_id, child in children.items():
            if self._child_changed(object_id, child):
                written[object_id] = child
        self._check_shared(gone, written)
        changes = [self._write(object_id, placed) for object_id, placed in written.items()]
        for object_id, before in gone.items():
            if object_id not in written:
                deleted = object_id in runtime.deleted_ids
                changes.append(Change(before, None, "deleted" if deleted else "none"))
        changes.extend(self._new_packages())
        # Inputs that are mutable but were lent out only count as written too: see `written` above.
        assert all(object_id in written or object_id in gone for object_id in inputs.mutable)
        return changes

    def _child_changed(self, object_id: bytes, child: Placed) -> bool:
        before = self._around.find(object_id)
        if before is None or before.owner != child.owner:
            return True
        return before.contents != to_bcs(self._code.layout(child.type), child.value)

    def _check_shared(self, gone: dict[bytes, LedgerObject], written: dict[bytes, Placed]) -> None:
        """A shared object that was taken by value has to be deleted or shared again."""
        for object_id, before in gone.items():
            if before.owner.kind != "shared":
                continue
            placed = written.get(object_id)
            kept = placed is not None and placed.owner.kind == "shared"
            if not kept and (placed is not None or object_id not in self._runtime.deleted_ids):
                raise ExecutionFailure(
                    "CONSENSUS_OBJECT_OPERATION_NOT_ALLOWED",
                    "The shared object operation is not allowed: shared object "
                    f"{hex_address(object_id)} can't be transferred, frozen or wrapped",
                    object_id=object_id,
                )

    def _write(self, object_id: bytes, placed: Placed) -> Change:
        contents = to_bcs(self._code.layout(placed.type), placed.value)
        if len(contents) > limits.MAX_OBJECT_BYTES:
            raise ExecutionFailure(
                "OBJECT_TOO_BIG",
                f"Move object with size {len(contents)} is larger than the maximum object size "
                f"{limits.MAX_OBJECT_BYTES}",
                size=(len(contents), limits.MAX_OBJECT_BYTES),
                object_id=object_id,
            )
        before = self._around.find(object_id)
        owner = placed.owner
        if owner.kind == "shared":
            was_shared = before is not None and before.owner.kind == "shared"
            owner = (
                before.owner if before is not None and was_shared else Owner("shared", version=self._lamport)
            )
        after = LedgerObject(
            object_id,
            self._lamport,
            owner,
            self._digest,
            0,
            type=placed.type,
            contents=contents,
            public_transfer=bool(self._code.abilities(placed.type) & Ability.STORE),
        )
        created = before is None and object_id in self._runtime.new_ids
        return Change(before, _with_fee(after), "created" if created else "none")

    def _new_packages(self) -> list[Change]:
        packages = (
            LedgerObject(new.package_id, new.version, IMMUTABLE, self._digest, 0, package=new.data)
            for new in self._executor.published
        )
        return [Change(None, _with_fee(package), "created") for package in packages]

    def _touched(self) -> list[Change]:
        """Changes of a failed transaction: its mutable inputs, the same but for their version."""
        changes: list[Change] = []
        for object_id in sorted(self._inputs.mutable):
            before = self._inputs.objects[object_id]
            after = before.written(self._lamport, self._digest, 0)
            changes.append(Change(before, _with_fee(after), "none"))
        return changes

    # --- what it costs

    def _gas_coin(self, balance: int, owner: bytes) -> LedgerObject:
        return _with_fee(
            LedgerObject(
                self._gas_id,
                self._lamport,
                Owner("address", owner),
                self._digest,
                0,
                type=SUI_COIN,
                contents=self._gas_id + u64(balance),
                public_transfer=True,
            )
        )

    def _bill(self, changes: list[Change]) -> GasSummary:
        written = [change.after.rebate for change in changes if change.after is not None]
        written.append(self._gas_coin(0, self._transaction.gas_owner).rebate)
        replaced = [change.before.rebate for change in changes if change.before is not None]
        replaced.extend(coin.rebate for coin in self._inputs.payment)
        published = sum(len(module.raw) for new in self._executor.published for module in new.modules)
        units = gas.computation_units(self._vm.steps, published)
        return gas.summarize(units, self._transaction.price, written, replaced)

    def _capped(self, bill: GasSummary) -> GasSummary:
        """A failed transaction never costs more than its budget."""
        excess = max(0, bill.net - self._transaction.budget)
        computation = max(0, bill.computation - excess)
        excess -= bill.computation - computation
        return replace(bill, computation=computation, storage=bill.storage - excess)

    def _finish(self, failure: ExecutionFailure | None, changes: list[Change], bill: GasSummary) -> Executed:
        transaction, inputs = self._transaction, self._inputs
        succeeded = failure is None
        budget = transaction.budget
        balance = (self._gas_value[1][0] + budget if succeeded else self._paid_with) - bill.net
        recipient = self._executor.gas_recipient if succeeded else None
        coin = self._gas_coin(balance, recipient or transaction.gas_owner)
        if inputs.payment:
            changes = [*changes, Change(inputs.payment[0], coin, "none")]
            changes.extend(Change(merged, None, "deleted") for merged in inputs.payment[1:])
        used = [*inputs.objects.values(), *inputs.receiving.values(), *inputs.payment]
        explained = None
        if failure is not None and failure.abort is not None:
            explained = clever.explain(failure.abort, self._code)
        return Executed(
            digest=self._digest,
            transaction=transaction,
            signatures=self._signatures,
            epoch=self._around.context.epoch,
            failure=failure,
            gas=bill,
            lamport=self._lamport,
            changes=tuple(changes),
            gas_object=self._gas_id if inputs.payment else None,
            read=tuple(
                item
                for object_id, item in inputs.objects.items()
                if item.owner.kind == "shared" and object_id not in inputs.mutable
            ),
            events=tuple(self._runtime.events) if succeeded else (),
            returns=tuple(self._arguments.returned),
            dependencies=tuple(sorted({item.previous for item in used})),
            clever=explained,
        )


def _with_fee(item: LedgerObject) -> LedgerObject:
    """The object with its storage fee tied up in it (the fee's own size is fixed)."""
    return replace(item, rebate=gas.storage_fee(len(item.encoded)))
