"""The rules: a fleet that agrees has no differences; what is changed in it shows, for whom it concerns."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from k3s_daas.drift import Change, NotAsked, compare
from k3s_daas.registry import RegistryParams, WorkerStatus
from k3s_daas.registry.model import RewardRates
from k3s_daas.registry.settings import Wanted

if TYPE_CHECKING:
    from conftest import Sides

W1, W2, GUEST = "worker-1", "worker-2", "guest-1"
NOW_MS = 1_790_000_000_000
Break = Callable[["Sides", str], "Sides"]

#: One thing that changes on one side, and what the difference is about. `name` is a worker of the inventory.
OF_A_WORKER: dict[str, tuple[Break, str]] = {
    "not staked": (lambda sides, name: sides.without("chain", name), "stake"),
    "not in the cluster": (lambda sides, name: sides.without("cluster", name), "node"),
    "not in the inventory": (lambda sides, name: sides.without("inventory", name), "stake"),
    "another's": (lambda sides, name: sides.worker_with(name, owner="0x" + "b" * 64), "owner"),
    "pending": (lambda sides, name: sides.worker_with(name, status=WorkerStatus.PENDING), "status"),
    "offline": (lambda sides, name: sides.worker_with(name, status=WorkerStatus.OFFLINE), "status"),
    "jailed": (lambda sides, name: sides.worker_with(name, status=WorkerStatus.JAILED), "status"),
    "slashed": (lambda sides, name: sides.worker_with(name, status=WorkerStatus.SLASHED), "status"),
    "leaving": (lambda sides, name: sides.worker_with(name, status=WorkerStatus.UNBONDING), "status"),
    "not Ready": (lambda sides, name: sides.node_with(name, ready=False), "node"),
    "cordoned": (lambda sides, name: sides.node_with(name, unschedulable=True), "node"),
    "old kubelet": (lambda sides, name: sides.node_with(name, version="v1.33.0+k3s1"), "k3s running"),
    "revoked": (lambda sides, name: sides.token_with(name, revoked=True), "seal token"),
    "expired": (lambda sides, name: sides.token_with(name, expires_at_ms=NOW_MS), "seal token"),
    "other token": (lambda sides, name: sides.host_with(name, commitment="00" * 32), "seal token"),
    "no token": (lambda sides, name: sides.host_with(name, commitment=""), "seal token"),
    "bad token": (lambda sides, name: sides.host_with(name, seal_trouble="mode 0644"), "seal token"),
    "half rotated": (lambda sides, name: sides.host_with(name, next_commitment="00" * 32), "seal token"),
    "unit stopped": (
        lambda sides, name: sides.unit_with(name, "k3s-agent.service", active="inactive", sub="dead"),
        "k3s-agent.service",
    ),
    "unit keeps starting": (
        lambda sides, name: sides.unit_with(
            name, "k3s-agent.service", active="activating", sub="auto-restart"
        ),
        "k3s-agent.service",
    ),
    "unit disabled": (
        lambda sides, name: sides.unit_with(name, "k3s-agent.service", enabled="disabled"),
        "k3s-agent.service",
    ),
    "unit missing": (
        lambda sides, name: sides.unit_with(name, "k3s-agent.service", active="inactive", enabled=""),
        "k3s-agent.service",
    ),
    "a file": (
        lambda sides, name: sides.seen_with(
            changes=(Change(host=name, role="k3s_agent", task="Write it", what="/etc/x.yaml"),)
        ),
        "/etc/x.yaml",
    ),
}
OF_THE_MASTER: dict[str, tuple[Callable[[Sides], Sides], str]] = {
    "none": (lambda sides: sides.config_with(master=None), "master"),
    "silent": (lambda sides: sides.master_with(endpoint="", api_server="", ca_hash=b""), "master"),
    "elsewhere": (lambda sides: sides.master_with(endpoint="https://10.0.0.99:8443"), "endpoint"),
    "other API server": (lambda sides: sides.fleet_with(api_server="https://10.0.0.99:6443"), "API server"),
    "other CA": (lambda sides: sides.master_with(ca_hash=b"\0" * 32), "CA hash"),
    "no CA": (lambda sides: sides.cluster_with(ca_pem="<html>"), "CA hash"),
    "not CA's letters": (lambda sides: sides.cluster_with(ca_pem="ä"), "CA hash"),
    "replaced": (lambda sides: sides.cluster_with(announced=False), "master"),
    "simulated": (lambda sides: sides.fleet_with(attested=True), "attestation"),
    "k3s stopped": (lambda sides: sides.unit_with("master", "k3s.service", active="failed"), "k3s.service"),
}
TERMS = {
    "min_stake_mist": 2 * 10**9,
    "slash_window_ms": 1,
    "unbonding_window_ms": 1,
    "slash_share_bps": 1,
    "require_attestation": True,
    "open": False,
}


def about(sides: Sides) -> set[tuple[str, str]]:
    return {(one.who, one.what) for one in compare(sides.fleet, sides.seen).differences}


@pytest.mark.parametrize("version", ["", "v1.34.2+k3s1"])
def test_a_fleet_that_agrees_has_no_differences(agreeing: Callable[..., Sides], version: str) -> None:
    sides = agreeing((W1, W2), (GUEST,), version=version)
    report = compare(sides.fleet, sides.seen)
    assert (report.differences, report.exit_code) == ((), 0)


@pytest.mark.parametrize("case", OF_A_WORKER)
def test_what_is_wrong_with_a_worker_is_said_of_it_alone(agreeing: Callable[..., Sides], case: str) -> None:
    breaks, what = OF_A_WORKER[case]
    found = about(breaks(agreeing((W1, W2)), W1))
    assert (W1, what) in found
    assert {who for who, _ in found} == {W1}


@pytest.mark.parametrize("case", OF_THE_MASTER)
def test_what_is_wrong_with_the_master_is_said_of_it_alone(agreeing: Callable[..., Sides], case: str) -> None:
    breaks, what = OF_THE_MASTER[case]
    assert about(breaks(agreeing((W1, W2)))) == {("master", what)}


@pytest.mark.parametrize("term", TERMS)
def test_each_term_is_compared(agreeing: Callable[..., Sides], term: str) -> None:
    assert about(agreeing((W1,)).config_with(**{term: TERMS[term]})) == {("registry", term)}


def test_owners_and_rates_are_compared_where_the_inventory_names_them(agreeing: Callable[..., Sides]) -> None:
    sides = agreeing((W1,)).config_with(allowed_owners=frozenset({"0x1"}), rates=RewardRates(1, 2, 3))
    assert about(sides) == set()
    params = RegistryParams("demo", True, 10**9, 0, 60_000, 5000, False)
    wanted = Wanted(params, frozenset({"0x2"}), RewardRates(4, 5, 6))
    assert about(sides.fleet_with(terms=wanted)) == {
        ("registry", "allowed_owners"),
        ("registry", "reward_rates"),
    }


def test_the_terms_of_anothers_registry_are_its_own(agreeing: Callable[..., Sides]) -> None:
    sides = agreeing((W1,)).fleet_with(terms=None).config_with(min_stake_mist=5)
    assert about(sides) == set()


def test_a_version_that_the_inventory_names_is_held_against_binary_and_node(
    agreeing: Callable[..., Sides],
) -> None:
    sides = agreeing((W1,)).fleet_with(k3s_version="v1.34.9+k3s1")
    assert about(sides) == {(W1, "k3s installed"), (W1, "k3s running"), ("master", "k3s installed")}


def test_a_node_that_nobody_staked_for(agreeing: Callable[..., Sides]) -> None:
    sides = agreeing((W1,), (GUEST,)).without("chain", GUEST)
    (found,) = compare(sides.fleet, sides.seen).differences
    assert (found.who, found.what, found.found, found.wanted) == (GUEST, "node", "joined", "not staked")
    assert found.between == ("cluster", "chain")


@pytest.mark.parametrize("status", [WorkerStatus.SLASHED, WorkerStatus.UNBONDING])
def test_a_node_that_should_be_gone(agreeing: Callable[..., Sides], status: WorkerStatus) -> None:
    sides = agreeing((W1,), (GUEST,)).worker_with(GUEST, status=status)
    assert about(sides) == {(GUEST, "node")}
    assert about(sides.without("cluster", GUEST)) == set()


@pytest.mark.parametrize("status", [WorkerStatus.PENDING, WorkerStatus.OFFLINE, WorkerStatus.JAILED])
def test_another_owners_worker_without_a_node_says_so_itself(
    agreeing: Callable[..., Sides], status: WorkerStatus
) -> None:
    sides = agreeing((W1,), (GUEST,)).worker_with(GUEST, status=status).without("cluster", GUEST)
    assert about(sides) == set()


def test_another_owners_active_worker_has_a_ready_node(agreeing: Callable[..., Sides]) -> None:
    sides = agreeing((W1,), (GUEST,))
    assert about(sides.without("cluster", GUEST)) == {(GUEST, "node")}
    assert about(sides.node_with(GUEST, ready=False)) == {(GUEST, "node")}


def test_a_slashed_worker_that_was_taken_out_is_done_with(agreeing: Callable[..., Sides]) -> None:
    sides = agreeing((W1, W2)).worker_with(W2, status=WorkerStatus.SLASHED)
    assert about(sides.without("inventory", W2).without("cluster", W2)) == set()


def test_the_units_of_a_worker_that_is_gone_may_be_stopped(agreeing: Callable[..., Sides]) -> None:
    sides = agreeing((W1, W2)).worker_with(W2, status=WorkerStatus.SLASHED).without("cluster", W2)
    sides = sides.unit_with(W2, "k3s-agent.service", active="inactive", enabled="disabled")
    assert about(sides) == {(W2, "status")}


def test_a_unit_that_another_one_starts_needs_no_enabling(agreeing: Callable[..., Sides]) -> None:
    unit = "k3s-agent.service"
    assert about(agreeing((W1,)).unit_with(W1, unit, enabled="static")) == set()
    assert about(agreeing((W1,)).unit_with(W1, unit, active="inactive", enabled="static")) == {(W1, unit)}


def test_a_rotation_that_was_interrupted_says_which_half_is_missing(agreeing: Callable[..., Sides]) -> None:
    sides = agreeing((W1,))
    assert sides.seen.chain is not None
    onchain = sides.seen.chain.tokens[W1].commitment.hex()
    sides = sides.host_with(W1, commitment="00" * 32, next_commitment=onchain)
    (found,) = compare(sides.fleet, sides.seen).differences
    assert (found.found, found.wanted) == ("the generation before", "generation 3")
    assert "rotate.yml finishes it" in found.fix


def test_who_was_not_asked_is_no_difference_and_no_agreement(agreeing: Callable[..., Sides]) -> None:
    sides = agreeing((W1,))
    silent = (NotAsked("chain", "no answer"),)
    assert compare(sides.fleet, sides.seen, silent).exit_code == 4
    broken = sides.node_with(W1, ready=False)
    assert compare(broken.fleet, broken.seen, silent).exit_code == 2


FLEETS = st.lists(st.from_regex(r"[a-z][a-z0-9]{0,5}", fullmatch=True), min_size=2, max_size=8, unique=True)
BROKEN = st.lists(st.sampled_from(sorted(OF_A_WORKER)), max_size=4)


def draw(agreeing: Any, names: list[str], cases: list[str]) -> Sides:
    """A fleet, half of it another owner's, of which some things were broken, each of another worker."""
    half = (len(names) + 1) // 2
    sides: Sides = agreeing(tuple(names[:half]), tuple(names[half:]))
    for name, case in zip(names[:half], cases, strict=False):
        changes = sides.seen.changes
        sides = OF_A_WORKER[case][0](sides, name)
        sides = sides.seen_with(changes=tuple({*sides.seen.changes, *changes}))
    return sides


