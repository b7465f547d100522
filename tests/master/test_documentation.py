"""docs/master-api.md against what is served: paths, error codes and metrics."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from k3s_daas_master.errors import STATUS_OF

PAGE = (Path(__file__).parents[2] / "docs/master-api.md").read_text()


def section(title: str) -> str:
    return PAGE.split(f"# {title}\n", 1)[1].split("\n## ", 1)[0]


async def test_every_path_is_in_the_table(bench: Any) -> None:
    document = (await bench.api.get("/api/v1/openapi.json")).json()
    served = {(method.upper(), path) for path, item in document["paths"].items() for method in item}
    told = set(re.findall(r"^\| (\w+) \| `(/[^`]*)` \|", section("The master's API"), re.M))
    assert told == {(method, path) for method, path in served if not path.startswith("/status/")}


def test_every_error_code_is_under_its_status() -> None:
    told = {
        code: [int(status) for status in row.split("|")[1].split(",")]
        for row in section("Refusals").splitlines()
        if re.match(r"\| \d", row)
        for code in re.findall(r"`(\w+)`", row)
    }
    assert set(told) == set(STATUS_OF)
    assert all(STATUS_OF[code] in statuses for code, statuses in told.items())


async def test_every_metric_is_in_the_table(bench: Any) -> None:
    bench.kube.broken = True
    await bench.state.fleet.reconcile()
    await bench.state.vitals.look()
    text = (await bench.api.get("/metrics")).text
    types = dict(re.findall(r"^# TYPE (\S+) (\S+)$", text, re.M))
    served = {
        name for name, kind in types.items() if name.startswith("k3s_daas_") and not name.endswith("_created")
    }
    told = {name.partition("{")[0] for name in re.findall(r"`(k3s_daas_[^`]+)`", section("Metrics"))}
    assert told == served
    for name, labels in re.findall(r"`(k3s_daas_\w+)\{([\w,]+)\}`", section("Metrics")):
        samples = re.findall(rf"^{name}(?:_count)?\{{([^}}]*)\}}", text, re.M)
        found = {tuple(sorted(re.findall(r"(\w+)=", sample))) for sample in samples}
        # No registration, heartbeat or check has come yet: such a counter has no series.
        assert found <= {tuple(sorted(labels.split(",")))}, name
