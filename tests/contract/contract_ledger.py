"""The contracts on a ledger in this process: no server, no client, a clock that stands still.

A transaction takes a millisecond this way, which is what thousands of random ones need. They are real ones
all the same: signed, checked against the network's limits, paid for.
"""

from __future__ import annotations

import hashlib
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from move_coverage import build

from k3s_daas.attestation import simulation_root
from k3s_daas.chain import Key, bcs
from k3s_daas_localnet.compiler import CompiledPackage
from k3s_daas_localnet.ledger import wire
from k3s_daas_localnet.ledger.clock import Clock
from k3s_daas_localnet.ledger.effects import Executed
from k3s_daas_localnet.ledger.ledger import Ledger
from k3s_daas_localnet.ledger.objects import SUI_COIN, LedgerObject
from k3s_daas_localnet.ledger.packages import package_digest
from k3s_daas_localnet.ledger.store import Checkpoint, Store
from k3s_daas_localnet.ledger.transaction import (
    GAS,
    Argument,
    Command,
    Input,
    MoveCall,
    ObjectRef,
    OwnedInput,
    Publish,
    PureInput,
    SharedInput,
    SplitCoins,
    TransactionData,
    TransferObjects,
    Upgrade,
)
from k3s_daas_localnet.vm import from_bcs
from k3s_daas_localnet.vm.types import parse_address

SUI = 1_000_000_000
DAY_MS = 86_400_000
NOON_MS = 1_800_000_000_000
PRICE = 1_000
BUDGET = 5 * SUI
MOVE_DIR = Path(__file__).parents[2] / "move" / "k3s_daas"
PROBE = Path(__file__).with_name("hooks.move")
VERSION = "const VERSION: u64 = {};"
CLOCK = "0x" + f"{6:064x}"


def sha(text: str) -> bytes:
    """32 bytes, different for each text."""
    return hashlib.sha256(text.encode()).digest()


def u8(value: int) -> bytes:
    return bcs.unsigned(value, 1)


def u64(value: int) -> bytes:
    return bcs.unsigned(value, 8)


def u64s(values: Sequence[int]) -> bytes:
    return bcs.vector(map(u64, values))


def strings(values: Sequence[str]) -> bytes:
    return bcs.vector(map(bcs.string, values))


class Aborted(Exception):
    """The contract refused the transaction by the error of this name."""

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.name = name


@contextmanager
def aborts(name: str) -> Iterator[None]:
    with pytest.raises(Aborted) as caught:
        yield
    assert caught.value.name == name


@dataclass(frozen=True)
class Pay:
    """An argument: a new coin of so many MIST."""

    mist: int


@dataclass(frozen=True)
class Result:
    """An argument: what an earlier call of the transaction returned."""

    of: int


Arg = bytes | str | Pay | Result
"""BCS of a plain value; the id of an object; a payment; a result."""


@cache
def compiled(move_dir: Path = MOVE_DIR) -> CompiledPackage:
    return build(move_dir, [PROBE])


@cache
def compiled_version(number: int, added: str = "") -> CompiledPackage:
    """The contracts as a later version: with VERSION raised, and perhaps more code in worker_registry."""
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder) / "k3s_daas"
        shutil.copytree(MOVE_DIR, copy, ignore=shutil.ignore_patterns("build"))
        source = copy / "sources" / "worker_registry.move"
        text = source.read_text("utf-8")
        assert text.count(VERSION.format(1)) == 1
        source.write_text(text.replace(VERSION.format(1), VERSION.format(number)) + added, "utf-8")
        return build(copy, [PROBE])


