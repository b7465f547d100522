"""Filters of the role aws_infrastructure: address ranges of the zones, and ranges that collide."""

from __future__ import annotations

import ipaddress
from collections.abc import Callable, Iterable
from typing import Any

from ansible.errors import AnsibleFilterError

# Zones are told apart by a letter; with more than this the workers' ranges would not fit into a /16.
LETTERS = "abcdefghij"


def aws_zones(cidr: str, zones: Iterable[str]) -> list[dict[str, str]]:
    """What each zone gets of a /16: C(zone), C(key) for names in the stack, and three address ranges.

    A zone's ranges follow from its letter alone, so that a zone that is added moves no other: a /24 for its
    NAT gateway, a /24 for masters and load balancer, a /20 for workers.

    Raises:
        AnsibleFilterError: not a /16, or a zone that doesn't end in one of the letters
    """
    network = _network(cidr)
    if network.prefixlen != 16:
        raise AnsibleFilterError(f"Found the address range {cidr}, wanted a /16 of private addresses.")
    twenties = list(network.subnets(new_prefix=20))
    return [_zone(twenties, zone) for zone in zones]


def _zone(twenties: list[ipaddress.IPv4Network], zone: str) -> dict[str, str]:
    place = LETTERS.find(zone[-1:])
    if place < 0 or not zone:
        raise AnsibleFilterError(f"Found the zone {zone!r}, wanted a region's zone, as eu-central-1a.")
    public, masters = (list(twenties[half].subnets(new_prefix=24)) for half in (0, 1))
    return {
        "zone": zone,
        "key": LETTERS[place].upper(),
        "public": str(public[place]),
        "masters": str(masters[place]),
        "workers": str(twenties[2 + place]),
    }


def aws_overlaps(cidr: str, others: Iterable[str]) -> list[str]:
    """Those of `others` that share addresses with `cidr`.

    Raises:
        AnsibleFilterError: an entry is no IPv4 range
    """
    network = _network(cidr)
    return [other for other in others if network.overlaps(_network(other))]


def aws_wide(cidrs: Iterable[str]) -> list[str]:
    """Those that are no range of somebody's own: larger than a /8, as 0.0.0.0/0 is.

    Raises:
        AnsibleFilterError: an entry is no IPv4 range
    """
    return [cidr for cidr in cidrs if _network(cidr).prefixlen < 8]


def _network(cidr: str) -> ipaddress.IPv4Network:
    try:
        return ipaddress.IPv4Network(cidr)
    except ValueError as error:
        raise AnsibleFilterError(f"Found {cidr!r}, wanted an IPv4 range as 10.80.0.0/16: {error}.") from None


class FilterModule:
    """What Ansible asks for."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        return {"aws_zones": aws_zones, "aws_overlaps": aws_overlaps, "aws_wide": aws_wide}
