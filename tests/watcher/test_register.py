"""Registration: the seal token goes to nobody but the master, and every refusal can be acted on."""

from __future__ import annotations

import json
import os
import stat
from pathlib import Path

import pytest
import stamina
from starlette.responses import PlainTextResponse, Response

from k3s_daas import join
from k3s_daas.chain.errors import ChainUnreachable
from k3s_daas.registry.model import WorkerStatus
from k3s_daas_watcher.errors import Exit, Refusal
from k3s_daas_watcher.register import Outputs, register

# Of fixed text, because every test process must collect the same parameters.
MADE_UP = "seal_" + "A" * 43


@pytest.fixture(autouse=True)
def _quick_retries():
    """Three attempts without waiting in between."""
    with stamina.set_testing(True, attempts=3):
        yield


@pytest.fixture
def outputs(tmp_path: Path) -> Outputs:
    out = tmp_path / "out"
    return Outputs(out / "k3s" / "join-token", out / "node" / "password", out / "ca.pem")


@pytest.fixture
def go(make_config, token, chain, outputs, clock):
    """Register with everything good but what the test changes."""

    async def run(*, chains=None, seal_token=token, **changes):
        return await register(make_config(**changes), seal_token, chains or [chain], outputs, clock)

    return run


def files(outputs: Outputs) -> list[Path]:
    return [path for path in (outputs.token, outputs.password, outputs.ca) if path.exists()]


async def test_a_good_worker_gets_its_files(go, master, token, outputs, clock):
    joined = await go()
    full = join.parse_full_token(outputs.token.read_text())
    assert (full.ca_hash, full.token_id, full.secret) == (master.ca.hash, "abcdef", "0123456789abcdef")
    assert outputs.password.read_text() == master.password + "\n"
    assert outputs.ca.read_bytes() == master.ca.pem
    assert joined.server == master.url
    assert master.registrations == [{"node_id": "worker-1", "timestamp_ms": clock.now_ms()}]
    assert master.tokens == [token]


async def test_files_are_for_root_alone_whatever_the_umask(go, outputs):
    before = os.umask(0)
    try:
        await go()
    finally:
        os.umask(before)
    assert [stat.S_IMODE(path.stat().st_mode) for path in files(outputs)] == [0o600] * 3
    assert [entry.name for entry in outputs.token.parent.iterdir()] == ["join-token"], (
        "no temporary file stays"
    )


async def test_a_second_registration_replaces_the_files(go, master, outputs):
    await go()
    master.secret = "z" * 6 + "." + "z" * 16
    await go()
    assert outputs.token.read_text().endswith(f"::{master.secret}\n")


@pytest.mark.parametrize(
    ("code", "status", "exit_code"),
    [
        ("token_unknown", 401, Exit.TOKEN_REFUSED),
        ("token_expired", 401, Exit.TOKEN_REFUSED),
        ("token_revoked", 401, Exit.TOKEN_REFUSED),
        ("token_malformed", 400, Exit.TOKEN_REFUSED),
        ("node_mismatch", 403, Exit.TOKEN_REFUSED),
        ("worker_slashed", 403, Exit.SLASHED),
        ("worker_not_eligible", 403, Exit.MASTER_REFUSED),
        ("clock_skew", 400, Exit.MASTER_REFUSED),
        ("timestamp_replayed", 409, Exit.MASTER_REFUSED),
        ("body_too_large", 413, Exit.MASTER_REFUSED),
        ("wrong_content_type", 415, Exit.MASTER_REFUSED),
        ("bad_request", 400, Exit.MASTER_REFUSED),
        ("not_ready", 503, Exit.MASTER_REFUSED),
        ("rate_limited", 429, Exit.MASTER_REFUSED),
    ],
)
async def test_each_refusal_of_the_master_is_passed_on(go, master, outputs, refusal, code, status, exit_code):
    master.on_register = lambda _: refusal(
        status, code, found="the found", wanted="the wanted", fix="the fix"
    )
    with pytest.raises(Refusal) as caught:
        await go()
    error = caught.value
    assert (error.code, error.exit_code) == (code, exit_code)
    assert (error.found, error.wanted, error.fix) == ("the found", "the wanted", "the fix")
    assert files(outputs) == []


