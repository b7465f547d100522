"""The watcher against a real chain: our contracts on a localnet, the real adapter, a fake master."""

from __future__ import annotations

import asyncio
import base64
import json
import time
from pathlib import Path
from typing import Any

import httpx
import pytest

from k3s_daas import cli, seal
from k3s_daas.registry import StakeRequest, WorkerStatus
from k3s_daas_watcher.agent import AgentState
from k3s_daas_watcher.api import Api, application
from k3s_daas_watcher.chainview import Outcome, look
from k3s_daas_watcher.clock import SystemClock
from k3s_daas_watcher.connect import leave_builder, readers
from k3s_daas_watcher.control import Control
from k3s_daas_watcher.errors import Refusal
from k3s_daas_watcher.findings import chain_refusal
from k3s_daas_watcher.guard import Guard
from k3s_daas_watcher.hostusage import HostMeter
from k3s_daas_watcher.register import Outputs, register
from k3s_daas_watcher.state import StateStore
from k3s_daas_watcher.unstake import Unstaker
from k3s_daas_watcher.watcher import Slashed, Watcher

pytestmark = pytest.mark.asyncio(loop_scope="session")

SUI = 1_000_000_000


@pytest.fixture
def fake_master(new_ca, master_class):
    authority = new_ca("live")
    return master_class(authority, authority.pem)


@pytest.fixture
def staked(new_registry):
    """`await staked(token, master)`: a registry with worker-1, its seal token and an announced master."""

    async def make(token: str, master) -> tuple:
        registry = await new_registry()
        await registry.appoint_master(registry.chain.address, 0)
        await registry.announce_master(master.url, master.url, master.ca.hash)
        expires = int(time.time() * 1000) + 86_400_000
        request = StakeRequest("worker-1", seal.commitment(token), 2 * SUI, expires)
        await registry.stake([request], registry.chain.address)
        return registry, {
            "package_id": registry.deployment.package_id,
            "registry_id": registry.deployment.registry_id,
        }

    return make


async def test_the_way_of_one_worker(
    staked, live_net, fake_master, serving, token, make_config, tmp_path, probe, pods
):
    async with serving(fake_master.app(), fake_master.ca) as url:
        fake_master.url = url
        registry, ids = await staked(token, fake_master)
        config = make_config(endpoints=[live_net.url], **ids)
        outputs = Outputs(tmp_path / "o" / "token", tmp_path / "o" / "password", None)
        endpoints, clock = readers(config), SystemClock()
        joined = await register(config, token, endpoints, outputs, clock, wait_s=10)
        assert joined.server == url
        assert outputs.token.exists()

        control = Control(Path(config.state_dir), Path(config.confirmation_file), "worker-1")
        store = StateStore(Path(config.state_dir), "worker-1")
        meter = HostMeter(clock.monotonic)
        watcher = Watcher(
            config,
            token,
            endpoints,
            store,
            control,
            probe,
            clock,
            usage=meter.look,
            pods=pods,
            certificates=list,
        )
        await watcher.check_chain()
        assert watcher.live.outcome is Outcome.AGREED
        assert watcher.store.state.stake_mist == 2 * SUI
        assert watcher.store.state.token_generation == 1
        assert await watcher.beat()
        assert fake_master.heartbeats[0]["stake_status"] == "pending"

        await registry.slash_now("worker-1", 4, bytes(32))
        with pytest.raises(Slashed):
            await watcher.check_chain()
        with pytest.raises(Refusal, match="worker_slashed"):
            await register(config, token, endpoints, outputs, clock, wait_s=1)
        assert probe.state is AgentState.HEALTHY
        await watcher.close()


