"""The stage's Sui network and its wallet."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
import urllib.request
from dataclasses import asdict, dataclass
from pathlib import Path

from stage.errors import StageError
from testhosts import cgroups

RPC_PORT, FAUCET_PORT = 9000, 9123
GIFT_MIST = 1_000 * 10**9
STARTS_WITHIN_S = 30


@dataclass(frozen=True)
class Net:
    rpc: str
    faucet: str
    chain_id: str


def has_state(folder: Path) -> bool:
    return folder.is_dir() and any(folder.iterdir())


def start(folder: Path, address: str, cgroup: str, nitro_root: Path | None = None) -> Net:
    """Start the localnet in a cgroup of its own, where a sweep finds it, or find it running.

    With `nitro_root` it takes an emulator's attestation documents too.
    """
    ready = folder.parent / "localnet.json"
    if ready.exists() and cgroups.processes(cgroup):
        return Net(**json.loads(ready.read_text()))
    cgroups.destroy(cgroup)
    ready.unlink(missing_ok=True)
    folder.mkdir(parents=True, exist_ok=True)
    procs = [str(path / "cgroup.procs") for path in cgroups.create(cgroup)]
    log = folder.parent / "localnet.log"
    with log.open("w") as output:
        # A shell that joins the cgroups first and then becomes the localnet: no moment in which a sweep
        # would miss it.
        process = subprocess.Popen(
            [
                "/bin/sh", "-c", 'for procs in $CGROUPS; do echo $$ > "$procs"; done; exec "$@"', "localnet",
                sys.executable, "-m", "k3s_daas_localnet", "--listen", f"{address}:{RPC_PORT}",
                "--faucet-listen", f"{address}:{FAUCET_PORT}", "--state-dir", str(folder),
                *(["--simulated-nitro-root", str(nitro_root)] if nitro_root else []),
            ],
            env={**os.environ, "CGROUPS": " ".join(procs)},
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            start_new_session=True,
        )  # fmt: skip
    deadline = time.monotonic() + STARTS_WITHIN_S
    while time.monotonic() < deadline and process.poll() is None:
        for line in log.read_text().splitlines():
            if line.startswith('{"event"') and (event := json.loads(line)).get("event") == "listening":
                net = Net(event["rpc"], event["faucet"], event["chain_id"])
                ready.write_text(json.dumps(asdict(net)))
                return net
        time.sleep(0.1)
    raise StageError(f"the localnet did not start within {STARTS_WITHIN_S} s; its last words are in {log}")


def wallet(path: Path, net: Net) -> str:
    """Make the operator's wallet and ask the faucet for SUI, once; returns its address."""
    from k3s_daas.chain.keys import Key  # here, because taking a stage down must work without it

    if path.exists():
        return Key.load(path).address
    # Named by its final path only when it has SUI: a run killed in between starts over.
    unpaid = path.with_suffix(".unpaid")
    unpaid.unlink(missing_ok=True)
    address = Key.create(unpaid).address
    request = urllib.request.Request(  # noqa: S310  our own localnet's address
        f"{net.faucet}/v2/gas",
        json.dumps({"FixedAmountRequest": {"recipient": address, "amount": GIFT_MIST}}).encode(),
        {"Content-Type": "application/json"},
    )
    with urllib.request.urlopen(request, timeout=10) as answer:  # noqa: S310
        answer.read()
    unpaid.rename(path)
    return address