@pytest.mark.parametrize("code", ["token_unknown", "not_ready", "rate_limited"])
async def test_what_passes_by_itself_is_tried_again(go, master, outputs, refusal, code):
    master.on_register = lambda _: refusal(503, code) if len(master.registrations) < 3 else None
    await go()
    assert len(master.registrations) == 3
    assert len(files(outputs)) == 3


@pytest.mark.parametrize("code", ["token_expired", "node_mismatch", "clock_skew"])
async def test_what_does_not_pass_is_tried_once(go, master, refusal, code):
    master.on_register = lambda _: refusal(403, code)
    with pytest.raises(Refusal):
        await go()
    assert len(master.registrations) == 1


async def test_another_ca_than_on_chain_gets_no_token(go, master, chain, outputs, new_ca):
    chain.set_master(ca_hash=new_ca("other").hash)
    with pytest.raises(Refusal) as caught:
        await go()
    assert (caught.value.code, caught.value.exit_code) == ("ca_mismatch", Exit.CA_MISMATCH)
    assert caught.value.found == master.ca.hash.hex()
    assert "not sent" in caught.value.fix
    assert master.tokens == []
    assert files(outputs) == []


async def test_a_man_in_the_middle_with_the_right_bundle_gets_no_token(go, chain, new_ca, serving, master):
    """/cacerts is public: copying it proves nothing. The certificate must be of that CA too."""
    evil = type(master)(new_ca("evil"), master.ca.pem)
    async with serving(evil.app(), evil.ca) as url:
        chain.set_master(endpoint=url)
        with pytest.raises(Refusal) as caught:
            await go()
    assert caught.value.code == "ca_mismatch"
    assert "didn't sign" in caught.value.found
    assert evil.tokens == []


async def test_an_unreachable_master_is_named(go, chain, outputs):
    chain.set_master(endpoint="https://127.0.0.1:1")
    with pytest.raises(Refusal) as caught:
        await go()
    assert (caught.value.code, caught.value.exit_code) == ("master_unreachable", Exit.MASTER_UNREACHABLE)
    assert "https://127.0.0.1:1" in caught.value.found
    assert files(outputs) == []


async def test_an_unreachable_api_server_is_named(go, chain):
    chain.set_master(api_server="https://127.0.0.1:1")
    with pytest.raises(Refusal) as caught:
        await go()
    assert (caught.value.code, caught.value.exit_code) == ("cacerts_unreachable", Exit.MASTER_UNREACHABLE)


@pytest.mark.parametrize(
    "endpoint",
    ["http://127.0.0.1:8443", "https://", "https://h/p", "https://h:99999", "https://u@h", "file:///"],
)
async def test_an_endpoint_that_is_no_https_address_is_refused(go, chain, endpoint):
    chain.set_master(endpoint=endpoint)
    with pytest.raises(Refusal, match="https://host:port"):
        await go()


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"accept_simulated": False}, "simulated_not_accepted"),
        (
            {"network": "mainnet", "endpoints": ["https://a.example", "https://b.example"]},
            "simulated_on_mainnet",
        ),
    ],
)
async def test_no_trust_no_token(go, chain, master, changes, code):
    with pytest.raises(Refusal) as caught:
        await go(**changes)
    assert (caught.value.code, caught.value.exit_code) == (code, Exit.NOT_ATTESTED)
    assert chain.reads == 0
    assert master.tokens == []


async def test_an_unknown_worker(go, chain, master):
    chain.sighting = type(chain.sighting)(None, None, chain.sighting.master)
    with pytest.raises(Refusal) as caught:
        await go()
    assert (caught.value.code, caught.value.exit_code) == ("worker_unknown", Exit.NOT_STAKED)
    assert chain.reads == 3, "a registry that lags behind the staking gets its time"
    assert master.tokens == []


