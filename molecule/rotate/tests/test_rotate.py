"""What each run did and said, and what is true afterwards: asked from outside."""

from __future__ import annotations

import hashlib
import json
import ssl
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import httpx
import pytest
from testinfra.host import Host

if TYPE_CHECKING:
    from conftest import Look, Story

Asked = Callable[..., int]


def test_every_run_came_to_its_end(story: Story) -> None:
    assert [run.output for run in story.runs if run.code != 0] == []


# --- seal tokens --------------------------------------------------------------------------------------------


def beat(stage: dict[str, Any], tls: ssl.SSLContext, token: str) -> tuple[int, str]:
    """What the master answers to a heartbeat of worker-1 with this token."""
    url = f"https://{stage['hosts']['master']}:8443/api/v1/nodes/heartbeat"
    body = {"node_id": "worker-1", "timestamp_ms": time.time_ns() // 1_000_000}
    answer = httpx.post(url, json=body, headers={"X-Seal-Token": token}, verify=tls, trust_env=False)
    return answer.status_code, answer.json().get("error", {}).get("code", "")


def test_the_old_seal_token_is_refused(story: Story, stage: dict[str, Any], tls: ssl.SSLContext) -> None:
    assert story.before.seal_token != story.seal[1].seal_token
    assert beat(stage, tls, story.before.seal_token) == (401, "token_unknown")


def test_the_new_seal_token_is_accepted(story: Story, hosts: dict[str, Host]) -> None:
    """The play itself waited for a heartbeat with it; the watcher has sent others since."""
    health = json.loads(hosts["worker-1"].check_output("curl -s http://127.0.0.1:10280/health"))
    assert health["heartbeat"]["last_ms"] / 1000 > time.time() - 90, health
    assert health["status"] == "ok", health


def test_the_killed_run_s_secret_is_the_one_that_was_finished(story: Story) -> None:
    """One rotation, not two: what was on-chain already was promoted."""
    assert story.seal_killed.seal_token == story.before.seal_token
    assert story.taken_over[1].generation == story.before.generation + 1
    assert story.seal[0].changed == {"localhost": 0, "worker-1": 2}


# --- the server token ---------------------------------------------------------------------------------------


def test_the_old_server_tokens_join_nobody(story: Story, asked: Asked) -> None:
    old, new = story.before.server_token, story.token[1].server_token
    assert old != new == story.token_killed.server_token, "the second run finished what was killed"
    assert [asked(token) for token in (old, new)] == [401, 405]


def test_a_server_that_joins_is_refused_with_the_old_token(story: Story, asked: Asked, real: bool) -> None:
    if not real:
        pytest.skip("needs K3S_BINARY: the stand-in has nothing that a joining server gets")
    assert asked(story.before.server_token, "server-bootstrap") == 401
    # It is let in, and told that a server with SQLite takes no other beside it.
    assert asked(story.token[1].server_token, "server-bootstrap") == 400


def name_of(server_token: str) -> str:
    return hashlib.sha256(server_token.encode()).hexdigest()[:12]


def test_every_server_token_is_kept_for_its_snapshots(story: Story) -> None:
    tokens = [story.before.server_token, story.token[1].server_token]
    kept = {name_of(token): (0o600, token) for token in tokens}
    assert story.token[1].kept == story.before.kept | kept
    words = story.token[0].words
    assert "was rotated already" in words
    assert f"The server token is {name_of(tokens[1])}" in words
    # The new one kept, and the restart that was left to do.
    assert story.token[0].changed == {"master": 3}


# --- the encryption key -------------------------------------------------------------------------------------


def numbers(look: Look) -> list[int]:
    """Which keys there are, in their order; 0 is plaintext."""
    return [0 if name == "identity" else int(name.split("-")[1]) for name in look.keys]


def test_a_new_cluster_has_one_key_and_no_plaintext(story: Story) -> None:
    assert len(story.before.keys) == 1
    assert 0 not in numbers(story.before)


def test_check_mode_says_what_it_would_do_and_touches_nothing(story: Story) -> None:
    run, after = story.checked
    assert run.changed == {"master": 1}
    assert (after.keys, after.restarted) == (story.before.keys, story.token[1].restarted)


def test_a_killed_rotation_goes_on_with_the_same_key(story: Story) -> None:
    (old,) = numbers(story.before)
    assert numbers(story.key_killed) == [old + 1, old]
    assert set(story.before.secrets) <= set(story.key_killed.secrets), "readable in the middle of it"
    assert story.key[1].keys == story.key_killed.keys[:1]


def test_the_run_after_it_rewrote_what_there_was(story: Story, real: bool) -> None:
    """Two restarts were behind it: what is left is rewriting, dropping the old key, and one more."""
    assert story.key[0].changed == {"master": 3 if real else 2}


def test_each_secret_s_row_begins_with_the_key_s_name(story: Story, real: bool) -> None:
    if not real:
        pytest.skip("needs K3S_BINARY: the stand-in encrypts nothing")
    for look in (story.before, story.key[1], story.taken_over[1]):
        assert len(look.rows) == len(look.secrets) > 0
        assert set(look.rows.values()) == {f"k8s:enc:aesgcm:v1:{look.keys[0]}"}, look.rows
    # k3s may have written one of its own, with the new key, since it was restarted.
    assert f"k8s:enc:aesgcm:v1:{story.before.keys[0]}" in story.key_killed.rows.values()


def test_the_search_finds_plaintext(story: Story, real: bool) -> None:
    if not real:
        pytest.skip("needs K3S_BINARY: the stand-in encrypts nothing")
    assert set(story.unencrypted.rows.values()) == {"k8s\0"}


def test_a_cluster_that_was_made_without_it_is_taken_over(story: Story, real: bool) -> None:
    assert numbers(story.unencrypted) == []
    assert numbers(story.taken_over[1]) == [1], "no plaintext is left"
    # Three times a file and a restart, config.yaml, and the Secrets, of which a stand-in writes none again.
    assert story.taken_over[0].changed["master"] == (8 if real else 7)
    assert set(story.before.secrets) <= set(story.taken_over[1].secrets)


# --- all of it ----------------------------------------------------------------------------------------------


def test_the_worker_stayed_ready(story: Story) -> None:
    assert {look.ready for look in story.looks} == {("True", story.before.ready[1])}


def test_every_secret_said_the_same_all_along(story: Story) -> None:
    assert {look.content for look in story.looks} == {story.before.content}


def test_no_run_told_a_secret(story: Story, hosts: dict[str, Host]) -> None:
    found = {look.seal_token for look in story.looks}
    # Of a server token, what is secret is behind `server:`.
    found |= {look.server_token.rpartition(":")[2] for look in story.looks}
    config = json.loads(hosts["master"].check_output("cat /etc/rancher/k3s/encryption.json"))
    found |= {one["secret"] for one in config["resources"][0]["providers"][0]["aesgcm"]["keys"]}
    assert len(found) == 5
    assert min(map(len, found)) >= 32
    output = "".join(run.output for run in story.runs)
    assert "EXEC" in output, "the runs were not made with -vvv"
    assert [secret[:4] for secret in found if secret in output] == []
    journal = hosts["master"].check_output("journalctl --no-pager --output=cat --unit=k3s")
    assert [secret[:4] for secret in found if secret in journal] == []