async def test_what_unstake_returns_is_what_the_owner_signs(
    staked, live_net, fake_master, serving, token, make_config, probe, pods
):
    """The API on the real chain: no key on the worker, and the owner's signature is all that is missing."""
    async with serving(fake_master.app(), fake_master.ca) as url:
        fake_master.url = url
        registry, ids = await staked(token, fake_master)
        config = make_config(endpoints=[live_net.url], **ids)
        store = StateStore(Path(config.state_dir), "worker-1")
        clock = SystemClock()
        root = Control(Path(config.state_dir), Path(config.confirmation_file), "worker-1")
        watcher = Watcher(
            config,
            token,
            readers(config),
            store,
            root,
            probe,
            clock,
            usage=HostMeter(clock.monotonic).look,
            pods=pods,
            certificates=list,
        )
        await watcher.check_chain()
        unstaker = Unstaker(watcher, clock, leave_builder(config))
        app = application(Api(watcher, clock, Guard(token, clock), root, unstaker))
        transport = httpx.ASGITransport(app)
        async with httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1") as client:

            async def unstake() -> httpx.Response:
                body, headers = {"node_id": "worker-1"}, {"X-Seal-Token": token}
                return await client.post("/api/v1/unstake", json=body, headers=headers)

            before = await registry.chain.balance(registry.chain.address)
            answer = (await unstake()).json()
            assert answer["sender"] == registry.chain.address
            assert answer["stake_mist"] == str(2 * SUI)
            assert await registry.chain.balance(registry.chain.address) == before, "nothing was sent"
            assert (await registry.worker("worker-1")).status is WorkerStatus.PENDING

            # What the owner's wallet does.
            encoded = base64.b64decode(answer["transaction"])
            signature = registry.chain._key.sign_transaction(encoded)
            done = await registry.chain._executor._submit(encoded, signature, answer["digest"])
            assert done.effects.status.success
            assert (await registry.worker("worker-1")).status is WorkerStatus.UNBONDING
            again = await unstake()
            assert (again.status_code, again.json()["error"]["code"]) == (409, "worker_not_eligible")
        await watcher.close()


async def test_wrong_network_and_silence_are_told_apart(live_net, make_config, new_registry):
    registry = await new_registry()
    ids = {"package_id": registry.deployment.package_id, "registry_id": registry.deployment.registry_id}
    for changes, wanted in (
        ({"chain_id": "1" * 44, "endpoints": [live_net.url]}, Outcome.WRONG_NETWORK),
        ({"endpoints": ["http://127.0.0.1:1"]}, Outcome.UNREACHABLE),
        ({"endpoints": ["http://127.0.0.1:1", live_net.url]}, Outcome.AGREED),
        ({"endpoints": [live_net.url], "registry_id": "0x" + "9" * 64}, Outcome.NO_REGISTRY),
        ({"endpoints": [live_net.url], "package_id": "0x" + "9" * 64}, Outcome.NO_REGISTRY),
    ):
        config = make_config(**ids | changes)
        endpoints = readers(config)
        view = await look(endpoints, "worker-1", 1)
        assert view.outcome is wanted, view.detail
        if wanted is not Outcome.AGREED:
            told = chain_refusal(config, view)
            assert told.code == wanted.value
            assert config.endpoints[0] in told.found
            names = {
                Outcome.WRONG_NETWORK: f"localnet (chain id {config.chain_id})",
                Outcome.NO_REGISTRY: f"registry {config.registry_id} of package {config.package_id}",
                Outcome.UNREACHABLE: "answers of at least 1 endpoint",
            }
            assert names[wanted] in told.wanted
            assert told.fix.startswith(("correct", "check the endpoints"))
        for endpoint in endpoints:
            await endpoint.close()


def overview(**worker: Any) -> dict[str, Any]:
    """What the master answers of one worker; tests/master holds the shape against the real one."""
    seen = {"node_id": "worker-1", "owner": "0x1", "stake_mist": 1, "status": "active", "reputation": 100}
    seen |= {"node_ready": True, "generation": 1, "expires_at_ms": 1, "revoked": False}
    return {
        "version": "0.1.0",
        "health": {"state": "healthy", "summary": "all is well"},
        "alerts": [],
        "tee": {"mode": "simulated", "attested": False},
        "master": {"problems": []},
        "slashing": {"mode": "observe", "findings": 0, "held_back": None},
        "gas": {"balance_mist": None, "low": False},
        "chain": {"checkpoint": 7, "age_ms": 90_000},
        "workers": [seen | worker],
    }


