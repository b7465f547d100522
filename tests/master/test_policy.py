"""The slashing policy: what is only shown, what is proposed when armed, and what holds it back."""

from __future__ import annotations

import stat
from dataclasses import replace
from typing import Any

import pytest

from k3s_daas import evidence
from k3s_daas.chain import ChainUnreachable, InsufficientGas, MoveAbort, OutcomeUnknown
from k3s_daas.registry import WorkerStatus


async def offend(bench: Any, node_id: str = "worker-1") -> str:
    """A worker signs two bodies for one moment; returns the evidence's hash."""
    token, key = await bench.join_signing(node_id)
    for pods in (1, 2):
        await bench.signed_beat(token, node_id, key, running_pods=pods)
    found = bench.state.policy.findings()[0]
    assert found.node_id == node_id
    return str(found.sha256)


async def arm(bench: Any) -> None:
    bench.chain.caps.add(("SlasherCap", bench.address))
    await bench.restart(slashing="armed")
    await bench.state.fleet.reconcile()
    await bench.catch_up()


def states(bench: Any) -> list[str]:
    return [finding.state for finding in bench.state.policy.findings()]


async def test_observing_is_the_default_and_sends_nothing(bench: Any) -> None:
    bench.chain.caps.add(("SlasherCap", bench.address))
    assert bench.config.slashing == "observe"
    sha256 = await offend(bench)
    await bench.state.policy.act()
    assert bench.chain.proposals == [], "act() is for the armed; a second line of defence"
    shown = (await bench.api.get("/api/v1/findings")).json()
    assert (shown["slashing"], shown["held_back"]) == ("observe", None)
    text = (await bench.api.get("/metrics")).text
    assert 'k3s_daas_findings{reason="1",state="observed"} 1.0' in text
    assert "k3s_daas_slashing_armed 0.0" in text
    path = bench.config.state_dir / "evidence" / f"{sha256}.bcs"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


async def test_armed_it_proposes_with_the_hash_of_the_published_evidence(bench: Any) -> None:
    await arm(bench)
    sha256 = await offend(bench)
    await bench.state.policy.act()
    await bench.catch_up()
    assert bench.chain.proposals == [("worker-1", 1, bytes.fromhex(sha256))]
    assert bench.state.index.workers["worker-1"].status is WorkerStatus.JAILED
    (found,) = (await bench.api.get("/api/v1/findings")).json()["findings"]
    assert (found["state"], found["digest"]) == ("proposed", "proposed")
    raw = (await bench.api.get(f"/api/v1/findings/{sha256}/evidence")).content
    assert evidence.digest(raw).hex() == sha256
    await bench.state.policy.act()
    assert len(bench.chain.proposals) == 1


async def test_what_was_found_while_observing_is_not_proposed_by_arming(bench: Any) -> None:
    await offend(bench)
    await arm(bench)
    await bench.state.policy.act()
    assert bench.chain.proposals == []
    assert states(bench) == ["observed"]


async def test_armed_without_a_cap_is_an_alert(bench: Any) -> None:
    await bench.restart(slashing="armed")
    await bench.state.fleet.reconcile()
    await offend(bench)
    await bench.state.policy.act()
    assert bench.chain.proposals == []
    (alert,) = (await bench.api.get("/readyz")).json()["alerts"]
    assert "holds no SlasherCap" in alert
    bench.chain.caps.add(("SlasherCap", bench.address))
    await bench.state.policy.act()
    assert len(bench.chain.proposals) == 1
    assert (await bench.api.get("/readyz")).json()["alerts"] == []


async def test_who_proposes_must_not_judge(bench: Any) -> None:
    bench.chain.caps.add(("ArbiterCap", bench.address))
    await arm(bench)
    await offend(bench)
    await bench.state.policy.act()
    assert bench.chain.proposals == []
    assert "ArbiterCap too" in (await bench.api.get("/readyz")).json()["alerts"][0]


def stale(bench: Any) -> None:
    bench.clock.advance(61)


def clock_off(bench: Any) -> None:
    bench.clock.ms += 3_600_000


def gap(bench: Any) -> None:
    bench.state.store.note_gap(5, 90, bench.clock.ms)


def forked(bench: Any) -> None:
    bench.state.follower.forked = True


def unsettled(bench: Any) -> None:
    bench.state.index.settled = False


def disrupted(bench: Any) -> None:
    bench.state.disruption._since = bench.clock.monotonic()
    bench.state.disruption._silent = {"0xsomebody": bench.clock.ms}


