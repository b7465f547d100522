"""Our site.yml beside k3s-io/k3s-ansible's: install, rerun, and one more worker, on hosts made anew.

    python benchmarks/cluster.py --k3s-ansible CHECKOUT [--ansible VENV] [--workers 1 2 4] [--rounds 2]

Each round and number of workers has a stage of its own for each of the two, one after the other, because the
machine's pace changes with time; the medians of the rounds are compared. A step's time ends when its playbook
has ended and the master reports every worker's node Ready. What is fetched once for a control node (binary,
install script, our wheelhouse) is there before the clock starts. The table also has the processor time of
control node and hosts, which a busy machine changes less; the ratios are of the wall time.
"""

from __future__ import annotations

import argparse
import json
import re
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

from contestants import PROJECT, Contestant, K3sAnsible, Ours, Stage, install_script

STAGE = PROJECT / "molecule/resources/stage"
NAME, SUBNET = "bench", "10.123.250.0/24"
STEPS = ("install", "rerun", "add a worker")
# The most that ours may take of theirs. Its first install does more: it publishes contracts, stakes, mints,
# and sets up the master's service and the watchers.
TARGETS = {"install": 1.2, "rerun": 1.0, "add a worker": 1.0}
READY_WITHIN_S = 300


@dataclass(frozen=True)
class Run:
    """One playbook's run: seconds until it ended and every node was Ready, seconds of the playbook alone,
    processor seconds of the control node and all hosts, and the recap's counts over all hosts."""

    contestant: str
    step: str
    workers: int
    seconds: float
    play_seconds: float
    cpu_seconds: float
    ok: int
    changed: int


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--k3s-ansible", type=Path, required=True, help="a checkout of k3s-io/k3s-ansible")
    parser.add_argument(
        "--ansible",
        type=Path,
        default=PROJECT / ".state/field",
        help="virtual environment that k3s-ansible runs in, of requirements/field.txt (default: %(default)s)",
    )
    parser.add_argument("--install-script", type=Path, help="k3s' install.sh (default: https://get.k3s.io)")
    parser.add_argument("--workers", type=int, nargs="+", default=[1, 2, 4], help="numbers of workers")
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--json", type=Path, help="also write every run to this file")
    options = parser.parse_args()
    role = options.k3s_ansible / "roles/airgap"
    if not role.is_dir():
        parser.error(f"found no {role}, wanted the path of a checkout of k3s-io/k3s-ansible")
    options.k3s_ansible, options.ansible = options.k3s_ansible.absolute(), options.ansible.absolute()
    with tempfile.TemporaryDirectory(prefix="bench-") as name:
        runs = measure(options, Path(name))
    if options.json is not None:
        options.json.write_text(json.dumps([asdict(run) for run in runs], indent=2) + "\n")
    print("\n" + "\n".join(table(runs)))
    print(json.dumps(figures(runs)))
    return 0


def measure(options: argparse.Namespace, folder: Path) -> list[Run]:
    script, says = install_script(options.install_script, folder)
    print(f"== k3s-ansible's install script: {says}", flush=True)
    ours = Ours(folder / "ours")
    ours.prepare()
    runs: list[Run] = []
    field: K3sAnsible | None = None
    for number in range(options.rounds):
        for workers in options.workers:
            for turn in ("ours", "field"):
                with stage(workers + 1) as made:
                    if field is None:
                        print(f"== k3s: {made['k3s']}", flush=True)
                        field = K3sAnsible(
                            folder / "field",
                            options.k3s_ansible,
                            options.ansible,
                            Path(made["k3s_binary"]),
                            script,
                        )
                    contestant = ours if turn == "ours" else field
                    for step in STEPS:
                        run = one(contestant, made, step, workers)
                        print(f"  round {number + 1}: {describe(run)}", flush=True)
                        runs.append(run)
    return runs


def one(contestant: Contestant, made: Stage, step: str, workers: int) -> Run:
    """Run one step. Raises SystemExit with the output's end when it fails."""
    count = workers + (step == "add a worker")
    command = contestant.command(made, count)
    log = PROJECT / ".state/logs/bench-cluster" / f"{contestant.name}-{workers}-{step.replace(' ', '-')}.log"
    log.parent.mkdir(parents=True, exist_ok=True)
    began, cpu_before = time.monotonic(), cpu_seconds()
    with log.open("w") as output:
        code = subprocess.run(
            command,
            cwd=contestant.directory,
            env=contestant.environment(made),
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            check=False,
        ).returncode
    played = time.monotonic() - began
    said = log.read_text()
    if code:
        tail = "\n".join(said.splitlines()[-40:])
        raise SystemExit(f"{tail}\n{contestant.name}: {step} failed; all of it is in {log}")
    wait_ready(made, {f"worker-{number}" for number in range(1, count + 1)})
    seconds = time.monotonic() - began
    cpu = cpu_seconds() - cpu_before
    ok, changed = parse_recap(said)
    return Run(
        contestant.name, step, workers, round(seconds, 1), round(played, 1), round(cpu, 1), ok, changed
    )


def cpu_seconds(root: Path = Path("/sys/fs/cgroup")) -> float:
    """Spent so far by the stage's hosts, and by programs of this one that have ended."""
    ended = resource.getrusage(resource.RUSAGE_CHILDREN)
    v1, v2 = root / f"cpuacct/testhosts/{NAME}/cpuacct.usage", root / f"testhosts/{NAME}/cpu.stat"
    hosts = int(v1.read_text()) / 1e9 if v1.exists() else int(v2.read_text().split()[1]) / 1e6
    return ended.ru_utime + ended.ru_stime + hosts