@dataclass
class Chain:
    """A ledger and the keys of those who use it."""

    seen: list[Executed] = field(default_factory=list)
    keys: dict[str, Key] = field(default_factory=dict)
    nitro_root: bytes | None = None
    """PEM of an emulator's root, whose attestation documents count like AWS's."""

    def __post_init__(self) -> None:
        self.clock = Clock(lambda: NOON_MS)
        root = None if self.nitro_root is None else simulation_root(self.nitro_root, "localnet")
        self.ledger = Ledger(Store(None), self.clock, self._keep, simulated_nitro_root=root)
        # Where time stands still, an equal transaction would be the same one.
        self.sent = 0

    def _keep(self, executed: Executed, checkpoint: Checkpoint) -> bytes:
        self.seen.append(executed)
        return b""

    @property
    def now_ms(self) -> int:
        return self.clock.now_ms()

    @property
    def epoch(self) -> int:
        return self.ledger.epoch_at(self.now_ms)

    def actor(self, name: str, mist: int = 1_000_000 * SUI) -> str:
        """A new address with money."""
        key = Key(sha(f"actor {name}"))
        self.keys[key.address] = key
        self.ledger.faucet(parse_address(key.address), mist)
        return key.address

    def send(self, sender: str, *calls: tuple[str, Sequence[Arg]]) -> Executed:
        """Calls in one transaction; :raises Aborted: by name. Any other failure fails the test."""
        inputs: list[Input] = []
        known: dict[bytes, int] = {}
        commands: list[Command] = []
        made: list[int] = []  # where each call's command is, among those that split payments

        def pure(data: bytes) -> Argument:
            inputs.append(PureInput(data))
            return Argument("input", len(inputs) - 1)

        def argument(value: Arg) -> Argument:
            if isinstance(value, bytes):
                return pure(value)
            if isinstance(value, Result):
                return Argument("result", made[value.of])
            if isinstance(value, Pay):
                commands.append(SplitCoins(GAS, (pure(u64(value.mist)),)))
                return Argument("nested", len(commands) - 1, 0)
            object_id = parse_address(value)
            if object_id not in known:
                found = self.ledger.object(object_id)
                if found.owner.kind == "shared":
                    item: Input = SharedInput(object_id, found.owner.version, value != CLOCK)
                else:
                    item = OwnedInput(ObjectRef(object_id, found.version, found.digest))
                inputs.append(item)
                known[object_id] = len(inputs) - 1
            return Argument("input", known[object_id])

        for target, arguments in calls:
            package, module, function = target.split("::")
            given = tuple([argument(value) for value in arguments])
            commands.append(MoveCall(parse_address(package), module, function, (), given))
            made.append(len(commands) - 1)
        return self.execute(sender, inputs, commands)

    def upgrade(self, sender: str, old: str, cap: str, package: CompiledPackage) -> str:
        """Returns the id of the new version; `cap` is the UpgradeCap."""
        dependencies = [parse_address(item) for item in package.dependencies]
        found = self.ledger.object(parse_address(cap))
        inputs: list[Input] = [
            OwnedInput(ObjectRef(found.object_id, found.version, found.digest)),
            PureInput(u8(0)),
            PureInput(bcs.data(package_digest(package.modules, dependencies))),
        ]
        given = Argument("input", 0), Argument("input", 1), Argument("input", 2)
        ticket, receipt = Argument("result", 0), (Argument("input", 0), Argument("result", 1))
        framework = parse_address("0x2")
        commands = [
            MoveCall(framework, "package", "authorize_upgrade", (), given),
            Upgrade(tuple(package.modules), tuple(dependencies), parse_address(old), ticket),
            MoveCall(framework, "package", "commit_upgrade", (), receipt),
        ]
        return new_package(self.execute(sender, inputs, commands))

    def publish(self, sender: str, package: CompiledPackage) -> str:
        return new_package(self.publishing(sender, package))

    def publishing(self, sender: str, package: CompiledPackage) -> Executed:
        dependencies = tuple(map(parse_address, package.dependencies))
        commands = [
            Publish(tuple(package.modules), dependencies),
            TransferObjects((Argument("result", 0),), Argument("input", 0)),
        ]
        return self.execute(sender, [PureInput(bcs.address(sender))], commands)

    def execute(self, sender: str, inputs: Sequence[Input], commands: Sequence[Command]) -> Executed:
        owner = parse_address(sender)
        coins = [coin for coin in self.ledger.owned_by(owner) if coin.type == SUI_COIN]
        coin = max(coins, key=lambda coin: coin.coin_value)
        self.sent += 1
        transaction = wire.encode(
            TransactionData(
                inputs=tuple(inputs),
                commands=tuple(commands),
                sender=owner,
                payment=(ObjectRef(coin.object_id, coin.version, coin.digest),),
                gas_owner=owner,
                price=PRICE + self.sent % 2,
                budget=BUDGET,
            )
        )
        before = len(self.seen)
        self.ledger.execute(transaction, [self.keys[sender].sign_transaction(transaction.raw)])
        assert len(self.seen) == before + 1
        done = self.seen.pop()
        if done.failure is not None:
            if done.failure.abort is None or done.clever is None or done.clever.constant_name is None:
                raise done.failure
            assert done.clever.rendered, f"{done.clever.constant_name} has no message"
            raise Aborted(done.clever.constant_name)
        return done

    def balance(self, address: str) -> int:
        """MIST in coins."""
        owned = self.ledger.owned_by(parse_address(address))
        return sum(coin.coin_value for coin in owned if coin.type == SUI_COIN)

    def json(self, item: LedgerObject) -> Any:
        assert item.type is not None
        layout = self.ledger.code.layout(item.type)
        return layout.json(from_bcs(layout, item.contents))

    def object(self, object_id: str) -> Any:
        return self.json(self.ledger.object(parse_address(object_id)))

    def fields(self, parent: str) -> dict[Any, Any]:
        """The dynamic fields of an object, name to value; only for names that are plain values."""
        found = [self.json(item) for item in self.ledger.owned_by(parse_address(parent), "object")]
        return {item["name"]: item["value"] for item in found}


