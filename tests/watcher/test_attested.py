"""The parent lies: whatever it shows in the master's place, the seal token stays on the host."""

from __future__ import annotations

import asyncio
import base64
import dataclasses
import json
import os
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import base58
import pytest
import stamina
from starlette.responses import JSONResponse, PlainTextResponse, Response

from k3s_daas import attest_command
from k3s_daas.attest import InvalidRoot, trusted_root
from k3s_daas.attestation.statements import Statement, chain_digest, registration, serving
from k3s_daas.chain.errors import ChainUnreachable
from k3s_daas.cli import main as k3s_daas
from k3s_daas.enclave.cluster import parse
from k3s_daas.enclave.configure import told_hash
from k3s_daas.kubeconfig_command import Refused, trusted_server
from k3s_daas.registry import Binding
from k3s_daas.registry.mastery import Image
from k3s_daas_localnet.nsm import NsmEmulator
from k3s_daas_watcher.errors import Exit, Refusal
from k3s_daas_watcher.register import Outputs, register

NOW_MS = 1_800_000_000_000
HOUR = 3_600_000
PCRS = {i: bytes([0x10 + i]) * 48 for i in range(4)}
IMAGE = Image(PCRS[0], PCRS[3])
KEY = b"k" * 32
PACKAGE, REGISTRY, ACCOUNT = "0x" + "1" * 64, "0x" + "2" * 64, "0x" + "c" * 64
CONFIG = b"\x06" * 32
ELSEWHERE = Statement(base58.b58encode(bytes(32)).decode(), PACKAGE, REGISTRY, ACCOUNT, bytes(32), CONFIG)


@pytest.fixture(autouse=True)
def _quick_retries():
    """Three attempts without waiting in between."""
    with stamina.set_testing(True, attempts=3):
        yield


@pytest.fixture(scope="module")
def emulator() -> NsmEmulator:
    return NsmEmulator(NOW_MS - 2 * HOUR)


@pytest.fixture
def attested(chain):
    """The chain's record of an attested master whose image is allowed."""
    chain.images = frozenset({IMAGE})
    chain.set_master(
        public_key=KEY,
        pcr0=IMAGE.pcr0,
        pcr3=IMAGE.pcr3,
        attested_at_ms=NOW_MS,
        attestation_expires_at_ms=NOW_MS + HOUR,
        binding=Binding(chain_digest(chain.chain_id), chain.sighting.master.ca_hash, CONFIG),
    )
    return chain


@pytest.fixture
def statement(attested, master) -> Statement:
    return Statement(attested.chain_id, PACKAGE, REGISTRY, ACCOUNT, master.ca.hash, CONFIG)


@pytest.fixture
def document(emulator, statement) -> Callable[..., bytes]:
    """What the master's security module signs for a nonce, but for `changed`."""

    def make(asked: str, /, now_ms: int = NOW_MS, signer: NsmEmulator = emulator, **changed: Any) -> bytes:
        fields: dict[str, Any] = {
            "pcrs": PCRS,
            "public_key": KEY,
            "user_data": serving(statement),
            "nonce": bytes.fromhex(asked),
            "certified_ms": NOW_MS - HOUR,
        }
        return signer.document(now_ms, **(fields | changed))

    return make


def answer(raw: bytes) -> Response:
    return JSONResponse({"document": base64.b64encode(raw).decode(), "simulated": True})


@pytest.fixture
def go(make_config, token, attested, master, document, clock, tmp_path, emulator):
    """Register where the master has to prove itself, which it does but for what the test changes."""
    root = tmp_path / "simulation-root.pem"
    root.write_bytes(emulator.root_pem)
    out = tmp_path / "out"
    outputs = Outputs(out / "join-token", out / "password", None)
    if master.on_attest is None:
        master.on_attest = lambda nonce: answer(document(nonce))

    async def run(chains=None, **changes):
        config = make_config(**({"simulation_root_file": str(root)} | changes))
        return await register(config, token, chains or [attested], outputs, clock)

    run.outputs = outputs
    return run


