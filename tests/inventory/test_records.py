"""What the chain, an endpoint or the cache's file may say, and what of it gets through: plain data."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from inventory_kit import REGISTRY, SOURCE, record, view

from k3s_daas.chain import MalformedRecord
from k3s_daas.inventory import FleetView, WorkerRecord, view_of
from k3s_daas.registry.model import SealTokenRecord, parse_registry, parse_seal_token, parse_worker

HOSTILE = [
    "{{ lookup('pipe', 'id') }}",
    "{% for a in b %}",
    "{# #}",
    "!unsafe x",
    "ansible_host",
    "a\nansible_connection: local",
    "a\x00b",
    "\x1b[2J",
    "\u202eevil",
    "\u0430ctive",  # the Cyrillic a
    "ａ",  # noqa: RUF001  # full width
    "../../etc/passwd",
    "-oProxyCommand=id",
    "worker_1",
    "Worker-1",
    "worker-1\n",
    "w" * 64,
    "",
]
ADDRESS = "0x" + "1" * 64
#: A worker as a node renders it.
RENDERED: dict[str, Any] = {
    "node_id": "worker-1",
    "owner": ADDRESS,
    "stake": "1000000000",
    "status": {"@variant": "Active"},
    "proof": ADDRESS,
    "withdrawal_address": ADDRESS,
    "registered_at_ms": "1",
    "status_changed_at_ms": "1",
    "min_stake": "1000000000",
    "slash_window_ms": "1",
    "unbonding_window_ms": "1",
    "slash_share_bps": "5000",
    "reputation": "100",
    "proposal": None,
    "unbonding_until_ms": None,
    "workload": "0",
    "rewards": {"balance": "0", "reported_until_ms": "0"},
}
TOKEN = {"commitment": "AA==", "generation": "1", "issued_at_ms": "1", "expires_at_ms": "2", "revoked": False}
REGISTRY_RENDERED: dict[str, Any] = {
    "version": "1",
    "name": "fleet",
    "open": True,
    "allowed_owners": {"contents": [ADDRESS]},
    "min_stake": "1",
    "slash_window_ms": "1",
    "unbonding_window_ms": "1",
    "slash_share_bps": "1",
    "require_attestation": False,
    "staked": "1",
    "treasury": "0",
    "workers": {"size": "0", "id": "0x1"},
    "owners": {"id": "0x2"},
    "master": None,
    "earned": "0",
    "rewards": {"balance": "0", "per_request": "0", "per_ready_hour": "0", "cap_per_epoch": "0"},
}
scalars = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.sampled_from(HOSTILE)
    | st.text(max_size=20)
    | st.text("0123456789", min_size=1, max_size=90)
)
anything = st.recursive(
    scalars,
    lambda some: st.lists(some, max_size=3) | st.dictionaries(st.text(max_size=8), some, max_size=3),
    max_leaves=6,
)


def texts(value: Any) -> list[str]:
    """Every text in it, keys included."""
    if isinstance(value, dict):
        return [text for pair in value.items() for item in pair for text in texts(item)]
    return [value] if isinstance(value, str) else []


@given(st.sampled_from(sorted(RENDERED)), anything)
def test_what_a_node_says_of_a_worker_is_taken_whole_or_refused(name: str, said: Any) -> None:
    try:
        worker = parse_worker(RENDERED | {name: said})
        found = view_of(SOURCE, [worker], {})
    except MalformedRecord:
        return
    for text in texts(found.model_dump()["workers"]):
        assert re.fullmatch(r"[a-z0-9_-]{1,128}", text), text
    assert all(re.fullmatch(r"[a-z0-9]([a-z0-9-]*[a-z0-9])?", node_id) for node_id in found.workers)


@given(st.sampled_from(sorted(REGISTRY_RENDERED)), anything | anything.map(lambda some: {"contents": some}))
def test_a_registry_of_any_shape_is_parsed_or_refused(name: str, said: Any) -> None:
    with_it = REGISTRY_RENDERED | {name: said}
    try:
        config = parse_registry(REGISTRY, "type", with_it)
    except MalformedRecord:
        return
    assert all(isinstance(owner, str) for owner in config.allowed_owners)
    assert config.min_stake_mist >= 0


@given(st.sampled_from(sorted(TOKEN)), anything)
def test_a_seal_token_of_any_shape_is_parsed_or_refused(name: str, said: Any) -> None:
    try:
        token = parse_seal_token(TOKEN | {name: said}, "worker", "worker-1", ADDRESS)
        view_of(SOURCE, [parse_worker(RENDERED)], {"worker-1": token})
    except MalformedRecord:
        return
    assert isinstance(token, SealTokenRecord)


@given(anything)
def test_a_cache_of_any_content_is_taken_or_refused(kept: Any) -> None:
    with pytest.raises(MalformedRecord, match=r"found .* wanted"):
        FleetView.load(kept, "The cache")


@given(
    st.sampled_from([*WorkerRecord.model_fields, "ansible_host", "ansible_connection"]),
    anything.filter(lambda some: not isinstance(some, int)),
)
@settings(max_examples=200)
def test_a_record_in_the_cache_is_checked_like_the_chains(name: str, said: Any) -> None:
    kept = {"source": SOURCE, "workers": {"worker-1": record("worker-1") | {name: said}}}
    try:
        found = FleetView.load(kept, "The cache")
    except MalformedRecord:
        return
    assert found.model_dump()["workers"] == kept["workers"]
    assert not name.startswith("ansible_")
    assert name in ("seal_token", "proposal", "unbonding_until_ms") or said in ("active",)


@pytest.mark.parametrize("text", HOSTILE)
@pytest.mark.parametrize(
    "name", ["node_id", "owner", "status", "withdrawal_address", "proof_id", "evidence_hash", "chain_id"]
)
def test_no_text_gets_through_where_the_contract_writes_none(name: str, text: str) -> None:
    worker, source = record("worker-1"), dict(SOURCE)
    if name == "evidence_hash":
        times = {"proposed_at_ms": 1, "executable_at_ms": 1}
        worker["proposal"] = {"reason": 1, "evidence_hash": text, "previous": "active"} | times
    else:
        (source if name in source else worker)[name] = text
    with pytest.raises(MalformedRecord) as refused:
        FleetView.load({"source": source, "workers": {worker["node_id"]: worker}}, "Registry 0x1")
    # Shown as ASCII: what is refused does nothing to the terminal either.
    assert str(refused.value).isprintable()
    assert "an endpoint lies" in str(refused.value)


def test_a_record_is_that_of_its_name() -> None:
    with pytest.raises(MalformedRecord, match="the record under worker-1 is that of worker-2"):
        FleetView.load({"source": SOURCE, "workers": {"worker-1": record("worker-2")}}, "The cache")
    with pytest.raises(MalformedRecord, match="workers of no registry"):
        FleetView.load({"source": None, "workers": {"worker-1": record("worker-1")}}, "The cache")


def test_a_view_survives_a_cache_of_json() -> None:
    proposal = {
        "reason": 2,
        "evidence_hash": "65" * 32,
        "proposed_at_ms": 1,
        "executable_at_ms": 2,
        "previous": "busy",
    }
    one = view([record("worker-1", proposal=proposal), record("worker-2", seal_token=None)])
    assert FleetView.load(json.loads(json.dumps(one.model_dump())), "The cache") == one


@pytest.mark.parametrize("number", [-1, 2**64, 1.5, True, "1"])
def test_amounts_are_whole_and_no_more_than_the_chain_can_hold(number: Any) -> None:
    with pytest.raises(MalformedRecord, match="stake_mist"):
        view([record("worker-1", stake_mist=number)])
