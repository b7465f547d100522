"""An unmodified pysui client, and transactions made by hand where its builder would not make bad ones."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from typing import Any
from urllib.parse import urlparse

import pysui.sui.sui_common.sui_commands as cmd
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from grpclib.client import Channel
from grpclib.const import Status
from pysui import PysuiConfiguration, client_factory
from pysui.sui.sui_bcs import bcs
from pysui.sui.sui_common.config.confgroup import GroupProtocol, Profile, ProfileGroup
from pysui.sui.sui_common.config.confmodel import PysuiConfigModel

from k3s_daas_localnet.ledger import wire
from k3s_daas_localnet.ledger.encoding import address, from_base58, u64
from k3s_daas_localnet.ledger.transaction import (
    Argument,
    Command,
    Input,
    MoveCall,
    ObjectRef,
    OwnedInput,
    PureInput,
    SharedInput,
    TransactionData,
)
from k3s_daas_localnet.vm import parse_type

PRICE = 1000
BUDGET = 1_000_000_000


class Rejected(Exception):
    """The node answered with a gRPC status other than OK."""

    def __init__(self, status: Status, message: str) -> None:
        super().__init__(f"{status.name}: {message}")
        self.status = status
        self.message = message


class Wallet:
    """A key and a client."""

    def __init__(self, client: Any, key: Ed25519PrivateKey, own_address: str) -> None:
        self.client = client
        self.key = key
        self.address = own_address

    @staticmethod
    @asynccontextmanager
    async def connect(url: str, seed: int) -> AsyncIterator[Wallet]:
        secret = hashlib.sha256(b"localnet test wallet %d" % seed).digest()
        group = ProfileGroup("k", "", "", [], [], [], [], GroupProtocol.GRPC)
        group.add_profile(new_prf=Profile("p", url), make_active=True)
        encoded = base64.b64encode(b"\0" + secret).decode()
        group.using_address = group.add_keys(keys=[{"key_string": encoded, "alias": "a"}])[0]
        config = PysuiConfiguration.__new__(PysuiConfiguration)
        config._model = PysuiConfigModel("1.2.0", "", "k", [group])
        client = client_factory(config)
        where = urlparse(url)
        client._channel = Channel(host=where.hostname, port=where.port, ssl=None)
        async with client:
            yield Wallet(client, Ed25519PrivateKey.from_private_bytes(secret), group.using_address)

    async def ask(self, command: Any) -> Any:
        """Result of a pysui command. :raises Rejected: the node refused."""
        result = await self.client.execute(command=command)
        if not result.is_ok():
            status, message, *_ = result.result_string
            raise Rejected(status, message)
        return result.result_data

    async def send(self, transaction: Any, **options: Any) -> Any:
        """Builds, signs and executes a transaction of pysui's own builder."""
        return await self.ask(cmd.ExecuteTransaction(**await transaction.build_and_sign(**options)))

    async def ref(self, object_id: str) -> ObjectRef:
        found = await self.ask(cmd.GetObject(object_id=object_id))
        return ObjectRef(address(found.object_id), found.version, from_base58(found.digest))

    async def coins(self) -> list[Any]:
        return list((await self.ask(cmd.GetGas(owner=self.address))).objects)

    async def balance(self) -> int:
        found = await self.ask(cmd.GetAddressCoinBalance(owner=self.address))
        return int(found.balance.balance)

    async def raw(
        self,
        commands: Sequence[Command],
        inputs: Sequence[Input] = (),
        **changes: Any,
    ) -> TransactionData:
        """A transaction made by hand, paid with this wallet's biggest coin."""
        coin = max(await self.coins(), key=lambda found: found.balance)
        payment = ObjectRef(address(coin.object_id), coin.version, from_base58(coin.digest))
        own = address(self.address)
        data = TransactionData(
            tuple(inputs), tuple(commands), own, (payment,), own, PRICE, min(BUDGET, coin.balance)
        )
        return wire.encode(replace(data, **changes))

    def sign(self, data: TransactionData) -> bytes:
        public = self.key.public_key().public_bytes_raw()
        return b"\0" + self.key.sign(data.signing_digest) + public

    async def submit(self, data: TransactionData, signatures: Sequence[bytes] | None = None) -> Any:
        """Executes. :raises Rejected: it was refused before execution."""
        signed = [self.sign(data)] if signatures is None else signatures
        encoded = [base64.b64encode(item).decode() for item in signed]
        command = cmd.ExecuteTransaction(tx_bytestr=base64.b64encode(data.raw).decode(), sig_array=encoded)
        return await self.ask(command)

    async def simulate(self, data: TransactionData) -> Any:
        return await self.ask(cmd.SimulateTransaction(tx_bytestr=base64.b64encode(data.raw).decode()))

    async def run(self, commands: Sequence[Command], inputs: Sequence[Input] = (), **changes: Any) -> Any:
        return await self.submit(await self.raw(commands, inputs, **changes))


