"""The unary calls of sui.rpc.v2, one method each, over the ledger.

A method takes the request message and gives the response message; it raises GRPCError for what a real full
node answers with a status.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable
from typing import TypeVar

from grpclib.const import Status
from grpclib.exceptions import GRPCError

from ..ledger import encoding, limits, signatures, wire
from ..ledger.encoding import base58, hex_address
from ..ledger.errors import NotFound, Refused
from ..ledger.gas import REFERENCE_GAS_PRICE
from ..ledger.ledger import Ledger
from ..ledger.objects import SUI, LedgerObject
from ..ledger.store import Checkpoint
from ..vm import ModuleId
from ..vm.bytecode import Module
from ..vm.types import StructType, Type, parse_type, struct, type_to_string
from ..vm.values import from_bcs
from . import packages, render, transactions
from .masks import Mask
from .protocol import Message, rpc, v2
from .records import Records

T = TypeVar("T")

SERVER = "k3s-daas-localnet"
CHECKPOINT_DEFAULT = ("sequence_number", "digest")
TRANSACTION_DEFAULT = ("digest",)
EVENT_DEFAULT = ("package_id", "module", "sender", "event_type", "contents", "json")
CHAIN_NAME = "localnet"
_DEFAULT_PAGE = 50
_MAX_PAGE = 1000
_MAX_BATCH = 1000
_SUI_DECIMALS = 9
# What is hashed before the message: the intent a wallet shows its owner.
_INTENTS = {"TransactionData": b"\x00\x00\x00", "PersonalMessage": b"\x03\x00\x00"}


def address(text: str | None) -> bytes:
    """An address out of a request.

    :raises GRPCError: INVALID_ARGUMENT.
    """
    try:
        return encoding.address(text or "")
    except ValueError as error:
        raise GRPCError(Status.INVALID_ARGUMENT, str(error)) from error


def _digest(text: str | None) -> bytes:
    try:
        return encoding.from_base58(text or "")
    except ValueError as error:
        raise GRPCError(Status.INVALID_ARGUMENT, f"invalid digest: {error}") from error


def _type(text: str | None) -> Type:
    try:
        return parse_type(text or "")
    except ValueError as error:
        raise GRPCError(Status.INVALID_ARGUMENT, f"invalid type: {error}") from error


def _batch(items: list[T]) -> list[T]:
    if len(items) > _MAX_BATCH:
        raise GRPCError(
            Status.INVALID_ARGUMENT, f"number of batch requests exceed limit of {_MAX_BATCH}: {len(items)}"
        )
    return items


class Services:
    """All implemented calls."""

    def __init__(self, ledger: Ledger, records: Records) -> None:
        self.ledger = ledger
        self._records = records

    # --- LedgerService

    def get_service_info(self, request: Message) -> Message:
        tip = self.ledger.tip
        return v2.GetServiceInfoResponse(
            chain_id=base58(self.ledger.chain),
            chain=CHAIN_NAME,
            epoch=tip.epoch,
            checkpoint_height=tip.sequence,
            timestamp=render.timestamp(tip.timestamp_ms),
            lowest_available_checkpoint=0,
            lowest_available_checkpoint_objects=0,
            server=SERVER,
        )

    def get_epoch(self, request: Message) -> Message:
        default = ["epoch", "first_checkpoint", "last_checkpoint", "start", "end", "reference_gas_price"]
        mask = Mask.of(request.read_mask, default, v2.Epoch)
        current = self.ledger.tip.epoch
        epoch = current if request.epoch is None else request.epoch
        if epoch > current:
            raise GRPCError(Status.NOT_FOUND, f"Epoch {epoch} not found; the current one is {current}")
        start = self.ledger.epoch_start_ms(epoch)
        message = v2.Epoch(
            epoch=epoch,
            first_checkpoint=0 if epoch == 0 else None,
            start=render.timestamp(start),
            end=render.timestamp(self.ledger.epoch_start_ms(epoch + 1)) if epoch < current else None,
            reference_gas_price=REFERENCE_GAS_PRICE,
            protocol_config=v2.ProtocolConfig(
                protocol_version=limits.PROTOCOL_VERSION,
                attributes={name: str(value) for name, value in limits.PROTOCOL_ATTRIBUTES.items()},
            ),
        )
        return v2.GetEpochResponse(epoch=mask.prune(message))

    def get_object(self, request: Message) -> Message:
        mask = self._object_mask(request.read_mask)
        found = self.ledger.object(address(request.object_id), request.version)
        return v2.GetObjectResponse(object=self._object(found, mask))

    def batch_get_objects(self, request: Message) -> Message:
        mask = self._object_mask(request.read_mask)

        def one(item: Message) -> Message:
            try:
                found = self.ledger.object(address(item.object_id), item.version)
            except NotFound as error:
                return v2.GetObjectResult(error=rpc.Status(code=Status.NOT_FOUND.value, message=str(error)))
            return v2.GetObjectResult(object=self._object(found, mask))

        return v2.BatchGetObjectsResponse(objects=[one(item) for item in _batch(request.requests)])

    def get_transaction(self, request: Message) -> Message:
        mask = Mask.of(request.read_mask, TRANSACTION_DEFAULT, v2.ExecutedTransaction)
        return v2.GetTransactionResponse(transaction=self.transaction(_digest(request.digest), mask))

    def batch_get_transactions(self, request: Message) -> Message:
        mask = Mask.of(request.read_mask, TRANSACTION_DEFAULT, v2.ExecutedTransaction)

        def one(digest: str) -> Message:
            try:
                return v2.GetTransactionResult(transaction=self.transaction(_digest(digest), mask))
            except GRPCError as error:
                return v2.GetTransactionResult(
                    error=rpc.Status(code=error.status.value, message=error.message or "")
                )

        found = [one(digest) for digest in _batch(request.digests)]
        return v2.BatchGetTransactionsResponse(transactions=found)

    def get_checkpoint(self, request: Message) -> Message:
        mask = Mask.of(request.read_mask, CHECKPOINT_DEFAULT, v2.Checkpoint)
        digest = _digest(request.digest) if request.digest is not None else None
        found = self.ledger.checkpoint(request.sequence_number, digest)
        return v2.GetCheckpointResponse(checkpoint=self.checkpoint(found, mask))

    # --- StateService

    def list_owned_objects(self, request: Message) -> Message:
        mask = self._object_mask(request.read_mask, ["object_id", "version", "object_type"])
        found = self.ledger.owned_by(address(request.owner))
        if request.object_type:
            wanted = _type(request.object_type)
            found = (item for item in found if _matches(item.type, wanted))
        page, token = _page(found, request, lambda item: item.object_id)
        return v2.ListOwnedObjectsResponse(
            objects=[self._object(item, mask) for item in page], next_page_token=token
        )

    def list_dynamic_fields(self, request: Message) -> Message:
        mask = Mask.of(request.read_mask, ["parent", "field_id"], v2.DynamicField)
        found = self.ledger.owned_by(address(request.parent), "object")
        page, token = _page(found, request, lambda item: item.object_id)
        return v2.ListDynamicFieldsResponse(
            dynamic_fields=[self._dynamic_field(request.parent, item, mask) for item in page],
            next_page_token=token,
        )

    def get_balance(self, request: Message) -> Message:
        coin = _type(request.coin_type or type_to_string(SUI))
        total = self._balances(address(request.owner)).get(coin, 0)
        return v2.GetBalanceResponse(balance=_balance(coin, total))

    def list_balances(self, request: Message) -> Message:
        balances = self._balances(address(request.owner))
        page, token = _page(
            sorted(balances.items(), key=lambda item: type_to_string(item[0])),
            request,
            lambda item: type_to_string(item[0]).encode(),
        )
        return v2.ListBalancesResponse(
            balances=[_balance(coin, total) for coin, total in page], next_page_token=token
        )

    def get_coin_info(self, request: Message) -> Message:
        coin = _type(request.coin_type)
        name = type_to_string(coin)
        if coin == SUI:
            metadata = v2.CoinMetadata(decimals=_SUI_DECIMALS, name="Sui", symbol="SUI", description="")
            return v2.GetCoinInfoResponse(coin_type=name, metadata=metadata)
        wanted = struct("0x2", "coin", "CoinMetadata", coin)
        for item in self.ledger.all_objects():
            if item.type == wanted:
                layout = self.ledger.code.layout(wanted)
                shown = layout.json(from_bcs(layout, item.contents))
                metadata = v2.CoinMetadata(
                    id=hex_address(item.object_id),
                    decimals=shown["decimals"],
                    name=shown["name"],
                    symbol=shown["symbol"],
                    description=shown["description"],
                    icon_url=shown["icon_url"],
                )
                return v2.GetCoinInfoResponse(coin_type=name, metadata=metadata)
        raise GRPCError(Status.NOT_FOUND, f"Coin type {name} not found")

    # --- MovePackageService

    def get_package(self, request: Message) -> Message:
        found = self._package(request.package_id)
        return v2.GetPackageResponse(package=packages.package(found, self.ledger.code))

    def get_function(self, request: Message) -> Message:
        module = self._module(request)
        if request.name not in module.functions:
            raise self._missing("Function", request)
        return v2.GetFunctionResponse(function=packages.function(module.functions[request.name]))

    def get_datatype(self, request: Message) -> Message:
        module = self._module(request)
        if module.datatype(request.name or "") is None:
            raise self._missing("Datatype", request)
        return v2.GetDatatypeResponse(datatype=packages.datatype(module, request.name))

    def list_package_versions(self, request: Message) -> Message:
        found = self._package(request.package_id)
        assert found.package is not None
        versions = self.ledger.package_versions(found.package.original_id)
        page, token = _page(versions, request, lambda item: item.version.to_bytes(8, "big"))
        shown = [
            v2.PackageVersion(package_id=hex_address(item.object_id), version=item.version) for item in page
        ]
        return v2.ListPackageVersionsResponse(versions=shown, next_page_token=token)

    # --- TransactionExecutionService

    def simulate_transaction(self, request: Message) -> Message:
        mask = Mask.of(request.read_mask, ["*"], v2.SimulateTransactionResponse)
        transaction = transactions.from_message(
            request.transaction, price=REFERENCE_GAS_PRICE, find=self.ledger.find, code=self.ledger.code
        )
        outcome = self.ledger.simulate(
            transaction,
            checks=request.checks != v2.SimulateTransactionRequestTransactionChecks.DISABLED,
            select_gas=bool(request.do_gas_selection),
        )
        executed = render.executed(outcome, None, self.ledger.clock.now_ms())
        wanted = mask.under("transaction")
        if "transaction" in mask and "objects" in wanted:
            below = wanted.under("objects").under("objects")
            code = self.ledger.code
            # Types that only this simulation published are unknown to the ledger's code.
            known = [item for item in outcome.written if item.type is None or code.datatype(item.type)]
            objects = [render.ledger_object(item, code, below) for item in known]
            executed.objects = v2.ObjectSet(objects=objects)
        response = v2.SimulateTransactionResponse(
            transaction=executed,
            command_outputs=[render.command_result(result) for result in outcome.returns],
            suggested_gas_price=REFERENCE_GAS_PRICE,
        )
        return mask.prune(response)

    def execute_transaction(self, request: Message) -> Message:
        mask = Mask.of(request.read_mask, ["effects"], v2.ExecutedTransaction)
        message = request.transaction
        if message is None or message.bcs is None or not message.bcs.value:
            raise GRPCError(Status.INVALID_ARGUMENT, "transaction.bcs is missing: send the signed bytes")
        transaction = wire.parse(message.bcs.value)
        record = self.ledger.execute(transaction, [_signature(item) for item in request.signatures])
        return v2.ExecuteTransactionResponse(transaction=self.masked(self._records.decode(record), mask))

    # --- SignatureVerificationService

    def verify_signature(self, request: Message) -> Message:
        message = request.message
        if message is None or message.name not in _INTENTS:
            raise GRPCError(
                Status.INVALID_ARGUMENT,
                f"message.name is one of {', '.join(_INTENTS)}: found {message and message.name!r}",
            )
        if request.signature is None:
            raise GRPCError(Status.INVALID_ARGUMENT, "the signature is missing")
        digest = encoding.blake2b(_INTENTS[message.name] + bytes(message.value or b""))
        try:
            signer = signatures.signer(_signature(request.signature), digest)
        except Refused as error:
            return v2.VerifySignatureResponse(is_valid=False, reason=str(error))
        if request.address is not None and signer != address(request.address):
            reason = f"the signature is by {hex_address(signer)}, not by {request.address}"
            return v2.VerifySignatureResponse(is_valid=False, reason=reason)
        return v2.VerifySignatureResponse(is_valid=True)

    # --- shared with lists and subscriptions

    def checkpoint(self, found: Checkpoint, mask: Mask) -> Message:
        """A ``Checkpoint`` with its transactions, where ``mask`` asks for them."""
        digest = base58(found.digest)
        message = v2.Checkpoint(sequence_number=found.sequence, digest=digest)
        if "summary" in mask:
            message.summary = v2.CheckpointSummary(
                digest=digest,
                epoch=found.epoch,
                sequence_number=found.sequence,
                total_network_transactions=found.total,
                previous_digest=base58(found.previous) if found.sequence else None,
                timestamp=render.timestamp(found.timestamp_ms),
            )
        if "contents" in mask:
            infos = [v2.CheckpointedTransactionInfo(transaction=base58(item)) for item in found.transactions]
            message.contents = v2.CheckpointContents(version=1, transactions=infos)
        if "transactions" in mask:
            below = mask.under("transactions")
            message.transactions = [self.transaction(item, below) for item in found.transactions]
        return mask.prune(message)

    def transaction(self, digest: bytes, mask: Mask) -> Message:
        """:raises GRPCError: NOT_FOUND."""
        return self.masked(self.executed(digest), mask)

    def executed(self, digest: bytes) -> Message:
        """An ``ExecutedTransaction`` with all but its object set.

        :raises GRPCError: NOT_FOUND.
        """
        record = self.ledger.record(digest)
        if record is None:
            raise GRPCError(Status.NOT_FOUND, f"Transaction {base58(digest)} not found")
        return self._records.decode(record)

    def masked(self, message: Message, mask: Mask) -> Message:
        """The parts of an ``executed`` transaction that ``mask`` asks for; prunes ``message`` itself."""
        if "objects" in mask:
            below = mask.under("objects").under("objects")
            message.objects = v2.ObjectSet(objects=self._object_set(message.effects.changed_objects, below))
        return mask.prune(message)

    @staticmethod
    def standalone(event: Message, transaction: Message) -> Message:
        """An event with the place it happened, which it doesn't carry inside of its transaction."""
        event.checkpoint = transaction.checkpoint
        event.transaction_digest = transaction.digest
        event.transaction_index = transaction.transaction_index or 0
        return event

    # --- helpers

    @staticmethod
    def _object_mask(requested: Message, default: Iterable[str] = ("object_id", "version", "digest")) -> Mask:
        return Mask.of(requested, default, v2.Object)

    def _object(self, item: LedgerObject, mask: Mask) -> Message:
        return render.ledger_object(item, self.ledger.code, mask)

    def _object_set(self, changes: list[Message], mask: Mask) -> list[Message]:
        """All versions a transaction read and wrote."""
        versions = [
            (address(change.object_id), version)
            for change in changes
            for version in (change.input_version, change.output_version)
            if version is not None
        ]
        return [self._object(self.ledger.object(*key), mask) for key in versions]

    def _dynamic_field(self, parent: str, item: LedgerObject, mask: Mask) -> Message:
        kinds = v2.DynamicFieldDynamicFieldKind
        message = v2.DynamicField(parent=parent, field_id=hex_address(item.object_id))
        if "field_object" in mask:
            message.field_object = self._object(item, mask.under("field_object"))
        field = render.split_field(item, self.ledger.code)
        if field is None:
            return mask.prune(message)
        message.kind = kinds.OBJECT if field.child is not None else kinds.FIELD
        message.name = v2.Bcs(name=type_to_string(field.name_type), value=field.name)
        message.value_type = type_to_string(field.value_type)
        message.value = v2.Bcs(name=message.value_type, value=field.value)
        if field.child is not None:
            message.child_id = hex_address(field.child)
            child = self.ledger.find(field.child)
            if child is not None:
                message.value_type = render.type_name(child)
                message.child_object = self._object(child, mask.under("child_object"))
        return mask.prune(message)

    def _balances(self, owner: bytes) -> dict[Type, int]:
        balances: defaultdict[Type, int] = defaultdict(int)
        for item in self.ledger.owned_by(owner):
            if item.coin_type is not None:
                balances[item.coin_type] += item.coin_value
        return dict(balances)

    def _package(self, package_id: str | None) -> LedgerObject:
        found = self.ledger.object(address(package_id))
        if found.package is None:
            raise GRPCError(Status.NOT_FOUND, f"Object {package_id} is not a package")
        return found

    def _module(self, request: Message) -> Module:
        package_id = self._package(request.package_id).object_id
        found = self.ledger.code.module(ModuleId(package_id, request.module_name or ""))
        if found is None:
            raise GRPCError(Status.NOT_FOUND, f"Module {request.package_id}::{request.module_name} not found")
        return found

    @staticmethod
    def _missing(what: str, request: Message) -> GRPCError:
        name = f"{request.package_id}::{request.module_name}::{request.name}"
        return GRPCError(Status.NOT_FOUND, f"{what} {name} not found")


