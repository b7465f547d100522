"""Grafana dashboards out of short descriptions: what a dashboard shows is written once, and laid out here.

A description is {uid, title, variables?, rows}; a row {title, panels}; a panel {title, type, queries} and
what it may have beside (see `_PANEL`). A query is {expr, legend?}. Every query may use $cluster, and $name of
a variable, whose query is one of Prometheus' for the values of a label.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from ansible.errors import AnsibleFilterError

_COLUMNS = 24
_SOURCE = {"type": "prometheus", "uid": "${source}"}
#: Panel types, with the height that each has.
_HEIGHTS = {"stat": 4, "gauge": 4, "timeseries": 8, "table": 9}
#: Keys of a panel, with what they are when they aren't given. `steps` are thresholds, [value, colour];
#: `texts` what is shown instead of a value.
_PANEL: dict[str, Any] = {
    "title": None,
    "type": None,
    "queries": None,
    "width": 6,
    "unit": "short",
    "text": "",
    "steps": (),
    "texts": {},
    "max": None,
}


def grafana_dashboard(description: Mapping[str, Any]) -> dict[str, Any]:
    """The dashboard's JSON model (schema version 39: Grafana 10 and newer).

    Raises:
        AnsibleFilterError: a key that descriptions don't have, or that is missing; an unknown type of panel
    """
    _check(description, {"uid": None, "title": None, "variables": {}, "rows": None}, "a dashboard")
    return {
        "uid": description["uid"],
        "title": description["title"],
        "tags": ["k3s-daas"],
        "schemaVersion": 39,
        "editable": False,
        "refresh": "30s",
        "time": {"from": "now-6h", "to": "now"},
        "templating": {"list": list(_variables(description.get("variables", {})))},
        "panels": list(_panels(description["rows"])),
    }


def _variables(wanted: Mapping[str, str]) -> Iterator[dict[str, Any]]:
    yield {"name": "source", "label": "Prometheus", "type": "datasource", "query": "prometheus"}
    for name, query in {"cluster": "label_values(k3s_daas_ready, cluster)", **wanted}.items():
        yield {
            "name": name,
            "type": "query",
            "datasource": _SOURCE,
            "query": {"query": query, "refId": name},
            "refresh": 2,
            "sort": 1,
        }


def _panels(rows: Sequence[Mapping[str, Any]]) -> Iterator[dict[str, Any]]:
    number, y = 0, 0
    for row in rows:
        _check(row, {"title": None, "panels": None}, "a row")
        number += 1
        yield {
            "id": number,
            "type": "row",
            "title": row["title"],
            "collapsed": False,
            "gridPos": {"x": 0, "y": y, "w": _COLUMNS, "h": 1},
            "panels": [],
        }
        y, x, height = y + 1, 0, 0
        for wanted in row["panels"]:
            _check(wanted, _PANEL, f"a panel of {row['title']}")
            panel = {**_PANEL, **wanted}
            if panel["type"] not in _HEIGHTS:
                raise AnsibleFilterError(
                    f"Panel {panel['title']}: found type {panel['type']}, wanted {', '.join(_HEIGHTS)}."
                )
            if x + panel["width"] > _COLUMNS:
                x, y, height = 0, y + height, 0
            number += 1
            place = {"x": x, "y": y, "w": panel["width"], "h": _HEIGHTS[panel["type"]]}
            x, height = x + panel["width"], max(height, place["h"])
            yield _panel(number, panel, place)
        y += height


def _panel(number: int, panel: Mapping[str, Any], place: dict[str, int]) -> dict[str, Any]:
    of_now = panel["type"] != "timeseries"
    made: dict[str, Any] = {
        "id": number,
        "type": panel["type"],
        "title": panel["title"],
        "description": panel["text"],
        "datasource": _SOURCE,
        "gridPos": place,
        "targets": [
            {
                "refId": chr(ord("A") + place),
                "datasource": _SOURCE,
                "expr": query["expr"],
                "legendFormat": query.get("legend", "__auto"),
                "instant": of_now,
                "range": not of_now,
                "format": "table" if panel["type"] == "table" else "time_series",
            }
            for place, query in enumerate(panel["queries"])
        ],
        "fieldConfig": {"defaults": _field(panel), "overrides": []},
        "options": {},
    }
    if panel["type"] == "stat":
        made["options"] = {"reduceOptions": {"calcs": ["lastNotNull"]}, "textMode": "auto"}
    if panel["type"] == "table":
        # One row for each set of labels, one column for each query.
        names = {
            f"Value #{chr(ord('A') + place)}": query.get("legend", "Value")
            for place, query in enumerate(panel["queries"])
        }
        made["transformations"] = [
            {"id": "merge", "options": {}},
            {"id": "organize", "options": {"excludeByName": {"Time": True}, "renameByName": names}},
        ]
    return made


def _field(panel: Mapping[str, Any]) -> dict[str, Any]:
    steps = [{"color": "green", "value": None}] if not panel["steps"] else []
    steps += [{"color": colour, "value": value} for value, colour in panel["steps"]]
    texts = {
        str(value): {"text": text, "index": place}
        for place, (value, text) in enumerate(panel["texts"].items())
    }
    field: dict[str, Any] = {
        "unit": panel["unit"],
        "thresholds": {"mode": "absolute", "steps": steps},
        "color": {"mode": "palette-classic" if panel["type"] == "timeseries" else "thresholds"},
        "mappings": [{"type": "value", "options": texts}] if texts else [],
    }
    if panel["max"] is not None:
        field |= {"min": 0, "max": panel["max"]}
    return field


def _check(found: Mapping[str, Any], wanted: Mapping[str, Any], what: str) -> None:
    unknown = set(found) - set(wanted)
    missing = {name for name, value in wanted.items() if value is None and name != "max"} - set(found)
    if unknown or missing:
        raise AnsibleFilterError(
            f"Description of {what}: found {', '.join(map(str, found))}; unknown are {sorted(unknown)}, "
            f"missing {sorted(missing)}. Wanted {', '.join(wanted)}."
        )


class FilterModule:
    def filters(self) -> dict[str, Callable[..., Any]]:
        return {"grafana_dashboard": grafana_dashboard}
