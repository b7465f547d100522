"""The services in figures: each part prints what it sees; a table and one line of JSON with all close it.

    python benchmarks/services.py

The parts run one after another, so that none measures another's load.
"""

from __future__ import annotations

import json
import sys

import activation
import fleet
import recovery
import tokens
import watcher

PARTS = (tokens, fleet, activation, watcher, recovery)

# key: what it says, and what it should be (None: only told)
FIGURES: dict[str, tuple[str, str, float | None]] = {
    "token_checks_per_s": ("token checks a second", ">=", 20_000),
    "token_check_p99_ms": ("token checks, 99th percentile, ms", "<", 50),
    "master_rss_mb": ("master's memory under token checks, MB", "<", 128),
    "ratio_to_reference": ("token checks, share of the yardstick's", ">=", 0.7),
    "master_rss_mb_1000_workers": ("master's memory with 1,000 workers, MB", "<=", 160),
    "heartbeat_p99_ms": ("heartbeats, 99th percentile, ms", "", None),
    "registrations_per_s": ("registrations a second", "", None),
    "event_to_active_ms": ("from the node's Ready to active, median, ms", "<", 1000),
    "watcher_rss_mb": ("watcher's memory at rest, MB", "<=", 80),
    "watcher_cpu_percent": ("watcher at rest, % of a core", "<=", 0.5),
    "events_lost": ("events lost to kill -9", "<=", 0),
    "events_duplicated": ("events handled twice after kill -9", "<=", 0),
    "recovery_s_max": ("slowest recovery from kill -9, s", "<=", 5),
}


def main() -> int:
    found: dict[str, float | int] = {}
    for part in PARTS:
        print(f"== {part.__name__}: {(part.__doc__ or '').partition('.')[0]}", flush=True)
        found |= part.measure()
    print()
    for key, (text, sign, wanted) in FIGURES.items():
        target = "" if wanted is None else f"{sign} {wanted:,}"
        missed = wanted is not None and not _holds(found[key], sign, wanted)
        print(f"{text:<46}{found[key]:>10,}   {target:<10}{'missed' if missed else ''}")
    print(json.dumps({key: found[key] for key in FIGURES}))
    return 0


def _holds(value: float, sign: str, wanted: float) -> bool:
    return {">=": value >= wanted, "<=": value <= wanted, "<": value < wanted}[sign]


if __name__ == "__main__":
    sys.exit(main())
