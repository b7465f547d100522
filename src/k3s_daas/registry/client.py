"""One registry on-chain: its reads and its transactions. Needs a connected `SuiClient`, imports no pysui.

Amounts in MIST, times in ms since 1970. Every method raises what `k3s_daas.chain.errors` lists: the
contract's refusals as MoveAbort with the constant's name, before anything is sent.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

from k3s_daas.chain import bcs
from k3s_daas.chain.errors import ChainError, MalformedRecord
from k3s_daas.chain.model import Json, Object, Preview, Receipt
from k3s_daas.registry.model import (
    Deployment,
    Fields,
    Master,
    OpenRequest,
    RegistryConfig,
    SealTokenRecord,
    Snapshot,
    StakeRequest,
    Worker,
    WorkerStatus,
    check_node_id,
    parse_registry,
    parse_request,
    parse_seal_token,
    parse_worker,
)

if TYPE_CHECKING:
    from k3s_daas.chain.client import SuiClient
    from k3s_daas.chain.transaction import Arg, Build, Transaction

CLOCK_ID = "0x6"
STRING_TYPE = "0x1::string::String"
WORKER_KEY = "seal_token::WorkerTokenKey"
OWNER_KEY = "seal_token::OwnerTokenKey"
#: An empty struct is one false byte on-chain.
_BOOK_KEY = b"\0"

#: Most workers in one staking transaction: a pure argument holds 16 KB, and 63 bytes a name must fit.
MAX_STAKE_BATCH = 200
#: Most workers in one report of Ready time, for the same reason.
MAX_READY_BATCH = 200


class MissingCap(ChainError):
    """The wallet doesn't hold the capability object that the call needs."""

    def __init__(self, cap: str, address: str, registry_id: str) -> None:
        super().__init__(
            f"Address {address} holds no {cap} of registry {registry_id}, which this needs. "
            f"Use the key of the address that holds the {cap}."
        )