def parse_recap(output: str) -> tuple[int, int]:
    """(ok, changed) over all hosts, of the output's last recap.

    Raises ValueError without one, or when it tells of a failure.
    """
    _, found, recap = output.rpartition("PLAY RECAP")
    rows = re.findall(
        r"^\S+ +: ok=(\d+) +changed=(\d+) +unreachable=(\d+) +failed=(\d+)", recap, re.MULTILINE
    )
    if not found or not rows:
        raise ValueError("found no recap in the playbook's output; wanted one line for each host")
    ok, changed, unreachable, failed = (sum(map(int, column)) for column in zip(*rows, strict=True))
    if unreachable or failed:
        raise ValueError(f"found {unreachable} hosts unreachable and {failed} tasks failed; wanted none")
    return ok, changed


@contextmanager
def stage(workers: int) -> Iterator[Stage]:
    """Hosts and chain made anew, taken away at the end. Raises SystemExit with what `up` said."""
    program = [sys.executable, str(STAGE), "--name", NAME]

    def call(*words: str) -> None:
        done = subprocess.run([*program, *words], capture_output=True, text=True, check=False)
        if done.returncode:
            raise SystemExit(f"{done.stderr}the stage's `{words[-1]}` failed")

    call("down")
    try:
        call("--subnet", SUBNET, "--workers", str(workers), "up")
        yield json.loads((PROJECT / ".state" / NAME / "stage.json").read_text())
    finally:
        call("down")


def wait_ready(made: Stage, names: set[str]) -> None:
    ask = ["ssh", "-F", made["ssh_config"], "master", "k3s kubectl get nodes -o json"]
    until = time.monotonic() + READY_WITHIN_S
    ready: set[str] = set()
    while time.monotonic() < until:
        answer = subprocess.run(ask, capture_output=True, text=True, check=False)
        ready = ready_nodes(json.loads(answer.stdout)) if answer.returncode == 0 else set()
        if names <= ready:
            return
    found, wanted = ", ".join(sorted(ready)) or "no node", ", ".join(sorted(names))
    raise SystemExit(f"after {READY_WITHIN_S} s found {found} Ready, wanted {wanted}")


def ready_nodes(listed: dict[str, list[dict[str, dict[str, object]]]]) -> set[str]:
    """Names of the Ready nodes in a NodeList."""
    return {
        str(node["metadata"]["name"])
        for node in listed["items"]
        for condition in node["status"].get("conditions", [])  # type: ignore[attr-defined]
        if (condition["type"], condition["status"]) == ("Ready", "True")
    }


def medians(runs: Iterable[Run]) -> dict[tuple[str, int, str], Run]:
    """By step, workers and contestant: the median of the seconds, with the last round's counts."""
    groups: dict[tuple[str, int, str], list[Run]] = {}
    for run in runs:
        groups.setdefault((run.step, run.workers, run.contestant), []).append(run)
    return {
        key: Run(
            key[2],
            key[0],
            key[1],
            statistics.median(run.seconds for run in group),
            statistics.median(run.play_seconds for run in group),
            statistics.median(run.cpu_seconds for run in group),
            group[-1].ok,
            group[-1].changed,
        )
        for key, group in groups.items()
    }


def ratios(runs: Iterable[Run]) -> dict[str, dict[int, float]]:
    """By step and workers: our median over theirs."""
    by = medians(runs)
    found: dict[str, dict[int, float]] = {step: {} for step in STEPS}
    for step, workers, contestant in by:
        if contestant == Ours.name:
            ours, theirs = by[step, workers, Ours.name], by[step, workers, K3sAnsible.name]
            found[step][workers] = round(ours.seconds / theirs.seconds, 2)
    return found


def figures(runs: Iterable[Run]) -> dict[str, dict[str, float] | float]:
    """The closing line. Of rerun and of one more worker it has the worst of the numbers of workers."""
    found = ratios(runs)
    return {
        "ratio_install": {str(workers): ratio for workers, ratio in sorted(found["install"].items())},
        "ratio_rerun": max(found["rerun"].values()),
        "ratio_add_worker": max(found["add a worker"].values()),
    }


def table(runs: list[Run]) -> list[str]:
    by, found = medians(runs), ratios(runs)
    columns = f"{'s':>8}{'CPU s':>7}{'ok':>5}{'changed':>9}"
    lines = [
        f"{'':<26}{Ours.name:>29} {K3sAnsible.name:>29}",
        f"{'workers':<10}{'step':<16}{columns} {columns}{'ratio':>9}  wanted",
    ]
    for workers in sorted({run.workers for run in runs}):
        for step in STEPS:
            sides = [by[step, workers, name] for name in (Ours.name, K3sAnsible.name)]
            cells = " ".join(
                f"{side.seconds:>8.1f}{side.cpu_seconds:>7.1f}{side.ok:>5}{side.changed:>9}" for side in sides
            )
            ratio, most = found[step][workers], TARGETS[step]
            missed = "  missed" if ratio > most else ""
            lines.append(f"{workers:<10}{step:<16}{cells}{ratio:>9.2f}  <= {most}{missed}")
    return lines


def describe(run: Run) -> str:
    return (
        f"{run.workers} workers, {run.contestant:<12} {run.step:<13} {run.seconds:6.1f} s"
        f" (playbook {run.play_seconds:.1f} s), CPU {run.cpu_seconds:.1f} s,"
        f" ok {run.ok}, changed {run.changed}"
    )


if __name__ == "__main__":
    sys.exit(main())
