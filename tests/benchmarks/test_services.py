"""Parts of `make bench-services` with next to no load: that they still run, not how fast anything is."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
# Not fleet and recovery, which take their time whatever the load; they stand on the same stage as activation.
PARTS = {
    "activation": ("workers=1", {"event_to_active_ms"}),
    "tokens": (
        "rounds=1, seconds=1",
        {"token_checks_per_s", "token_check_p99_ms", "master_rss_mb", "ratio_to_reference"},
    ),
    "watcher": ("seconds=1", {"watcher_rss_mb", "watcher_cpu_percent"}),
}


@pytest.mark.parametrize("part", PARTS)
def test_it_measures_what_the_table_shows(part: str) -> None:
    if part == "tokens" and shutil.which("wrk") is None:
        pytest.skip("wrk isn't there: `make bench-services` installs it")
    arguments, keys = PARTS[part]
    code = f"import json, {part}; print(json.dumps({part}.measure({arguments})))"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=BENCHMARKS, capture_output=True, text=True, timeout=180
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert set(json.loads(done.stdout.splitlines()[-1])) == keys
