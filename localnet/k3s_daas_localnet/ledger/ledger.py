"""The chain: live objects, transactions one after the other, checkpoints.

Every transaction gets a checkpoint of its own at once, so an answered transaction is a readable one. All
methods are synchronous and run on one thread: a transaction takes milliseconds.
"""

from __future__ import annotations

import secrets
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace

from k3s_daas.attestation import Root

from ..vm import CodeStore
from . import gas, genesis, inputs, limits, outcome, packages, signatures, wire
from .clock import Clock
from .effects import Executed
from .encoding import ZERO_ADDRESS, blake2b, hex_address, u64
from .errors import NotFound, Refused
from .inputs import Inputs
from .objects import CLOCK_ID, SUI_COIN, LedgerObject
from .runtime import Context
from .store import Checkpoint, Snapshot, Store
from .transaction import (
    GAS,
    Argument,
    ObjectRef,
    OwnedInput,
    Publish,
    PureInput,
    SplitCoins,
    TransactionData,
    TransferObjects,
    Upgrade,
)

DEFAULT_EPOCH_MS = 24 * 60 * 60 * 1000
_GENESIS_SEED = "genesis_seed"
_MAX_SNAPSHOT_NAME = 100
# What pysui and other clients put on top of a simulated cost, in computation units.
_BUDGET_OVERHEAD_UNITS = 1000

Encode = Callable[[Executed, Checkpoint], bytes]
# Told of every new checkpoint, and with None that the chain was taken back: then it is over.
Listener = Callable[[Checkpoint | None], None]


