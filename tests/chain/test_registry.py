from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from k3s_daas.chain import ChainUnreachable, Event, MalformedRecord, MoveAbort, ObjectNotFound, SuiClient
from k3s_daas.registry import (
    AgreedRegistry,
    CompiledPackage,
    Deployment,
    EndpointsDisagree,
    InvalidNodeId,
    MasterAnnounced,
    MasterAppointed,
    MissingCap,
    Registry,
    RegistryCreated,
    SealTokenCreated,
    SealTokenRevoked,
    SlashCancelled,
    SlashProposed,
    StakeDeposited,
    StakeRequest,
    StakeWithdrawn,
    UnstakeRequested,
    WorkerRegistered,
    WorkerSlashed,
    WorkerStatus,
    WorkerStatusChanged,
    check_node_id,
    find_package,
    find_registry,
    parse_event,
)
from k3s_daas.registry.model import parse_worker
from k3s_daas.registry.render import to_json

live = pytest.mark.asyncio(loop_scope="session")
SUI = 1_000_000_000
COLD = "0x" + "c0" * 32


def digest(text: str) -> bytes:
    return hashlib.sha256(text.encode()).digest()


async def request(registry: Registry, node_id: str, mist: int = SUI) -> StakeRequest:
    expires = await registry.clock_ms() + 86_400_000
    return StakeRequest(node_id, digest(f"{registry.deployment.registry_id} {node_id}"), mist, expires)


# -- the way of one worker, through records and events -----------------------------------------------------


