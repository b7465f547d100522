"""The address ranges of a VPC's zones."""

from __future__ import annotations

import importlib.util
import ipaddress
from itertools import pairwise
from typing import Any

import pytest
from ansible.errors import AnsibleFilterError
from aws_kit import REPOSITORY
from hypothesis import given
from hypothesis import strategies as st


def load() -> Any:
    spec = importlib.util.spec_from_file_location(
        "k3s_daas_filters_aws", REPOSITORY / "filter_plugins/aws.py"
    )
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


AWS = load()
CIDRS = st.integers(0, 2**16 - 1).map(lambda high: str(ipaddress.IPv4Network((high << 16, 16))))
ZONES = st.lists(
    st.sampled_from([f"eu-central-1{letter}" for letter in AWS.LETTERS]), unique=True, min_size=1
)


@given(CIDRS, ZONES)
def test_ranges_are_inside_and_apart(cidr: str, zones: list[str]) -> None:
    found = AWS.aws_zones(cidr, zones)
    assert [entry["zone"] for entry in found] == zones
    ranges = [
        ipaddress.ip_network(entry[kind]) for entry in found for kind in ("public", "masters", "workers")
    ]
    assert all(part.subnet_of(ipaddress.ip_network(cidr)) for part in ranges)
    assert not any(one.overlaps(other) for one, other in pairwise(sorted(ranges)))


@given(CIDRS, ZONES, ZONES)
def test_a_zone_keeps_its_ranges_whatever_the_others_are(cidr: str, one: list[str], other: list[str]) -> None:
    before, after = ({entry["zone"]: entry for entry in AWS.aws_zones(cidr, zones)} for zones in (one, other))
    assert {zone: before[zone] for zone in before.keys() & after} == {
        zone: after[zone] for zone in before.keys() & after
    }


@given(CIDRS, CIDRS)
def test_overlaps_are_those_that_share_an_address(one: str, other: str) -> None:
    assert AWS.aws_overlaps(one, [other]) == ([other] if one == other else [])


@given(st.text())
def test_anything_else_is_refused_by_name(text: str) -> None:
    try:
        ipaddress.IPv4Network(text)
    except ValueError:
        with pytest.raises(AnsibleFilterError, match="wanted an IPv4 range"):
            AWS.aws_zones(text, ["eu-central-1a"])
        with pytest.raises(AnsibleFilterError, match="wanted an IPv4 range"):
            AWS.aws_wide([text])


@pytest.mark.parametrize("zone", ["", "eu-central-1", "eu-central-1k", "eu-central-1-wl1-ber"])
def test_a_zone_without_a_letter_is_refused(zone: str) -> None:
    with pytest.raises(AnsibleFilterError, match="wanted a region's zone"):
        AWS.aws_zones("10.80.0.0/16", [zone])


def test_ranges_wider_than_anybodys_own() -> None:
    assert AWS.aws_wide(["0.0.0.0/0", "10.0.0.0/8", "128.0.0.0/1", "10.9.0.7/32"]) == [
        "0.0.0.0/0",
        "128.0.0.0/1",
    ]
