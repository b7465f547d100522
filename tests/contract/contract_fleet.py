"""What the contract tests share: a registry on a localnet, every function of the contracts as a method."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from k3s_daas.chain import Key, MoveAbort, Object, Receipt, SuiClient, Transaction, bcs
from k3s_daas.chain.transaction import Arg
from k3s_daas_localnet import compiler

SUI = 1_000_000_000
DAY_MS = 86_400_000
MOVE_DIR = Path(__file__).parents[2] / "move" / "k3s_daas"
Args = Callable[[Transaction], Sequence[Arg]]


def digest(text: str) -> bytes:
    """32 bytes, different for each text: a commitment, an evidence hash."""
    return hashlib.sha256(text.encode()).digest()


@contextmanager
def aborts(name: str) -> Iterator[None]:
    """The block's transaction is refused by the contract's error of this name, with its message."""
    with pytest.raises(MoveAbort) as caught:
        yield
    assert caught.value.name == name, caught.value
    assert caught.value.message, f"{name} has no message"


@dataclass
class Network:
    """The localnet, and the contracts' package id on it."""

    net: Any
    package: str
    wallets: list[SuiClient] = field(default_factory=list)

    async def wallet(self, mist: int = 1_000 * SUI) -> SuiClient:
        """A new address with money."""
        key = Key(digest(f"wallet {len(self.wallets)}"))
        await self.net.faucet(key.address, mist)
        self.wallets.append(await SuiClient.connect([self.net.url], "localnet", key))
        return self.wallets[-1]


