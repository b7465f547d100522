"""Dashboards as they are made out of their descriptions."""

from __future__ import annotations

import importlib.util
from itertools import combinations
from pathlib import Path
from typing import Any

import pytest
import yaml
from ansible.errors import AnsibleFilterError

ROLE = Path(__file__).parents[2] / "roles/monitoring"
_SPEC = importlib.util.spec_from_file_location("filters_of_grafana", ROLE / "filter_plugins/grafana.py")
assert _SPEC is not None
assert _SPEC.loader is not None
filters = importlib.util.module_from_spec(_SPEC)
_SPEC.loader.exec_module(filters)

DESCRIPTIONS = sorted((ROLE / "files/dashboards").glob("*.yml"))


def made(path: Path) -> dict[str, Any]:
    model: dict[str, Any] = filters.grafana_dashboard(yaml.safe_load(path.read_text()))
    return model


def test_the_role_writes_every_one() -> None:
    wanted = yaml.safe_load((ROLE / "vars/main.yml").read_text())["_monitoring_dashboards"]
    assert sorted(wanted) == [path.stem for path in DESCRIPTIONS]
    assert len({made(path)["uid"] for path in DESCRIPTIONS}) == len(DESCRIPTIONS)


@pytest.mark.parametrize("path", DESCRIPTIONS, ids=lambda path: path.stem)
def test_panels_have_numbers_and_places_of_their_own(path: Path) -> None:
    panels = made(path)["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels)
    for panel in panels:
        assert panel["gridPos"]["x"] + panel["gridPos"]["w"] <= 24
    for one, other in combinations((panel["gridPos"] for panel in panels), 2):
        beside = one["x"] + one["w"] <= other["x"] or other["x"] + other["w"] <= one["x"]
        above = one["y"] + one["h"] <= other["y"] or other["y"] + other["h"] <= one["y"]
        assert beside or above


@pytest.mark.parametrize("path", DESCRIPTIONS, ids=lambda path: path.stem)
def test_every_query_goes_by_the_clusters_and_the_source_that_are_chosen(path: Path) -> None:
    model = made(path)
    names = [variable["name"] for variable in model["templating"]["list"]]
    assert names[:2] == ["source", "cluster"]
    for panel in model["panels"]:
        for target in panel.get("targets", ()):
            assert target["datasource"] == {"type": "prometheus", "uid": "${source}"}
            assert 'cluster=~"$cluster"' in target["expr"], panel["title"]
            assert ("$worker" in target["expr"]) == ("worker" in names), panel["title"]


def test_a_panel_in_full() -> None:
    panel = {
        "title": "Fill",
        "type": "gauge",
        "width": 3,
        "unit": "percent",
        "max": 100,
        "text": "How full",
        "steps": [[None, "green"], [80, "red"]],
        "texts": {0: "empty"},
        "queries": [{"expr": "fill", "legend": "{{disk}}"}, {"expr": "other"}],
    }
    description = {"uid": "u", "title": "t", "rows": [{"title": "r", "panels": [panel]}]}
    row, found = filters.grafana_dashboard(description)["panels"]
    assert (row["type"], row["title"], found["description"]) == ("row", "r", "How full")
    assert found["gridPos"] == {"x": 0, "y": 1, "w": 3, "h": 4}
    assert [target["refId"] for target in found["targets"]] == ["A", "B"]
    assert [target["legendFormat"] for target in found["targets"]] == ["{{disk}}", "__auto"]
    field = found["fieldConfig"]["defaults"]
    assert (field["unit"], field["min"], field["max"]) == ("percent", 0, 100)
    assert field["thresholds"]["steps"] == [{"color": "green", "value": None}, {"color": "red", "value": 80}]
    assert field["mappings"][0]["options"] == {"0": {"text": "empty", "index": 0}}


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"colour": "red"}, "unknown are ['colour']"),
        ({"type": "pie"}, "found type pie, wanted stat, gauge, timeseries, table"),
        ({"queries": None, "title": ...}, "missing ['title']"),
    ],
)
def test_a_description_with_a_mistake_is_refused(change: dict[str, Any], why: str) -> None:
    panel = {"title": "a", "type": "stat", "queries": [{"expr": "up"}], **change}
    panel = {name: value for name, value in panel.items() if value is not ...}
    with pytest.raises(AnsibleFilterError) as caught:
        filters.grafana_dashboard({"uid": "u", "title": "t", "rows": [{"title": "r", "panels": [panel]}]})
    assert why in str(caught.value)
