"""A real Prometheus that asks the running fleet: every rule and every dashboard has data there."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml
from testinfra.host import Host

from scenario import PROJECT

if TYPE_CHECKING:
    from conftest import Prometheus, Story

RULES = PROJECT / "roles/monitoring/files/rules.yml"
_SELECTOR = re.compile(r"\b(?:k3s_daas[a-z0-9_:]*|up|process_[a-z_]+)(?:\{[^}]*\})?")


def rules(kind: str) -> dict[str, str]:
    """Expressions of `kind` (record or alert), by name."""
    groups = yaml.safe_load(Path(RULES).read_text())["groups"]
    return {rule[kind]: rule["expr"] for group in groups for rule in group["rules"] if kind in rule}


def test_a_check_on_a_fresh_host_shows_what_would_be(story: Story) -> None:
    assert story.checked.code == 0, story.checked.output
    assert story.checked.changed["monitor"] > 0


def test_the_run_after_a_killed_one_has_prometheus_take_in_what_was_written(story: Story) -> None:
    assert "RUNNING HANDLER [monitoring : Restart Prometheus]" in story.made.output
    written = story.made.output.partition("TASK [monitoring : Write the rules and what is asked]")[2]
    assert written.partition("TASK [")[0].split()[1:3] == ["ok:", "[monitor]"]


def test_the_second_run_changes_nothing(story: Story) -> None:
    for run in (story.again, story.checked_again):
        assert run.code == 0, run.output
        assert run.changed == {"localhost": 0, "monitor": 0}


def test_master_and_watcher_are_asked_over_the_network(prometheus: Prometheus, stage: dict[str, Any]) -> None:
    assert not prometheus.silent({'up{job="k3s-daas-master"} == 1', 'up{job="k3s-daas-watcher"} == 1'})
    found = {one["scrapeUrl"]: one for one in prometheus.get("targets")["activeTargets"]}
    address = stage["hosts"]
    master, watcher = (
        f"https://{address['master']}:8443/metrics",
        f"http://{address['worker-1']}:10281/metrics",
    )
    assert set(found) == {master, watcher}
    assert found[watcher]["labels"]["node_id"] == "worker-1"
    assert {one["labels"]["cluster"] for one in found.values()} == {"local"}


def test_every_rule_is_evaluated_and_none_of_a_healthy_fleet_fires(prometheus: Prometheus) -> None:
    groups = prometheus.get("rules")["groups"]
    found = {rule["name"]: rule for group in groups for rule in group["rules"]}
    assert set(found) == set(rules("record")) | set(rules("alert"))
    assert {name: rule.get("lastError") for name, rule in found.items() if rule["health"] == "err"} == {}
    assert [name for name, rule in found.items() if rule.get("state") == "firing"] == []


def test_every_recorded_series_has_data(prometheus: Prometheus) -> None:
    assert prometheus.silent(set(rules("record"))) == set()


def test_every_series_that_an_alert_looks_at_has_data(prometheus: Prometheus) -> None:
    wanted = {
        selector for expression in rules("alert").values() for selector in _SELECTOR.findall(expression)
    }
    assert len(wanted) > len(rules("alert")) / 2
    # Of a real enclave; this fleet's is simulated.
    wanted.remove('k3s_daas_master_info{tee!="SIMULATED"}')
    assert prometheus.silent(wanted) == set()


def test_every_query_of_every_dashboard_has_data(
    prometheus: Prometheus, dashboards: dict[str, dict[str, Any]]
) -> None:
    wanted = {
        target["expr"].replace("$cluster", "local").replace("$worker", "worker-1")
        for model in dashboards.values()
        for panel in model["panels"]
        for target in panel.get("targets", ())
    }
    assert len(wanted) > 60
    assert prometheus.silent(wanted) == set()


def test_the_choices_of_every_dashboard_are_there(
    prometheus: Prometheus, dashboards: dict[str, dict[str, Any]]
) -> None:
    asked = set()
    for model in dashboards.values():
        for variable in model["templating"]["list"]:
            if variable["type"] == "query":
                query = variable["query"]["query"].replace("$cluster", "local")
                selector, label = re.fullmatch(r"label_values\((.+), (\w+)\)", query).groups()  # type: ignore[union-attr]
                asked.add(label)
                assert prometheus.get(f"label/{label}/values", **{"match[]": selector}), query
    assert asked == {"cluster", "node_id"}


def test_a_watcher_that_stops_is_missed(
    prometheus: Prometheus, hosts: dict[str, Host], eventually: Callable[[Callable[[], bool]], bool]
) -> None:
    pending = 'ALERTS{alertname="K3sDaasWatcherDown",alertstate="pending",node_id="worker-1",cluster="local"}'
    assert prometheus.ask(pending) == []
    hosts["worker-1"].check_output("systemctl stop k3s-daas-watcher")
    try:
        assert eventually(lambda: bool(prometheus.ask(pending)))
    finally:
        hosts["worker-1"].check_output("systemctl start k3s-daas-watcher")
    assert eventually(lambda: not prometheus.ask(pending))