@pytest.mark.parametrize(
    ("doubt", "said"),
    [
        (stale, "older than 60 s"),
        (clock_off, "clock"),
        (gap, "events were lost"),
        (forked, "different histories"),
        (unsettled, "to its end"),
        (disrupted, "fell silent at once"),
    ],
)
async def test_what_holds_proposals_back(bench: Any, doubt: Any, said: str) -> None:
    await arm(bench)
    await offend(bench)
    doubt(bench)
    await bench.state.policy.act()
    assert bench.chain.proposals == []
    assert states(bench) == ["waiting"]
    shown = (await bench.api.get("/api/v1/findings")).json()
    assert said in shown["held_back"]
    assert "k3s_daas_proposals_held_back 1.0" in (await bench.api.get("/metrics")).text


async def test_held_back_is_not_forgotten(bench: Any) -> None:
    await arm(bench)
    await offend(bench)
    gap(bench)
    await bench.state.policy.act()
    bench.state.store.acknowledge_gaps(bench.clock.ms)
    await bench.state.policy.act()
    assert len(bench.chain.proposals) == 1


async def test_doubts_that_come_up_at_the_last_moment_count(bench: Any) -> None:
    await arm(bench)
    await offend(bench)
    read = bench.chain.worker

    async def slow(node_id: str) -> Any:
        found = await read(node_id)
        stale(bench)
        return found

    bench.chain.worker = slow
    await bench.state.policy.act()
    assert bench.chain.proposals == []


@pytest.mark.parametrize("error", [InsufficientGas(1, 2, "0x1"), ChainUnreachable({"x": "cut"})])
async def test_what_was_not_sent_is_tried_again(bench: Any, error: Exception) -> None:
    await arm(bench)
    await offend(bench)
    bench.chain.refuse_proposals = lambda: error
    await bench.state.policy.act()
    assert states(bench) == ["waiting"]
    assert (await bench.api.get("/readyz")).json()["alerts"]
    bench.chain.refuse_proposals = lambda: None
    await bench.state.policy.act()
    assert states(bench) == ["proposed"]


@pytest.mark.parametrize(("name", "state"), [("EUnbondingOver", "dropped"), ("ETooManyProposals", "waiting")])
async def test_the_contracts_refusals(bench: Any, name: str, state: str) -> None:
    await arm(bench)
    await offend(bench)
    bench.chain.refuse_proposals = lambda: MoveAbort("slashing", "propose_slash", 1, name, "no")
    await bench.state.policy.act()
    assert states(bench) == [state]
    assert name in bench.state.policy.findings()[0].detail


async def test_a_lost_answer_is_looked_up_and_never_sent_twice(bench: Any) -> None:
    await arm(bench)
    sha256 = await offend(bench)
    propose = bench.chain.propose_slash

    async def lost(*what: Any) -> Any:
        await propose(*what)
        raise OutcomeUnknown("digest", {"x": "lost"})

    bench.chain.propose_slash = lost
    await bench.state.policy.act()
    assert states(bench) == ["sent"]
    bench.chain.propose_slash = propose
    await bench.state.policy.act()
    assert states(bench) == ["proposed"]
    assert [p[2].hex() for p in bench.chain.proposals] == [sha256]


@pytest.mark.parametrize("cancelled", [True, False])
async def test_killed_after_sending_it_does_not_propose_anew(bench: Any, cancelled: bool) -> None:
    await arm(bench)
    await offend(bench)

    async def killed(*_: Any) -> Any:
        raise KeyboardInterrupt

    real, bench.chain.propose_slash = bench.chain.propose_slash, killed
    with pytest.raises(KeyboardInterrupt):
        await bench.state.policy.act()
    bench.chain.propose_slash = real
    await arm(bench)
    await bench.state.policy.act()
    assert states(bench) == ["sent"], "it may still be on its way"
    bench.clock.advance(61)
    bench.chain.checkpoint()
    await bench.catch_up()
    await bench.state.policy.act()
    assert states(bench) == ["dropped"]
    assert bench.chain.proposals == []


async def test_the_record_of_the_chain_decides_not_the_index(bench: Any) -> None:
    await arm(bench)
    await offend(bench)
    bench.chain.workers["worker-1"] = replace(
        bench.chain.workers["worker-1"], registered_at_ms=bench.clock.ms + 1
    )
    await bench.state.policy.act()
    assert bench.chain.proposals == []
    assert bench.state.policy.findings()[0].detail == "the worker has left"