async def refused(go, master, code: str, exit_code: Exit = Exit.NOT_ATTESTED, **changes: Any) -> Refusal:
    """Registration ends with this code, and nothing secret has left the host."""
    with pytest.raises(Refusal) as caught:
        await go(**changes)
    assert (caught.value.code, caught.value.exit_code) == (code, exit_code)
    assert all((caught.value.found, caught.value.wanted, caught.value.fix))
    assert "not sent" in caught.value.fix or exit_code not in (Exit.NOT_ATTESTED, Exit.MASTER_UNREACHABLE)
    assert master.tokens == []
    assert master.registrations == []
    assert not go.outputs.token.exists()
    return caught.value


async def test_a_master_that_proves_itself_gets_the_token(go, master, token):
    await go()
    assert master.tokens == [token]
    assert go.outputs.token.exists()
    (nonce,) = master.nonces
    assert len(nonce) == 64


async def test_each_registration_has_its_own_nonce(go, master):
    await go()
    await go()
    assert len(set(master.nonces)) == 2


async def test_an_old_answer_played_again(go, master, document):
    await go()
    old = document(master.nonces[0])
    master.tokens.clear()
    master.registrations.clear()
    go.outputs.token.unlink()
    master.on_attest = lambda nonce: answer(old)
    await refused(go, master, "nonce_mismatch")


@pytest.mark.parametrize(
    ("changed", "code"),
    [
        ({"pcrs": {}}, "document_debug"),
        ({"pcrs": PCRS | {0: b"\x99" * 48}}, "pcr0_mismatch"),
        ({"pcrs": PCRS | {3: b"\x99" * 48}}, "pcr3_mismatch"),
        ({"public_key": b"K" * 32}, "key_mismatch"),
        ({"public_key": None}, "key_mismatch"),
        ({"user_data": registration(ELSEWHERE)}, "purpose_mismatch"),
        ({"user_data": None}, "purpose_mismatch"),
        ({"nonce": None}, "nonce_mismatch"),
        ({"now_ms": NOW_MS - 6 * 60_000}, "document_not_fresh"),
        ({"now_ms": NOW_MS - HOUR}, "document_not_fresh"),
        ({"now_ms": NOW_MS + HOUR}, "document_not_fresh"),
        ({"certified_ms": NOW_MS - 4 * HOUR}, "document_untrusted"),
        ({"signer": "another"}, "document_untrusted"),
    ],
)
async def test_a_document_with_one_lie(go, master, document, changed, code):
    if "signer" in changed:
        changed = {"signer": NsmEmulator(NOW_MS - 2 * HOUR)}
    master.on_attest = lambda nonce: answer(document(nonce, **changed))
    await refused(go, master, code)


@pytest.mark.parametrize(
    ("field", "value", "code"),
    [
        ("chain_id", base58.b58encode(b"\xff" * 32).decode(), "chain_mismatch"),
        ("package_id", "0x" + "f" * 64, "package_mismatch"),
        ("registry_id", "0x" + "f" * 64, "registry_mismatch"),
        ("account", "0x" + "f" * 64, "account_mismatch"),
        ("ca_hash", b"\xff" * 32, "ca_mismatch"),
        ("config_hash", b"\xff" * 32, "config_mismatch"),
    ],
)
async def test_the_master_of_something_else(go, master, document, statement, field, value, code):
    other = serving(dataclasses.replace(statement, **{field: value}))
    master.on_attest = lambda nonce: answer(document(nonce, user_data=other))
    await refused(go, master, code)


@pytest.mark.parametrize(
    ("reply", "code", "exit_code"),
    [
        (JSONResponse({"document": "AAAA"}), "document_malformed", Exit.NOT_ATTESTED),
        (JSONResponse({"document": "no base64!"}), "attestation_unreachable", Exit.MASTER_UNREACHABLE),
        (JSONResponse({"document": 5}), "attestation_unreachable", Exit.MASTER_UNREACHABLE),
        (JSONResponse([]), "attestation_unreachable", Exit.MASTER_UNREACHABLE),
        (PlainTextResponse("no JSON"), "attestation_unreachable", Exit.MASTER_UNREACHABLE),
        (PlainTextResponse(b" " * 40_000), "attestation_unreachable", Exit.MASTER_UNREACHABLE),
        (JSONResponse({}, 503), "attestation_unreachable", Exit.MASTER_UNREACHABLE),
        (Response(status_code=302, headers={"location": "/x"}), "attestation_unreachable", 15),
        (
            JSONResponse({"error": {"code": "not_attested"}}, 404),
            "attestation_missing",
            Exit.NOT_ATTESTED,
        ),
    ],
    ids=range(9),
)
async def test_answers_that_are_no_document(go, master, reply, code, exit_code):
    master.on_attest = lambda nonce: reply
    await refused(go, master, code, Exit(exit_code))