@pytest.mark.parametrize(
    ("status", "code", "exit_code"),
    [
        (WorkerStatus.SLASHED, "worker_slashed", Exit.SLASHED),
        (WorkerStatus.JAILED, "worker_not_eligible", Exit.NOT_STAKED),
        (WorkerStatus.UNBONDING, "worker_not_eligible", Exit.NOT_STAKED),
    ],
)
async def test_a_worker_in_no_standing_to_join(go, chain, master, status, code, exit_code):
    chain.set_status(status)
    with pytest.raises(Refusal) as caught:
        await go()
    assert (caught.value.code, caught.value.exit_code) == (code, exit_code)
    assert master.tokens == []


@pytest.mark.parametrize("status", [WorkerStatus.PENDING, WorkerStatus.BUSY, WorkerStatus.OFFLINE])
async def test_a_worker_in_good_standing(go, chain, status):
    chain.set_status(status)
    assert (await go()).node_id == "worker-1"


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"revoked": True}, "token_revoked"),
        ({"expires_at_ms": 1}, "token_expired"),
        ({"expires_at_ms": 2**64 - 1, "commitment": b"\0" * 32}, "token_mismatch"),
    ],
)
async def test_a_token_the_chain_does_not_hold_good_is_not_sent(go, chain, master, changes, code):
    chain.set_token(**changes)
    with pytest.raises(Refusal) as caught:
        await go()
    assert (caught.value.code, caught.value.exit_code) == (code, Exit.TOKEN_REFUSED)
    assert "not sent" in caught.value.fix
    assert master.tokens == []


async def test_no_token_on_chain(go, chain):
    chain.sighting = type(chain.sighting)(chain.sighting.worker, None, chain.sighting.master)
    with pytest.raises(Refusal, match="token_unknown"):
        await go()


@pytest.mark.parametrize("master_record", ["none", "silent"])
async def test_no_master_yet(go, chain, master_record):
    if master_record == "none":
        chain.sighting = type(chain.sighting)(chain.sighting.worker, chain.sighting.token, None)
    else:
        chain.set_master(endpoint="", api_server="", ca_hash=b"")
    with pytest.raises(Refusal) as caught:
        await go()
    assert caught.value.exit_code == Exit.MASTER_NOT_ANNOUNCED
    assert "playbooks/master.yml" in caught.value.fix


async def test_a_lying_endpoint_can_not_name_another_master(go, chain, master, new_ca, serving):
    from dataclasses import replace

    evil = type(master)(new_ca("evil"), b"")
    evil.served_ca = evil.ca.pem
    async with serving(evil.app(), evil.ca) as url:
        liar = replace(chain, name="fake://liar")
        liar.set_master(endpoint=url, api_server=url, ca_hash=evil.ca.hash)
        with pytest.raises(Refusal) as caught:
            await go(chains=[chain, liar])
    assert (caught.value.code, caught.value.exit_code) == ("chain_disagrees", Exit.CHAIN_DISAGREES)
    assert evil.tokens == []
    assert master.tokens == []


async def test_an_unreachable_chain(go, chain, master):
    chain.error = ChainUnreachable({})
    with pytest.raises(Refusal) as caught:
        await go()
    assert (caught.value.code, caught.value.exit_code) == ("chain_unreachable", Exit.CHAIN_UNREACHABLE)
    assert chain.reads == 3
    assert master.tokens == []


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"node_id": "worker-2"}, "master_answer_unexpected"),
        ({"server": "https://192.0.2.1:6443"}, "master_answer_unexpected"),
        ({"ca_pem": "-----BEGIN"}, "master_answer_unexpected"),
        ({"token": "K10" + "0" * 64 + "::abcdef.0123456789abcdef"}, "master_answer_unexpected"),
        ({"token": "K10abc"}, "master_answer_unexpected"),
        ({"token": None}, "master_unreachable"),
        ({"node_password": "short"}, "master_unreachable"),
        ({"node_password": "with\nnewline-and-more-of-it"}, "master_unreachable"),
    ],
)
async def test_an_answer_that_does_not_fit_is_not_written(go, master, outputs, changes, code):
    master.changes = changes
    with pytest.raises(Refusal) as caught:
        await go()
    assert caught.value.code == code
    assert files(outputs) == []
    assert master.secret not in caught.value.text()
    assert master.password not in caught.value.text()