@pytest.mark.parametrize("status", [WorkerStatus.JAILED, WorkerStatus.SLASHED])
async def test_who_is_jailed_already_is_not_proposed_again(bench: Any, status: WorkerStatus) -> None:
    await arm(bench)
    await offend(bench)
    bench.chain.workers["worker-1"] = replace(bench.chain.workers["worker-1"], status=status)
    await bench.state.policy.act()
    assert (bench.chain.proposals, states(bench)) == ([], ["dropped"])


async def test_no_other_file_comes_out_of_the_api(bench: Any) -> None:
    await offend(bench)
    for name in ("master.db", "..%2Fmaster.db", "0" * 64, "%2E%2E%2Fsui.key", "A" * 64):
        response = await bench.api.get(f"/api/v1/findings/{name}/evidence")
        assert response.status_code == 404


async def test_a_finding_that_cannot_be_kept_is_logged_and_harms_nobody(
    bench: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(bench.state.policy, "_publish", full)
    token, key = await bench.join_signing("worker-1")
    await bench.signed_beat(token, "worker-1", key, running_pods=1)
    refused = await bench.signed_beat(token, "worker-1", key, running_pods=2)
    assert bench.refusal(refused) == (409, "timestamp_replayed")
    assert bench.state.policy.findings() == []


# -- refused drains -----------------------------------------------------------------------------------------


async def look(bench: Any, times: int) -> None:
    for _ in range(times):
        bench.clock.advance(60)
        if "worker-1" in bench.kube.leases:
            bench.kube.renew("worker-1")
        bench.chain.checkpoint()
        await bench.catch_up()
        await bench.state.fleet.reconcile()


async def drained(bench: Any, **pod: Any) -> None:
    """worker-1 is cordoned, and one of its pods should have gone by now."""
    await bench.join("worker-1")
    bench.kube.add_pod("stubborn", "worker-1")
    bench.kube.keep_running("stubborn", deadline_ms=bench.clock.ms, **pod)
    bench.kube.nodes["worker-1"]["spec"]["unschedulable"] = True


async def test_pods_that_run_on_are_found_after_three_looks(bench: Any) -> None:
    await drained(bench)
    deadline = bench.clock.ms // 1000 * 1000
    await look(bench, 3)
    assert states(bench) == [], "the first minute is grace, then two looks"
    await look(bench, 1)
    (found,) = bench.state.policy.findings()
    assert (found.node_id, found.reason, found.state) == ("worker-1", 2, "observed")
    raw = (await bench.api.get(f"/api/v1/findings/{found.sha256}/evidence")).content
    proof = evidence.decode(2, raw)
    assert isinstance(proof, evidence.RefusedDrain)
    assert evidence.judge(proof).proven
    assert (proof.requested_at_ms, proof.deadline_ms) == (deadline - 30_000, deadline)
    assert {seen.pod_uid for seen in proof.observations} == {"uid-stubborn"}
    await look(bench, 3)
    assert len(bench.state.policy.findings()) == 1


async def uncordoned(bench: Any) -> None:
    bench.kube.nodes["worker-1"]["spec"] = {}


async def gone(bench: Any) -> None:
    bench.kube.pods.clear()


async def ended(bench: Any) -> None:
    bench.kube.pods["stubborn"]["status"]["phase"] = "Succeeded"


async def not_ready(bench: Any) -> None:
    bench.kube.add_node("worker-1", ready=False)
    bench.kube.nodes["worker-1"]["spec"]["unschedulable"] = True


async def no_lease(bench: Any) -> None:
    del bench.kube.leases["worker-1"]


async def jailed(bench: Any) -> None:
    bench.chain.set_status("worker-1", WorkerStatus.JAILED)


@pytest.mark.parametrize("change", [uncordoned, gone, ended, not_ready, no_lease, jailed])
async def test_what_is_no_refused_drain(bench: Any, change: Any) -> None:
    await drained(bench)
    await look(bench, 3)
    await change(bench)
    await look(bench, 4)
    assert states(bench) == []


async def test_a_node_that_was_down_meanwhile_begins_anew(bench: Any) -> None:
    await drained(bench)
    await look(bench, 3)
    await not_ready(bench)
    await look(bench, 1)
    bench.kube.add_node("worker-1")
    bench.kube.nodes["worker-1"]["spec"]["unschedulable"] = True
    await look(bench, 2)
    assert states(bench) == []
    await look(bench, 1)
    assert states(bench) == ["observed"]