async def test_a_security_module_that_is_busy_for_a_moment(go, master, document):
    master.on_attest = lambda nonce: (
        JSONResponse({}, 503) if len(master.nonces) < 3 else answer(document(nonce))
    )
    await go()
    assert len(master.registrations) == 1


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"pcr0": b"", "pcr3": b"", "attestation_expires_at_ms": 0}, "master_not_attested"),
        ({"public_key": b""}, "master_not_attested"),
        ({"attestation_expires_at_ms": NOW_MS}, "attestation_expired"),
        ({"public_key": b"o" * 32}, "key_mismatch"),
        ({"pcr0": b"\x99" * 48}, "image_not_allowed"),
        ({"account": "0x" + "d" * 64}, "account_mismatch"),
    ],
)
async def test_what_the_chain_says_of_the_master(go, master, attested, changes, code):
    attested.set_master(**changes)
    await refused(go, master, code)


async def test_an_image_that_was_taken_off_the_list(go, master, attested):
    attested.images = frozenset({Image(b"\x99" * 48, IMAGE.pcr3)})
    await refused(go, master, "image_not_allowed")


async def test_the_clock_is_the_chains_and_not_this_hosts(go, clock, attested, master):
    clock.advance(3600)
    await go()
    master.tokens.clear()
    master.registrations.clear()
    go.outputs.token.unlink()
    attested.time_ms = NOW_MS + 7 * 60_000
    await refused(go, master, "document_not_fresh")


def another(chain, **changes: Any):
    return dataclasses.replace(chain, name="fake://other", **changes)


async def test_endpoints_have_to_agree(go, master, attested):
    more = [attested, another(attested)]
    await go(more, network="localnet", endpoints=["http://127.0.0.1:1", "http://127.0.0.1:2"])
    master.tokens.clear()
    master.registrations.clear()
    go.outputs.token.unlink()
    for changes in (
        {"images": frozenset({IMAGE, Image(b"\x99" * 48, b"\x98" * 48)})},
        {"time_ms": NOW_MS - 61_000},
        {"chain_id": base58.b58encode(b"\xff" * 32).decode()},
    ):
        lying = another(attested, **changes)
        await refused(go, master, "chain_disagrees", Exit.CHAIN_DISAGREES, chains=[attested, lying])


async def test_no_endpoint_answers_any_more(go, master, attested, document):
    def gone(nonce: str) -> Response:
        attested.error = ChainUnreachable({})
        return answer(document(nonce))

    master.on_attest = gone
    await refused(go, master, "chain_unreachable", Exit.CHAIN_UNREACHABLE)


async def test_another_master_takes_over_meanwhile(go, master, attested, document):
    def replaced(nonce: str) -> Response:
        attested.set_master(epoch=2)
        return answer(document(nonce))

    master.on_attest = replaced
    await refused(go, master, "master_changed")


# -- simulation can never pass as production ---------------------------------------------------------------


async def test_nitro_trusts_no_emulator(go, master):
    await refused(go, master, "document_untrusted", tee_mode="nitro", simulation_root_file=None)


async def test_nitro_asks_for_a_proof_that_a_simulated_master_hasnt(go, master):
    master.on_attest = None
    await refused(go, master, "attestation_missing", tee_mode="nitro", simulation_root_file=None)


@pytest.mark.parametrize(
    "changes",
    [
        {"tee_mode": "nitro"},
        {"network": "devnet", "endpoints": ["https://a.example"]},
        {"network": "testnet", "endpoints": ["https://a.example"]},
        {"network": "mainnet", "endpoints": ["https://a.example", "https://b.example"]},
    ],
)
def test_a_simulation_root_is_for_simulated_localnets(make_config, changes):
    make_config(simulation_root_file="/root.pem")
    with pytest.raises(ValueError, match="AWS's root alone"):
        make_config(simulation_root_file="/root.pem", **changes)