async def test_status_prints_one_table_and_one_json(
    staked, live_net, fake_master, serving, token, tmp_path, capsys
):
    async with serving(fake_master.app(), fake_master.ca) as url:
        fake_master.url = url
        registry, ids = await staked(token, fake_master)
        fake_master.overview = overview(last_heartbeat_ms=int(time.time() * 1000) - 5000)
        path = tmp_path / "config.json"
        path.write_text(json.dumps({"network": "localnet", "endpoints": [live_net.url], **ids}))
        assert await asyncio.to_thread(cli.main, ["status", f"--config={path}", "--json"]) == 0
        found = json.loads(capsys.readouterr().out)
        (row,) = found["workers"]
        assert (row["node_id"], row["stake_mist"], row["status"]) == ("worker-1", str(2 * SUI), "pending")
        assert (row["node_ready"], row["token_generation"], row["owner"]) == (True, 1, registry.chain.address)
        assert 5 <= row["last_heartbeat_age_s"] < 60
        assert found["simulated"] is True
        assert found["stand_in"] is False

        assert await asyncio.to_thread(cli.main, ["status", f"--config={path}"]) == 0
        text = capsys.readouterr().out
        for word in ("worker-1", "2 SUI", "pending", "Ready", "gen 1", "s ago", "SIMULATED"):
            assert word in text

        # The cluster itself is asked when a kubeconfig is given, and says what it runs.
        kubectl = tmp_path / "kubectl"
        node = {
            "metadata": {"name": "worker-1"},
            "spec": {},
            "status": {
                "conditions": [{"type": "Ready", "status": "False"}],
                "nodeInfo": {"kubeletVersion": "v1.34.1+k3s1-STAND-IN"},
            },
        }
        kubectl.write_text(f"#!/bin/sh\ncat <<'END'\n{json.dumps({'items': [node]})}\nEND\n")
        kubectl.chmod(0o755)
        arguments = ["status", f"--config={path}", f"--kubeconfig={path}", f"--kubectl={kubectl}"]
        assert await asyncio.to_thread(cli.main, arguments) == 0
        text = capsys.readouterr().out
        assert "not Ready" in text
        assert "STAND-IN" in text
        assert token not in text


async def test_status_without_a_master_shows_the_chain_and_says_what_is_missing(
    staked, live_net, fake_master, serving, token, capsys
):
    async with serving(fake_master.app(), fake_master.ca) as url:
        fake_master.url = url
        _, ids = await staked(token, fake_master)
    arguments = [
        "status",
        "--network=localnet",
        f"--endpoint={live_net.url}",
        f"--package-id={ids['package_id']}",
        f"--registry-id={ids['registry_id']}",
    ]
    assert await asyncio.to_thread(cli.main, arguments) == 1
    text = capsys.readouterr().out
    assert "worker-1" in text
    assert f"not read: master {url}" in text


async def test_status_without_a_chain_says_so(capsys):
    arguments = ["status", "--network=localnet", "--endpoint=http://127.0.0.1:1"]
    assert await asyncio.to_thread(cli.main, arguments) == 78
    assert "registry_id: nothing" in capsys.readouterr().err
    arguments += ["--package-id=0x" + "1" * 64, "--registry-id=0x" + "2" * 64]
    assert await asyncio.to_thread(cli.main, arguments) == 10
    text = capsys.readouterr().out
    assert "not read: chain: No Sui endpoint answered" in text
    assert "not read: master: only the chain knows where it is" in text


async def test_status_without_a_chain_asks_the_master_that_the_configuration_names(
    fake_master, serving, tmp_path, capsys
):
    path, ca = tmp_path / "master.json", tmp_path / "ca.crt"
    ids = {"package_id": "0x" + "1" * 64, "registry_id": "0x" + "2" * 64}
    async with serving(fake_master.app(), fake_master.ca) as url:
        fake_master.overview = overview(last_heartbeat_ms=int(time.time() * 1000))
        config = {"network": "localnet", "endpoints": ["http://127.0.0.1:1"], "endpoint": url}
        path.write_text(json.dumps(config | ids))
        arguments = ["status", f"--config={path}", f"--ca={ca}"]
        assert await asyncio.to_thread(cli.main, arguments) == 78
        assert "ca.crt" in capsys.readouterr().err
        ca.write_bytes(fake_master.ca.pem)
        assert await asyncio.to_thread(cli.main, arguments) == 1
    text = capsys.readouterr().out
    assert "no answer; the master saw checkpoint 7, 90 s ago" in text
    assert "worker-1" in text
    assert "not read: chain: No Sui endpoint answered" in text


async def test_status_of_a_master_that_answers_nonsense(
    staked, live_net, fake_master, serving, token, tmp_path, capsys
):
    async with serving(fake_master.app(), fake_master.ca) as url:
        fake_master.url = url
        _, ids = await staked(token, fake_master)
        fake_master.overview = {"health": "fine"}
        path = tmp_path / "config.json"
        path.write_text(json.dumps({"network": "localnet", "endpoints": [live_net.url], **ids}))
        assert await asyncio.to_thread(cli.main, ["status", f"--config={path}"]) == 1
    assert f"not read: master {url}: /api/v1/overview has another shape" in capsys.readouterr().out
