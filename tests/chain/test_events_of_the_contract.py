"""Every event that the contract's sources declare is one we read, with the very fields, or is named here."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from k3s_daas.chain.errors import MalformedRecord
from k3s_daas.chain.model import Event
from k3s_daas.registry import Deployment, parse_event

SOURCES = Path(__file__).parents[2] / "move" / "k3s_daas" / "sources"
OURS = Deployment("0x" + "a" * 64, "0x" + "b" * 64)
# Nobody follows these yet; whoever starts to adds them to registry/events.py.
UNREAD = {
    "AttestationRequiredEvent",
    "ImageAllowedEvent",
    "ImageDisallowedEvent",
    "ReadyRewardedEvent",
    "RewardRatesChangedEvent",
    "RewardsFundedEvent",
    "TreasuryMovedEvent",
}
STRUCT = re.compile(r"public struct (\w+Event) has copy, drop \{(.*?)\}", re.DOTALL)
SAMPLES: dict[str, Any] = {
    "ID": OURS.registry_id,
    "String": "worker",
    "address": "0x" + "c" * 64,
    "u64": "7",
    "u8": 7,
    "bool": True,
    "vector<u8>": "YWJj",
    "Status": {"@variant": "Active"},
}


def declared() -> dict[str, dict[str, Any]]:
    found = {}
    for path in sorted(SOURCES.glob("*.move")):
        for name, body in STRUCT.findall(path.read_text()):
            pairs = re.findall(r"(\w+): ([\w<>]+)", re.sub(r"///.*", "", body))
            found[f"{path.stem}::{name}"] = {field: SAMPLES[kind] for field, kind in pairs}
    return found


EVENTS = declared()


def parse(kind: str, json: dict[str, Any]) -> Any:
    return parse_event(Event("d", 0, f"{OURS.package_id}::{kind}", json, "0x1"), OURS)


def test_the_sources_were_read() -> None:
    assert len(EVENTS) > 25
    assert {kind.split("::")[1] for kind in EVENTS} > UNREAD


@pytest.mark.parametrize("kind", sorted(EVENTS))
def test_every_event_is_read_as_it_is_declared(kind: str) -> None:
    event = parse(kind, EVENTS[kind])
    assert (event is None) == (kind.split("::")[1] in UNREAD)
    if event is None:
        return
    for field in set(EVENTS[kind]) - {"registry"}:
        without = {name: value for name, value in EVENTS[kind].items() if name != field}
        with pytest.raises(MalformedRecord):  # so each field is read
            parse(kind, without)