class Registry:
    """Typed access to one registry. Cheap to make: nothing is read before it is asked for."""

    def __init__(self, chain: SuiClient, deployment: Deployment) -> None:
        self.chain = chain
        self.deployment = deployment
        self._config: RegistryConfig | None = None
        self._caps: dict[str, str] = {}

    # -- reads ---------------------------------------------------------------------------------------------

    async def config(self) -> RegistryConfig:
        """The registry's own record, read anew. ObjectNotFound, or MalformedRecord when it is no registry."""
        found = await self.chain.get_object(self.deployment.registry_id)
        wanted = f"{self.deployment.types_id}::worker_registry::Registry"
        if found.type != wanted:
            raise MalformedRecord(
                f"Object {found.id} is a {found.type}, wanted a {wanted}. Check package id and registry id."
            )
        self._config = parse_registry(found.id, found.type, found.json)
        return self._config

    async def worker(self, node_id: str) -> Worker | None:
        """One worker's record: one read, since a dynamic field's id is derived from its name."""
        check_node_id(node_id)
        table = await self._workers_table()
        found = await self.chain.dynamic_field(table, STRING_TYPE, bcs.string(node_id))
        return None if found is None else parse_worker(_value(found))

    async def workers(self) -> list[Worker]:
        """All workers, sorted by node id."""
        table = await self._workers_table()
        found = [parse_worker(_value(field)) async for field in self.chain.dynamic_fields(table)]
        return sorted(found, key=lambda worker: worker.node_id)

    async def workers_by_id(self, node_ids: Iterable[str]) -> dict[str, Worker]:
        """The records of those of `node_ids` that exist, in few requests."""
        table = await self._workers_table()
        names = [check_node_id(node_id) for node_id in node_ids]
        ids = [bcs.dynamic_field_id(table, STRING_TYPE, bcs.string(name)) for name in names]
        found = await self.chain.get_objects(ids)
        return {n: parse_worker(_value(f)) for n, f in zip(names, found, strict=True) if f is not None}

    async def worker_token(self, node_id: str) -> SealTokenRecord | None:
        return (await self.worker_tokens([node_id])).get(node_id)

    async def worker_tokens(self, node_ids: Iterable[str]) -> dict[str, SealTokenRecord]:
        """The worker-scope seal token records of those of `node_ids` that have one."""
        names = [check_node_id(node_id) for node_id in node_ids]
        workers = await self.workers_by_id(names)
        key = f"{self.deployment.types_id}::{WORKER_KEY}"
        parent = self.deployment.registry_id
        ids = [bcs.dynamic_field_id(parent, key, bcs.string(name)) for name in names]
        found = await self.chain.get_objects(ids)
        tokens = {}
        for name, field in zip(names, found, strict=True):
            if field is not None:
                owner = workers[name].owner if name in workers else ""
                tokens[name] = parse_seal_token(_value(field), "worker", name, owner)
        return tokens

    async def owner_token(self, address: str) -> SealTokenRecord | None:
        key = f"{self.deployment.types_id}::{OWNER_KEY}"
        found = await self.chain.dynamic_field(self.deployment.registry_id, key, bcs.address(address))
        return None if found is None else parse_seal_token(_value(found), "owner", "", address)

    async def master(self) -> Master | None:
        """The live master, None before one was appointed."""
        return (await self.config()).master

    async def snapshot(self) -> Snapshot:
        """Everything. Follow events from its `checkpoint` on; see Snapshot for what that asks of you."""
        sequence, _ = await self.chain.latest_checkpoint()
        config = await self.config()
        workers = {worker.node_id: worker for worker in await self.workers()}
        worker_tokens: dict[str, SealTokenRecord] = {}
        owner_tokens: dict[str, SealTokenRecord] = {}
        ours = f"Field<{self.deployment.types_id}"
        async for field in self.chain.dynamic_fields(self.deployment.registry_id):
            if f"{ours}::{WORKER_KEY}," in field.type:
                node_id = check_node_id(_key(field))
                owner = workers[node_id].owner if node_id in workers else ""
                worker_tokens[node_id] = parse_seal_token(_value(field), "worker", node_id, owner)
            elif f"{ours}::{OWNER_KEY}," in field.type:
                address = _key(field)
                owner_tokens[address] = parse_seal_token(_value(field), "owner", "", address)
        return Snapshot(config, workers, worker_tokens, owner_tokens, config.master, sequence)

    async def clock_ms(self) -> int:
        """The chain's own time, which is what the contract compares with."""
        return int((await self.chain.get_object(CLOCK_ID)).json["timestamp_ms"])

    # -- staking and tokens --------------------------------------------------------------------------------

    async def stake(
        self, workers: Sequence[StakeRequest], withdrawal_address: str, mint: Sequence[StakeRequest] = ()
    ) -> Receipt:
        """Stake and mint seal tokens for all `workers` in one transaction: all of them or none. Workers in
        `mint` are staked already and get only their first seal token."""
        return await self.chain.execute(self.staking(workers, withdrawal_address, mint))

    async def preview_stake(
        self, workers: Sequence[StakeRequest], withdrawal_address: str, mint: Sequence[StakeRequest] = ()
    ) -> Preview:
        return await self.chain.simulate(self.staking(workers, withdrawal_address, mint))

    def staking(
        self, workers: Sequence[StakeRequest], withdrawal_address: str, mint: Sequence[StakeRequest] = ()
    ) -> Build:
        """The transaction of `stake`, to simulate or execute."""
        tokens = [*workers, *mint]
        if not 0 < len(tokens) <= MAX_STAKE_BATCH:
            raise ValueError(
                f"Found {len(tokens)} workers to stake, wanted 1 to {MAX_STAKE_BATCH} in one transaction. "
                "Stake in several runs, for example with --limit."
            )
        node_ids = [check_node_id(token.node_id) for token in tokens]
        amounts = [worker.stake_mist for worker in workers]

        async def build(tx: Transaction) -> None:
            registry, clock = self._registry(tx), tx.object(CLOCK_ID, mutable=False)
            if workers:
                (payment,) = tx.split([sum(amounts)])
                names = tx.strings(node_ids[: len(workers)])
                to = tx.address(withdrawal_address)
                tx.call(
                    self._fn("worker_registry::stake_and_register_workers"),
                    [registry, payment, names, tx.u64s(amounts), to, clock],
                )
            tx.call(
                self._fn("k8s_gateway::create_worker_seal_tokens"),
                [
                    registry,
                    tx.strings(node_ids),
                    tx.byte_vectors([token.commitment for token in tokens]),
                    tx.u64s([token.expires_at_ms for token in tokens]),
                    clock,
                ],
            )

        return build

    def adding(self, amounts: Mapping[str, int]) -> Build:
        """A transaction that adds MIST to the stakes of the wallet's workers."""

        async def build(tx: Transaction) -> None:
            registry, clock = self._registry(tx), tx.object(CLOCK_ID, mutable=False)
            for name, payment in zip(amounts, tx.split(list(amounts.values())), strict=True):
                args = [registry, payment, tx.string(check_node_id(name)), clock]
                tx.call(self._fn("worker_registry::add_stake"), args)

        return build

    async def rotate_worker_token(self, node_id: str, commitment: bytes, expires_at_ms: int) -> Receipt:
        """Replace a worker's seal token: the old one is dead once this returns."""
        return await self._gateway("rotate_worker_seal_token", node_id, commitment, expires_at_ms)

    async def create_worker_token(self, node_id: str, commitment: bytes, expires_at_ms: int) -> Receipt:
        return await self._gateway("create_worker_seal_token", node_id, commitment, expires_at_ms)

    async def create_owner_token(self, commitment: bytes, expires_at_ms: int) -> Receipt:
        """An owner-scope token (kubectl) for the wallet's own address."""
        return await self._gateway("create_owner_seal_token", None, commitment, expires_at_ms)

    async def rotate_owner_token(self, commitment: bytes, expires_at_ms: int) -> Receipt:
        return await self._gateway("rotate_owner_seal_token", None, commitment, expires_at_ms)

    async def _gateway(
        self, function: str, node_id: str | None, commitment: bytes, expires_at_ms: int
    ) -> Receipt:
        async def build(tx: Transaction) -> None:
            name = [] if node_id is None else [tx.string(check_node_id(node_id))]
            clock = tx.object(CLOCK_ID, mutable=False)
            args = [self._registry(tx), *name, tx.data(commitment), tx.u64(expires_at_ms), clock]
            tx.call(self._fn(f"k8s_gateway::{function}"), args)

        return await self.chain.execute(build)

    async def revoke_worker_token(self, node_id: str) -> Receipt:
        async def build(tx: Transaction) -> None:
            args = [self._registry(tx), tx.string(check_node_id(node_id))]
            tx.call(self._fn("k8s_gateway::revoke_worker_seal_token"), args)

        return await self.chain.execute(build)

    async def revoke_owner_token(self) -> Receipt:
        async def build(tx: Transaction) -> None:
            tx.call(self._fn("k8s_gateway::revoke_owner_seal_token"), [self._registry(tx)])

        return await self.chain.execute(build)

    def minting(self, steps: Sequence[tuple[str, StakeRequest]], scope: str) -> Build:
        """A transaction that takes one step, "create", "rotate" or "revoke", for each seal token of `scope`
        ("worker" or "owner"; an owner's is the wallet's own). `stake_mist` doesn't matter."""

        async def build(tx: Transaction) -> None:
            registry, clock = self._registry(tx), tx.object(CLOCK_ID, mutable=False)
            for step, token in steps:
                args = [registry]
                if scope == "worker":
                    args.append(tx.string(check_node_id(token.node_id)))
                if step != "revoke":
                    args += [tx.data(token.commitment), tx.u64(token.expires_at_ms), clock]
                tx.call(self._fn(f"k8s_gateway::{step}_{scope}_seal_token"), args)

        return build

    def leaving(self, request: Sequence[str], withdraw: Sequence[str]) -> Build:
        """A transaction that requests the unstake of some workers, then withdraws the stake of some."""

        async def build(tx: Transaction) -> None:
            registry, clock = self._registry(tx), tx.object(CLOCK_ID, mutable=False)
            node = {name: tx.string(check_node_id(name)) for name in dict.fromkeys((*request, *withdraw))}
            for function, node_ids in (("request_unstake", request), ("withdraw", withdraw)):
                for name in node_ids:
                    tx.call(self._fn(f"worker_registry::{function}"), [registry, node[name], clock])

        return build

    async def request_unstake(self, node_id: str) -> Receipt:
        """Begin to leave; the stake is locked until the worker's unbonding window is over."""
        return await self.chain.execute(self._worker_call("worker_registry::request_unstake", node_id))

    async def withdraw(self, node_id: str) -> Receipt:
        """Pay the stake (or what a slash left of it) to the withdrawal address fixed when staking."""
        return await self.chain.execute(self._worker_call("worker_registry::withdraw", node_id))

    # -- master --------------------------------------------------------------------------------------------

    async def appoint_master(self, account: str, gas_mist: int = 0) -> Receipt:
        """Make `account` the master (needs OperatorCap), and send it `gas_mist` in the same transaction."""
        return await self.chain.execute(self.appointing(account, gas_mist, await self.cap("OperatorCap")))

    def appointing(self, account: str, gas_mist: int, cap: str | None) -> Build:
        """The transaction of `appoint_master`; without `cap` it only sends the gas."""

        async def build(tx: Transaction) -> None:
            if cap is not None:
                clock = tx.object(CLOCK_ID, mutable=False)
                self.call(tx, "nautilus::appoint_master", tx.object(cap), tx.address(account), clock)
            if gas_mist:
                tx.transfer(tx.split([gas_mist]), account)

        return build

    async def send(self, to: str, mist: int) -> Receipt:
        """Send `mist` from the wallet to an address."""

        async def build(tx: Transaction) -> None:
            tx.transfer(tx.split([mist]), to)

        return await self.chain.execute(build)

    async def announce_master(self, endpoint: str, api_server: str, ca_hash: bytes) -> Receipt:
        """Put the master's addresses and CA hash (32 bytes) on-chain (needs the live MasterCap)."""
        cap = await self.cap("MasterCap")

        async def build(tx: Transaction) -> None:
            where = [tx.string(endpoint), tx.string(api_server), tx.data(ca_hash)]
            clock = tx.object(CLOCK_ID, mutable=False)
            args = [self._registry(tx), tx.object(cap), *where, clock]
            tx.call(self._fn("k8s_gateway::announce_master"), args)

        return await self.chain.execute(build)

    async def register_master(self, document: bytes) -> Receipt:
        """Make the account that an attestation document names the master, or renew its attestation.

        Anybody may send it. The contract refuses a document that proves nothing, an image that isn't allowed,
        one that isn't fresh, and a key of a master that another has replaced.
        """
        return await self.chain.execute(self.attesting(document))

    def attesting(self, document: bytes) -> Build:
        """The transaction of `register_master`, to simulate or execute."""

        async def build(tx: Transaction) -> None:
            clock = tx.object(CLOCK_ID, mutable=False)
            loaded = tx.call("0x2::nitro_attestation::load_nitro_attestation", [tx.data(document), clock])
            self.call(tx, "nautilus::register_master", loaded, clock)

        return build

    async def set_statuses(self, statuses: Mapping[str, WorkerStatus]) -> Receipt:
        """Set workers active, busy or offline in one transaction (needs the live MasterCap)."""
        cap = await self.cap("MasterCap")

        async def build(tx: Transaction) -> None:
            names = tx.strings([check_node_id(node_id) for node_id in statuses])
            values = tx.strings([str(status) for status in statuses.values()])
            clock = tx.object(CLOCK_ID, mutable=False)
            args = [self._registry(tx), tx.object(cap), names, values, clock]
            tx.call(self._fn("worker_registry::set_worker_statuses"), args)

        return await self.chain.execute(build)

    async def report_ready(self, ready_ms: Mapping[str, int]) -> Receipt:
        """Report for how many ms each worker was Ready since its last report, in one transaction (needs the
        live MasterCap). The contract counts at most the time that passed since
        `Worker.ready_reported_until_ms`, and pays what the registry's rates and its pool give."""
        if not 0 < len(ready_ms) <= MAX_READY_BATCH:
            raise ValueError(
                f"Found Ready time of {len(ready_ms)} workers, wanted that of 1 to {MAX_READY_BATCH} in one "
                "transaction. Report in several."
            )
        cap = await self.cap("MasterCap")

        async def build(tx: Transaction) -> None:
            names = tx.strings([check_node_id(node_id) for node_id in ready_ms])
            clock = tx.object(CLOCK_ID, mutable=False)
            times = tx.u64s(list(ready_ms.values()))
            self.call(tx, "rewards::report_ready", tx.object(cap), names, times, clock)

        return await self.chain.execute(build)

    # -- requests ------------------------------------------------------------------------------------------

    async def open_requests(self) -> list[OpenRequest]:
        """All requests that haven't ended, in the order of their ids."""
        table = await self._requests_table()
        if table is None:
            return []  # until the first request
        found = [parse_request(field.json) async for field in self.chain.dynamic_fields(table)]
        return sorted(found, key=lambda request: request.request_id)

    async def open_request(self, request_id: int) -> OpenRequest | None:
        """One request; None when it never existed or has ended."""
        table = await self._requests_table()
        if table is None:
            return None
        found = await self.chain.dynamic_field(table, "u64", bcs.unsigned(request_id, 8))
        return None if found is None else parse_request(found.json)

    async def claim_request(self, request_id: int) -> Receipt:
        """Say that the request is started (needs the live MasterCap)."""
        return await self.chain.execute(await self._serving("claim_request", request_id))

    async def complete_request(self, request_id: int, result_hash: bytes) -> Receipt:
        """End a claimed request with its result's SHA-256, which pays the worker (live MasterCap)."""
        return await self.chain.execute(await self._serving("complete_request", request_id, result_hash))

    async def time_out_request(self, request_id: int) -> Receipt:
        """End a request whose 10 minutes are over and refund its deposit; anybody may."""

        async def build(tx: Transaction) -> None:
            clock = tx.object(CLOCK_ID, mutable=False)
            args = [self._registry(tx), tx.u64(request_id), clock]
            tx.call(self._fn("k8s_scheduler::time_out_request"), args)

        return await self.chain.execute(build)

    async def _serving(self, function: str, request_id: int, result_hash: bytes | None = None) -> Build:
        cap = await self.cap("MasterCap")

        async def build(tx: Transaction) -> None:
            result = [] if result_hash is None else [tx.data(result_hash)]
            clock = tx.object(CLOCK_ID, mutable=False)
            args = [self._registry(tx), tx.object(cap), tx.u64(request_id), *result, clock]
            tx.call(self._fn(f"k8s_scheduler::{function}"), args)

        return build

    async def _requests_table(self) -> str | None:
        key = f"{self.deployment.types_id}::k8s_scheduler::BookKey"
        book = await self.chain.dynamic_field(self.deployment.registry_id, key, _BOOK_KEY)
        if book is None:
            return None
        return Fields(book.json, "Book field").struct("value").struct("requests").text("id")

    # -- slashing ------------------------------------------------------------------------------------------

    async def propose_slash(self, node_id: str, reason: int, evidence_hash: bytes) -> Receipt:
        """Jail a worker (needs SlasherCap). Reasons: 1 conflicting heartbeats, 2 refused drain, 3 proven
        wrong result, 4 operator decision. `evidence_hash` is 32 bytes."""
        return await self.chain.execute(await self.proposing(node_id, reason, evidence_hash))

    async def execute_slash(self, node_id: str) -> Receipt:
        """Take the stake of a jailed worker whose appeal window is over; anybody may."""
        return await self.chain.execute(self.executing(node_id))

    async def slash_now(self, node_id: str, reason: int, evidence_hash: bytes) -> Receipt:
        """Propose and execute in one transaction: only where the worker's slash window is 0."""
        build = await self.proposing(node_id, reason, evidence_hash, execute=True)
        return await self.chain.execute(build)

    def lapsing(self, node_id: str) -> Build:
        """A transaction that ends a proposal which nobody executed in time; anybody may."""
        return self._worker_call("slashing::lapse_slash", node_id)

    def executing(self, node_id: str) -> Build:
        """The transaction of `execute_slash`, to simulate or execute."""
        return self._worker_call("slashing::execute_slash", node_id)

    async def cancel_slash(self, node_id: str) -> Receipt:
        """Free a jailed worker (needs ArbiterCap)."""
        return await self.chain.execute(await self.cancelling(node_id))

    async def cancelling(self, node_id: str) -> Build:
        """The transaction of `cancel_slash`, to simulate or execute."""
        return self._worker_call("slashing::cancel_slash", node_id, await self.cap("ArbiterCap"))

    async def proposing(
        self, node_id: str, reason: int, evidence_hash: bytes, *, execute: bool = False
    ) -> Build:
        """The transaction of `propose_slash`, with `execute` that of `slash_now`, to simulate or execute."""
        cap = await self.cap("SlasherCap")

        async def build(tx: Transaction) -> None:
            registry, clock = self._registry(tx), tx.object(CLOCK_ID, mutable=False)
            node = tx.string(check_node_id(node_id))
            args = [registry, tx.object(cap), node, tx.u8(reason), tx.data(evidence_hash), clock]
            tx.call(self._fn("slashing::propose_slash"), args)
            if execute:
                tx.call(self._fn("slashing::execute_slash"), [registry, node, clock])

        return build

    # -- shared --------------------------------------------------------------------------------------------

    def call(self, tx: Transaction, function: str, *args: Arg) -> None:
        """Add a call of the package's `module::function`, with the registry as its first argument."""
        tx.call(self._fn(function), [self._registry(tx), *args])

    async def cap(self, kind: str) -> str:
        """Id of the wallet's `kind` ("AdminCap", "MasterCap", …) of this registry; MissingCap without one."""
        if kind not in self._caps:
            found = await self.find_cap(kind, self._address())
            if found is None:
                raise MissingCap(kind, self._address(), self.deployment.registry_id)
            if kind == "MasterCap":
                return found  # not kept: the next appointment makes another
            self._caps[kind] = found
        return self._caps[kind]

    async def find_cap(self, kind: str, holder: str) -> str | None:
        """Id of the newest `kind` of this registry that an address holds."""
        best: tuple[int, str] | None = None
        type_ = f"{self.deployment.types_id}::worker_registry::{kind}"
        async for found in self.chain.owned_objects(holder, type_):
            if found.json.get("registry") == self.deployment.registry_id:
                # A re-appointed master holds one cap per epoch; only the newest opens anything.
                best = max(best or (-1, ""), (int(found.json.get("epoch", 0)), found.id))
        return None if best is None else best[1]

    async def cap_holder(self, kind: str, cap_id: str) -> str | None:
        """The address that holds the `kind` with this id; None when no address does (it is gone or kept in
        another object). MalformedRecord when the id is something else's."""
        (found,) = await self.chain.get_objects([cap_id])
        if found is None:
            return None
        wanted = f"{self.deployment.types_id}::worker_registry::{kind}"
        of = found.json.get("registry")
        if found.type != wanted or of != self.deployment.registry_id:
            raise MalformedRecord(
                f"Object {cap_id} is a {found.type} of registry {of}, wanted the {kind} of "
                f"{self.deployment.registry_id}."
            )
        return found.owner if found.owner.startswith("0x") else None

    def _worker_call(self, function: str, node_id: str, *caps: str) -> Build:
        check_node_id(node_id)

        async def build(tx: Transaction) -> None:
            clock = tx.object(CLOCK_ID, mutable=False)
            args = [self._registry(tx), *(tx.object(cap) for cap in caps), tx.string(node_id), clock]
            tx.call(self._fn(function), args)

        return build

    async def _workers_table(self) -> str:
        # The table's id never changes, so the config's first read serves for good.
        return (self._config or await self.config()).workers_table

    def _address(self) -> str:
        if self.chain.address is None:
            raise ChainError(
                "This needs a wallet key and the chain was opened without one. Set the key file."
            )
        return self.chain.address

    def _fn(self, function: str) -> str:
        return f"{self.deployment.package_id}::{function}"

    def _registry(self, tx: Transaction) -> Arg:
        return tx.object(self.deployment.registry_id)


def _value(field: Object) -> Json:
    """The value of a `0x2::dynamic_field::Field<Name, Value>`."""
    value = field.json.get("value")
    if not isinstance(value, dict):
        raise MalformedRecord(f"Dynamic field {field.id} of type {field.type} has no struct as value")
    return value


def _key(field: Object) -> str:
    """The name of a dynamic field keyed by a struct of one positional String or address."""
    name = field.json.get("name")
    if isinstance(name, dict):
        name = name.get("pos0")
    if not isinstance(name, str):
        raise MalformedRecord(f"Dynamic field {field.id} of type {field.type} has no text as name")
    return name
