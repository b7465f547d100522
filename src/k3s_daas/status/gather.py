"""Asks the chain, then the master and the cluster. Who gives no answer leaves a problem."""

from __future__ import annotations

import asyncio
import json
import shlex
import ssl
import subprocess
import time
from pathlib import Path

import httpx
from pydantic import ValidationError

from k3s_daas import join
from k3s_daas.chain.errors import ChainError
from k3s_daas.chainconfig import ChainConfig
from k3s_daas.registry import Registry
from k3s_daas.status.report import KnownMaster, Node, OnChain, Overview, Report

OVERVIEW_PATH = "/api/v1/overview"
MAX_ANSWER_BYTES = 8 * 1024 * 1024


async def gather(
    config: ChainConfig,
    kubectl: str = "kubectl",
    kubeconfig: Path | None = None,
    known: KnownMaster | None = None,
) -> Report:
    """Ask everybody. `known` is the master to ask while the chain can't say which it is."""
    report = Report(config, time.time_ns() // 1_000_000)
    asked = [_ask_chain_and_master(report, known)]
    if kubeconfig is not None:
        asked.append(asyncio.to_thread(_ask_cluster, report, kubectl, kubeconfig))
    await asyncio.gather(*asked)
    return report


async def _ask_chain_and_master(report: Report, known: KnownMaster | None) -> None:
    try:
        report.chain = await _read_chain(report)
    except ChainError as error:
        report.problems.append(f"chain: {error}")
    else:
        if not report.chain.config.require_attestation:
            report.notices.append(
                "SIMULATED: this registry takes a master without attestation; its trusted execution "
                "environment is simulated and proves nothing."
            )
    await asyncio.to_thread(_ask_master, report, known)


async def _read_chain(report: Report) -> OnChain:
    from k3s_daas.chain import SuiClient

    config = report.config
    async with await SuiClient.connect(
        list(config.endpoints), config.network, chain_id=config.chain_id
    ) as chain:
        registry = Registry(chain, config.deployment)
        (checkpoint, at_ms), record, workers = await asyncio.gather(
            chain.latest_checkpoint(), registry.config(), registry.workers()
        )
        tokens = await registry.worker_tokens([worker.node_id for worker in workers])
        gas = await chain.balance(record.master.account) if record.master else None
    age_ms = max(0, time.time_ns() // 1_000_000 - at_ms)
    return OnChain(record, workers, tokens, gas, checkpoint, age_ms)


def _ask_master(report: Report, known: KnownMaster | None) -> None:
    master = report.chain.config.master if report.chain else None
    if report.chain is not None and (master is None or not master.endpoint):
        report.problems.append("no master is announced on-chain yet: run playbooks/master.yml")
        return
    if master is None and known is None:
        report.problems.append("master: only the chain knows where it is")
        return
    report.endpoint = master.endpoint if master else known.endpoint if known else ""
    try:
        ca = join.fetch_cacerts(master.api_server, master.ca_hash) if master else known.ca if known else b""
        report.master = _overview(report.endpoint, ca)
    except (join.JoinError, httpx.HTTPError, ValidationError, ValueError, ssl.SSLError) as error:
        why = f"{OVERVIEW_PATH} has another shape" if isinstance(error, ValidationError) else str(error)
        report.problems.append(f"master {report.endpoint}: {why or type(error).__name__}")


def _overview(endpoint: str, ca: bytes) -> Overview:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.load_verify_locations(cadata=ca.decode("ascii"))
    raw = b""
    with (
        httpx.Client(verify=context, timeout=10, trust_env=False) as client,
        client.stream("GET", endpoint.rstrip("/") + OVERVIEW_PATH) as response,
    ):
        response.raise_for_status()
        for chunk in response.iter_bytes():
            raw += chunk
            if len(raw) > MAX_ANSWER_BYTES:
                raise ValueError(f"more than {MAX_ANSWER_BYTES} bytes came from {OVERVIEW_PATH}")
    return Overview.model_validate_json(raw)


def _ask_cluster(report: Report, kubectl: str, kubeconfig: Path) -> None:
    command = [*shlex.split(kubectl), "--kubeconfig", str(kubeconfig), "get", "nodes", "--output=json"]
    try:
        done = subprocess.run(command, check=False, capture_output=True, text=True, timeout=20)
        if done.returncode != 0:
            raise ValueError(done.stderr.strip()[:300])
        nodes = json.loads(done.stdout)["items"]
        report.nodes = {node["metadata"]["name"]: _node(node) for node in nodes}
    except (OSError, ValueError, KeyError, TypeError, subprocess.TimeoutExpired) as error:
        report.problems.append(f"cluster ({kubectl}): {error}")
        return
    if any("stand-in" in node.version.lower() for node in report.nodes.values()):
        report.notices.append("STAND-IN: k3s here is a stand-in for tests; it runs no pods.")


def _node(node: dict) -> Node:  # type: ignore[type-arg]  # whatever kubectl printed
    conditions = {c["type"]: c["status"] for c in node.get("status", {}).get("conditions", [])}
    return Node(
        ready=conditions.get("Ready") == "True",
        unschedulable=bool(node.get("spec", {}).get("unschedulable")),
        version=str(node.get("status", {}).get("nodeInfo", {}).get("kubeletVersion", "")),
    )
