"""A master that proves itself: registered at the start, renewed in time, and to each client."""

from __future__ import annotations

import asyncio
import base64
import dataclasses
import re
from typing import Any

import pytest
from attester_kit import Emulated, settle

from k3s_daas.attestation import parse, simulation_root
from k3s_daas.attestation.serving import LiveMaster, ServingRefused, check_serving, new_nonce
from k3s_daas.attestation.statements import REGISTRATION_PREFIX, Statement, registration, split_serving
from k3s_daas.chain import MoveAbort
from k3s_daas.registry import Binding
from k3s_daas_localnet import nsm_serve
from k3s_daas_master import nsm
from k3s_daas_master.attester import RENEW_MS

OTHER = "0x" + "ee" * 32


@pytest.fixture
def emulated(clock: Any) -> Emulated:
    return Emulated(clock)


@pytest.fixture
def module(emulated: Emulated) -> nsm.SecurityModule:
    return nsm.SecurityModule(emulated.exchange)


@pytest.fixture
async def nitro(bench: Any) -> Any:
    """A master with tee_mode nitro that hasn't registered yet. (Its documents are emulated.)"""
    await restarted(bench)
    return bench


async def restarted(bench: Any, **changes: Any) -> None:
    await bench.restart(tee_mode="nitro", **changes)
    await bench.state.fleet.reconcile()  # which reads the CA


async def ask(bench: Any, nonce: bytes) -> Any:
    return await bench.api.get("/api/v1/attestation", params={"nonce": nonce.hex()})


def live_master(bench: Any) -> LiveMaster:
    """As a client reads it off the chain."""
    master = bench.chain.master
    config = bench.config
    statement = Statement(
        bench.chain.chain_id,
        config.package_id,
        config.registry_id,
        master.account,
        master.ca_hash,
        master.binding.config_hash,
    )
    return LiveMaster(
        "localnet",
        statement,
        master.public_key,
        master.pcr0,
        master.pcr3,
        master.attestation_expires_at_ms,
        frozenset({(master.pcr0, master.pcr3)}),
    )


# -- registering --------------------------------------------------------------------------------------------


async def test_nobody_joins_before_the_master_is_attested(nitro: Any, emulated: Emulated) -> None:
    token = nitro.chain.stake("worker-1")
    await nitro.catch_up()
    assert nitro.refusal(await nitro.register(token, "worker-1")) == (503, "not_ready")
    ready = (await nitro.api.get("/readyz")).json()
    assert any(reason.startswith("attestation: the chain holds no") for reason in ready["reasons"])
    assert nitro.kube.bootstrap_tokens() == []
    await settle(nitro)
    (document,) = map(parse, nitro.chain.attestations)
    assert document.user_data == registration(live_master(nitro).statement)
    assert nitro.chain.master.binding.config_hash == nitro.config.cluster_hash
    assert nitro.chain.master.binding.ca_hash == nitro.chain.master.ca_hash
    assert document.nonce is None
    assert document.pcr(3) == nsm_serve.DEFAULT_PCRS[3]
    assert (await nitro.api.get("/readyz")).status_code == 200
    assert (await nitro.register(token, "worker-1")).status_code == 200
    gauge = (await nitro.api.get("/metrics")).text
    (value,) = re.findall(r"^k3s_daas_attestation_expiry_timestamp_seconds (\S+)$", gauge, re.M)
    assert float(value) * 1000 == nitro.chain.master.attestation_expires_at_ms
    tee = (await nitro.api.get("/api/v1/overview")).json()["tee"]
    assert (tee["attested"], tee["expires_at_ms"]) == (True, nitro.chain.master.attestation_expires_at_ms)


async def test_it_is_renewed_before_it_ends(nitro: Any) -> None:
    await settle(nitro)
    await settle(nitro)
    assert len(nitro.chain.attestations) == 1
    epoch, ends = nitro.chain.master.epoch, nitro.chain.master.attestation_expires_at_ms
    nitro.clock.advance((ends - RENEW_MS - nitro.clock.ms) / 1000 - 1)
    nitro.chain.checkpoint()
    await nitro.catch_up()
    await nitro.state.attester.look()
    assert len(nitro.chain.attestations) == 1
    nitro.clock.advance(1)
    await settle(nitro)
    assert len(nitro.chain.attestations) == 2
    assert nitro.chain.master.epoch == epoch
    assert nitro.chain.master.attestation_expires_at_ms > ends


