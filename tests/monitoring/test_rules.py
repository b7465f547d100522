"""The rules by Prometheus' own tool, and that no alert is without a test."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

PROJECT = Path(__file__).parents[2]
RULES = PROJECT / "roles/monitoring/files/rules.yml"
TESTS = Path(__file__).parent / "rules_test.yml"


@pytest.fixture(scope="session")
def promtool() -> str:
    # What `make test` unpacks, or an installed one.
    own = PROJECT / ".state/prometheus/usr/bin/promtool"
    found = str(own) if own.exists() else shutil.which("promtool")
    if found is None:
        pytest.skip("promtool isn't here: run `make .state/prometheus`")
    return found


def run(*command: str | Path) -> str:
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def alerts() -> dict[str, dict[str, Any]]:
    groups = yaml.safe_load(RULES.read_text())["groups"]
    return {rule["alert"]: rule for group in groups for rule in group["rules"] if "alert" in rule}


def test_the_rules_are_valid(promtool: str) -> None:
    assert "SUCCESS" in run(promtool, "check", "rules", "--lint-fatal", RULES)


def test_every_alert_fires_when_it_should_and_at_no_other_time(promtool: str) -> None:
    run(promtool, "test", "rules", TESTS)


def test_a_rule_that_is_changed_fails_its_test(promtool: str, tmp_path: Path) -> None:
    (tmp_path / "rules.yml").write_text(
        RULES.read_text().replace("k3s_daas_gas_low == 1", "k3s_daas_gas_low == 2")
    )
    tests = yaml.safe_load(TESTS.read_text()) | {"rule_files": ["rules.yml"]}
    tests["tests"] = [case for case in tests["tests"] if case["name"] == "K3sDaasGasLow"]
    (tmp_path / "rules_test.yml").write_text(yaml.safe_dump(tests))
    done = subprocess.run(
        [promtool, "test", "rules", tmp_path / "rules_test.yml"], capture_output=True, text=True
    )
    assert done.returncode != 0
    assert "K3sDaasGasLow" in done.stdout + done.stderr


def test_every_alert_has_a_test_in_which_it_fires_and_one_in_which_it_does_not() -> None:
    seen: dict[str, set[bool]] = {}
    for case in yaml.safe_load(TESTS.read_text())["tests"]:
        looks = {bool(look["exp_samples"]) for look in case["promql_expr_test"]}
        assert all(f'alertname="{case["name"]}"' in look["expr"] for look in case["promql_expr_test"])
        seen[case["name"]] = seen.get(case["name"], set()) | looks
    assert seen == {name: {True, False} for name in alerts()}


@pytest.mark.parametrize("name", alerts())
def test_an_alert_says_where_what_and_which_page_tells_more(name: str) -> None:
    rule = alerts()[name]
    assert rule["labels"]["severity"] in ("critical", "warning")
    assert set(rule["annotations"]) == {"summary", "action", "page"}
    assert (PROJECT / "docs" / rule["annotations"]["page"]).exists()
    assert re.search(r"\$labels\.(cluster|instance)", rule["annotations"]["summary"])
