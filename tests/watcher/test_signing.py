"""Signed heartbeats: the key's file, what is signed, and that no moment is signed for twice."""

from __future__ import annotations

import base64
import json
import stat

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from k3s_daas_watcher import signing
from k3s_daas_watcher.__main__ import main
from k3s_daas_watcher.errors import Exit, Refusal
from k3s_daas_watcher.register import Outputs, register


def test_a_key_is_made_once_and_private(tmp_path, capsys):
    path = tmp_path / "heartbeat.key"
    assert main(["init-key", f"--out={path}"]) == Exit.OK
    seed = path.read_bytes()
    assert (len(seed), stat.S_IMODE(path.stat().st_mode)) == (32, 0o600)
    assert main(["init-key", f"--out={path}"]) == Exit.OK
    assert path.read_bytes() == seed
    assert capsys.readouterr().out.split() == ["created", "found"]
    assert list(tmp_path.iterdir()) == [path]
    key = signing.load(path)
    assert seed.hex() not in repr(key)
    assert base64.b64encode(seed).decode() not in repr(key)


@pytest.mark.parametrize("spoil", ["missing", "short", "long", "readable", "directory"])
def test_a_key_that_cannot_be_used(tmp_path, spoil):
    path = tmp_path / "heartbeat.key"
    if spoil == "directory":
        path.mkdir()
    elif spoil != "missing":
        path.write_bytes(bytes({"short": 31, "long": 33}.get(spoil, 32)))
        path.chmod(0o644 if spoil == "readable" else 0o600)
    with pytest.raises(Refusal) as caught:
        signing.load(path)
    assert (caught.value.code, caught.value.exit_code) == ("heartbeat_key_unusable", Exit.CONFIG)
    if spoil != "missing":
        with pytest.raises(Refusal):
            signing.create(path)


def test_the_credential_comes_before_the_default(tmp_path, monkeypatch):
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(tmp_path))
    assert signing.find(None) == signing.DEFAULT_PATH
    (tmp_path / "heartbeat-key").write_bytes(bytes(32))
    assert signing.find(None) == tmp_path / "heartbeat-key"
    assert signing.find(tmp_path / "x") == tmp_path / "x"
    (tmp_path / "heartbeat-key").chmod(0o440)
    assert signing.load(signing.find(None)).public_key == signing.HeartbeatKey(bytes(32)).public_key


async def test_every_heartbeat_is_signed_over_the_bytes_that_were_sent(make_watcher, master):
    watcher = make_watcher()
    await watcher.check_chain()
    assert await watcher.beat()
    ((body, signature),) = master.signed
    key = signing.HeartbeatKey(bytes(range(32)))
    public = Ed25519PublicKey.from_public_bytes(base64.b64decode(key.public_key))
    public.verify(base64.b64decode(signature), body)
    assert json.loads(body) == master.heartbeats[0]


async def test_the_registration_carries_the_public_half(make_config, token, chain, tmp_path, clock, master):
    key = signing.HeartbeatKey(bytes(range(32)))
    outputs = Outputs(tmp_path / "token", tmp_path / "password", None)
    await register(make_config(), token, [chain], outputs, clock, key=key)
    assert master.registrations[0]["public_key"] == key.public_key


@given(
    st.lists(
        st.tuples(
            st.sampled_from([-3_600_000, -61_000, -1, 0, 1, 30_000, 61_000, 3_600_000]),
            st.sampled_from(["ok", "clock_skew", "timestamp_replayed", "lost"]),
            st.booleans(),
        ),
        max_size=40,
    )
)
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
async def test_whatever_clock_and_master_do_no_moment_is_signed_for_twice(
    make_watcher, master, clock, refusal, steps
):
    """The clock jumps, the master refuses or falls silent, the watcher restarts: all in any order."""
    master.heartbeats.clear()
    watcher = make_watcher()
    await watcher.check_chain()
    for jump_ms, answer, restarted in steps:
        clock.wall_ms += jump_ms
        status = {"clock_skew": 400, "timestamp_replayed": 409, "lost": 502}.get(answer)
        master.on_heartbeat = (lambda _, s=status, a=answer: refusal(s, a)) if status else None
        await watcher.beat()
        if restarted:
            watcher = make_watcher()
            await watcher.check_chain()
    moments = [beat["timestamp_ms"] for beat in master.heartbeats]
    assert len(moments) == len(set(moments))