async def test_a_service_that_starts_anew_renews_with_its_key(nitro: Any) -> None:
    await settle(nitro)
    key = nitro.state.config.state_dir / "attestation.key"
    assert key.stat().st_mode & 0o777 == 0o600
    public = nitro.chain.master.public_key
    await restarted(nitro)
    await settle(nitro)
    assert len(nitro.chain.attestations) == 1
    key.unlink()  # an enclave that starts anew has no state
    await restarted(nitro)
    assert nitro.state.attester.not_ready() is not None
    await settle(nitro)
    assert nitro.chain.master.public_key not in (b"", public)
    assert nitro.chain.master.epoch == 3


async def test_failures_are_tried_again_less_and_less(nitro: Any, emulated: Emulated) -> None:
    refusal = MoveAbort("nautilus", "register_master", 1, "EImageNotAllowed", "not allowed")
    nitro.chain.refuse_attestations = lambda: refusal
    for count, pause in enumerate((15, 30, 60, 120, 240, 300, 300), 1):
        await nitro.state.attester.look()
        assert len(nitro.chain.attestations) == count
        assert "EImageNotAllowed" in str(nitro.state.attester.problem)
        nitro.clock.advance(pause - 1)
        nitro.chain.checkpoint()
        await nitro.catch_up()
        await nitro.state.attester.look()
        assert len(nitro.chain.attestations) == count
        nitro.clock.advance(1)
    assert any("EImageNotAllowed" in reason for reason in nitro.state.not_ready())
    assert any("EImageNotAllowed" in alert for alert in nitro.state.alerts())
    nitro.chain.refuse_attestations = lambda: None
    await settle(nitro)
    assert nitro.state.attester.problem is None
    assert nitro.state.not_ready() == []
    # Now the security module itself.
    emulated.broken = True
    nitro.clock.advance(13 * 3600)
    await settle(nitro)
    assert "InternalError" in str(nitro.state.attester.problem)
    assert nitro.state.alerts() == [], "it holds for another 10 hours"
    assert nitro.state.not_ready() == []
    nitro.clock.advance(6 * 3600)
    await settle(nitro)
    assert any("InternalError" in alert for alert in nitro.state.alerts())
    nitro.clock.advance(6 * 3600)
    await settle(nitro)
    assert any("InternalError" in reason for reason in nitro.state.not_ready())


async def test_a_mistake_of_ours_doesnt_end_the_service(nitro: Any) -> None:
    nitro.chain.refuse_attestations = lambda: RuntimeError("a bug")
    await nitro.state.attester.look()
    assert nitro.state.attester.problem == "RuntimeError: a bug"


async def test_it_doesnt_take_over_again_by_itself(nitro: Any) -> None:
    await settle(nitro)
    nitro.chain.appoint(OTHER, nitro.chain.master.epoch + 1)
    nitro.chain.attest(b"o" * 32, b"\1" * 48, b"\3" * 48, nitro.clock.ms, Binding())
    await settle(nitro)
    assert len(nitro.chain.attestations) == 1
    token = nitro.chain.stake("worker-1")
    await nitro.catch_up()
    assert nitro.refusal(await nitro.register(token, "worker-1")) == (503, "not_ready")
    assert any("has taken over" in reason for reason in nitro.state.not_ready())


async def test_nothing_is_registered_by_a_stale_view(nitro: Any) -> None:
    nitro.clock.advance(61)
    await nitro.state.attester.look()
    assert nitro.chain.attestations == []


# -- to clients ---------------------------------------------------------------------------------------------


async def test_a_client_checks_the_whole_of_it(nitro: Any, emulated: Emulated) -> None:
    await settle(nitro)
    root = simulation_root(emulated.emulator.root_pem, "localnet")
    nonce = new_nonce()
    answer = await ask(nitro, nonce)
    assert answer.status_code == 200, answer.text
    assert answer.headers["cache-control"] == "no-store"
    raw = base64.b64decode(answer.json()["document"])
    check_serving(raw, nonce, live_master(nitro), now_ms=nitro.clock.ms, root=root)
    # Played again for another question; and once another image is live.
    with pytest.raises(ServingRefused) as caught:
        check_serving(raw, new_nonce(), live_master(nitro), now_ms=nitro.clock.ms, root=root)
    assert caught.value.code == "nonce_mismatch"
    other = dataclasses.replace(live_master(nitro), public_key=b"o" * 32)
    with pytest.raises(ServingRefused) as caught:
        check_serving(raw, nonce, other, now_ms=nitro.clock.ms, root=root)
    assert caught.value.code == "key_mismatch"
    # AWS's root, as every production client has it, refuses what an emulator signed.
    with pytest.raises(ServingRefused) as caught:
        check_serving(raw, nonce, live_master(nitro), now_ms=nitro.clock.ms)
    assert caught.value.code == "document_untrusted"


