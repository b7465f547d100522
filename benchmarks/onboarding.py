#!/usr/bin/env python3
"""What the contracts cost: gas and bytes of every operation, transactions to onboard a fleet; Move coverage.

Prints its tables; `--json FILE` writes `onboarding_transactions` and `move_line_coverage` as a JSON object.
The gas prices are the localnet's, which are synthetic; the limits are Sui's.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
CONTRACT_TESTS = ROOT / "tests" / "contract"
sys.path.insert(0, str(CONTRACT_TESTS))  # the contracts on a ledger in this process

from contract_ledger import (  # noqa: E402
    CLOCK,
    DAY_MS,
    MOVE_DIR,
    SUI,
    Chain,
    Pay,
    Registry,
    new_package,
    sha,
    strings,
    u8,
    u64,
    u64s,
)

from k3s_daas.chain import bcs  # noqa: E402
from k3s_daas_localnet import compiler, coverage  # noqa: E402
from k3s_daas_localnet.ledger.effects import Executed  # noqa: E402
from k3s_daas_localnet.ledger.errors import ExecutionFailure, Refused  # noqa: E402
from k3s_daas_localnet.ledger.gas import MIST_PER_STORED_BYTE  # noqa: E402

FLEETS = (1, 10, 100, 500)
# Real host names are shorter than a label's 63 bytes, and much longer than "w-1".
NAME = "worker-{:04}.rack-12".replace(".", "-")
LONGEST_NAME = "{:063}"
# The files that run every line; the others repeat them at random, or test something else.
COVERING = (
    "attested_master",
    "getters",
    "master",
    "registry",
    "rewards",
    "scheduler",
    "seal_tokens",
    "slash_limits",
    "slashing",
    "snapshots",
    "stake_and_terms",
    "unauthorized",
)
WANTED_COVERAGE = 0.95


def published() -> tuple[Chain, str, str, Executed]:
    """A chain with the contracts: (chain, package, who published, the publishing)."""
    chain = Chain()
    admin = chain.actor("admin")
    publishing = chain.publishing(admin, compiler.build(MOVE_DIR))
    return chain, new_package(publishing), admin, publishing


def onboard(registry: Registry, owner: str, node_ids: Sequence[str]) -> Executed:
    """Stakes for all of these workers and commits their seal tokens, in one transaction."""
    names, count = strings(node_ids), len(node_ids)
    commitments = bcs.vector(bcs.data(sha(f"{registry.id} {name}")) for name in node_ids)
    stake = [registry.id, Pay(count * SUI), names, u64s([SUI] * count), bcs.address(owner), CLOCK]
    expires = u64s([registry.chain.now_ms + 90 * DAY_MS] * count)
    return registry.chain.send(
        owner,
        (f"{registry.package}::worker_registry::stake_and_register_workers", stake),
        (
            f"{registry.package}::k8s_gateway::create_worker_seal_tokens",
            [registry.id, names, commitments, expires, CLOCK],
        ),
    )


def largest_batch(name: str) -> tuple[int, str]:
    """The most workers that one transaction takes, and what stops one more."""
    chain, package, admin, _ = published()
    registry = Registry(chain, package, admin)
    owner = chain.actor("owner")

    def attempt(prefix: int, count: int) -> str | None:
        try:
            onboard(registry, owner, [name.format(prefix * 1_000 + number) for number in range(count)])
        except (ExecutionFailure, Refused) as error:
            return str(error).split(" at 0x")[0].removeprefix("Move Primitive Runtime Error: ")
        return None

    low, high, stopped, tries = 1, 1_000, "", 0
    while high - low > 1:
        middle, tries = (low + high) // 2, tries + 1
        owner = chain.actor(f"owner {tries}")  # an owner's list grows, and is bounded
        reason = attempt(tries, middle)
        if reason is None:
            low = middle
        else:
            high, stopped = middle, reason
    return low, stopped


def transactions_needed(fleet: int, batch: int) -> int:
    """Onboards so many workers, and counts what it sent."""
    chain, package, admin, _ = published()
    registry = Registry(chain, package, admin)
    owner = chain.actor("owner")
    names = [NAME.format(number) for number in range(fleet)]
    before = chain.sent
    for first in range(0, fleet, batch):
        onboard(registry, owner, names[first : first + batch])
    sent = chain.sent - before
    found = registry.read()
    if (found["workers"]["size"], found["staked"]) != (str(fleet), str(fleet * SUI)):
        raise SystemExit(f"found {found['workers']['size']} workers on-chain, wanted {fleet}")
    return sent


def operations() -> list[tuple[str, Executed]]:
    """Every operation once, in an order in which each is possible."""
    chain, package, admin, publishing = published()
    done: list[tuple[str, Executed]] = [("publish", publishing)]

    def measure(name: str, run: Callable[[], Executed]) -> Executed:
        done.append((name, run()))
        return done[-1][1]

    executed: list[Executed] = []
    execute = chain.execute

    def keeping(*args: object) -> Executed:
        executed.append(execute(*args))  # type: ignore[arg-type]
        return executed[-1]

    chain.execute = keeping  # type: ignore[method-assign]
    registry = Registry(chain, package, admin)
    done.append(("create_registry", executed[-1]))
    master, anne, ben = (chain.actor(name) for name in ("master", "anne", "ben"))
    registry.appoint(master)
    done.append(("appoint_master", executed[-1]))
    urls = bcs.string("https://10.0.0.1:8443"), bcs.string("https://10.0.0.1:6443")
    cap, key = registry.master_cap, bcs.data(sha("key"))
    announce = cap, *urls, bcs.data(sha("ca")), CLOCK
    measure("announce_master", lambda: registry.call(master, "k8s_gateway::announce_master", *announce))
    measure(
        "announce_master_key",
        lambda: registry.call(master, "k8s_gateway::announce_master_key", cap, key, CLOCK),
    )
    for count in (1, 10, 100):
        names = [f"batch-{count}-{number}" for number in range(count)]
        measure(f"stake + seal token, {count}", lambda names=names: onboard(registry, ben, names))
    proof = registry.stake(anne, "a")
    done.append(("stake_and_register_worker", executed[-1]))
    tens = [f"batch-100-{number}" for number in range(100)]

    def status(names: list[str], to: str) -> Executed:
        values = cap, strings(names), strings([to] * len(names)), CLOCK
        return registry.call(master, "worker_registry::set_worker_statuses", *values)

    measure("set_worker_statuses, 1", lambda: status(["batch-1-0"], "active"))
    measure("set_worker_statuses, 100", lambda: status(tens, "active"))
    w = bcs.string("batch-1-0")
    measure("add_stake", lambda: registry.call(ben, "worker_registry::add_stake", Pay(SUI), w, CLOCK))
    until = u64(chain.now_ms + DAY_MS)
    for number, (verb, rest) in enumerate(
        (("create_owner", []), ("rotate_owner", []), ("rotate_worker", [w])), start=1
    ):
        args = *rest, bcs.data(sha(f"token {number}")), until, CLOCK
        measure(
            f"{verb}_seal_token",
            lambda verb=verb, args=args: registry.call(ben, f"k8s_gateway::{verb}_seal_token", *args),
        )
    measure(
        "revoke_worker_seal_token", lambda: registry.call(ben, "k8s_gateway::revoke_worker_seal_token", w)
    )
    measure("fund_rewards", lambda: registry.call(anne, "rewards::fund_rewards", Pay(10 * SUI)))
    rates = registry.admin_cap, u64(1_000_000), u64(1_000_000), u64(SUI)
    measure("set_reward_rates", lambda: registry.call(admin, "rewards::set_reward_rates", *rates))
    chain.clock.advance(3_600_000)
    report = cap, strings(tens), u64s([3_600_000] * 100), CLOCK
    measure("report_ready, 100", lambda: registry.call(master, "rewards::report_ready", *report))

    def submit(candidates: list[str]) -> Executed:
        args = proof, Pay(1_000_000), bcs.data(sha("payload")), u8(5), strings(candidates), CLOCK
        return registry.call(anne, "k8s_scheduler::submit_k8s_request", *args)

    measure("submit_k8s_request, first", lambda: submit(tens[:1]))
    measure("submit_k8s_request, 1 candidate", lambda: submit(tens[:1]))
    measure("submit_k8s_request, 32", lambda: submit(tens[:32]))
    claim = cap, u64(2), CLOCK
    measure("claim_request", lambda: registry.call(master, "k8s_scheduler::claim_request", *claim))
    measure("complete_request", lambda: registry.complete(master, 2))
    chain.clock.advance(600_000)
    measure("time_out_request", lambda: registry.time_out(anne, 1))
    ten = bcs.string("batch-100-0")
    measure("claim_rewards", lambda: registry.call(anne, "rewards::claim_rewards", ten, CLOCK))
    measure("propose_slash", lambda: registry.propose("batch-10-0"))
    ten = bcs.string("batch-10-0")
    cancel = registry.arbiter_cap, ten, CLOCK
    measure("cancel_slash", lambda: registry.call(admin, "slashing::cancel_slash", *cancel))
    registry.propose("batch-10-1")
    chain.clock.advance(7 * DAY_MS)
    other = bcs.string("batch-10-1")
    measure("lapse_slash", lambda: registry.call(anne, "slashing::lapse_slash", other, CLOCK))
    registry.propose("batch-10-0")
    measure("execute_slash", lambda: registry.call(anne, "slashing::execute_slash", ten, CLOCK))
    move = registry.admin_cap, u64(10_000)
    measure("move_treasury", lambda: registry.call(admin, "rewards::move_treasury", *move))
    measure("request_unstake", lambda: registry.call(ben, "worker_registry::request_unstake", w, CLOCK))
    measure("withdraw", lambda: registry.call(ben, "worker_registry::withdraw", w, CLOCK))
    terms = registry.admin_cap, u64(2 * SUI), u64(DAY_MS), u64(DAY_MS), u64(5_000)
    measure("set_terms", lambda: registry.call(admin, "worker_registry::set_terms", *terms))
    pcr = bcs.data(b"\1" * 48)
    allow = registry.operator_cap, pcr, pcr
    measure("allow_image", lambda: registry.call(admin, "nautilus::allow_image", *allow))
    first, second = sha("snapshot 1"), sha("snapshot 2")
    measure("anchor_snapshot, first", lambda: registry.anchor_snapshot(master, 1, b"", first))
    measure("anchor_snapshot", lambda: registry.anchor_snapshot(master, 2, first, second))
    return done


def move_line_coverage() -> tuple[str, float]:
    """Runs the contracts' tests with probes in the contracts; the table, and the share of lines that ran."""
    files = [str(CONTRACT_TESTS / f"test_{name}.py") for name in COVERING]
    with tempfile.TemporaryDirectory() as folder:
        run = subprocess.run(
            [sys.executable, "-m", "pytest", "-q", "-n", "auto", "-p", "no:cacheprovider", *files],
            cwd=ROOT,
            env=os.environ | {"K3S_DAAS_MOVE_COVERAGE": folder},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
        )
        if run.returncode:
            raise SystemExit(f"the contracts' tests failed, so there is no coverage:\n{run.stdout}")
        return coverage.table(MOVE_DIR, coverage.load(Path(folder).glob("*.json")))