@given(names=FLEETS, cases=BROKEN)
@settings(deadline=None)
def test_exactly_what_was_broken_shows(agreeing: Any, names: list[str], cases: list[str]) -> None:
    found = about(draw(agreeing, names, cases))
    half = (len(names) + 1) // 2
    wanted = {(n, OF_A_WORKER[case][1]) for n, case in zip(names[:half], cases, strict=False)}
    assert wanted <= found
    assert {who for who, _ in found} == {who for who, _ in wanted}


@given(names=FLEETS, cases=BROKEN, hidden=st.sets(st.sampled_from(["chain", "cluster", "hosts"])))
@settings(deadline=None)
def test_a_side_that_is_silent_accuses_nobody(
    agreeing: Any, names: list[str], cases: list[str], hidden: set[str]
) -> None:
    sides = draw(agreeing, names, cases)
    empty: dict[str, Any] = {"chain": None, "cluster": None, "hosts": {}}
    dark = replace(sides.seen, **{side: empty[side] for side in hidden})
    accused = {one.who for one in compare(sides.fleet, dark).differences}
    assert accused <= {who for who, _ in about(sides)}


@given(names=FLEETS, cases=BROKEN)
@settings(deadline=None)
def test_the_report_is_whole_and_its_code_follows(agreeing: Any, names: list[str], cases: list[str]) -> None:
    sides = draw(agreeing, names, cases)
    report = compare(sides.fleet, sides.seen)
    said = report.as_json()
    assert said["exit_code"] == (2 if said["differences"] else 0)
    assert all(one["fix"] and one["found"] != one["wanted"] for one in said["differences"])
    table = report.table()
    assert all(one.who in table for one in report.differences)
    assert all(line == line.rstrip() for line in table.splitlines())
