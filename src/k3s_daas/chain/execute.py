"""Simulating, paying for and sending transactions.

Simulated first, always: an aborting transaction that is sent burns its gas. A lost answer is looked up by
the digest, which is known before sending, and the same signed bytes may be sent again: executing twice is
impossible, so paying twice is too.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from typing import Any

from k3s_daas.chain import answers, bcs
from k3s_daas.chain.errors import (
    ChainUnreachable,
    InsufficientGas,
    InvalidKey,
    OutcomeUnknown,
    RpcFailed,
    TransactionFailed,
)
from k3s_daas.chain.keys import Key
from k3s_daas.chain.messages import rpc
from k3s_daas.chain.model import Preview, Receipt, Unsigned
from k3s_daas.chain.transaction import Build, ObjectInput, Transaction
from k3s_daas.chain.transport import Link, NotFound, Transport, mask
from k3s_daas.chain.txbytes import Gas, ObjectRef, transaction_bytes, transaction_digest

SUI_COIN = "0x2::coin::Coin<0x2::sui::SUI>"
#: The network's largest gas budget (50 SUI), for simulations: the coin is lent there.
_MAX_BUDGET = 50_000_000_000
#: Sui's own clients add this many units of computation to what a simulation used.
_OVERHEAD_UNITS = 1_000
#: Protocol limits: coins in a payment, arguments of one command.
_MAX_PAYMENT = 256
_MAX_MERGE = 511
#: How many objects one BatchGetObjects asks for; public nodes limit the answer's size.
BATCH = 50
#: google.rpc.Code of an object that isn't there, in the answers to a batch.
_NOT_FOUND = 5
#: Words of nodes that refuse because an object moved on or is in use by another transaction.
_STALE = ("not available for consumption", "unavailable for consumption", "locked", "stale", "version")
_ATTEMPTS = 4


class Executor:
    """Sends one transaction after another for one key: two at once would fight over its gas coins."""

    def __init__(self, transport: Transport, key: Key | None, wait_s: float) -> None:
        self._transport = transport
        self._key = key
        self._wait_s = wait_s
        self._lock = asyncio.Lock()

    async def simulate(self, build: Build) -> Preview:
        """What `build` would do and cost. Raises what execute would, but nothing is sent."""
        tx = await self._written(build)
        refs, gas, merge = await self._funded(tx)
        # Once more with the coins that would pay: joining them frees storage, and the operator is shown this.
        preview, _ = await self._simulate(tx, refs, gas, merge)
        return preview

    async def unsigned(self, build: Build, sender: str) -> Unsigned:
        """`build` as `sender` would have to sign it. Needs no key; raises what execute would."""
        tx = Transaction(bcs.normalize_address(sender))
        await build(tx)
        refs, gas, merge = await self._funded(tx)
        encoded = transaction_bytes(tx, refs, gas, merge)
        return Unsigned(tx.sender, encoded, transaction_digest(encoded), gas.budget)

    async def execute(self, build: Build) -> Receipt:
        async with self._lock:
            for attempt in range(_ATTEMPTS):
                try:
                    return await self._execute(await self._written(build))
                except TransactionFailed as error:
                    # Refused before execution because an object moved on: write it anew from what is there.
                    stale = error.digest is None and any(word in error.reason.lower() for word in _STALE)
                    if not stale or attempt == _ATTEMPTS - 1:
                        raise
                    await asyncio.sleep(0.1 * 2**attempt)
        raise AssertionError("unreachable")

    async def _written(self, build: Build) -> Transaction:
        if self._key is None:
            raise InvalidKey("A transaction needs a wallet key and none was given. Set the key file.")
        tx = Transaction(self._key.address)
        await build(tx)
        return tx

    async def _execute(self, tx: Transaction) -> Receipt:
        assert self._key is not None
        refs, gas, merge = await self._funded(tx)
        encoded = transaction_bytes(tx, refs, gas, merge)
        digest = transaction_digest(encoded)
        done = await self._submit(encoded, self._key.sign_transaction(encoded), digest)
        # Waited for also when it failed: the gas coin's new version has to be readable for what comes next.
        checkpoint = await self._settled(digest)
        if (error := answers.failure(done.effects, digest)) is not None:
            raise error
        created: dict[str, list[str]] = {}
        for change in done.effects.changed_objects:
            if change.id_operation == rpc.ChangedObjectIdOperation.CREATED:
                created.setdefault(change.object_type or "", []).append(change.object_id)
        events = answers.to_events(digest, done.events)
        return Receipt(digest, checkpoint, answers.net_gas(done.effects), events, created)

    # -- preparing -----------------------------------------------------------------------------------------

    async def _funded(self, tx: Transaction) -> tuple[dict[str, ObjectRef], Gas, list[ObjectRef]]:
        """The objects of `tx`, what pays for it, and the coins to merge first. It was simulated then."""
        refs, price = await self._resolve(tx), await self.gas_price()
        _, budget = await self._simulate(tx, refs, Gas(price, _MAX_BUDGET))
        payment, merge, budget = self._choose(await self._coins(tx), budget, price, tx)
        return refs, Gas(price, budget, payment), merge

    async def _resolve(self, tx: Transaction) -> dict[str, ObjectRef]:
        ids = [item.id for item in tx.inputs if isinstance(item, ObjectInput)]
        found = await batch_get(self._transport, ids, "object_id", "version", "digest", "owner")
        return {i: answers.to_reference(o) for i, o in zip(ids, found, strict=True) if o is not None}

    async def gas_price(self) -> int:
        """The network's reference gas price of this epoch, in MIST a unit."""
        request = rpc.GetEpochRequest(read_mask=mask("reference_gas_price"))
        answer = await self._transport.call("GetEpoch", lambda link: link.ledger.get_epoch, request)
        return int(answer.epoch.reference_gas_price)

    async def _simulate(
        self, tx: Transaction, refs: dict[str, ObjectRef], gas: Gas, merge: Sequence[ObjectRef] = ()
    ) -> tuple[Preview, int]:
        """What happens, and a gas budget in MIST that covers it."""
        encoded = transaction_bytes(tx, refs, gas, merge)
        request = rpc.SimulateTransactionRequest(
            transaction=rpc.Transaction(bcs=rpc.Bcs(name="TransactionData", value=encoded)),
            read_mask=mask("transaction.effects", "transaction.events"),
        )
        try:
            answer = await self._transport.call(
                "SimulateTransaction", lambda link: link.execution.simulate_transaction, request
            )
        except (RpcFailed, NotFound) as error:
            detail = error.detail if isinstance(error, RpcFailed) else str(error)
            raise TransactionFailed(None, detail) from None
        done = answer.transaction
        if (error_found := answers.failure(done.effects, None)) is not None:
            raise error_found
        used = done.effects.gas_used
        overhead = _OVERHEAD_UNITS * gas.price
        budget = (used.computation_cost or 0) + (used.storage_cost or 0) + overhead
        return Preview(answers.net_gas(done.effects), answers.to_events("", done.events)), budget

    async def _coins(self, tx: Transaction) -> list[tuple[int, ObjectRef]]:
        """The sender's SUI coins that the transaction doesn't use otherwise, largest first."""
        used = {item.id for item in tx.inputs if isinstance(item, ObjectInput)}
        coins = [
            (coin.balance or 0, answers.to_reference(coin))
            async for coin in owned(
                self._transport, tx.sender, SUI_COIN, "object_id", "version", "digest", "owner", "balance"
            )
            if coin.object_id not in used
        ]
        return sorted(coins, key=lambda coin: (-coin[0], coin[1].id))

    def _choose(
        self, coins: Sequence[tuple[int, ObjectRef]], budget: int, price: int, tx: Transaction
    ) -> tuple[list[ObjectRef], list[ObjectRef], int]:
        """Coins that pay, coins merged into them first, and the budget; InsufficientGas when too few."""
        count = self._enough(coins, budget + tx.drawn_mist, tx.sender)
        if count > _MAX_PAYMENT:
            # Many small coins. The simulation knew nothing of them, so they get room of their own.
            budget += 10 * _OVERHEAD_UNITS * price
            count = self._enough(coins, budget + tx.drawn_mist, tx.sender)
        payment = [ref for _, ref in coins[: min(count, _MAX_PAYMENT)]]
        merge = [ref for _, ref in coins[_MAX_PAYMENT:count]]
        if len(merge) > _MAX_MERGE or sum(balance for balance, _ in coins[:_MAX_PAYMENT]) < budget:
            raise TransactionFailed(
                None,
                f"address {tx.sender} has enough SUI, but in {len(coins)} small coins, and one "
                f"transaction takes {_MAX_PAYMENT + _MAX_MERGE}. Merge some (sui client merge-coin).",
            )
        return payment, merge, budget

    @staticmethod
    def _enough(coins: Sequence[tuple[int, ObjectRef]], needed: int, sender: str) -> int:
        """How many of the coins, largest first, hold `needed` MIST; InsufficientGas when all don't."""
        reached = 0
        for count, (balance, _) in enumerate(coins, 1):
            reached += balance
            if reached >= needed:
                return count
        raise InsufficientGas(reached, needed, sender)

    # -- sending -------------------------------------------------------------------------------------------

    async def _submit(self, encoded: bytes, signature: bytes, digest: str) -> Any:
        request = rpc.ExecuteTransactionRequest(
            transaction=rpc.Transaction(bcs=rpc.Bcs(name="TransactionData", value=encoded)),
            signatures=[rpc.UserSignature(bcs=rpc.Bcs(name="UserSignature", value=signature))],
            read_mask=mask("effects", "events", "checkpoint"),
        )
        tried: dict[str, str] = {}
        sent = lost = False

        def pick(link: Link) -> Any:
            nonlocal sent
            sent = True  # from here on it may have got through
            return link.execution.execute_transaction

        for attempt in range(2):
            for link in self._transport.rotation():
                try:
                    answer = await self._transport.once(link, "ExecuteTransaction", pick, request)
                except ChainUnreachable as error:
                    tried |= error.tried
                    lost = lost or sent
                except (RpcFailed, NotFound) as error:
                    detail = error.detail if isinstance(error, RpcFailed) else str(error)
                    if not lost:
                        raise TransactionFailed(None, detail) from None
                    # After a lost answer a refusal may only mean "done already".
                    tried[link.endpoint.url] = detail
                else:
                    self._transport.prefer(link)
                    return answer.transaction
                if (found := await self._look_up(digest)) is not None:
                    return found
            await asyncio.sleep(0.2 * (attempt + 1))
        raise OutcomeUnknown(digest, tried) if lost else ChainUnreachable(tried)

    async def _look_up(self, digest: str) -> Any | None:
        """The executed transaction when any endpoint knows it."""
        request = rpc.GetTransactionRequest(
            digest=digest, read_mask=mask("digest", "effects", "events", "checkpoint")
        )

        def pick(link: Link) -> Any:
            return link.ledger.get_transaction

        for link in self._transport.rotation():
            try:
                answer = await self._transport.once(link, "GetTransaction", pick, request)
            except (NotFound, ChainUnreachable, RpcFailed):
                continue
            if answer.transaction is not None and answer.transaction.effects is not None:
                self._transport.prefer(link)
                return answer.transaction
        return None

    async def _settled(self, digest: str) -> int:
        """Wait until the effects are in a checkpoint, so that every read from now on sees them."""
        deadline = time.monotonic() + self._wait_s
        pause = 0.01
        while True:
            found = await self._look_up(digest)
            if found is not None and found.checkpoint is not None:
                return int(found.checkpoint)
            if time.monotonic() > deadline:
                raise OutcomeUnknown(digest, {"checkpoint": f"in none after {self._wait_s:g} s"})
            await asyncio.sleep(pause)
            pause = min(pause * 2, 0.5)


