"""With an enclave, the chain alone says when its master is there, and the workers: against a localnet."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest
from playbook_kit import ansible_playbook

from k3s_daas.attestation.statements import Statement, registration
from k3s_daas.registry import Registry, StakeRequest, WorkerStatus
from k3s_daas.registry.mastery import Image, plan_images
from k3s_daas.registry.operation import carry_out
from k3s_daas_localnet import nsm_serve
from k3s_daas_localnet.nsm import NsmEmulator

pytestmark = pytest.mark.asyncio(loop_scope="session")
PCRS = nsm_serve.DEFAULT_PCRS


async def wait(folder: Path, registry: Registry, url: str, tasks: str, **variables: Any) -> tuple[int, str]:
    """`tasks_from` of the role contracts, which looks once and doesn't wait."""
    ids = {"package_id": registry.deployment.package_id, "registry_id": registry.deployment.registry_id}
    ids |= {"original_package_id": "", "network": "localnet", "endpoints": [url], "chain_id": ""}
    task = {"ansible.builtin.include_role": {"name": "contracts", "tasks_from": tasks}}
    play = {"hosts": "localhost", "gather_facts": False, "tasks": [task]}
    at_once = {"contracts_attested_timeout_s": 0, "contracts_active_timeout_s": 0}
    return await asyncio.to_thread(
        ansible_playbook,
        folder,
        [play],
        {"k3s_daas_workers": {"hosts": {"worker-1": None}}},
        contracts_deployment=ids,
        **at_once | variables,
    )


async def test_the_master_is_there_when_the_chain_says_so(
    new_registry: Any, live_net: Any, nitro: NsmEmulator, tmp_path: Path
) -> None:
    registry: Registry = await new_registry(require_attestation=True)
    wanted = {"contracts_wanted_pcr0": PCRS[0].hex().upper()}

    code, said = await wait(tmp_path, registry, live_net.url, "wait_attested", **wanted)
    assert code != 0
    assert f"the chain has no master; wanted one attested with image {PCRS[0].hex().upper()}" in said

    _, operation = await plan_images(registry, frozenset({Image(PCRS[0], PCRS[3])}))
    await carry_out(registry.chain, operation)
    now_ms = live_net.clock.now_ms()
    emulator = nitro.restarted(now_ms - 10_000)
    account = registry.chain.require_address()
    ours = registry.deployment
    statement = registration(
        Statement(registry.chain.chain_id, ours.types_id, ours.registry_id, account, b"c" * 32, bytes(32))
    )
    key = bytes(range(32))
    document = emulator.document(now_ms, pcrs=PCRS, public_key=key, user_data=statement)
    await registry.register_master(document)
    code, said = await wait(tmp_path, registry, live_net.url, "wait_attested", **wanted)
    assert (code != 0, "not announced yet" in said) == (True, True), said

    await registry.announce_master("https://m:8443", "https://m:6443", b"c" * 32)
    code, said = await wait(tmp_path, registry, live_net.url, "wait_attested", **wanted)
    assert code == 0, said
    code, said = await wait(
        tmp_path, registry, live_net.url, "wait_attested", contracts_wanted_pcr0="ab" * 48
    )
    assert code != 0
    assert f"master {account} with image {PCRS[0].hex()}" in said


async def test_the_workers_are_there_when_the_chain_says_so(
    new_registry: Any, live_net: Any, tmp_path: Path
) -> None:
    registry: Registry = await new_registry()
    code, said = await wait(tmp_path, registry, live_net.url, "wait_active")
    assert code != 0
    assert "the chain has no workers" in said
    account, expires_at_ms = registry.chain.require_address(), live_net.clock.now_ms() + 86_400_000
    await registry.stake([StakeRequest("worker-1", b"c" * 32, 1_000_000_000, expires_at_ms)], account)
    code, said = await wait(tmp_path, registry, live_net.url, "wait_active")
    assert code != 0
    assert "worker-1: pending; wanted worker-1 active" in said
    await registry.appoint_master(account)
    await registry.set_statuses({"worker-1": WorkerStatus.ACTIVE})
    code, said = await wait(tmp_path, registry, live_net.url, "wait_active")
    assert code == 0, said