@pytest.mark.parametrize(
    "answer",
    [
        lambda: PlainTextResponse("<html>", 200),
        lambda: PlainTextResponse("[]", 200),
        lambda: PlainTextResponse("x" * 100_000, 200),
        lambda: Response(status_code=502),
        lambda: Response(status_code=302, headers={"location": "https://192.0.2.1/"}),
    ],
)
async def test_strange_answers_are_errors_that_can_be_read(go, master, outputs, answer):
    master.on_register = lambda _: answer()
    with pytest.raises(Refusal) as caught:
        await go()
    assert caught.value.exit_code in {Exit.MASTER_UNREACHABLE, Exit.MASTER_REFUSED}
    assert files(outputs) == []


async def test_the_master_can_not_write_to_our_terminal(go, master, refusal, token):
    master.on_register = lambda _: refusal(403, "bad_request", found=f"\x1b[2J{token}", fix="y" * 5000)
    with pytest.raises(Refusal) as caught:
        await go()
    assert "\x1b" not in caught.value.text()
    assert token not in caught.value.text()
    assert len(caught.value.text()) < 2000


async def test_an_output_that_can_not_be_written_is_told_before_a_token_is_asked_for(
    make_config, token, chain, master, clock, tmp_path
):
    (tmp_path / "file").write_text("")
    outputs = Outputs(tmp_path / "file" / "join-token", tmp_path / "password", None)
    with pytest.raises(Refusal, match="file_unwritable"):
        await register(make_config(), token, [chain], outputs, clock)
    assert master.tokens == []


async def test_proxies_of_the_environment_see_nothing(go, monkeypatch, outputs):
    for name in ("HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:1")
    monkeypatch.setenv("SSL_CERT_FILE", "/nonexistent")
    await go()
    assert len(files(outputs)) == 3


# --- the command ---


@pytest.fixture
def command(write_config, tmp_path, token, chain, monkeypatch, outputs):
    """`k3s-daas-watcher register` with the fake chain, as an exit code."""
    from k3s_daas_watcher import register_command, sealfile, signing
    from k3s_daas_watcher.__main__ import main

    token_file = tmp_path / "seal-token"
    token_file.write_text(token + "\n")
    token_file.chmod(0o600)
    key_file = tmp_path / "heartbeat.key"
    signing.create(key_file)
    monkeypatch.delenv("CREDENTIALS_DIRECTORY", raising=False)
    monkeypatch.setattr(register_command, "readers", lambda _: [chain])
    assert sealfile.CREDENTIAL == "seal-token"

    def run(*more: str, **changes) -> int:
        return main(
            [
                "register",
                f"--config={write_config(**changes)}",
                f"--seal-token-file={token_file}",
                f"--heartbeat-key-file={key_file}",
                f"--token-out={outputs.token}",
                f"--password-out={outputs.password}",
                f"--joined-marker={tmp_path / 'agent-joined'}",
                f"--agent-dir={tmp_path / 'agent'}",
                "--wait=1",
                *more,
            ]
        )

    return run


def leave_certificate(agent_dir: Path) -> list[Path]:
    """What an agent has when it was stopped between its certificate and its Node."""
    agent_dir.mkdir()
    paths = [agent_dir / "client-kubelet.crt", agent_dir / "client-kubelet.key"]
    for path in paths:
        path.write_text("")
    return paths


async def test_the_command_says_what_it_did_and_no_secret(command, capsys, outputs, token, master):
    import asyncio

    assert await asyncio.to_thread(command) == Exit.OK
    captured = capsys.readouterr()
    assert "worker-1 may join" in captured.out
    assert "SIMULATED" in captured.err
    for secret in (token, token[5:25], master.secret.split(".")[1], master.password):
        assert secret not in captured.out + captured.err
    assert outputs.token.exists()


async def test_the_command_prints_found_wanted_and_fix(command, capsys, master, refusal, token):
    import asyncio

    master.on_register = lambda _: refusal(401, "token_expired", found="old", wanted="new", fix="rotate")
    assert await asyncio.to_thread(command) == Exit.TOKEN_REFUSED
    error = capsys.readouterr().err
    assert "token_expired" in error
    assert "found:  old\n  wanted: new\n  fix:    rotate" in error
    assert token not in error


