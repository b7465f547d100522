"""The look itself: a real chain, real files, real sockets; systemd and the master's address are given."""

from __future__ import annotations

import asyncio
import json
import os
import socket
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from k3s_daas import cli, seal
from k3s_daas.chain import Key
from k3s_daas.doctor import command
from k3s_daas.doctor.checks import examine
from k3s_daas.doctor.facts import Facts, MasterSays, Port, Unit, WatcherSays
from k3s_daas.doctor.gather import NothingHere, announced_port, gather
from k3s_daas.doctor.probes import Paths, Probes, parse_units
from k3s_daas.join import CaMismatch, ServerUnreachable
from k3s_daas.registry import StakeRequest

pytestmark = pytest.mark.asyncio(loop_scope="session")

SUI = 1_000_000_000
DAY_MS = 86_400_000
ENDPOINT, API = "https://10.0.0.1:8443", "https://10.0.0.1:6443"


@dataclass
class HostProbes(Probes):
    """The real probes; only what a test machine can't have (units, the master's address) is given."""

    states: dict[str, str] = field(default_factory=dict)
    ca_error: Exception | None = None
    said: MasterSays = field(default_factory=lambda: MasterSays(()))
    open_ports: bool = True
    tried: list[tuple[str, int]] = field(default_factory=list)

    def units(self, names: tuple[str, ...]) -> tuple[Unit, ...]:
        return tuple(Unit(n, self.states.get(n, "active"), "running", "success", "loaded", 0) for n in names)

    def port(self, what: str, host: str, port: int) -> Port:
        self.tried.append((host, port))
        return Port(what, f"{host}:{port}", trouble=None if self.open_ports else "no answer within 5 s")

    def cacerts(self, api_server: str, ca_hash: bytes) -> bytes:
        if self.ca_error is not None:
            raise self.ca_error
        return b"pem"

    def master(self, endpoint: str, ca: bytes, node_id: str | None) -> MasterSays:
        assert (endpoint, ca) == (ENDPOINT, b"pem")
        return self.said

    def kubelet(self, url: str) -> str:
        return "ok"

    def watcher(self, url: str) -> WatcherSays:
        assert url == "http://127.0.0.1:10280"
        return WatcherSays((), self.now_ms())


@dataclass
class Host:
    """A host's files under a temporary directory, on a registry of a localnet."""

    root: Path
    registry: Any
    url: str
    probes: HostProbes = field(default_factory=HostProbes)

    @property
    def paths(self) -> Paths:
        names = ("watcher.json", "master.json", "seal-token", "config.yaml", "agent-stopped")
        return Paths(*(self.root / name for name in names), disks=(self.root, Path("/nowhere")))

    def configure(self, name: str = "watcher.json", **changes: Any) -> None:
        config = {
            "network": "localnet",
            "endpoints": [self.url],
            "chain_id": self.registry.chain.chain_id,
            "package_id": self.registry.deployment.package_id,
            "registry_id": self.registry.deployment.registry_id,
            **({"node_id": "worker-1"} if name == "watcher.json" else {"endpoint": ENDPOINT}),
        }
        (self.root / name).write_text(json.dumps(config | changes))

    def token(self, mode: int = 0o600) -> str:
        token = seal.make()
        path = self.root / "seal-token"
        path.write_text(token + "\n")
        path.chmod(mode)
        return token

    async def stake(self, node_id: str, token: str) -> None:
        expires = await self.registry.clock_ms() + 90 * DAY_MS
        request = StakeRequest(node_id, seal.commitment(token), SUI, expires)
        await self.registry.stake([request], self.registry.chain.address)

    async def announce(self) -> None:
        await self.registry.appoint_master(self.registry.chain.address, SUI)
        await self.registry.announce_master(ENDPOINT, API, b"\xab" * 32)

    async def look(self) -> Facts:
        """In a thread, as the command is: it has an event loop of its own."""
        return await asyncio.to_thread(gather, self.probes, self.paths)

    async def bad(self) -> dict[str, str]:
        findings = examine(await self.look())
        return {finding.check: finding.found for finding in findings if finding.level != "ok"}


@pytest_asyncio.fixture(loop_scope="session")
async def host(tmp_path: Path, new_registry: Any, live_net: Any) -> Host:
    """A worker that is well but for its status, which is pending."""
    host = Host(tmp_path, await new_registry(), live_net.url)
    host.configure()
    await host.announce()
    await host.stake("worker-1", host.token())
    (tmp_path / "config.yaml").write_text("node-name: worker-1\nnode-ip: 10.0.0.9\n")
    (tmp_path / "config.yaml.d").mkdir()
    (tmp_path / "config.yaml.d/cluster.yaml").write_text("node-ip: 127.0.0.1\n")
    return host