async def test_no_nonce_makes_a_registration(nitro: Any) -> None:
    """A caller that chooses the registration's prefix or whole statement as its nonce gets just a nonce."""
    await settle(nitro)
    statement = registration(live_master(nitro).statement)
    registered = len(nitro.chain.attestations)
    for nonce in (REGISTRATION_PREFIX.ljust(32, b"\0"), statement[:64]):
        document = parse(base64.b64decode((await ask(nitro, nonce)).json()["document"]))
        assert document.nonce == nonce
        assert split_serving(document.user_data) is not None
    assert len(nitro.chain.attestations) == registered


@pytest.mark.parametrize(
    "query",
    [
        "",
        "?nonce=",
        "?nonce=" + "ab" * 31,
        "?nonce=" + "ab" * 65,
        "?nonce=" + "ab" * 32 + "a",
        "?nonce=" + "AB" * 32,
        "?nonce=" + "zz" * 32,
        "?nonce=" + "ab" * 32 + "%0a",
        "?nonce=" + "ab" * 32 + "&nonce=" + "cd" * 32,
        "?nonce=" + "%D9%A1" * 64,
    ],
)
async def test_other_nonces(nitro: Any, emulated: Emulated, query: str) -> None:
    answer = await nitro.api.get("/api/v1/attestation" + query)
    assert nitro.refusal(answer) == (400, "bad_request")
    assert emulated.requests == 0


async def test_the_caller_chooses_nothing_else(nitro: Any) -> None:
    found = []
    for extra in ({}, {"user_data": "00", "public_key": "00", "account": OTHER}):
        query = {"nonce": "ab" * 32, **extra}
        answer = await nitro.api.get("/api/v1/attestation", params=query)
        found.append(parse(base64.b64decode(answer.json()["document"])))
    assert found[0].user_data == found[1].user_data
    assert found[0].public_key == found[1].public_key


async def test_documents_are_rationed(bench: Any, emulated: Emulated) -> None:
    await restarted(bench, registration_burst=3)
    codes = [(await ask(bench, new_nonce())).status_code for _ in range(5)]
    assert codes == [200, 200, 200, 429, 429]
    assert emulated.requests == 3
    bench.clock.advance(1)
    assert (await ask(bench, new_nonce())).status_code == 200


async def test_only_so_many_wait(nitro: Any, emulated: Emulated) -> None:
    async with nitro.state.attester._asking:  # the device is busy
        waiting = [asyncio.create_task(ask(nitro, new_nonce())) for _ in range(40)]
        async with asyncio.timeout(10):
            while sum(task.done() for task in waiting) < 8:
                await asyncio.sleep(0)
    answers = await asyncio.gather(*waiting)
    assert sorted(answer.status_code for answer in answers) == [200] * 32 + [503] * 8


async def test_a_broken_security_module(nitro: Any, emulated: Emulated) -> None:
    emulated.broken = True
    assert nitro.refusal(await ask(nitro, new_nonce())) == (503, "not_ready")


async def test_before_the_ca_is_known(nitro: Any) -> None:
    nitro.state.ca.hash = b""
    assert nitro.refusal(await ask(nitro, new_nonce())) == (503, "not_ready")


# -- simulated ----------------------------------------------------------------------------------------------


class TestWithoutASecurityModule:
    @pytest.fixture
    def module(self) -> None:
        return None

    async def test_all_is_as_ever(self, bench: Any) -> None:
        await settle(bench)
        assert bench.chain.attestations == []
        assert not (bench.config.state_dir / "attestation.key").exists()
        assert bench.refusal(await ask(bench, new_nonce())) == (404, "not_attested")
        token = bench.chain.stake("worker-1")
        await bench.catch_up()
        assert (await bench.register(token, "worker-1")).status_code == 200
        assert bench.state.alerts() == []

    async def test_nitro_lets_nobody_in(self, bench: Any) -> None:
        await bench.restart(tee_mode="nitro")
        token = bench.chain.stake("worker-1")
        await bench.catch_up()
        assert bench.refusal(await bench.register(token, "worker-1")) == (503, "not_ready")


async def test_a_simulated_master_with_an_emulator_registers_and_says_what_it_is(bench: Any) -> None:
    await settle(bench)
    assert len(bench.chain.attestations) == 1
    assert (await ask(bench, new_nonce())).json()["simulated"] is True
    assert (await bench.api.get("/api/v1/overview")).json()["tee"]["attested"] is False


def test_which_module_is_asked(config: Any, tmp_path: Any) -> None:
    assert nsm.of(config.tee_mode, config.nsm_socket) is None
    assert nsm.of("nitro", None) is not None
    simulated = nsm.of(config.tee_mode, tmp_path / "absent")
    assert simulated is not None
    with pytest.raises(nsm.NsmUnavailable, match="SIMULATED"):
        simulated.attest(user_data=b"", nonce=None, public_key=b"")