async def test_a_joined_node_registers_no_more(command, capsys, tmp_path, master):
    import asyncio

    (tmp_path / "agent-joined").touch()
    kept = leave_certificate(tmp_path / "agent")
    assert await asyncio.to_thread(command) == Exit.OK
    assert master.tokens == []
    assert "nothing to do" in capsys.readouterr().out
    assert all(path.exists() for path in kept)


async def test_an_interrupted_join_starts_over_without_its_certificate(
    command, capsys, tmp_path, master, outputs
):
    """k3s would show the certificate of a Node that doesn't exist, and be refused with any token."""
    import asyncio

    leftover = leave_certificate(tmp_path / "agent")
    (tmp_path / "agent" / "containerd").mkdir()
    assert await asyncio.to_thread(command) == Exit.OK
    assert len(master.tokens) == 1
    assert outputs.token.exists()
    assert [entry.name for entry in (tmp_path / "agent").iterdir()] == ["containerd"]
    said = capsys.readouterr().out
    assert all(f"removed {path}" in said for path in leftover)


async def test_a_wiped_agent_registers_anew(command, tmp_path, master):
    """The marker lies outside k3s' directory, so it survives an uninstall of k3s."""
    import asyncio

    marker = tmp_path / "agent-joined"
    marker.touch()
    assert await asyncio.to_thread(command) == Exit.OK
    assert len(master.tokens) == 1
    assert not marker.exists(), "else this join, interrupted, would count as done"


async def test_a_refused_registration_leaves_the_certificate(command, tmp_path, master, refusal):
    import asyncio

    leftover = leave_certificate(tmp_path / "agent")
    master.on_register = lambda _: refusal(401, "token_expired")
    assert await asyncio.to_thread(command) == Exit.TOKEN_REFUSED
    assert all(path.exists() for path in leftover)


async def test_a_certificate_that_stays_is_an_error(command, capsys, tmp_path):
    import asyncio

    (tmp_path / "agent" / "client-kubelet.crt").mkdir(parents=True)
    assert await asyncio.to_thread(command) == Exit.FAILED
    error = capsys.readouterr().err
    assert "client-kubelet.crt: Is a directory" in error
    assert "fix:" in error


@pytest.mark.parametrize(
    ("content", "mode", "said"),
    [
        ("", 0o600, "empty"),
        ("seal_short", 0o600, "10 characters"),
        (MADE_UP[:-3], 0o600, "cut off"),
        (MADE_UP, 0o644, "mode 0644"),
        (MADE_UP, 0o640, "mode 0640"),
    ],
)
def test_a_token_file_that_can_not_be_used(command, capsys, tmp_path, content, mode, said):
    bad = tmp_path / "bad-token"
    bad.write_text(content)
    bad.chmod(mode)
    assert command(f"--seal-token-file={bad}") == Exit.CONFIG
    error = capsys.readouterr().err
    assert said in error
    assert not content or content not in error


def test_a_missing_token_file_is_named(command, capsys, tmp_path):
    assert command(f"--seal-token-file={tmp_path / 'none'}") == Exit.CONFIG
    assert "No such file" in capsys.readouterr().err


async def test_the_token_may_come_as_a_systemd_credential(write_config, tmp_path, token, monkeypatch):
    from k3s_daas_watcher import sealfile

    credential = tmp_path / "seal-token"
    credential.write_text(token)
    credential.chmod(0o640)
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(tmp_path))
    assert sealfile.read(sealfile.find(None)) == token


def test_a_bad_configuration_is_an_exit_code_of_its_own(command, capsys):
    assert command(f"--config={Path('/nonexistent/watcher.json')}") == Exit.CONFIG
    assert "watcher.json" in capsys.readouterr().err


def test_exit_codes_are_distinct():
    assert len({code.value for code in Exit}) == len(Exit)
    assert json.loads(json.dumps(Exit.SLASHED)) == 64
