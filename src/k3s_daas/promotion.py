"""What the playbooks that promote a release make of what hosts say: a plan, and a verdict on their health."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from pydantic import ValidationError

from k3s_daas.release import Release

#: Of what a host said that can't be read.
_MAX_WORDS = 300


def plan(looks: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """What a promotion means for each host, as the module k3s_daas_way_back saw it.

    Returns `lines` for people; `asked`, the hosts whose health counts before it begins; `upgrades`, those
    that get another k3s, of those where one is `installed`; `under_way`, whether a promotion was
    interrupted, and `back`, whether on its way back.
    """
    ways = [look["under_way"] for look in looks.values() if look["under_way"] is not None]
    return {
        "lines": [f"{host}: {_step(look)}" for host, look in looks.items()],
        # Of a fleet on which a promotion was interrupted nobody expects to be well.
        "asked": [] if ways else [host for host, look in looks.items() if look["deployed"]],
        "installed": [host for host, look in looks.items() if look["k3s_version"]],
        "upgrades": [
            host
            for host, look in looks.items()
            if look["k3s_unfinished"] or look["k3s_version"] not in ("", look["wanted_k3s"])
        ],
        "under_way": bool(ways),
        "back": any(way["back"] for way in ways),
    }


def _step(look: Mapping[str, Any]) -> str:
    found = (
        shown(look["release"])
        if look["release"]
        else "an unrecorded release"
        if look["deployed"]
        else "nothing"
    )
    wanted = look["wanted"]
    said = f"{found} -> {wanted}" if (look["release"] or {}).get("name") != wanted else f"{found}, again"
    if look["k3s_version"] not in ("", look["wanted_k3s"]):
        said += f", k3s {look['k3s_version']} -> {look['wanted_k3s']}"
    if look["under_way"] is not None:
        what = "the way back" if look["under_way"]["back"] else f"a promotion to {look['under_way']['to']}"
        said += f" ({what} was interrupted here)"
    return said


def way_back(looks: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """What going back means, of the same looks.

    Returns `hosts`, those that go; `wanted`, the release that each of them had ("" without a record);
    `lines`; `refusals` in sentences; `k3s_version` and `backup` of the datastore where the server goes back,
    else empty.
    """
    kept = {host: look["way_back"] for host, look in looks.items() if look["way_back"]}
    going = {host: way for host, way in kept.items() if not way["fresh"]}
    refused = [f"{host}: {why}" for host, way in going.items() for why in way["refusals"]]
    server = next((way for way in going.values() if way["backup"]), None)
    if not going:
        refused.append(
            "Found no release from before on any host; wanted one that was kept: the first release has none "
            "before it, and the way back can be gone once. Go forward, with playbooks/promote.yml."
        )
    return {
        "hosts": list(going),
        "wanted": {host: (way["release"] or {}).get("name", "") for host, way in going.items()},
        "lines": [f"{host}: {_return(look, going.get(host))}" for host, look in looks.items()],
        "refusals": refused,
        "k3s_version": server["k3s_version"] if server else "",
        "backup": server["backup"] if server else "",
    }


def _return(look: Mapping[str, Any], way: Mapping[str, Any] | None) -> str:
    if way is None:
        return "stays as it is, for nothing is kept of before"
    there = shown(way["release"]) if way["release"] else "a release without a record"
    here = shown(look["release"]) if look["release"] else "a release without a record"
    return f"{here} -> {there}" + (
        f", k3s {look['k3s_version']} -> {way['k3s_version']}" if way["replaces_k3s"] else ""
    )


def shown(record: Any) -> str:
    """A release's name and where git had it, of the record on a host."""
    try:
        return Release.model_validate(record).shown
    except ValidationError:
        return "a release whose record can't be read"


def judge(
    answers: Mapping[str, Mapping[str, Any]], wanted: Mapping[str, str], number: int = 1
) -> dict[str, Any]:
    """The verdict on what `k3s-daas doctor --json` said on each host.

    `answers` are Ansible's results by host, each `said` to the question of a `round`: who has not answered
    question `number` has dropped out. `wanted` is the release that a host is to run; of those that it
    doesn't name, all are to run the same.

    Returns `healthy`, `lines` for people, `reasons` in sentences, and `release` and `ref` of the fleet, empty
    where the hosts don't run one.
    """
    said = {
        host: _report(answer["said"] if int(answer.get("round", 0)) == int(number) else {"unreachable": True})
        for host, answer in answers.items()
    }
    records = {host: _record(report) for host, report in said.items()}
    names = {host: record.name if record else "" for host, record in records.items()}
    # Where two are as many, the first host's, which is the master's.
    usual = next((name for name, _ in Counter(names.values()).most_common(1)), "")
    lines, reasons = [], []
    for host, report in said.items():
        record = records[host]
        bad = _bad(report)
        aim = wanted.get(host, usual)
        if not isinstance(report, str) and names[host] != aim:
            here = names[host] or "no recorded release"
            bad.insert(0, f"release: it runs {here}, not {aim or 'one without a record'} -> promote.yml")
        lines += [
            f"{host}: {record.shown if record else 'no recorded release'}: {one}" for one in bad or ["well"]
        ]
        reasons += [f"{host}: {one}." for one in bad]
    known = next(iter(records.values()), None) if len(set(names.values())) == 1 else None
    return {
        "healthy": not reasons and bool(said),
        "lines": lines,
        "reasons": reasons or ([] if said else ["no host that could be asked."]),
        "release": known.name if known else "",
        "ref": known.ref if known else "",
    }


def _report(answer: Mapping[str, Any]) -> dict[str, Any] | str:
    """The doctor's report, or why there is none."""
    if answer.get("unreachable"):
        return "reachable: no ssh to this host -> check that it runs, its address and the key"
    try:
        report = json.loads(str(answer.get("stdout", "")))
        if isinstance(report, dict) and isinstance(report.get("findings"), list):
            return report
    except ValueError:
        pass
    words = str(answer.get("stderr") or answer.get("msg") or answer.get("stdout") or "nothing")
    words = " ".join(words.split())[-_MAX_WORDS:]
    return (
        f"doctor: it said {words} -> is /opt/k3s-daas/venv there and whole? promote.yml or site.yml makes it"
    )


def _record(report: dict[str, Any] | str) -> Release | None:
    if isinstance(report, str) or report.get("release") is None:
        return None
    try:
        return Release.model_validate(report["release"])
    except ValidationError:
        return None


def _bad(report: dict[str, Any] | str) -> list[str]:
    if isinstance(report, str):
        return [report]
    findings: Sequence[Mapping[str, Any]] = report["findings"]
    return [
        f"{one['check']}: {one['found']} ({one['cause']}) -> {one['fix']}"
        for one in findings
        if one["level"] == "error" or one.get("coming")
    ]