def new_package(done: Executed) -> str:
    """Id of the package that was published."""
    (found,) = [item for item in done.written if item.package is not None]
    return "0x" + found.object_id.hex()


def events(done: Executed, name: str) -> list[Any]:
    """Fields of the events of this type."""
    return [event.json for event in done.events if event.type.name == name]


def created(done: Executed, name: str) -> str:
    """Id of the one object of this type that was made."""
    (found,) = [
        change.after
        for change in done.changes
        if change.before is None and change.after is not None and change.after.type is not None
        if change.after.type.name == name
    ]
    return "0x" + found.object_id.hex()


class Registry:
    """One registry on a chain; `call` sends one transaction of one call, with the registry first."""

    def __init__(
        self,
        chain: Chain,
        package: str,
        admin: str,
        *,
        open_: bool = True,
        min_stake: int = SUI,
        slash_window_ms: int = 0,
        unbonding_window_ms: int = 0,
        slash_share_bps: int = 5_000,
        require_attestation: bool = False,
    ) -> None:
        self.chain = chain
        self.package = package
        self.admin = admin
        done = chain.send(
            admin,
            (
                f"{package}::worker_registry::create_registry",
                [
                    bcs.string("fleet"),
                    bytes([open_]),
                    u64(min_stake),
                    u64(slash_window_ms),
                    u64(unbonding_window_ms),
                    u64(slash_share_bps),
                    bytes([require_attestation]),
                ],
            ),
        )
        self.id = created(done, "Registry")
        self.admin_cap, self.operator_cap, self.slasher_cap, self.arbiter_cap = (
            created(done, f"{name}Cap") for name in ("Admin", "Operator", "Slasher", "Arbiter")
        )
        self.master_cap = ""
        first = self.read()
        self.tables = first["workers"]["id"], first["owners"]["id"]

    def call(self, sender: str, function: str, *args: Arg) -> Executed:
        return self.chain.send(sender, (f"{self.package}::{function}", [self.id, *args]))

    def read(self) -> Any:
        return self.chain.object(self.id)

    def workers(self) -> dict[str, Any]:
        return self.chain.fields(self.tables[0])

    def worker(self, node_id: str) -> Any:
        return self.workers()[node_id]

    def owners(self) -> dict[str, list[str]]:
        return self.chain.fields(self.tables[1])

    def book(self) -> Any:
        """The scheduler's book, or None before the first request."""
        for item in self.chain.ledger.owned_by(parse_address(self.id), "object"):
            found = self.chain.json(item)
            if isinstance(found["value"], dict) and "last_id" in found["value"]:
                return found["value"]
        return None

    def anchor(self) -> Any:
        """The newest snapshot's anchor, or None before the first."""
        for item in self.chain.ledger.owned_by(parse_address(self.id), "object"):
            found = self.chain.json(item)
            if isinstance(found["value"], dict) and "anchored_at_ms" in found["value"]:
                return found["value"]
        return None

    def anchor_snapshot(
        self, master: str, counter: int, previous: bytes, hash_: bytes, cap: str | None = None
    ) -> Executed:
        return self.call(
            master,
            "snapshots::anchor_snapshot",
            cap or self.master_cap,
            u64(counter),
            bcs.data(previous),
            bcs.data(hash_),
            CLOCK,
        )

    def requests(self) -> dict[str, Any]:
        book = self.book()
        return {} if book is None else self.chain.fields(book["requests"]["id"])

    # Calls that many tests make.

    def stake(self, owner: str, node_id: str, mist: int = SUI, to: str | None = None) -> str:
        """Returns the StakeProof's id."""
        name, address = bcs.string(node_id), bcs.address(to or owner)
        done = self.call(owner, "worker_registry::stake_and_register_worker", Pay(mist), name, address, CLOCK)
        return created(done, "StakeProof")

    def appoint(self, account: str) -> str:
        done = self.call(
            self.admin, "nautilus::appoint_master", self.operator_cap, bcs.address(account), CLOCK
        )
        self.master_cap = created(done, "MasterCap")
        return self.master_cap

    def activate(self, master: str, *node_ids: str, status: str = "active") -> None:
        names, statuses = strings(node_ids), strings([status] * len(node_ids))
        self.call(master, "worker_registry::set_worker_statuses", self.master_cap, names, statuses, CLOCK)

    def propose(self, node_id: str, cap: str | None = None) -> Executed:
        return self.call(
            self.admin,
            "slashing::propose_slash",
            cap or self.slasher_cap,
            bcs.string(node_id),
            u8(4),
            bcs.data(sha("evidence")),
            CLOCK,
        )

    def submit(
        self,
        sender: str,
        proof: str,
        candidates: Sequence[str],
        deposit: int = 1_000_000,
        priority: int = 0,
        payload_hash: bytes = bytes(32),
    ) -> Any:
        """Returns the scheduled event."""
        done = self.call(
            sender,
            "k8s_scheduler::submit_k8s_request",
            proof,
            Pay(deposit),
            bcs.data(payload_hash),
            u8(priority),
            strings(candidates),
            CLOCK,
        )
        (event,) = events(done, "K8sAPIRequestScheduledEvent")
        return event

    def serve(self, master: str, request_id: int) -> Any:
        """Claims and completes; returns the completed event."""
        self.call(master, "k8s_scheduler::claim_request", self.master_cap, u64(request_id), CLOCK)
        done = self.complete(master, request_id)
        (event,) = events(done, "K8sAPIRequestCompletedEvent")
        return event

    def complete(self, master: str, request_id: int, result: bytes = bytes(32)) -> Executed:
        return self.call(
            master,
            "k8s_scheduler::complete_request",
            self.master_cap,
            u64(request_id),
            bcs.data(result),
            CLOCK,
        )

    def time_out(self, sender: str, request_id: int) -> Executed:
        return self.call(sender, "k8s_scheduler::time_out_request", u64(request_id), CLOCK)