async def test_a_root_that_is_no_emulators(go, master, tmp_path):
    from cryptography.hazmat.primitives.serialization import Encoding

    from k3s_daas.attestation import AWS_ROOT

    for content in (b"", b"text", AWS_ROOT.certificate.public_bytes(Encoding.PEM)):
        path = tmp_path / "other.pem"
        path.write_bytes(content)
        await refused(go, master, "simulation_root_invalid", Exit.CONFIG, simulation_root_file=str(path))
    absent = str(tmp_path / "absent.pem")
    await refused(go, master, "simulation_root_invalid", Exit.CONFIG, simulation_root_file=absent)


async def test_without_a_root_a_simulated_master_isnt_asked(go, master):
    await go(simulation_root_file=None)
    assert master.nonces == []


# -- the daemon --------------------------------------------------------------------------------------------


async def test_heartbeats_go_to_a_proven_master_alone(
    make_watcher, go, attested, master, document, tmp_path: Path
):
    settings = {"simulation_root_file": str(tmp_path / "simulation-root.pem")}
    watcher = make_watcher(**settings)
    await watcher.check_chain()
    good = master.on_attest
    master.on_attest = lambda nonce: answer(document(nonce, public_key=b"o" * 32))
    with pytest.raises(Refusal) as caught:
        await watcher.master()
    assert caught.value.code == "key_mismatch"
    assert watcher.store.state.master is None
    master.on_attest = good
    await watcher.master()
    assert watcher.store.state.master.attested
    # Known by now: not asked for with every heartbeat.
    asked = len(master.nonces)
    await watcher.master()
    assert len(master.nonces) == asked
    # One that was kept without a proof isn't trusted once proof is wanted.
    watcher.store.state.master = watcher.store.state.master.model_copy(update={"attested": False})
    await watcher.master()
    assert len(master.nonces) == asked + 1


# -- the same by hand: k3s-daas attest ---------------------------------------------------------------------


@pytest.fixture
def attest(go, attested, monkeypatch, tmp_path, capsys):
    """`code, out, err = await attest(options…)` with the FAKE chain in the real one's place."""

    async def ask(config, root):
        return await attest_command.prove(config, attested.basis, root)

    async def run(*options: str, root: bool = True) -> tuple[int, str, str]:
        monkeypatch.setattr(attest_command, "_ask", ask)
        arguments = [
            "attest",
            "--network=localnet",
            "--endpoint=http://127.0.0.1:1",
            f"--package-id={PACKAGE}",
            f"--registry-id={REGISTRY}",
            f"--ca-out={tmp_path / 'kube' / 'ca.crt'}",
            *([f"--simulation-root={tmp_path / 'simulation-root.pem'}"] if root else []),
            *options,
        ]
        code = await asyncio.to_thread(k3s_daas, arguments)
        said = capsys.readouterr()
        return code, said.out, said.err

    run.ca = tmp_path / "kube" / "ca.crt"
    return run


async def test_attest_writes_the_ca_and_says_what_was_proved(attest, master):
    umask = os.umask(0o077)
    try:
        code, out, err = await attest()
    finally:
        os.umask(umask)
    assert code == 0
    assert attest.ca.read_bytes() == master.ca.pem
    assert attest.ca.stat().st_mode & 0o777 == 0o644
    assert [path.name for path in attest.ca.parent.iterdir()] == ["ca.crt"]
    assert "SIMULATED" in err
    assert "tee: SIMULATED" in out
    assert f"image pcr0: {IMAGE.pcr0.hex()}" in out
    assert f"written: {attest.ca}" in out
    code, out, _ = await attest("--json")
    told = json.loads(out)
    assert (code, told["changed"], told["ca_hash"]) == (0, False, master.ca.hash.hex())
    assert master.tokens == []


async def test_attest_leaves_the_file_alone_when_something_doesnt_hold(attest, master, attested, document):
    attest.ca.parent.mkdir()
    attest.ca.write_text("as before")
    good = master.on_attest
    for lie, code, word in (
        (lambda nonce: answer(document("00" * 32)), 19, "nonce_mismatch"),
        (lambda nonce: answer(document(nonce, pcrs=PCRS | {0: b"\x99" * 48})), 19, "pcr0_mismatch"),
        (lambda nonce: JSONResponse({"error": {"code": "\x1b[2J"}}, 503), 15, "unknown reason"),
        (lambda nonce: JSONResponse({"error": {"code": "not_attested"}}, 404), 15, "not_attested"),
    ):
        master.on_attest = lie
        found, out, err = await attest()
        assert (found, out) == (code, "")
        assert word in err
        assert attest.ca.read_text() == "as before"
    master.on_attest = good
    attested.images = frozenset()
    asked = len(master.nonces)
    found, _, err = await attest()
    assert found == 19
    assert "image_not_allowed" in err
    assert len(master.nonces) == asked, "refused before anybody was asked"
    attested.error = ChainUnreachable({})
    assert (await attest())[0] == 10