async def test_a_worker_as_it_is(host: Host) -> None:
    facts = await host.look()
    assert (facts.role, facts.node_id) == ("worker", "worker-1")
    assert facts.chain.worker is not None
    assert facts.chain.token is not None
    assert facts.secret is not None
    assert facts.chain.token.commitment == facts.secret.commitment
    assert facts.ca_checked
    assert host.probes.tried == [("10.0.0.1", 6443), ("10.0.0.1", 8443)]
    assert [disk.path for disk in facts.disks] == [str(host.root)]
    assert set(await host.bad()) - {"disk"} == {"status", "interface"}, "pending; and its node-ip is loopback"


async def test_no_secret_is_in_what_is_shown(host: Host, capsys: pytest.CaptureFixture[str]) -> None:
    token = (host.root / "seal-token").read_text().strip()
    for arguments in (["--all"], ["--json"], []):
        options = cli_options(*arguments)
        await asyncio.to_thread(command.run, options, host.probes, host.paths)
    said = capsys.readouterr()
    assert "worker-1" in said.out
    assert token[5:20] not in said.out + said.err
    assert token[5:20] not in repr(await host.look())


def cli_options(*arguments: str) -> Any:
    import argparse

    parser = argparse.ArgumentParser()
    command.add_arguments(parser)
    return parser.parse_args(list(arguments))


async def test_a_token_of_another_worker_is_named(host: Host) -> None:
    await host.stake("worker-7", host.token())
    assert (await host.bad())["token"].startswith("this host's token is that of worker worker-7")


async def test_a_token_that_nobody_minted(host: Host) -> None:
    host.token()
    assert "the chain knows another token of worker-1 (generation 1)" in (await host.bad())["token"]


async def test_a_name_that_nobody_staked(host: Host) -> None:
    host.configure(node_id="worker-2")
    assert "no worker worker-2" in (await host.bad())["stake"]
    host.configure(node_id="../x")
    assert "stake" in await host.bad()


async def test_the_wrong_chain_registry_and_endpoint(host: Host) -> None:
    host.configure(chain_id="4btiuiMPvEENsttpZC7CZ53DruC3MAgfznDbASZ7DR6S")
    assert "wanted localnet with chain 4btiu" in (await host.bad())["network"]
    host.configure(registry_id="0x" + "9" * 64)
    assert "0x999" in (await host.bad())["registry"]
    with closed_port() as port:
        host.configure(endpoints=[f"http://127.0.0.1:{port}", host.url])
        assert f"127.0.0.1:{port}" in (await host.bad())["endpoint"]
    host.configure(endpoints=["http://no-such-host.invalid:9000", host.url])
    assert "no-such-host.invalid" in (await host.bad())["dns"]


async def test_a_configuration_that_can_not_be_used_leaves_the_rest(host: Host) -> None:
    host.configure(registry_id="12")
    found = await host.bad()
    assert "registry_id" in found["config"]
    assert "clock" not in found
    (host.root / "watcher.json").write_text("{")
    assert "no JSON" in (await host.bad())["config"]
    host.token(0o644)
    assert "0644" in (await host.bad())["token"]


async def test_another_ca_and_an_api_server_that_says_nothing(host: Host) -> None:
    host.probes.ca_error = CaMismatch("aa" * 32, "ab" * 32, API)
    assert "served is CA aaaa" in (await host.bad())["ca"]
    host.probes.ca_error = ServerUnreachable("no bundle")
    assert await host.bad() | {"master-api": "no bundle"} == await host.bad()
    host.probes.open_ports = False
    assert "no answer within 5 s" in (await host.bad())["port"]


@pytest.mark.parametrize("url", ["https://[", "what", "https://host:99999", ""])
async def test_an_announced_address_that_is_none(url: str) -> None:
    # The contract refuses these; an endpoint that lies may say them.
    assert "no https://host:port" in str(announced_port(Probes(), "the master", url).trouble)


async def test_another_host_under_this_name(host: Host) -> None:
    host.probes.states = dict.fromkeys(("k3s-agent.service", "k3s-daas-watcher.service"), "inactive")
    row = {"node_id": "worker-1", "node_ready": True, "last_heartbeat_ms": host.probes.now_ms()}
    host.probes.said = MasterSays((), row)
    assert "don't run here" in (await host.bad())["name"]


async def test_a_master_as_it_is(host: Host) -> None:
    key_file = host.root / "sui.key"
    account = Key.create(key_file).address
    host.configure("master.json", key_file=str(key_file), tls_cert=str(host.root / "server.crt"))
    facts = await host.look()
    assert (facts.role, facts.account, facts.node_id) == ("master", account, None)
    assert facts.chain.balance_mist == 0
    found = await host.bad()
    assert "this host's key is" in found["master"]
    assert "0 SUI" in found["gas"]
    key_file.chmod(0o644)
    assert "mode 0644" in (await host.bad())["key"]
    key_file.unlink()
    assert "there is no" in (await host.bad())["key"]


