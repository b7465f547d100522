"""Token checks: how many TokenReviews a second the master answers, and how many the smallest webhook does.

    python benchmarks/tokens.py [--json FILE]

The master's own service runs (webhook, API, follower, store, loops) with a registry of 5,000 owners, each
with a worker, a worker's token and an owner's token. 10 owner tokens a second are revoked meanwhile; one in a
hundred is unknown. wrk asks over 500 connections. The yardstick (reference.py) gets the same requests on
the same server library, in turns with the master, and hears of no revocation.
Synthetic: the chain, which is in memory (synthetic.py); and there is no Kubernetes API.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import random
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import uvloop
from processes import Others, free_port, peak_rss_mb, running, self_signed

from k3s_daas import seal

HERE = Path(__file__).parent
OWNERS = 5_000
UNKNOWN = 0.01
REVOCATIONS_PER_S = 10
CONNECTIONS = 500
ROUNDS = 3
ROUND_S = 8
WARM_UP_S = 2
# A round beside more of other work than this, in percent of a core, is measured again, up to so many in all.
QUIET_PERCENT = 20
TRIES = 3


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--json", type=Path, help="also write the figures to this file")
    parser.add_argument("--serve", type=Path, metavar="FOLDER", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.serve:
        uvloop.run(_serve(options.serve))
        return 0
    figures = measure()
    print(json.dumps(figures))
    if options.json is not None:
        options.json.write_text(json.dumps(figures) + "\n")
    return 0


def measure(rounds: int = ROUNDS, seconds: int = ROUND_S) -> dict[str, float | int]:
    """token_checks_per_s, token_check_p99_ms, ratio_to_reference (medians of the rounds) and master_rss_mb
    (its peak). Prints each round. Raises RuntimeError when an answer was wrong or missing."""
    if shutil.which("wrk") is None:
        raise RuntimeError("wrk isn't there; `make bench-services` installs it (apt-get install wrk)")
    ours: list[_Round] = []
    theirs: list[_Round] = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        tokens = Tokens.make()
        tokens.write(folder)
        with serving_master(folder) as master, _reference(folder) as reference:
            for server in (master, reference):
                _load(server, folder, WARM_UP_S)
            for done in range(1, TRIES * rounds + 1):
                (folder / "revoking").touch()
                with Others() as others:
                    ours.append(_load(master, folder, seconds))
                    (folder / "revoking").unlink()
                    theirs.append(_load(reference, folder, seconds))
                print(f"  master    {ours[-1]}\n  reference {theirs[-1]}", flush=True)
                if others.percent > QUIET_PERCENT and len(ours) + TRIES * rounds - done > rounds:
                    print(f"  not counted: other work took {others.percent:.0f} % of a core", flush=True)
                    del ours[-1], theirs[-1]
                if len(ours) == rounds:
                    break
            rss_mb = peak_rss_mb(master.process.pid)
            _check_answers(master, folder, tokens, done * seconds)
    ratios = [one.per_s / other.per_s for one, other in zip(ours, theirs, strict=True)]
    return {
        "token_checks_per_s": round(statistics.median(each.per_s for each in ours)),
        "token_check_p99_ms": round(statistics.median(each.p99_ms for each in ours), 1),
        "master_rss_mb": rss_mb,
        "ratio_to_reference": round(statistics.median(ratios), 2),
    }


@dataclass(frozen=True)
class _Running:
    process: subprocess.Popen[bytes]
    url: str


@dataclass(frozen=True)
class Tokens:
    """Secrets by owner, in the same order, and some that the registry doesn't know."""

    of_owners: list[str]
    of_workers: list[str]
    unknown: list[str]

    @classmethod
    def make(cls) -> Tokens:
        def some(count: int) -> list[str]:
            return [seal.make() for _ in range(count)]

        return cls(some(OWNERS), some(OWNERS), some(round(2 * OWNERS * UNKNOWN)))

    def write(self, folder: Path) -> None:
        """What each side needs: the registry commitments, the yardstick what is known, wrk what to ask."""
        pairs = zip(self.of_workers, self.of_owners, strict=True)
        lines = [f"{seal.commitment(a).hex()} {seal.commitment(b).hex()}\n" for a, b in pairs]
        (folder / "commitments").write_text("".join(lines))
        known = [*self.of_owners, *self.of_workers]
        (folder / "known").write_text("\n".join(known) + "\n")
        asked = [*known, *self.unknown]
        random.Random(1).shuffle(asked)  # noqa: S311 - an order, not a secret
        (folder / "asked").write_text("\n".join(asked) + "\n")


@dataclass(frozen=True)
class _Round:
    per_s: float
    p50_ms: float
    p99_ms: float

    def __str__(self) -> str:
        return f"{self.per_s:>8,.0f}/s  p50 {self.p50_ms:5.1f} ms  p99 {self.p99_ms:5.1f} ms"