async def test_attest_holds_the_configuration_against_the_parents_file(
    attest, master, attested, statement, document, tmp_path
):
    told = {
        "network": "localnet",
        "endpoints": ["http://127.0.0.1:1"],
        "chain_id": attested.chain_id,
        "package_id": PACKAGE,
        "registry_id": REGISTRY,
        "address": "10.0.0.11",
    }
    file = tmp_path / "cluster.json"
    file.write_text(json.dumps(told))
    code, _, err = await attest(f"--cluster={file}")
    assert (code, "config_mismatch" in err, attest.ca.exists()) == (19, True, False)
    # The one that the master's record has.
    binding = attested.sighting.master.binding
    wanted = told_hash(parse(file.read_bytes()))
    attested.set_master(binding=dataclasses.replace(binding, config_hash=wanted))
    found, _, err = await attest(f"--cluster={file}")
    assert (found, "config_mismatch" in err) == (19, True), "its document says another than its record"
    said = serving(dataclasses.replace(statement, config_hash=wanted))
    master.on_attest = lambda nonce: answer(document(nonce, user_data=said))
    code, out, err = await attest(f"--cluster={file}")
    assert (code, f"config hash: {wanted.hex()}" in out) == (0, True), err
    for wrong in ("{}", "no JSON"):
        file.write_text(wrong)
        assert (await attest(f"--cluster={file}"))[0] == 78
    assert (await attest(f"--cluster={tmp_path / 'none'}"))[0] == 78


async def test_attest_refuses_a_master_that_follows_a_fork(attest, attested):
    binding = attested.sighting.master.binding
    attested.set_master(binding=dataclasses.replace(binding, chain_id=bytes(32)))
    code, _, err = await attest()
    assert (code, "chain_mismatch" in err, attest.ca.exists()) == (19, True, False)


async def test_attest_trusts_aws_alone_unless_told_otherwise(attest):
    code, _, err = await attest(root=False)
    assert code == 19
    assert "document_untrusted" in err
    assert not attest.ca.exists()


@pytest.mark.parametrize("network", ["testnet", "mainnet", "devnet"])
async def test_attest_takes_no_simulation_root_on_a_public_network(attest, network):
    more = [f"--network={network}", "--endpoint=https://a.example", "--endpoint=https://b.example"]
    code, _, err = await attest(*more)
    assert code == 78
    assert "http" in err  # the localnet's own endpoint comes first
    with pytest.raises(InvalidRoot, match="AWS root only"):
        trusted_root(network, attest.ca.parents[1] / "simulation-root.pem")


async def test_attest_and_a_place_that_cant_be_written(attest, tmp_path):
    (tmp_path / "kube").touch()
    code, _, err = await attest()
    assert code == 1
    assert "may write" in err


async def test_attest_notices_a_new_ca(attest, master, attested, document):
    def replaced(nonce: str) -> Response:
        binding = dataclasses.replace(attested.sighting.master.binding, ca_hash=b"\x07" * 32)
        attested.set_master(ca_hash=b"\x07" * 32, binding=binding)
        return answer(document(nonce))

    master.on_attest = replaced
    code, _, err = await attest()
    assert code == 19
    assert "another CA announced" in err


async def test_a_kubeconfig_of_what_attest_wrote(attest, attested):
    assert (await attest())[0] == 0
    registry = SimpleNamespace(master=attested.sighting.master)
    server, pem = trusted_server(registry, attest.ca)
    assert (server, pem) == (attested.sighting.master.api_server, attest.ca.read_bytes())
    attested.set_master(ca_hash=b"\x07" * 32)
    with pytest.raises(Refused, match="Run k3s-daas attest again"):
        trusted_server(SimpleNamespace(master=attested.sighting.master), attest.ca)
    with pytest.raises(Refused, match="No such file"):
        trusted_server(registry, attest.ca.with_name("absent"))