class Fleet:
    """One registry: every function of the contracts as a method that sends one transaction."""

    def __init__(self, network: Network, admin: SuiClient, registry: str, receipt: Receipt) -> None:
        self.network = network
        self.package = network.package
        self.admin = admin
        self.registry = registry
        self.created = receipt
        self.admin_cap, self.operator_cap, self.slasher_cap, self.arbiter_cap = (
            receipt.created_of(f"::worker_registry::{name}Cap")[0]
            for name in ("Admin", "Operator", "Slasher", "Arbiter")
        )

    @property
    def now_ms(self) -> int:
        return int(self.network.net.clock.now_ms())

    def advance(self, ms: int) -> None:
        self.network.net.clock.advance(ms)

    async def call(self, wallet: SuiClient, function: str, args: Args) -> Receipt:
        """Call `module::function` with the registry as first argument."""

        async def build(tx: Transaction) -> None:
            tx.call(f"{self.package}::{function}", [tx.object(self.registry), *args(tx)])

        return await wallet.execute(build)

    async def read(self) -> dict[str, Any]:
        """The registry object's fields."""
        return (await self.admin.get_object(self.registry)).json

    async def worker(self, node_id: str) -> dict[str, Any] | None:
        table = (await self.read())["workers"]["id"]
        found = await self.admin.dynamic_field(table, f"0x{1:064x}::string::String", bcs.string(node_id))
        return None if found is None else found.json["value"]

    async def workers(self) -> list[dict[str, Any]]:
        table = (await self.read())["workers"]["id"]
        return [found.json["value"] async for found in self.admin.dynamic_fields(table)]

    async def status(self, node_id: str) -> str:
        worker = await self.worker(node_id)
        assert worker is not None
        return str(worker["status"]["@variant"])

    async def owner_workers(self, owner: str) -> list[str]:
        table = (await self.read())["owners"]["id"]
        found = await self.admin.dynamic_field(table, "address", bcs.address(owner))
        return [] if found is None else found.json["value"]

    async def worker_token(self, node_id: str) -> dict[str, Any] | None:
        name = f"{self.package}::seal_token::WorkerTokenKey"
        found = await self.admin.dynamic_field(self.registry, name, bcs.string(node_id))
        return None if found is None else found.json["value"]

    async def owner_token(self, owner: str) -> dict[str, Any] | None:
        name = f"{self.package}::seal_token::OwnerTokenKey"
        found = await self.admin.dynamic_field(self.registry, name, bcs.address(owner))
        return None if found is None else found.json["value"]

    # worker_registry

    async def stake(self, wallet: SuiClient, node_id: str, mist: int = SUI, to: str | None = None) -> Receipt:
        def args(tx: Transaction) -> list[Arg]:
            (payment,) = tx.split([mist])
            return [payment, tx.string(node_id), tx.address(to or wallet.require_address()), clock(tx)]

        return await self.call(wallet, "worker_registry::stake_and_register_worker", args)

    async def stake_many(
        self,
        wallet: SuiClient,
        node_ids: Sequence[str],
        amounts: Sequence[int],
        paid: int | None = None,
        to: str | None = None,
    ) -> Receipt:
        def args(tx: Transaction) -> list[Arg]:
            (payment,) = tx.split([sum(amounts) if paid is None else paid])
            to_ = tx.address(to or wallet.require_address())
            return [payment, tx.strings(node_ids), tx.u64s(amounts), to_, clock(tx)]

        return await self.call(wallet, "worker_registry::stake_and_register_workers", args)

    async def unstake(self, wallet: SuiClient, node_id: str) -> Receipt:
        return await self.call(
            wallet, "worker_registry::request_unstake", lambda tx: [tx.string(node_id), clock(tx)]
        )

    async def withdraw(self, wallet: SuiClient, node_id: str) -> Receipt:
        return await self.call(
            wallet, "worker_registry::withdraw", lambda tx: [tx.string(node_id), clock(tx)]
        )

    async def set_statuses(
        self, wallet: SuiClient, cap: str, node_ids: Sequence[str], statuses: Sequence[str]
    ) -> Receipt:
        return await self.call(
            wallet,
            "worker_registry::set_worker_statuses",
            lambda tx: [tx.object(cap), tx.strings(node_ids), tx.strings(statuses), clock(tx)],
        )

    async def allow(self, owner: str, cap: str | None = None) -> Receipt:
        return await self.call(
            self.admin,
            "worker_registry::allow_owner",
            lambda tx: [tx.object(cap or self.admin_cap), tx.address(owner)],
        )

    async def disallow(self, owner: str) -> Receipt:
        return await self.call(
            self.admin,
            "worker_registry::disallow_owner",
            lambda tx: [tx.object(self.admin_cap), tx.address(owner)],
        )

    # k8s_gateway

    async def create_token(
        self, wallet: SuiClient, node_id: str, commitment: bytes, expires_at_ms: int | None = None
    ) -> Receipt:
        return await self._token("create_worker_seal_token", wallet, node_id, commitment, expires_at_ms)

    async def rotate_token(
        self, wallet: SuiClient, node_id: str, commitment: bytes, expires_at_ms: int | None = None
    ) -> Receipt:
        return await self._token("rotate_worker_seal_token", wallet, node_id, commitment, expires_at_ms)

    async def create_owner_token(
        self, wallet: SuiClient, commitment: bytes, expires_at_ms: int | None = None
    ) -> Receipt:
        return await self._token("create_owner_seal_token", wallet, None, commitment, expires_at_ms)

    async def rotate_owner_token(
        self, wallet: SuiClient, commitment: bytes, expires_at_ms: int | None = None
    ) -> Receipt:
        return await self._token("rotate_owner_seal_token", wallet, None, commitment, expires_at_ms)

    async def _token(
        self, function: str, wallet: SuiClient, node_id: str | None, commitment: bytes, expires: int | None
    ) -> Receipt:
        def args(tx: Transaction) -> list[Arg]:
            name = [] if node_id is None else [tx.string(node_id)]
            until = self.now_ms + 90 * DAY_MS if expires is None else expires
            return [*name, tx.data(commitment), tx.u64(until), clock(tx)]

        return await self.call(wallet, f"k8s_gateway::{function}", args)

    async def create_tokens(
        self,
        wallet: SuiClient,
        node_ids: Sequence[str],
        commitments: Sequence[bytes],
        expires_at_ms: Sequence[int],
    ) -> Receipt:
        return await self.call(
            wallet,
            "k8s_gateway::create_worker_seal_tokens",
            lambda tx: [
                tx.strings(node_ids),
                tx.byte_vectors(commitments),
                tx.u64s(expires_at_ms),
                clock(tx),
            ],
        )

    async def revoke_token(self, wallet: SuiClient, node_id: str) -> Receipt:
        return await self.call(
            wallet, "k8s_gateway::revoke_worker_seal_token", lambda tx: [tx.string(node_id)]
        )

    async def revoke_owner_token(self, wallet: SuiClient) -> Receipt:
        return await self.call(wallet, "k8s_gateway::revoke_owner_seal_token", lambda tx: [])

    async def announce(
        self,
        wallet: SuiClient,
        cap: str,
        endpoint: str = "https://10.123.1.11:8443",
        api_server: str = "https://10.123.1.11:6443",
        ca_hash: bytes = bytes(range(32)),
    ) -> Receipt:
        return await self.call(
            wallet,
            "k8s_gateway::announce_master",
            lambda tx: [
                tx.object(cap),
                tx.string(endpoint),
                tx.string(api_server),
                tx.data(ca_hash),
                clock(tx),
            ],
        )

    # nautilus, slashing

    async def appoint(self, account: str, cap: str | None = None) -> str:
        """Returns the new MasterCap's id."""
        receipt = await self.call(
            self.admin,
            "nautilus::appoint_master",
            lambda tx: [tx.object(cap or self.operator_cap), tx.address(account), clock(tx)],
        )
        return receipt.created_of("::worker_registry::MasterCap")[0]

    async def propose(
        self,
        node_id: str,
        reason: int = 4,
        evidence: bytes = bytes(32),
        cap: str | None = None,
        wallet: SuiClient | None = None,
    ) -> Receipt:
        return await self.call(
            wallet or self.admin,
            "slashing::propose_slash",
            lambda tx: [
                tx.object(cap or self.slasher_cap),
                tx.string(node_id),
                tx.u8(reason),
                tx.data(evidence),
                clock(tx),
            ],
        )

    async def cancel(self, node_id: str, cap: str | None = None) -> Receipt:
        return await self.call(
            self.admin,
            "slashing::cancel_slash",
            lambda tx: [tx.object(cap or self.arbiter_cap), tx.string(node_id), clock(tx)],
        )

    async def execute(self, wallet: SuiClient, node_id: str) -> Receipt:
        return await self.call(wallet, "slashing::execute_slash", lambda tx: [tx.string(node_id), clock(tx)])