@live
async def test_records_and_events_tell_the_same_story(new_registry: Any, new_wallet: Any) -> None:
    registry: Registry = await new_registry(unbonding_window_ms=0)
    chain = registry.chain
    after = (await chain.latest_checkpoint())[0]
    me, master = chain.require_address(), await new_wallet()
    wanted = [await request(registry, "worker-1"), await request(registry, "worker-2", 3 * SUI)]
    await registry.stake(wanted, COLD)
    await registry.appoint_master(master.address)
    masters = Registry(master, registry.deployment)
    await masters.announce_master("https://m:8443", "https://m:6443", digest("ca"))
    await masters.set_statuses({"worker-1": WorkerStatus.ACTIVE, "worker-2": WorkerStatus.OFFLINE})
    await registry.rotate_worker_token("worker-1", digest(f"{after} new"), wanted[0].expires_at_ms)
    await registry.revoke_worker_token("worker-1")
    await registry.create_owner_token(digest(f"{after} owner"), wanted[0].expires_at_ms)
    await registry.rotate_owner_token(digest(f"{after} owner 2"), wanted[0].expires_at_ms)
    await registry.revoke_owner_token()
    await registry.propose_slash("worker-2", 2, digest("evidence"))
    jailed = await registry.worker("worker-2")
    await registry.cancel_slash("worker-2")
    await registry.slash_now("worker-2", 4, digest("evidence"))
    await registry.request_unstake("worker-1")
    leaving = await registry.worker("worker-1")
    await registry.withdraw("worker-1")
    last = (await chain.latest_checkpoint())[0]

    events = []
    async for batch in chain.checkpoints(after, [registry.deployment.package_id]):
        events += [parse_event(event, registry.deployment) for event in batch.events]
        if batch.sequence >= last:
            break
    kinds = [type(event) for event in events]
    assert kinds == [
        *(WorkerRegistered, StakeDeposited, WorkerRegistered, StakeDeposited),
        *(SealTokenCreated, SealTokenCreated, MasterAppointed, MasterAnnounced),
        *(WorkerStatusChanged, WorkerStatusChanged),
        *(SealTokenCreated, SealTokenRevoked, SealTokenCreated, SealTokenCreated, SealTokenRevoked),
        *(WorkerStatusChanged, SlashProposed, WorkerStatusChanged, SlashCancelled),
        *(WorkerStatusChanged, SlashProposed, WorkerStatusChanged, WorkerSlashed),
        *(WorkerStatusChanged, UnstakeRequested, StakeWithdrawn),
    ]
    assert events[2] == WorkerRegistered("worker-2", me, 3 * SUI, COLD, events[2].timestamp_ms)
    assert events[4] == SealTokenCreated(
        "worker", "worker-1", me, wanted[0].commitment, 1, wanted[0].expires_at_ms
    )
    assert events[6] == MasterAppointed(1, master.address)
    assert events[7] == MasterAnnounced(1, "https://m:8443", "https://m:6443", digest("ca"))
    assert (events[8].old_status, events[8].new_status) == (WorkerStatus.PENDING, WorkerStatus.ACTIVE)
    assert events[11] == SealTokenRevoked("worker", "worker-1", me, 2)
    assert (events[13].scope, events[13].node_id, events[13].generation) == ("owner", "", 2)
    assert (events[16].reason, events[16].evidence_hash) == (2, digest("evidence"))
    assert (events[-4].amount_mist, events[-4].remaining_mist) == (3 * SUI // 2, 3 * SUI // 2)
    assert events[-1] == StakeWithdrawn("worker-1", COLD, SUI, events[-1].timestamp_ms)
    assert await chain.balance(COLD) >= SUI

    assert jailed.status == WorkerStatus.JAILED
    assert jailed.proposal.previous == WorkerStatus.OFFLINE
    assert (leaving.status, leaving.unbonding_until_ms is not None) == (WorkerStatus.UNBONDING, True)
    assert await registry.worker("worker-1") is None
    (left,) = await registry.workers()
    assert (left.node_id, left.status, left.stake_mist) == ("worker-2", WorkerStatus.SLASHED, 3 * SUI // 2)
    config = await registry.config()
    assert (config.staked_mist, config.treasury_mist, config.worker_count) == (3 * SUI // 2, 3 * SUI // 2, 1)
    owner_token = await registry.owner_token(me)
    assert (owner_token.generation, owner_token.revoked, owner_token.scope) == (2, True, "owner")
    token = await registry.worker_token("worker-2")
    assert (token.commitment, token.owner, token.revoked) == (wanted[1].commitment, me, False)
    assert await registry.worker_token("worker-1") is None


@live
async def test_a_snapshot_is_what_single_reads_say(new_registry: Any) -> None:
    registry: Registry = await new_registry()
    names = [f"worker-{number}" for number in range(60)]  # more than one batch of objects
    await registry.stake([await request(registry, name) for name in names], COLD)
    await registry.create_owner_token(
        digest(registry.deployment.registry_id), await registry.clock_ms() + 9999
    )
    snapshot = await registry.snapshot()
    assert snapshot.workers == await registry.workers_by_id(names)
    assert snapshot.worker_tokens == await registry.worker_tokens(names)
    assert list(snapshot.owner_tokens.values()) == [await registry.owner_token(registry.chain.address)]
    assert list(snapshot.owner_tokens) == [registry.chain.address]
    assert snapshot.config == await registry.config()
    assert snapshot.master is None
    assert snapshot.checkpoint <= (await registry.chain.latest_checkpoint())[0]
    assert set(snapshot.workers) == set(names)
    assert to_json(snapshot)["workers"]["worker-0"]["status"] == "pending"


@live
async def test_batches_are_all_or_nothing(new_registry: Any) -> None:
    registry: Registry = await new_registry()
    await registry.stake([await request(registry, "taken")], COLD)
    with pytest.raises(MoveAbort, match="EWorkerAlreadyExists"):
        await registry.stake(
            [
                await request(registry, "free"),
                replace(await request(registry, "taken"), commitment=digest("x")),
            ],
            COLD,
        )
    assert [worker.node_id for worker in await registry.workers()] == ["taken"]
    for workers in ([], [await request(registry, f"w-{i}") for i in range(201)]):
        with pytest.raises(ValueError, match="wanted 1 to 200"):
            await registry.stake(workers, COLD)


@live
async def test_the_largest_batch_fits_the_networks_limits(new_registry: Any, new_wallet: Any) -> None:
    registry: Registry = await new_registry(await new_wallet(300 * SUI))
    names = [f"{'n' * 59}-{number:03d}" for number in range(200)]
    await registry.stake([await request(registry, name) for name in names], COLD)
    assert len(await registry.workers()) == 200


@live
async def test_calls_need_the_right_capability(new_registry: Any, new_wallet: Any) -> None:
    registry: Registry = await new_registry()
    stranger = Registry(await new_wallet(), registry.deployment)
    for call, cap in (
        (stranger.appoint_master("0x5"), "OperatorCap"),
        (stranger.announce_master("https://a:1", "https://a:2", bytes(32)), "MasterCap"),
        (stranger.set_statuses({"a": WorkerStatus.ACTIVE}), "MasterCap"),
        (stranger.propose_slash("a", 4, bytes(32)), "SlasherCap"),
        (stranger.cancel_slash("a"), "ArbiterCap"),
    ):
        with pytest.raises(MissingCap, match=f"holds no {cap} of registry {registry.deployment.registry_id}"):
            await call
    # A cap of another registry is no cap.
    other: Registry = await new_registry(stranger.chain)
    await other.cap("AdminCap")
    with pytest.raises(MissingCap):
        await stranger.cap("AdminCap")


@live
async def test_who_holds_a_cap_wherever_it_goes(new_registry: Any) -> None:
    registry: Registry = await new_registry()
    cap, of = await registry.cap("OperatorCap"), registry.chain.address
    assert await registry.cap_holder("OperatorCap", cap) == of

    async def hand_on(tx: Any) -> None:
        tx.transfer([tx.object(cap)], COLD)

    await registry.chain.execute(hand_on)
    assert await registry.cap_holder("OperatorCap", cap) == COLD
    assert await registry.cap_holder("OperatorCap", "0x" + "9" * 64) is None
    other: Registry = await new_registry(registry.chain)
    for wrong in (await registry.cap("AdminCap"), await other.cap("OperatorCap")):
        with pytest.raises(
            MalformedRecord, match=f"wanted the OperatorCap of {registry.deployment.registry_id}"
        ):
            await registry.cap_holder("OperatorCap", wrong)


@live
async def test_a_master_uses_its_newest_capability(new_registry: Any, new_wallet: Any) -> None:
    registry: Registry = await new_registry()
    master = await new_wallet()
    masters = Registry(master, registry.deployment)
    for epoch in (1, 2):
        await registry.appoint_master(master.address)
        await masters.announce_master(f"https://m{epoch}:1", "https://m:2", bytes(32))
        found = await registry.master()
        assert (found.epoch, found.endpoint) == (epoch, f"https://m{epoch}:1")


@live
async def test_a_registry_that_is_none_is_refused(new_registry: Any, live_net: Any) -> None:
    registry: Registry = await new_registry()
    for deployment, error in (
        (Deployment(registry.deployment.package_id, "0xdead"), ObjectNotFound),
        (Deployment(registry.deployment.package_id, "0x6"), MalformedRecord),
        (Deployment("0xdead", registry.deployment.registry_id), MalformedRecord),
    ):
        with pytest.raises(error):
            await Registry(registry.chain, deployment).workers()


# -- several endpoints -------------------------------------------------------------------------------------


@live
async def test_all_endpoints_that_answer_have_to_agree(
    new_registry: Any,
    live_net: Any,
    proxy: Callable[[], Awaitable[Any]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    registry: Registry = await new_registry()
    await registry.stake([await request(registry, "worker-1")], COLD)
    front = await proxy()
    async with await SuiClient.connect([live_net.url, front.url], "localnet", timeout_s=1) as chain:
        agreed = AgreedRegistry(chain, registry.deployment)
        worker = await agreed.worker("worker-1")
        assert worker == await registry.worker("worker-1")
        assert await agreed.worker("nobody") is None
        slashed = replace(worker, status=WorkerStatus.SLASHED)

        async def lie(node_id: str) -> Any:
            return slashed

        with monkeypatch.context() as lying:
            lying.setattr(agreed._each[1], "worker", lie)
            with pytest.raises(EndpointsDisagree, match="worker worker-1: pending, slashed"):
                await agreed.worker("worker-1")
        await front.stop()
        assert await agreed.worker("worker-1") == worker
        chain._transport.network = "mainnet"
        with pytest.raises(ChainUnreachable, match="1 of 2 answered, wanted 2"):
            await agreed.worker("worker-1")
        with pytest.raises(ChainUnreachable, match="1 of 2 answered, wanted 2"):
            await agreed.snapshot()


@live
async def test_mainnet_starts_from_a_snapshot_that_two_tell(
    new_registry: Any, live_net: Any, proxy: Callable[[], Awaitable[Any]]
) -> None:
    registry: Registry = await new_registry()
    await registry.stake([await request(registry, "worker-1")], COLD)
    front = await proxy()
    async with await SuiClient.connect([live_net.url, front.url], "localnet", timeout_s=1) as chain:
        agreed = AgreedRegistry(chain, registry.deployment)
        chain._transport.network = "mainnet"
        read = agreed._each[1].snapshot

        async def lagging() -> Any:
            return replace(await read(), checkpoint=1)

        agreed._each[1].snapshot = lagging
        assert (await agreed.snapshot()).checkpoint == 1, "what came after it is to be followed"

        async def lying() -> Any:
            return replace(await read(), worker_tokens={})

        agreed._each[1].snapshot = lying
        with pytest.raises(EndpointsDisagree, match="5 times in a row"):
            await agreed.snapshot()


# -- deployment --------------------------------------------------------------------------------------------


@live
async def test_a_package_is_found_by_its_whole_bytecode(
    live_package: Any, compiled: Any, new_wallet: Any
) -> None:
    publisher, package_id = live_package
    modules = compiled.modules
    assert await find_package(publisher, publisher.address, modules) == package_id
    assert await find_package(publisher, publisher.address, modules[::-1]) == package_id
    assert await find_package(publisher, publisher.address, modules[1:]) is None
    other = bytearray(modules[0])
    other[-1] ^= 1
    assert await find_package(publisher, publisher.address, (bytes(other), *modules[1:])) is None
    stranger = await new_wallet()
    assert await find_package(stranger, stranger.address, modules) is None


@live
async def test_a_registry_is_found_by_its_name(new_registry: Any, new_wallet: Any) -> None:
    registry: Registry = await new_registry(name="first")
    chain, package = registry.chain, registry.deployment.package_id
    second: Registry = await new_registry(chain, name="second")
    for found, name in ((registry, "first"), (second, "second")):
        assert await find_registry(chain, chain.address, name) == found.deployment
        assert await find_registry(chain, chain.address, name, package) == found.deployment
    assert await find_registry(chain, chain.address, "third") is None
    stranger = await new_wallet()
    assert await find_registry(stranger, stranger.address, "first") is None


def test_a_compiled_package_is_a_value() -> None:
    assert CompiledPackage((b"a",), ("0x1",)) == CompiledPackage((b"a",), ("0x1",))


# -- values ------------------------------------------------------------------------------------------------


@given(st.text(max_size=70) | st.from_regex(r"[a-z0-9-]{1,70}", fullmatch=True))
def test_node_ids_are_rfc_1123_labels(text: str) -> None:
    letters = set("abcdefghijklmnopqrstuvwxyz0123456789")
    good = (
        1 <= len(text) <= 63 and set(text) <= letters | {"-"} and text[0] in letters and text[-1] in letters
    )
    if good:
        assert check_node_id(text) == text
    else:
        with pytest.raises(InvalidNodeId, match="RFC 1123"):
            check_node_id(text)


def test_a_long_bad_node_id_is_shown_short() -> None:
    with pytest.raises(InvalidNodeId, match=re.escape("(253 characters)")) as caught:
        check_node_id("A" * 253)
    assert len(str(caught.value)) < 350


WORKER: dict[str, Any] = {
    "node_id": "w",
    "owner": "0x1",
    "stake": "18446744073709551615",
    "status": {"@variant": "Busy"},
    "proof": "0x2",
    "withdrawal_address": "0x3",
    "registered_at_ms": "1",
    "status_changed_at_ms": "2",
    "min_stake": "3",
    "slash_window_ms": "4",
    "unbonding_window_ms": "5",
    "slash_share_bps": "6",
    "reputation": "100",
    "proposal": None,
    "unbonding_until_ms": None,
    "workload": "2",
    "rewards": {"balance": "7", "reported_until_ms": "8"},
}


def test_a_worker_is_read_exactly() -> None:
    worker = parse_worker(WORKER)
    assert (worker.stake_mist, worker.status) == (2**64 - 1, WorkerStatus.BUSY)
    proposal = {
        "reason": 4.0,  # u8 to u32 come as JSON numbers
        "evidence_hash": base64.b64encode(bytes(32)).decode(),
        "proposed_at_ms": "7",
        "executable_at_ms": "8",
        "previous": {"@variant": "Active"},
    }
    jailed = parse_worker(WORKER | {"proposal": proposal, "unbonding_until_ms": "9"})
    assert (jailed.proposal.reason, jailed.proposal.previous) == (4, WorkerStatus.ACTIVE)
    assert jailed.unbonding_until_ms == 9
    assert (worker.workload, worker.rewards_mist, worker.required_stake_mist) == (2, 7, 3)
    assert worker.ready_reported_until_ms == 8
    assert parse_worker(WORKER | {"reputation": "50", "min_stake": "3"}).required_stake_mist == 4


@pytest.mark.parametrize(
    "change",
    [
        *({"node_id": name} for name in ("", "{{ lookup('pipe', 'id') }}", "ansible_host", "../a", None)),
        *({"stake": stake} for stake in ("-1", "1.5", "x", None, True, 1.5, "\u0661")),
        *({"status": status} for status in ("Gone", {"@variant": "Gone"}, None, {})),
        *({"proposal": proposal} for proposal in ("x", {}, {"reason": 1})),
        {"owner": 5},
    ],
)
def test_a_record_of_another_shape_is_refused(change: dict[str, Any]) -> None:
    with pytest.raises(MalformedRecord, match="Worker"):
        parse_worker(WORKER | change)
    with pytest.raises(MalformedRecord, match="no field"):
        parse_worker({key: value for key, value in WORKER.items() if key not in change} | {"other": 1})


def test_records_that_are_no_struct_are_refused() -> None:
    for value in (None, [], "x", 5):
        with pytest.raises(MalformedRecord):
            parse_worker(value)


def test_events_of_others_are_not_ours() -> None:
    ours = Deployment("0xaa", "0xbb")
    kind = "worker_registry::RegistryCreatedEvent"
    json = {"registry": ours.registry_id, "name": "n", "creator": "0x1"}
    event = Event("d", 0, f"{ours.package_id}::{kind}", json, "0x1")
    assert parse_event(event, ours) == RegistryCreated("n", "0x1")
    for other in (
        replace(event, type=f"{Deployment('0xab', '0x1').package_id}::{kind}"),
        replace(event, type=f"{ours.package_id}::worker_registry::UnknownEvent"),
        replace(event, json=json | {"registry": "0xbc"}),
        replace(event, json={}),
    ):
        assert parse_event(other, ours) is None
    with pytest.raises(MalformedRecord):
        parse_event(replace(event, json={"registry": ours.registry_id}), ours)
    # After an upgrade calls go to the newest package, and types keep the name of the first.
    upgraded = Deployment("0xcc", "0xbb", "0xaa")
    assert parse_event(event, upgraded) == RegistryCreated("n", "0x1")