def _signature(message: Message) -> bytes:
    if message.bcs is not None and message.bcs.value:
        return bytes(message.bcs.value)
    if (simple := message.simple) is not None and simple.scheme is not None:
        return bytes([simple.scheme.value]) + (simple.signature or b"") + (simple.public_key or b"")
    raise GRPCError(Status.INVALID_ARGUMENT, "a signature holds neither bytes nor a simple signature")


def _balance(coin: Type, total: int) -> Message:
    return v2.Balance(coin_type=type_to_string(coin), balance=total, coin_balance=total, address_balance=0)


def _matches(found: StructType | None, wanted: Type) -> bool:
    """A filter without type arguments means every instance of the type."""
    if found is None or not isinstance(wanted, StructType):
        return False
    return found == wanted or (not wanted.args and found[:3] == wanted[:3])


def _page(items: Iterable[T], request: Message, key: Callable[[T], bytes]) -> tuple[list[T], bytes | None]:
    """One page of items that are ordered by ``key``; the token is the key of the last one given."""
    size = request.page_size or _DEFAULT_PAGE
    after = bytes(request.page_token) if request.page_token else b""
    rest = [item for item in items if key(item) > after]
    page = rest[: min(size, _MAX_PAGE)]
    return page, key(page[-1]) if len(rest) > len(page) else None
