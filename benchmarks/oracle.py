"""Our interpreter against the real Move VM: how many calls were compared, and what differs.

python benchmarks/oracle.py --json FILE
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from k3s_daas_localnet import compiler
from k3s_daas_localnet.oracle import (
    KNOWN_DIFFERENCES,
    Branch,
    Reading,
    Survey,
    compare_views,
    name_of,
    new_world,
    plain_functions,
    random_state,
    reached_by_package,
    survey,
)

_PACKAGE = Path(__file__).parents[1] / "move" / "k3s_daas"
_ROUNDS = 5
_TRANSACTIONS = 1500


def read_contracts(package: compiler.CompiledPackage, rounds: int, transactions: int) -> Reading:
    """Views compared after each of several rounds of random transactions."""
    world = new_world(package.modules, [bytes.fromhex(item[2:]) for item in package.dependencies])
    reading = Reading()
    for number in range(rounds):
        random_state(world, number, transactions)
        compare_views(world, number, reading=reading)
    done = ", ".join(f"{name} {count}" for name, count in sorted(world.succeeded.items()))
    print(f"state: {sum(world.succeeded.values())} of {world.attempts} random transactions succeeded: {done}")
    return reading


def _print_survey(title: str, found: Survey) -> None:
    covered = found.branches - len(found.uncovered)
    print(
        f"{title}: {len(found.functions)} functions, {found.cases} cases, "
        f"{covered} of {found.branches} branches taken"
    )
    for branch in found.uncovered:
        print(f"  not taken: {branch}")
    for name, reason in sorted(found.skipped.items()):
        print(f"  not called: {name}: {reason}")
    for difference in found.known:
        known = KNOWN_DIFFERENCES[difference.case.function]
        print(f"  known: {difference.case.function}: {known.reason}")
    for difference in found.unlisted:
        print(f"  UNLISTED: {difference}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", type=Path, help="where the figures go")
    options = parser.parse_args()
    package = compiler.build(_PACKAGE)
    reached = reached_by_package(package.modules)
    every = plain_functions()
    taken: set[Branch] = set()
    ours = survey([f for f in every if name_of(f) in reached], taken=taken)
    _print_survey("framework functions that our contracts reach", ours)
    rest = survey([f for f in every if name_of(f) not in reached], taken=taken)
    _print_survey("all other framework functions on plain values", rest)
    views = read_contracts(package, _ROUNDS, _TRANSACTIONS)
    print(f"our contracts: {len(views.views)} views, {views.cases} cases, {views.aborts} of them aborts")
    for name, reason in sorted(views.skipped.items()):
        print(f"  not asked: {name}: {reason}")
    for difference in views.unlisted:
        print(f"  UNLISTED: {difference}")
    cases = ours.cases + rest.cases + views.cases
    unlisted = len(ours.unlisted) + len(rest.unlisted) + len(views.unlisted)
    print(f"{cases} cases, {unlisted} unlisted differences")
    if options.json:
        figures = {"oracle_cases": cases, "oracle_unlisted_differences": unlisted}
        options.json.write_text(json.dumps(figures), "utf-8")


if __name__ == "__main__":
    main()