async def batch_get(transport: Transport, ids: Sequence[str], *fields: str) -> list[Any | None]:
    """The node's objects of `ids`, None for those it has not."""
    found: list[Any | None] = []
    for start in range(0, len(ids), BATCH):
        chunk = ids[start : start + BATCH]
        request = rpc.BatchGetObjectsRequest(
            requests=[rpc.GetObjectRequest(object_id=i) for i in chunk], read_mask=mask(*fields)
        )
        answer = await transport.call("BatchGetObjects", lambda link: link.ledger.batch_get_objects, request)
        if len(answer.objects) != len(chunk):
            raise RpcFailed("BatchGetObjects", "DATA_LOSS", f"{len(answer.objects)} of {len(chunk)} answers")
        for wanted, result in zip(chunk, answer.objects, strict=True):
            # "There is none" is an answer to build on; that the node can't say is not.
            if result.object is None and result.error is not None and result.error.code != _NOT_FOUND:
                raise RpcFailed(
                    "BatchGetObjects", f"code {result.error.code}", f"{wanted}: {result.error.message}"
                )
            found.append(result.object)
    return found


async def owned(transport: Transport, owner: str, type_: str | None, *fields: str) -> Any:
    """All objects of `owner`, or those with type `type_`, page by page."""
    token = b""
    while True:
        request = rpc.ListOwnedObjectsRequest(
            owner=owner, object_type=type_, page_size=500, page_token=token or None, read_mask=mask(*fields)
        )
        page = await transport.call("ListOwnedObjects", lambda link: link.state.list_owned_objects, request)
        for found in page.objects:
            yield found
        token = page.next_page_token or b""
        if not token:
            return