class Ledger:
    """A chain over a store.

    :param encode: makes the stored record of a transaction.
    :param epoch_ms: length of an epoch in ms.
    :param simulated_nitro_root: emulator whose attestation documents contracts accept beside AWS's.
    """

    def __init__(
        self,
        store: Store,
        clock: Clock,
        encode: Encode,
        *,
        epoch_ms: int = DEFAULT_EPOCH_MS,
        simulated_nitro_root: Root | None = None,
    ) -> None:
        if epoch_ms <= 0:
            raise ValueError(f"an epoch lasts at least 1 ms, found {epoch_ms}")
        self.clock = clock
        self.code = CodeStore.with_framework()
        self.listeners: list[Listener] = []
        self._store = store
        self._encode = encode
        self._epoch_ms = epoch_ms
        self._simulated_nitro_root = simulated_nitro_root
        self._objects: dict[bytes, LedgerObject] = {}
        self._by_owner: defaultdict[bytes, dict[bytes, None]] = defaultdict(dict)
        if store.fresh:
            self._begin()
        else:
            self._resume()
            self._load_code()
        first = store.checkpoint(0)
        assert first is not None
        self.chain = first.digest
        self._genesis_ms = first.timestamp_ms

    def _begin(self) -> None:
        seed = secrets.token_bytes(32)
        self._store.set_meta(_GENESIS_SEED, seed)
        now = self.clock.now_ms()
        digest = blake2b(b"Genesis::" + seed + u64(now))
        self._tip = Checkpoint(0, digest, ZERO_ADDRESS, 0, now, 0, ())
        found = genesis.objects(now)
        self._store.commit(self._tip, [], found, [])
        self._place(found)

    def _resume(self) -> None:
        tip = self._store.latest_checkpoint()
        assert tip is not None
        self._tip = tip
        self.clock.not_before(tip.timestamp_ms)
        self._objects.clear()
        self._by_owner.clear()
        self._place(self._store.live_objects())

    def _load_code(self) -> None:
        """Gives the published packages' modules to the code."""
        framework = {module.address for module in self.code.modules()}
        for item in self._objects.values():
            if item.package is not None and item.object_id not in framework:
                packages.load(self.code, item, self.find)

    # --- reading

    @property
    def tip(self) -> Checkpoint:
        """The newest checkpoint."""
        return self._tip

    def epoch_at(self, ms: int) -> int:
        return max(0, ms - self._genesis_ms) // self._epoch_ms

    def epoch_start_ms(self, epoch: int) -> int:
        return self._genesis_ms + epoch * self._epoch_ms

    def find(self, object_id: bytes) -> LedgerObject | None:
        """The live version of an object or package."""
        return self._objects.get(object_id)

    def object(self, object_id: bytes, version: int | None = None) -> LedgerObject:
        """An object, now or at a past version.

        :raises NotFound: it does not exist, or not at that version.
        """
        found = self._objects.get(object_id)
        if version is None:
            if found is None:
                raise NotFound(f"Object {hex_address(object_id)} not found")
            return found
        if found is None or found.version != version:
            found = self._store.object_at(object_id, version)
        if found is None:
            raise NotFound(f"Object {hex_address(object_id)} not found at version {version}")
        return found

    def package_versions(self, original_id: bytes) -> list[LedgerObject]:
        """All versions of a package, oldest first."""
        found = [
            item
            for item in self._objects.values()
            if item.package is not None and item.package.original_id == original_id
        ]
        return sorted(found, key=lambda item: item.version)

    def owned_by(self, owner: bytes, kind: str = "address") -> Iterator[LedgerObject]:
        """Objects of an address, or with ``kind`` object the dynamic fields of an object; ordered by id."""
        for object_id in sorted(self._by_owner.get(owner, ())):
            found = self._objects[object_id]
            if found.owner.kind == kind:
                yield found

    def all_objects(self) -> Iterator[LedgerObject]:
        return iter(self._objects.values())

    def record(self, digest: bytes) -> bytes | None:
        """The stored record of a transaction."""
        found = self._store.record(digest)
        return None if found is None else found[1]

    def history(self, first: int, last: int, descending: bool, limit: int) -> list[tuple[int, int, bytes]]:
        """Transactions of checkpoints ``first`` to ``last``: checkpoint, position in it and record."""
        return self._store.history(first, last, descending, limit)

    def checkpoint(self, sequence: int | None = None, digest: bytes | None = None) -> Checkpoint:
        """A checkpoint by number or digest; without either the newest.

        :raises NotFound: there is no such checkpoint.
        """
        if digest is not None:
            found = self._store.checkpoint_by_digest(digest)
        elif sequence is None or sequence == self._tip.sequence:
            return self._tip
        else:
            found = self._store.checkpoint(sequence)
        if found is None:
            raise NotFound(
                f"Checkpoint {sequence if digest is None else 'with that digest'} not found; "
                f"the newest is {self._tip.sequence}"
            )
        return found

    # --- executing

    def execute(self, transaction: TransactionData, user_signatures: Sequence[bytes]) -> bytes:
        """Executes a signed transaction and gives its record. The same transaction again gives the same.

        :raises Refused: it is invalid; nothing was executed or charged.
        """
        signatures.check(
            user_signatures, transaction.signing_digest, transaction.sender, transaction.gas_owner
        )
        digest = transaction.digest
        known = self.record(digest)
        if known is not None:
            return known
        if not transaction.payment:
            raise Refused("Gas payment is empty: give at least one SUI coin")
        return self._execute(transaction, tuple(user_signatures))

    def _execute(self, transaction: TransactionData, user_signatures: tuple[bytes, ...]) -> bytes:
        now = self._tick()
        loaded = self._load(transaction, now, checks=True)
        code = self._code_for(transaction)
        outcome_ = self._run(transaction, user_signatures, loaded, code, now)
        record = self._commit(outcome_, now)
        if code is not self.code and outcome_.failure is None:
            code.commit()
        return record

    def simulate(
        self, transaction: TransactionData, *, checks: bool = True, select_gas: bool = False
    ) -> Executed:
        """Executes a transaction and forgets it.

        :param checks: False leaves out ownership and gas rules.
        :param select_gas: pays with the gas owner's coins where the transaction names none, as when it is
            executed; without it nobody pays.
        :raises Refused: it is invalid.
        """
        now = self._tick()
        estimate = transaction.budget == 0
        if estimate:
            transaction = wire.encode(replace(transaction, budget=limits.MAX_GAS_BUDGET))
        found = self._simulate_once(transaction, now, checks)
        if not select_gas or transaction.payment or found.failure is not None:
            return found
        if estimate:
            cost = found.gas.computation + found.gas.storage
            budget = min(cost + _BUDGET_OVERHEAD_UNITS * transaction.price, limits.MAX_GAS_BUDGET)
            transaction = replace(transaction, budget=budget)
        payment = self._select_gas(transaction)
        return self._simulate_once(wire.encode(replace(transaction, payment=payment)), now, checks)

    def _simulate_once(self, transaction: TransactionData, now: int, checks: bool) -> Executed:
        loaded = self._load(transaction, now, checks=checks)
        return self._run(transaction, (), loaded, self._code_for(transaction), now, keep_returns=True)

    def _select_gas(self, transaction: TransactionData) -> tuple[ObjectRef, ...]:
        used = {item.ref.object_id for item in transaction.inputs if isinstance(item, OwnedInput)}
        coins = [
            item
            for item in self.owned_by(transaction.gas_owner)
            if item.type == SUI_COIN and item.object_id not in used
        ]
        coins.sort(key=lambda coin: coin.coin_value, reverse=True)
        coins = coins[: limits.MAX_GAS_OBJECTS]
        balance = sum(coin.coin_value for coin in coins)
        if balance < transaction.budget:
            raise Refused(
                "Unable to perform gas selection due to insufficient SUI balance for account "
                f"{hex_address(transaction.gas_owner)}: found {balance} MIST, "
                f"wanted the budget of {transaction.budget} MIST"
            )
        return tuple(ObjectRef(coin.object_id, coin.version, coin.digest) for coin in coins)

    def _load(self, transaction: TransactionData, now: int, *, checks: bool) -> Inputs:
        epoch = self.epoch_at(now)
        return inputs.load(transaction, self.find, epoch=epoch, chain=self.chain, checks=checks)

    def _code_for(self, transaction: TransactionData) -> CodeStore:
        # Only a publish can leave code behind; all others share the caches of the ledger's own store.
        publishes = any(isinstance(command, Publish | Upgrade) for command in transaction.commands)
        return self.code.fork() if publishes else self.code

    def _run(
        self,
        transaction: TransactionData,
        user_signatures: tuple[bytes, ...],
        loaded: Inputs,
        code: CodeStore,
        now: int,
        *,
        keep_returns: bool = False,
    ) -> Executed:
        epoch = self.epoch_at(now)
        sponsored = transaction.gas_owner != transaction.sender
        context = Context(
            digest=transaction.digest,
            sender=transaction.sender,
            sponsor=transaction.gas_owner if sponsored else None,
            epoch=epoch,
            epoch_timestamp_ms=self.epoch_start_ms(epoch),
            gas_price=transaction.price,
            gas_budget=transaction.budget,
            simulated_nitro_root=self._simulated_nitro_root,
        )
        around = outcome.Surroundings(code, self.find, context, keep_returns)
        return outcome.execute(transaction, user_signatures, loaded, around)

    # --- writing

    def _tick(self) -> int:
        """Sets the clock object to now; all of one transaction sees the same time."""
        now = self.clock.now_ms()
        self._objects[CLOCK_ID] = genesis.clock(now)
        return now

    def _commit(self, executed: Executed, now: int) -> bytes:
        checkpoint = self._next_checkpoint((executed.digest,), now)
        record = self._encode(executed, checkpoint)
        self._store.commit(checkpoint, [(executed.digest, record)], executed.written, executed.removed)
        for object_id in executed.removed:
            self._forget(object_id)
        self._place(executed.written)
        self._announce(checkpoint)
        return record

    def seal_empty_checkpoint(self) -> None:
        """A checkpoint without transactions: it tells followers that the chain is alive."""
        checkpoint = self._next_checkpoint((), self._tick())
        self._store.commit(checkpoint, [], [], [])
        self._announce(checkpoint)

    def _next_checkpoint(self, transactions: tuple[bytes, ...], now: int) -> Checkpoint:
        last = self._tip
        sequence, total = last.sequence + 1, last.total + len(transactions)
        body = u64(sequence) + last.digest + u64(now) + b"".join(transactions)
        digest = blake2b(b"CheckpointSummary::" + body)
        return Checkpoint(sequence, digest, last.digest, self.epoch_at(now), now, total, transactions)

    def _announce(self, checkpoint: Checkpoint) -> None:
        self._tip = checkpoint
        for listener in list(self.listeners):
            listener(checkpoint)

    def _place(self, items: Iterable[LedgerObject]) -> None:
        for item in items:
            self._forget(item.object_id)
            self._objects[item.object_id] = item
            if item.owner.address:
                self._by_owner[item.owner.address][item.object_id] = None

    def _forget(self, object_id: bytes) -> None:
        before = self._objects.pop(object_id, None)
        if before is None or not before.owner.address:
            return
        siblings = self._by_owner[before.owner.address]
        siblings.pop(object_id, None)
        if not siblings:
            del self._by_owner[before.owner.address]

    # --- snapshots

    def snapshots(self) -> list[Snapshot]:
        """The states that can be restored, the oldest first."""
        return self._store.snapshots()

    def save(self, name: str) -> Snapshot:
        """Names the state of now, and of the clock. It costs nothing: all versions are kept anyway.

        :raises ValueError: the name is empty or longer than 100 characters.
        """
        if not 0 < len(name) <= _MAX_SNAPSHOT_NAME:
            raise ValueError(f"a snapshot's name has 1 to {_MAX_SNAPSHOT_NAME} characters, found {name!r}")
        snapshot = Snapshot(name, self._tip.sequence, self.clock.ahead_ms)
        self._store.save_snapshot(snapshot)
        return snapshot

    def delete_snapshot(self, name: str) -> None:
        """:raises NotFound: there is no such snapshot."""
        self._store.delete_snapshot(self._snapshot(name).name)

    def restore(self, name: str) -> Snapshot:
        """Takes objects, history and clock back to a snapshot, and ends all streams.

        What came after it never happened: later snapshots are forgotten, this one stays.

        :raises NotFound: there is no such snapshot.
        """
        snapshot = self._snapshot(name)
        before = self._package_ids()
        self._store.roll_back(snapshot.checkpoint)
        self.clock.reset(snapshot.clock_ms)
        for listener in list(self.listeners):
            listener(None)
        self._resume()
        if self._package_ids() != before:
            self.code = CodeStore.with_framework()
            self._load_code()
        return snapshot

    def _package_ids(self) -> set[bytes]:
        return {object_id for object_id, item in self._objects.items() if item.package is not None}

    def _snapshot(self, name: str) -> Snapshot:
        found = {snapshot.name: snapshot for snapshot in self.snapshots()}
        if name not in found:
            raise NotFound(f"There is no snapshot {name!r}; there are: {', '.join(sorted(found)) or 'none'}")
        return found[name]

    # --- faucet

    def faucet(self, recipient: bytes, mist: int) -> tuple[LedgerObject, bytes]:
        """Sends a new coin of ``mist`` MIST; gives it and the digest of the transaction that did.

        :raises Refused: the amount is not positive, or more than the faucet has.
        """
        if mist <= 0:
            raise Refused(f"The faucet sends at least 1 MIST, found {mist}")
        coin = next(item for item in self.owned_by(genesis.FAUCET) if item.type == SUI_COIN)
        transaction = wire.encode(
            TransactionData(
                inputs=(PureInput(u64(mist)), PureInput(recipient)),
                commands=(
                    SplitCoins(GAS, (Argument("input", 0),)),
                    TransferObjects((Argument("nested", 0, 0),), Argument("input", 1)),
                ),
                sender=genesis.FAUCET,
                payment=(ObjectRef(coin.object_id, coin.version, coin.digest),),
                gas_owner=genesis.FAUCET,
                price=gas.REFERENCE_GAS_PRICE,
                budget=10**9,
            )
        )
        before = {item.object_id for item in self.owned_by(recipient)}
        self._execute(transaction, ())
        created = [
            item
            for item in self.owned_by(recipient)
            if item.object_id not in before and item.previous == transaction.digest
        ]
        if not created:
            raise Refused(f"The faucet has {coin.coin_value} MIST left, {mist} were asked for")
        return created[0], transaction.digest