def _load(server: _Running, folder: Path, seconds: int) -> _Round:
    done = subprocess.run(
        [
            "wrk",
            "--threads=1",
            f"--connections={CONNECTIONS}",
            f"--duration={seconds}s",
            "--timeout=10s",
            f"--script={HERE / 'token_checks.lua'}",
            server.url,
            "--",
            str(folder / "asked"),
        ],
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise RuntimeError(f"wrk ended with {done.returncode}: {done.stderr or done.stdout}")
    counted = json.loads(done.stdout.splitlines()[-1])
    if counted["refused"] or counted["failed"] or not counted["requests"]:
        raise RuntimeError(f"{server.url}: not every check was answered: {counted}")
    return _Round(counted["requests"] / counted["seconds"], counted["p50_ms"], counted["p99_ms"])


def _check_answers(master: _Running, folder: Path, tokens: Tokens, seconds: int) -> None:
    """After the load, every kind of token gets the answer it should."""
    revoked = int((folder / "revoked").read_text())
    wanted = REVOCATIONS_PER_S * seconds
    if not 0.8 * wanted - REVOCATIONS_PER_S < revoked < 1.3 * wanted + REVOCATIONS_PER_S:
        raise RuntimeError(f"{revoked} tokens were revoked during the load, wanted about {wanted}")
    sample = random.Random(1)  # noqa: S311 - a sample, not a secret
    for kind, asked, answer in (
        ("live owner", sample.sample(tokens.of_owners[revoked:], 100), True),
        ("revoked owner", tokens.of_owners[:revoked], False),
        ("worker", sample.sample(tokens.of_workers, 100), False),
        ("unknown", tokens.unknown, False),
    ):
        found = {_review(master.url, token) for token in asked}
        if found != {answer}:
            raise RuntimeError(f"{kind} tokens: wanted authenticated {answer} for all, found {found}")


def _review(url: str, token: str) -> bool:
    body = {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenReview", "spec": {"token": token}}
    request = urllib.request.Request(  # noqa: S310 - our own server on loopback
        url, json.dumps(body).encode(), {"Content-Type": "application/json"}
    )
    with urllib.request.urlopen(request, timeout=10) as answer:  # noqa: S310
        return bool(json.loads(answer.read())["status"]["authenticated"])


@contextmanager
def serving_master(folder: Path) -> Iterator[_Running]:
    port = free_port()
    (folder / "port").write_text(str(port))
    command = [sys.executable, str(HERE / "tokens.py"), "--serve", str(folder)]
    with running(command, folder / "master.log") as process:
        server = _Running(process, f"http://127.0.0.1:{port}/token-review")
        _wait_until_up(server, folder / "master.log")
        yield server


@contextmanager
def _reference(folder: Path) -> Iterator[_Running]:
    port = free_port()
    granian = [sys.executable, "-m", "granian", "--interface", "asgi", "--no-access-log", "--port", str(port)]
    environment = {
        "REFERENCE_TOKENS": str(folder / "known"),
        "PYTHONPATH": os.pathsep.join([str(HERE), os.environ.get("PYTHONPATH", "")]),
    }
    with running([*granian, "reference:app"], folder / "reference.log", environment) as process:
        server = _Running(process, f"http://127.0.0.1:{port}/")
        _wait_until_up(server, folder / "reference.log")
        yield server


def _wait_until_up(server: _Running, log: Path) -> None:
    ends = time.monotonic() + 60
    while time.monotonic() < ends and server.process.poll() is None:
        try:
            _review(server.url, "x")
            return
        except (urllib.error.URLError, ConnectionError):
            time.sleep(0.1)
    raise RuntimeError(f"{server.url} didn't come up:\n{log.read_text()[-3000:]}")


async def _serve(folder: Path) -> None:
    """The master's side: a process of its own. SIGUSR1 starts and ends the revocations."""
    # Imported here, so that the load's side stays small; and all that the service loads on a host, the
    # chain's client included, although nothing is asked of it.
    from lightkube.config.kubeconfig import KubeConfig
    from synthetic import MASTER, PACKAGE_ID, REGISTRY_ID, SyntheticChain

    import k3s_daas.chain.transport  # noqa: F401
    from k3s_daas import logs
    from k3s_daas_master.assembly import assemble
    from k3s_daas_master.clock import Clock
    from k3s_daas_master.cluster import Cluster
    from k3s_daas_master.config import Config
    from k3s_daas_master.service import bind, serve_state
    from k3s_daas_master.store import Store

    logs.configure("k3s-daas-master")
    chain = SyntheticChain(folder, REVOCATIONS_PER_S)
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    # A Kubernetes API that nobody serves: the master notes it, tries again, and goes on answering checks.
    nowhere = f"https://127.0.0.1:{free_port()}"
    webhook = f"127.0.0.1:{(folder / 'port').read_text()}"
    certificate, key = self_signed(folder)
    config = Config(
        network="localnet",
        endpoints=["http://127.0.0.1:9"],
        package_id=PACKAGE_ID,
        registry_id=REGISTRY_ID,
        tee_mode="simulated",
        listen=f"127.0.0.1:{free_port()}",
        webhook_listen=webhook,
        endpoint=nowhere,
        api_server=nowhere,
        kubeconfig=folder / "kubeconfig",
        key_file=folder / "sui.key",
        state_dir=folder,
        tls_cert=certificate,
        tls_key=key,
    )
    kubeconfig = {
        "current-context": "nowhere",
        "clusters": [{"name": "nowhere", "cluster": {"server": nowhere}}],
        "contexts": [{"name": "nowhere", "context": {"cluster": "nowhere", "user": "nobody"}}],
        "users": [{"name": "nobody", "user": {}}],
    }
    store, clock, cluster = Store(folder), Clock(), Cluster(KubeConfig.from_dict(kubeconfig))
    state = assemble(
        config, chain=chain, registry=chain, address=MASTER, cluster=cluster, store=store, clock=clock
    )
    with bind(config.listen) as api, bind(config.webhook_listen) as checks:
        await serve_state(state, api, checks, stop, clock)
    await cluster.aclose()
    store.close()


if __name__ == "__main__":
    sys.exit(main())