def succeeded(executed: Any) -> Any:
    """The effects of a transaction that must have succeeded."""
    status = executed.effects.status
    assert status.success, (status.error.description, status.error.kind)
    return executed.effects


def failed(executed: Any, kind: str, argument: tuple[int, str] | None = None) -> Any:
    """The error of a transaction that must have failed like this, and changed nothing but inputs and gas."""
    status = executed.effects.status
    assert not status.success
    assert status.error.kind.name == kind, status.error.description
    if argument is not None:
        found = status.error.command_argument_error
        assert (found.argument or 0, found.kind.name) == argument
    assert all(change.id_operation.name == "NONE" for change in executed.effects.changed_objects)
    assert not executed.events or not executed.events.events
    assert executed.effects.gas_used.computation_cost > 0
    return status.error


def refused(caught: pytest.ExceptionInfo[Rejected], text: str) -> None:
    assert caught.value.status is Status.INVALID_ARGUMENT
    assert text in caught.value.message, caught.value.message


def created(effects: Any, suffix: str) -> str:
    """Id of the one created object whose type ends so."""
    found = [
        change.object_id
        for change in effects.changed_objects
        if change.id_operation.name == "CREATED" and change.object_type.split("<")[0].endswith(suffix)
    ]
    assert len(found) == 1, found
    return str(found[0])


def arg(position: int) -> Argument:
    return Argument("input", position)


def result(position: int) -> Argument:
    return Argument("result", position)


def pure(value: int) -> PureInput:
    return PureInput(u64(value))


@dataclass
class Probe:
    """The test package: ids, and commands that call it."""

    package: str
    board: str
    board_version: int
    soul: str
    capability: str

    @staticmethod
    async def publish(wallet: Wallet, modules: list[bytes], dependencies: list[bytes]) -> Probe:
        transaction = await wallet.client.transaction()
        needed = [bcs.Address.from_str("0x" + item.hex()) for item in dependencies]
        capability = transaction.builder.publish([list(module) for module in modules], needed)
        await transaction.transfer_objects(transfers=[capability], recipient=wallet.address)
        effects = succeeded(await wallet.send(transaction))
        board = created(effects, "::Board")
        version = next(c.output_owner.version for c in effects.changed_objects if c.object_id == board)
        return Probe(
            created(effects, "package"),
            board,
            version,
            created(effects, "::Soul"),
            created(effects, "::UpgradeCap"),
        )

    def target(self, function: str) -> str:
        return f"{self.package}::probe::{function}"

    def call(self, function: str, *arguments: Argument, types: Sequence[str] = ()) -> MoveCall:
        parsed = tuple(parse_type(item) for item in types)
        return MoveCall(address(self.package), "probe", function, parsed, arguments)

    def shared(self, mutable: bool = True) -> SharedInput:
        return SharedInput(address(self.board), self.board_version, mutable)

    def type(self, name: str) -> str:
        return f"{self.package}::probe::{name}"

    async def thing(self, wallet: Wallet, value: int = 1) -> str:
        """Id of a new Thing that ``wallet`` owns."""
        transaction = await wallet.client.transaction()
        made = await transaction.move_call(target=self.target("thing"), arguments=[value])
        await transaction.transfer_objects(transfers=[made], recipient=wallet.address)
        return created(succeeded(await wallet.send(transaction)), "::Thing")


async def owned(wallet: Wallet, object_id: str) -> OwnedInput:
    return OwnedInput(await wallet.ref(object_id))
