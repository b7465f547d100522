"""The checks a validator makes before it executes: do the inputs exist, at these versions, for this signer.

What is refused here costs nothing and leaves no trace.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from . import limits
from .encoding import hex_address
from .errors import Refused
from .gas import BASE_UNITS, REFERENCE_GAS_PRICE
from .objects import CLOCK_ID, SUI_COIN, LedgerObject
from .transaction import (
    MoveCall,
    ObjectRef,
    OwnedInput,
    Publish,
    PureInput,
    ReceivingInput,
    SharedInput,
    TransactionData,
    Upgrade,
)

Find = Callable[[bytes], LedgerObject | None]


@dataclass(frozen=True)
class Inputs:
    """What a transaction works on, as it was before.

    :ivar objects: owned, immutable and shared input objects by id.
    :ivar mutable: ids of those that get a new version whatever the transaction does.
    :ivar receiving: id and version of objects it may receive.
    :ivar payment: gas coins, the one that stays first.
    """

    objects: dict[bytes, LedgerObject] = field(default_factory=dict)
    mutable: frozenset[bytes] = frozenset()
    receiving: dict[bytes, LedgerObject] = field(default_factory=dict)
    payment: tuple[LedgerObject, ...] = ()


def load(
    transaction: TransactionData, find: Find, *, epoch: int, chain: bytes, checks: bool = True
) -> Inputs:
    """Loads and checks the inputs.

    :param chain: digest this chain is known by.
    :param checks: False leaves out ownership and gas rules, for simulations that ask for it.
    :raises Refused: the first rule that is broken.
    """
    limits.check_shape(transaction)
    _check_expiration(transaction, epoch, chain)
    _check_packages(transaction, find)
    objects: dict[bytes, LedgerObject] = {}
    receiving: dict[bytes, LedgerObject] = {}
    mutable: set[bytes] = set()
    for item in transaction.inputs:
        match item:
            case PureInput():
                continue
            case OwnedInput():
                found = _owned(item.ref, find, transaction.sender, checks)
                if found.owner.kind != "immutable":
                    mutable.add(found.object_id)
            case SharedInput():
                found = _shared(item, find)
                if item.mutable:
                    mutable.add(found.object_id)
            case ReceivingInput():
                found = _at_version(item.ref, find)
                receiving[found.object_id] = found
                continue
        if found.object_id in objects:
            raise Refused(
                f"Object {hex_address(found.object_id)} cannot appear more than once in one transaction"
            )
        objects[found.object_id] = found
    payment = _payment(transaction, find, objects, checks)
    return Inputs(objects, frozenset(mutable), receiving, payment)


def _check_expiration(transaction: TransactionData, epoch: int, chain: bytes) -> None:
    first, last = transaction.starts_at, transaction.expires_after
    if (last is not None and epoch > last) or (first is not None and epoch < first):
        raise Refused(f"Transaction Expired: valid in epochs {first or 0} to {last}, now is epoch {epoch}")
    if transaction.chain is not None and transaction.chain != chain:
        raise Refused("Invalid chain id: the transaction was made for another network")


def _check_packages(transaction: TransactionData, find: Find) -> None:
    wanted: set[bytes] = set()
    for command in transaction.commands:
        match command:
            case MoveCall():
                wanted.add(command.package)
            case Publish():
                wanted.update(command.dependencies)
            case Upgrade():
                wanted.update((*command.dependencies, command.package))
    for package in sorted(wanted):
        found = find(package)
        if found is None:
            raise Refused(f"Dependent package not found on-chain: {hex_address(package)}")
        if found.package is None:
            raise Refused(
                f"A move package is expected, instead a move object is passed: {hex_address(package)}"
            )


def _existing(object_id: bytes, find: Find) -> LedgerObject:
    found = find(object_id)
    if found is None:
        raise Refused(f"Could not find the referenced object {hex_address(object_id)}")
    if found.package is not None:
        raise Refused(
            f"A move object is expected, instead a move package is passed: {hex_address(object_id)}"
        )
    if found.owner.kind == "object":
        raise Refused(
            f"A transaction input {hex_address(object_id)} is owned by object "
            f"{hex_address(found.owner.address)}: child objects can't be inputs"
        )
    return found


def _at_version(ref: ObjectRef, find: Find) -> LedgerObject:
    found = _existing(ref.object_id, find)
    # Version 0 stands for the current one in simulations of unresolved transactions; no object ever has it.
    if ref.version and found.version != ref.version:
        raise Refused(
            f"Transaction needs to be rebuilt because object {hex_address(ref.object_id)} "
            f"version {ref.version} is unavailable for consumption, current version: {found.version}"
        )
    if ref.digest and found.digest != ref.digest:
        raise Refused(
            f"Invalid Object digest for object {hex_address(ref.object_id)}: it differs from the ledger's"
        )
    return found


def _owned(ref: ObjectRef, find: Find, sender: bytes, checks: bool) -> LedgerObject:
    found = _at_version(ref, find)
    if found.owner.kind == "shared":
        raise Refused(f"Object {hex_address(ref.object_id)} is shared, but was given as owned")
    if checks and found.owner.kind == "address" and found.owner.address != sender:
        raise Refused(
            f"Transaction was not signed by the correct sender: Object {hex_address(ref.object_id)} is "
            f"owned by account address {hex_address(found.owner.address)}, but given owner/signer address is "
            f"{hex_address(sender)}"
        )
    return found


def _shared(item: SharedInput, find: Find) -> LedgerObject:
    found = _existing(item.object_id, find)
    if found.owner.kind != "shared":
        raise Refused(f"Object used as shared is not shared: {hex_address(item.object_id)}")
    if item.initial_version and found.owner.version != item.initial_version:
        raise Refused(
            f"The shared object {hex_address(item.object_id)} became shared at version "
            f"{found.owner.version}, not at {item.initial_version}"
        )
    if item.object_id == CLOCK_ID and item.mutable:
        raise Refused(
            "Immutable parameter expected, mutable parameter found: the clock can't be taken mutably"
        )
    return found


def _payment(
    transaction: TransactionData, find: Find, objects: dict[bytes, LedgerObject], checks: bool
) -> tuple[LedgerObject, ...]:
    price, budget = transaction.price, transaction.budget
    if price < REFERENCE_GAS_PRICE:
        raise Refused(f"Gas price {price} under reference gas price (RGP) {REFERENCE_GAS_PRICE}")
    if price > limits.MAX_GAS_PRICE:
        raise Refused(f"Gas price {price} exceeds the maximum of {limits.MAX_GAS_PRICE}")
    if budget > limits.MAX_GAS_BUDGET:
        raise Refused(f"Gas budget: {budget} is higher than max: {limits.MAX_GAS_BUDGET}")
    if budget < BASE_UNITS * price:
        raise Refused(f"Gas budget: {budget} is lower than min: {BASE_UNITS * price}")
    coins: list[LedgerObject] = []
    for ref in transaction.payment:
        coin = _owned(ref, find, transaction.gas_owner, checks)
        identifier = hex_address(ref.object_id)
        if coin.owner.kind != "address":
            raise Refused(f"Gas object {identifier} is not an owned object with owner: {coin.owner.kind}")
        if coin.type != SUI_COIN:
            raise Refused(f"Gas object {identifier} is not a SUI coin")
        if ref.object_id in objects or any(coin.object_id == other.object_id for other in coins):
            raise Refused(f"Mutable object {identifier} cannot appear more than once in one transaction")
        coins.append(coin)
    balance = sum(coin.coin_value for coin in coins)
    if coins and balance < budget:
        raise Refused(f"Balance of gas object {balance} is lower than the needed amount: {budget}")
    return tuple(coins)