async def test_a_host_of_nobody(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    paths = replace(Paths(), worker_config=tmp_path / "w", master_config=tmp_path / "m")
    with pytest.raises(NothingHere, match="wanted a host that the plays set up"):
        gather(Probes(), paths)
    assert command.run(cli_options(), Probes(), paths) == 2
    assert "Run playbooks/workers.yml" in capsys.readouterr().err


async def test_the_command_ends_with_its_code(host: Host, capsys: pytest.CaptureFixture[str]) -> None:
    path = str(host.root / "watcher.json")
    host.configure(registry_id="12")
    assert await asyncio.to_thread(cli.main, ["doctor", "--config", path, "--json"]) == 2
    answer = json.loads(capsys.readouterr().out)
    assert (answer["role"], answer["code"]) == ("worker", 2)
    assert {"check", "level", "found", "cause", "fix", "coming"} == set(answer["findings"][0])
    assert (answer["settled"], answer["release"]) == (False, None)
    assert await asyncio.to_thread(cli.main, ["doctor", "--config", path]) == 2
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("error    config      ")
    assert " -> " in lines[0]
    assert "error(s), " in lines[-1]


async def test_it_looks_again_until_it_is_well_or_the_time_is_over(
    host: Host, capsys: pytest.CaptureFixture[str]
) -> None:
    path = str(host.root / "watcher.json")
    now = [0.0]
    looks: list[float] = []

    def pause(seconds: float) -> None:
        looks.append(now[0])
        now[0] += seconds + 1  # a look takes its time, too
        if now[0] > 10:
            host.configure()

    def wait(seconds: str) -> set[str]:
        options = cli_options("--config", path, "--json", "--wait", seconds)
        command.run(options, host.probes, host.paths, pause, lambda: now[0])
        answer = json.loads(capsys.readouterr().out)
        return {one["check"] for one in answer["findings"] if one["level"] == "error"}

    host.configure(registry_id="12")
    assert "config" in await asyncio.to_thread(wait, "0")
    assert looks == []
    assert "config" in await asyncio.to_thread(wait, "6")
    assert looks == [0, 3], "for a third there was no time"
    # It is mended after 10 s. That it is pending on-chain is waited for to the end.
    assert "config" not in await asyncio.to_thread(wait, "20")
    assert len(looks) > 4


# -- the probes alone ----------------------------------------------------------------------------------------


@contextmanager
def closed_port() -> Iterator[int]:
    """A port that nobody listens on and nobody else takes meanwhile."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        yield sock.getsockname()[1]


async def test_ports_are_reached_refused_or_unknown() -> None:
    probes = Probes()
    with socket.create_server(("127.0.0.1", 0)) as server:
        assert probes.port("x", "127.0.0.1", server.getsockname()[1]).reached
    with closed_port() as port:
        found = probes.port("x", "127.0.0.1", port)
    assert (found.reached, found.refused) == (False, True)
    assert probes.port("x", "no-such-host.invalid", 1).unresolved
    assert probes.port("x", "a" * 70 + ".invalid", 1).unresolved, "no name at all"


async def test_a_token_file_is_read_as_it_is(tmp_path: Path) -> None:
    path, probes = tmp_path / "seal-token", Probes()
    assert probes.seal_token(path).missing
    path.write_text("short")
    path.chmod(0o640)
    found = probes.seal_token(path)
    assert (found.mode, found.commitment) == (0o640, None)
    assert "5 characters" in str(found.trouble)
    path.unlink()
    path.mkdir()
    assert probes.seal_token(path).trouble
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo, 0o600)
    assert probes.seal_token(fifo).trouble, "and it doesn't wait for a writer"
    assert stat.S_ISFIFO(fifo.stat().st_mode)


async def test_what_systemctl_says() -> None:
    said = (
        "Id=a.service\nActiveState=failed\nSubState=failed\nResult=exit-code\nLoadState=loaded\nNRestarts=4\n\n"
        "Id=b.path\nActiveState=active\nSubState=waiting\nResult=success\nLoadState=loaded\n"
    )
    assert parse_units(said) == (
        Unit("a.service", "failed", "failed", "exit-code", "loaded", 4),
        Unit("b.path", "active", "waiting", "success", "loaded", 0),
    )
    assert parse_units("System has not been booted with systemd") == ()


async def test_the_hosts_own_things(tmp_path: Path) -> None:
    probes = Probes()
    assert "127.0.0.1" in probes.addresses()["lo"]
    assert probes.yaml(tmp_path / "none") == {}
    odd = tmp_path / "odd.yaml"
    for text in ("[1]", "a: [", "\x00"):
        odd.write_text(text)
        assert probes.yaml(odd) == {}
    assert probes.certificate_expires_ms(odd) is None
    disk = probes.disk(tmp_path)
    assert disk is not None
    assert 0 <= disk.free_bytes <= disk.total_bytes
    assert probes.disk(tmp_path / "none") is None
    with closed_port() as port:
        assert probes.kubelet(f"http://127.0.0.1:{port}/healthz") == ""
