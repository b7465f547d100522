"""`k3s-daas-watcher`: `register` joins the worker, `serve` is the daemon, `agent-control` its root part."""

from __future__ import annotations

import argparse
import asyncio
import pwd
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from k3s_daas import logs

from . import agent_control, config, register_command, sealfile, service, signing
from .agent import KubeletProbe
from .api import Api, application, metrics_application
from .certificates import NodeCertificates
from .clock import SystemClock
from .connect import leave_builder, readers
from .control import Control, ControlError
from .errors import Exit, Refusal
from .findings import SIMULATED_NOTICE, check_tee
from .guard import Guard
from .hostusage import HostMeter
from .pods import KubeletPods
from .state import StateStore
from .unstake import Unstaker
from .watcher import Watcher

log = logs.get_logger("k3s_daas_watcher")

DEFAULT_CONFIG = Path("/etc/k3s-daas/watcher.json")


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="k3s-daas-watcher", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    registering = commands.add_parser("register", help="as root: exchange the seal token for a join token")
    register_command.add_arguments(registering)
    serving = commands.add_parser("serve", help="watch this worker (Type=notify)")
    serving.add_argument("--config", type=Path, default=DEFAULT_CONFIG)
    serving.add_argument(
        "--heartbeat-key-file", type=Path, help="default: systemd's credential heartbeat-key"
    )
    serving.add_argument("--seal-token-file", type=Path, help="default: systemd's credential seal-token")
    keys = commands.add_parser("init-key", help="make the key that signs heartbeats, once")
    keys.add_argument("--out", type=Path, default=signing.DEFAULT_PATH)
    control = commands.add_parser("agent-control", help="as root: do what the watcher asked for, once")
    control.add_argument("--config", type=Path, default=DEFAULT_CONFIG)
    control.add_argument("--owner", default="k3s-daas-watcher", help="user whose requests are taken")
    stopping = commands.add_parser(
        "stop-agent", help="as root: stop the agent and its pods for good, because the worker leaves"
    )
    stopping.add_argument("--config", type=Path, default=DEFAULT_CONFIG)
    options = parser.parse_args(arguments)
    if options.command == "register":
        return register_command.run(options)
    logs.configure("k3s-daas-watcher" if options.command == "serve" else "k3s-daas-agent-control")
    try:
        if options.command == "init-key":
            print("created" if signing.create(options.out) else "found")
            return Exit.OK
        if options.command == "agent-control":
            return _agent_control(options.config, options.owner)
        if options.command == "stop-agent":
            return _stop_agent(options.config)
        return asyncio.run(_serve(options.config, options.seal_token_file, options.heartbeat_key_file))
    except Refusal as refusal:
        log.error(
            refusal.message, code=refusal.code, found=refusal.found, wanted=refusal.wanted, fix=refusal.fix
        )
        return refusal.exit_code


def _agent_control(path: Path, owner: str) -> Exit:
    settings = config.load(path)
    try:
        uid = pwd.getpwnam(owner).pw_uid
    except KeyError:
        raise Refusal(
            "user_unknown",
            "the watcher's user is missing",
            found=f"no user {owner}",
            wanted="the user the watcher runs as",
            fix="run playbooks/workers.yml, which makes it",
            exit_code=Exit.CONFIG,
        ) from None
    return agent_control.run(settings, uid, agent_control.Systemctl(), agent_control.Pods())


def _stop_agent(path: Path) -> Exit:
    settings = config.load(path)
    why = {"node_id": settings.node_id, "reason": "leaving", "requested_at_ms": SystemClock().now_ms()}
    try:
        stopped = agent_control.stop_for_good(settings, why, agent_control.Systemctl(), agent_control.Pods())
    except (ControlError, OSError, subprocess.TimeoutExpired) as error:
        raise Refusal(
            "agent_not_stopped",
            "the agent can't be stopped",
            found=str(error)[:500],
            wanted=f"no process of {settings.agent_unit} and its pods",
            fix="look at what is left with systemctl and ps, as root, and run this again",
        ) from None
    print("stopped" if stopped else "found stopped")
    return Exit.OK


async def _serve(path: Path, token_file: Path | None, key_file: Path | None) -> Exit:
    settings = config.load(path)
    check_tee(settings)
    if settings.simulated:
        log.warning(SIMULATED_NOTICE)
    token = sealfile.read(sealfile.find(token_file))
    key = signing.load(signing.find(key_file))
    clock = SystemClock()
    state_dir = Path(settings.state_dir)
    root = Control(state_dir, Path(settings.confirmation_file), settings.node_id)
    watcher = Watcher(
        settings,
        token,
        readers(settings),
        StateStore(state_dir, settings.node_id),
        root,
        KubeletProbe(settings.agent_unit, settings.kubelet_health_url),
        clock,
        key=key,
        usage=HostMeter(clock.monotonic).look,
        pods=KubeletPods(settings.node_id, Path(settings.kubelet_credentials_dir)),
        certificates=NodeCertificates(Path(settings.kubelet_credentials_dir)).fingerprints,
    )
    unstaker = Unstaker(watcher, clock, leave_builder(settings))
    api = Api(watcher, clock, Guard(token, clock), root, unstaker)
    served = [(application(api), service.bind(settings.listen))]
    if settings.metrics_listen is not None:
        served.append((metrics_application(api), service.bind(settings.metrics_listen)))
    stop = asyncio.Event()
    service.stop_on_signals(stop)
    return await service.serve(watcher, served, clock, stop)


if __name__ == "__main__":
    sys.exit(main())
