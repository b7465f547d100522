"""What an operator does with images and hosts: runs of the playbooks, while somebody writes into the cluster.

What was written and acknowledged before a switch, and isn't there after it, was lost.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml
from lightkube import Client, KubeConfig
from lightkube.resources.core_v1 import ConfigMap
from testinfra.host import Host

from k3s_daas.attestation.statements import Statement, registration
from k3s_daas.chain import Key, MoveAbort, SuiClient
from k3s_daas.registry import Deployment, Registry
from k3s_daas.registry.mastery import Image, allowed_images
from k3s_daas_localnet import nsm_serve
from k3s_daas_localnet.nsm import NsmEmulator
from nitro_standin.make_image import pcr0
from pages import told
from restored import AGENT, OnChain, Writer, ask_chain, is_ready
from scenario import PROJECT, STAGE, Chain, Run, play, play_killed_at
from stage import nitro
from testhosts import cgroups
from testhosts.names import Fleet

WORKER = "worker-1"
VARIABLES = f"--extra-vars=@{PROJECT / 'molecule/image-update/vars/main.yml'}"
# The variables on the page are a reader's own; `step` has others for each.
UPDATE = told("docs/image-update.md", "playbooks/update_image.yml", "image_update_record")
CHECK = told("docs/image-update.md", "playbooks/update_image.yml", "image_update_record", "--check")
ROLLBACK = told("docs/image-update.md", "playbooks/rollback_image.yml")
TAKEOVER = told("docs/image-update.md", "playbooks/takeover.yml", "confirm", confirm="standby")


@dataclass(frozen=True)
class Look:
    """What is true after a run."""

    chain: OnChain
    images: frozenset[str]
    agent: str
    node: dict[str, Any]
    operator_mist: int

    @property
    def image(self) -> str:
        return self.chain.master.pcr0.hex()


@dataclass(frozen=True)
class Cost:
    """`away_s`: the longest time that no write was acknowledged. `lost`: how many of those are lost that the
    old master acknowledged, and `loss_s`, how long before its end the oldest of them was. `lost_later`: how
    many are of what the next one acknowledged."""

    away_s: float = 0
    lost: int = 0
    loss_s: float = 0
    lost_later: int = 0


def cost_of(acknowledged: dict[str, float], there: set[str]) -> Cost:
    """What a switch cost, by when each write was acknowledged and which are there after it."""
    times = sorted(acknowledged.values())
    gaps = [(later - sooner, sooner) for sooner, later in itertools.pairwise(times)]
    away_s = max(gap for gap, _ in gaps)
    # Where an image is taken back there are two: what counts is when the old one ended.
    end = min(at for gap, at in gaps if gap >= away_s / 3)
    lost = [at for one, at in acknowledged.items() if one not in there]
    old = [at for at in lost if at <= end]
    return Cost(away_s, len(old), max((end - at for at in old), default=0.0), len(lost) - len(old))


@dataclass(frozen=True)
class Step:
    """One run: what it said, how long it took, what is true after it, and what it cost."""

    run: Run
    took_s: float
    after: Look
    cost: Cost = Cost()


@dataclass(frozen=True)
class Story:
    before: Look
    checked: Step
    # An image that never comes up.
    broken: Step
    # Killed in the middle of the switch, and run again.
    updated: Step
    # Run again when the grace period is over.
    retired: Step
    rolled_back: Step
    rolled_back_twice: Step
    # What a document of the image that was left came to, at the contract.
    refused: str
    # The host is killed with all that is on it, and the other one takes over.
    taken_over: Step
    serving_s: float
    taken_over_twice: Step


@pytest.fixture(scope="session")
def story(
    request: pytest.FixtureRequest,
    hosts: dict[str, Host],
    stage: dict[str, Any],
    chain: Chain,
    deployment: Deployment,
    tmp_path_factory: pytest.TempPathFactory,
) -> Story:
    plugins, records = request.config.pluginmanager, tmp_path_factory.mktemp("images")
    ask = ask_chain(stage, deployment)

    def say(line: str) -> None:
        with plugins.getplugin("capturemanager").global_and_fixture_disabled():
            plugins.getplugin("terminalreporter").write_line(line)

    def look(master: str = "master") -> Look:
        return Look(
            ask(),
            asyncio.run(images_of(stage, deployment)),
            hosts[WORKER].check_output(AGENT),
            ready_node(hosts[master]),
            chain.balance_mist(stage["operator"]),
        )

    def step(name: str, command: tuple[str, ...], master: str = "master", **variables: Any) -> Step:
        began = time.time()
        run = play(*command, VARIABLES, f"--extra-vars={json.dumps(variables)}")
        done = Step(run, time.time() - began, look(master))
        say(f"{name}: {done.took_s:.1f} s, exit {run.code}, changed {sum(run.changed.values())}")
        return done

    def writing(name: str, writer: Writer, work: Callable[[], Step]) -> Step:
        with writer.writing():
            done = work()
            time.sleep(0.5)
        found = connect(hosts["master"], stage["hosts"]["master"]).list(ConfigMap, namespace="default")
        there = {str(one.metadata.name) for one in found if one.metadata is not None}
        cost = cost_of(dict(writer.acknowledged), there)
        # What is lost once is lost for good, and counts once.
        writer.acknowledged.clear()
        say(
            f"{name}: no write for {cost.away_s:.1f} s; {cost.lost} of the old master's are lost, the oldest "
            f"{cost.loss_s:.1f} s before its end, and {cost.lost_later} of the next one's"
        )
        return Step(done.run, done.took_s, done.after, cost)

    def record(image: str) -> str:
        path = records / f"{image}.json"
        path.write_text(json.dumps({"pcrs": {"PCR0": pcr0(image)}}))
        return str(path)

    (STAGE / "broken-images").write_text(pcr0("broken"))
    before = look()
    writer = Writer(connect(hosts["master"], stage["hosts"]["master"]))
    two = {"image_update_record": record("two")}
    checked = step("check", CHECK, **two)
    broken = writing(
        "an image that never comes up",
        writer,
        lambda: step(
            "an image that never comes up",
            UPDATE,
            image_update_record=record("broken"),
            image_update_timeout_s=12,
        ),
    )

    def killed_and_again() -> Step:
        play_killed_at(
            "Have the emulator measure the image", *UPDATE, VARIABLES, f"--extra-vars={json.dumps(two)}"
        )
        return step("update, killed and run again", UPDATE, **two)

    updated = writing("update, killed and run again", writer, killed_and_again)
    retired = step("after the grace period", UPDATE, **two, image_update_grace_s=0)
    rolled_back = writing("rollback", writer, lambda: step("rollback", ROLLBACK))
    rolled_back_twice = step("rollback again", ROLLBACK)
    refused = asyncio.run(attest(stage, deployment, records, "two"))

    taken_over, serving_s = take_over(stage, lambda: step("takeover", TAKEOVER, master="standby"))
    say(f"takeover: its master served {serving_s:.1f} s after the other host's end")
    return Story(
        before,
        checked,
        broken,
        updated,
        retired,
        rolled_back,
        rolled_back_twice,
        refused,
        taken_over,
        serving_s,
        step("takeover again", TAKEOVER, master="standby"),
    )


def take_over(stage: dict[str, Any], run: Callable[[], Step]) -> tuple[Step, float]:
    """(what the run did, after how many seconds the standby's master was ready); the other host is dead."""
    fleet = Fleet.parse(stage["name"], stage["subnet"])
    nitro.emulate(fleet, STAGE, "standby", pcr0("one"))
    cgroups.destroy(fleet.host("master", stage["hosts"]["master"]).cgroup)
    cgroups.destroy(f"{fleet.cgroup}/{fleet.name}-nsm-master")
    began, ready = time.time(), []
    (STAGE / "stage.json").write_text(json.dumps(stage | {"master": "standby"}))
    url = f"https://{stage['hosts']['standby']}:8443/readyz"

    async def watch() -> Step:
        task = asyncio.create_task(asyncio.to_thread(run))
        async with httpx.AsyncClient(verify=False, timeout=2) as client:  # noqa: S501  no secret is sent
            while not task.done():
                with contextlib.suppress(httpx.HTTPError):
                    if not ready and (await client.get(url)).status_code == 200:
                        ready.append(time.time())
                await asyncio.sleep(0.5)
        return await task

    done = asyncio.run(watch())
    return done, ready[0] - began if ready else float("inf")


def connect(host: Host, address: str) -> Client:
    """A client of the API server on this host, with k3s' own admin certificate."""
    text = host.check_output("cat /etc/rancher/k3s/k3s.yaml")
    return Client(config=KubeConfig.from_dict(yaml.safe_load(text.replace("127.0.0.1", address))))


def ready_node(master: Host) -> dict[str, Any]:
    """The worker's Node, once it is Ready."""
    until = time.time() + 60
    while True:
        asked = master.run("k3s kubectl get nodes -o json")
        found = json.loads(asked.stdout)["items"] if asked.rc == 0 else []
        if [node["metadata"]["name"] for node in found] == [WORKER] and is_ready(found[0]):
            return dict(found[0])
        assert time.time() < until, f"after 60 s {WORKER} isn't the one Ready node: {asked}"
        time.sleep(0.5)


async def images_of(stage: dict[str, Any], deployment: Deployment) -> frozenset[str]:
    """PCR0 of each image that may attest."""
    async with await SuiClient.connect([stage["rpc"]], "localnet", chain_id=stage["chain_id"]) as chain:
        return frozenset(image.pcr0.hex() for image in await allowed_images(Registry(chain, deployment)))


async def attest(stage: dict[str, Any], deployment: Deployment, folder: Path, image: str) -> str:
    """The name of the contract's error for a good document of that image."""
    now_ms = time.time_ns() // 1_000_000
    module = NsmEmulator.load_or_create(STAGE / "nsm", now_ms)
    wallet = Key.load(stage["wallet"])
    pcrs = nsm_serve.DEFAULT_PCRS | {0: bytes.fromhex(pcr0(image))}
    statement = Statement(
        stage["chain_id"],
        deployment.types_id,
        deployment.registry_id,
        wallet.address,
        ca_hash=bytes(32),
        config_hash=bytes(32),
    )
    document = module.document(
        now_ms, pcrs=pcrs, public_key=bytes(range(32)), user_data=registration(statement)
    )
    async with await SuiClient.connect([stage["rpc"]], "localnet", wallet, stage["chain_id"]) as chain:
        assert Image(pcrs[0], pcrs[3]) not in await allowed_images(Registry(chain, deployment))
        try:
            await Registry(chain, deployment).register_master(document)
        except MoveAbort as error:
            return str(error)
    return ""
