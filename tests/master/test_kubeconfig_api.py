"""GET /api/v1/kubeconfig: for owners alone, and without any secret in it."""

from __future__ import annotations

import base64
from typing import Any

import pytest
import yaml

from k3s_daas import seal
from k3s_daas.chain import ChainUnreachable

PATH = "/api/v1/kubeconfig"


async def owner_token(bench: Any, **how: Any) -> str:
    bench.chain.stake("worker-1", bench.owner_a)
    token: str = bench.chain.mint("", bench.owner_a, **how)
    await bench.catch_up()
    return token


@pytest.mark.parametrize("header", ["Authorization", "X-Seal-Token"])
async def test_an_owner_gets_server_ca_and_namespace(bench: Any, header: str) -> None:
    token = await owner_token(bench)
    shown = f"Bearer {token}" if header == "Authorization" else token
    answer = await bench.api.get(PATH, headers={header: shown})
    assert answer.status_code == 200
    assert answer.headers["cache-control"] == "no-store"
    assert token[5:] not in answer.text
    content = yaml.safe_load(answer.text)
    cluster = content["clusters"][0]["cluster"]
    assert cluster["server"] == bench.config.api_server
    assert base64.b64decode(cluster["certificate-authority-data"]) == bench.state.ca.pem
    assert "insecure-skip-tls-verify" not in answer.text
    assert content["contexts"][0]["context"]["namespace"] == "owner-" + bench.owner_a[2:42]
    plugin = content["users"][0]["user"]["exec"]
    assert (plugin["command"], plugin["args"]) == ("k3s-daas", ["credential"])


async def test_nobody_else_does(bench: Any) -> None:
    worker = bench.chain.stake("worker-1", bench.owner_a)
    revoked = bench.chain.mint("", bench.owner_b)
    bench.chain.stake("worker-2", bench.owner_b)
    bench.chain.revoke("", bench.owner_b)
    workerless = bench.chain.mint("", bench.address)
    await bench.catch_up()

    async def refusal(**headers: str) -> tuple[int, str]:
        answer: tuple[int, str] = bench.refusal(await bench.api.get(PATH, headers=headers))
        return answer

    assert await refusal() == (400, "token_malformed")
    assert await refusal(authorization="Basic abc") == (400, "token_malformed")
    assert await refusal(authorization="Bearer seal_x") == (400, "token_malformed")
    assert await refusal(authorization=f"Bearer {seal.make()}") == (401, "token_unknown")
    assert await refusal(authorization=f"Bearer {worker}") == (401, "token_unknown")
    assert await refusal(authorization=f"Bearer {revoked}") == (401, "token_revoked")
    assert await refusal(authorization=f"Bearer {workerless}") == (403, "worker_not_eligible")


async def test_expired_slashed_and_dark(bench: Any) -> None:
    token = await owner_token(bench, days=1)
    headers = {"x-seal-token": token}
    bench.chain.refuse_reads = ChainUnreachable({})
    bench.clock.advance(120)
    assert (await bench.api.get(PATH, headers=headers)).status_code == 200, "stale: it is only reading"
    bench.clock.advance(900)
    assert bench.refusal(await bench.api.get(PATH, headers=headers)) == (503, "not_ready")
    bench.chain.refuse_reads = None
    bench.clock.advance(86_400)
    bench.chain.checkpoint()
    await bench.catch_up()
    assert bench.refusal(await bench.api.get(PATH, headers=headers)) == (401, "token_expired")
    fresh = bench.chain.mint("", bench.owner_a)
    bench.chain.slash("worker-1")
    await bench.catch_up()
    answer = await bench.api.get(PATH, headers={"x-seal-token": fresh})
    assert bench.refusal(answer) == (403, "worker_not_eligible")


async def test_before_the_ca_is_known(bench: Any) -> None:
    token = await owner_token(bench)
    bench.state.ca.pem = b""
    answer = await bench.api.get(PATH, headers={"x-seal-token": token})
    assert bench.refusal(answer) == (503, "not_ready")