def clock(tx: Transaction) -> Arg:
    """The Clock, 0x6."""
    return tx.object("0x6", mutable=False)


@dataclass(frozen=True)
class Terms:
    """What a registry is created with; MIST and ms."""

    name: str = "fleet"
    open: bool = True
    min_stake: int = SUI
    slash_window_ms: int = 0
    unbonding_window_ms: int = 0
    slash_share_bps: int = 5_000
    require_attestation: bool = False


async def create_fleet(network: Network, admin: SuiClient, terms: Terms) -> Fleet:
    async def build(tx: Transaction) -> None:
        tx.call(
            f"{network.package}::worker_registry::create_registry",
            [
                tx.string(terms.name),
                tx.boolean(terms.open),
                tx.u64(terms.min_stake),
                tx.u64(terms.slash_window_ms),
                tx.u64(terms.unbonding_window_ms),
                tx.u64(terms.slash_share_bps),
                tx.boolean(terms.require_attestation),
            ],
        )

    receipt = await admin.execute(build)
    return Fleet(network, admin, receipt.created_of("::worker_registry::Registry")[0], receipt)


async def publish(wallet: SuiClient, package: compiler.CompiledPackage) -> str:
    async def build(tx: Transaction) -> None:
        cap = tx.publish(package.modules, package.dependencies)
        tx.transfer([cap], wallet.require_address())

    return (await wallet.execute(build)).created["package"][0]


def only(receipt: Receipt, name: str) -> dict[str, Any]:
    """Fields of the one event of this type."""
    found = [event.json for event in receipt.events if event.type.endswith(f"::{name}")]
    assert len(found) == 1, [event.type for event in receipt.events]
    return found[0]


async def owned(wallet: SuiClient, fleet: Fleet, type_: str) -> list[Object]:
    address = wallet.require_address()
    return [found async for found in wallet.owned_objects(address, f"{fleet.package}::{type_}")]