def print_costs(measured: list[tuple[str, Executed]]) -> None:
    print("Cost of each operation (gas in MIST at 1,000 MIST a unit; bytes signed, and stored net of freed)")
    print(
        f"{'operation':<34}{'computation':>12}{'storage':>14}{'rebate':>14}{'net':>14}{'signed':>8}{'stored':>9}"
    )
    for name, done in measured:
        gas = done.gas
        price = done.transaction.price
        computation = gas.computation * 1_000 // price  # prices differ by 1, to tell equal transactions apart
        stored = (gas.storage - gas.rebate - gas.non_refundable) // MIST_PER_STORED_BYTE
        net = computation + gas.storage - gas.rebate
        print(
            f"{name:<34}{computation:>12,}{gas.storage:>14,}{gas.rebate:>14,}{net:>14,}"
            f"{done.transaction.size:>8,}{stored:>9,}"
        )


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", type=Path, help="file for this benchmark's part of the figures")
    arguments = parser.parse_args()

    print_costs(operations())

    batch, stopped = largest_batch(NAME)
    longest, stopped_longest = largest_batch(LONGEST_NAME)
    print(f"\nLargest batch of stakes and seal tokens in one transaction: {batch} workers ({stopped})")
    print(f"  with names of 63 bytes: {longest} workers ({stopped_longest})")
    needed = {str(fleet): transactions_needed(fleet, batch) for fleet in FLEETS}
    print(f"\n{'workers':>8}{'transactions':>14}{'at 2 per worker':>17}")
    for fleet, count in needed.items():
        print(f"{fleet:>8}{count:>14}{2 * int(fleet):>17}")

    table, share = move_line_coverage()
    print(f"\nMove line coverage of the contracts, counted by the interpreter\n{table}")
    if arguments.json:
        figures = {"onboarding_transactions": needed, "move_line_coverage": round(share, 4)}
        arguments.json.write_text(json.dumps(figures) + "\n", "utf-8")
    if share < WANTED_COVERAGE:
        print(f"found {share:.1%}, wanted at least {WANTED_COVERAGE:.0%}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
