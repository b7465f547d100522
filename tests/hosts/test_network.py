"""Firewall rules, and whether a subnet is free."""

import ipaddress

import pytest

from testhosts import network
from testhosts.names import Fleet

FLEET = Fleet.parse("demo", "10.123.1.0/24")
LISTING = """\
-P FORWARD ACCEPT
-A FORWARD -o br-demo -m comment --comment "testhosts:demo" -j ACCEPT
-A FORWARD -i br-demo -m comment --comment testhosts:demo -j ACCEPT
-A FORWARD -i br-demo2 -m comment --comment "testhosts:demo2" -j ACCEPT
-A FORWARD -i br-demo -m comment --comment "not testhosts:demo" -j DROP
-A FORWARD -i docker0 -j ACCEPT
"""


def test_every_rule_carries_the_fleets_comment() -> None:
    for _, _, _, rule in network.rules(FLEET):
        assert rule[rule.index("--comment") + 1] == "testhosts:demo"


def test_only_rules_of_the_fleet_are_removed() -> None:
    assert network.removals("filter", LISTING, FLEET.tag) == [
        [
            "-t",
            "filter",
            "-D",
            "FORWARD",
            *["-o", "br-demo", "-m", "comment", "--comment", "testhosts:demo", "-j", "ACCEPT"],
        ],
        [
            "-t",
            "filter",
            "-D",
            "FORWARD",
            *["-i", "br-demo", "-m", "comment", "--comment", "testhosts:demo", "-j", "ACCEPT"],
        ],
    ]


def address(interface: str, local: str, prefix: int) -> dict[str, object]:
    return {"ifname": interface, "addr_info": [{"local": local, "prefixlen": prefix}]}


@pytest.mark.parametrize(
    ("local", "prefix"), [("10.123.1.7", 24), ("10.123.0.1", 16), ("10.123.1.200", 28), ("10.123.1.9", 32)]
)
def test_an_address_of_another_interface_makes_the_subnet_taken(local: str, prefix: int) -> None:
    found = network.overlaps(FLEET.subnet, FLEET.bridge, [address("eth0", local, prefix)], [])
    assert found == [f"{local}/{prefix} on eth0"]


def test_a_route_makes_the_subnet_taken() -> None:
    found = network.overlaps(FLEET.subnet, FLEET.bridge, [], [{"dst": "10.123.0.0/16", "dev": "tun0"}])
    assert found == ["route to 10.123.0.0/16 via tun0"]


def test_own_bridge_default_route_and_neighbours_leave_it_free() -> None:
    addresses = [address("br-demo", "10.123.1.1", 24), address("eth0", "10.123.2.1", 24), {"ifname": "lo"}]
    routes = [
        {"dst": "default", "dev": "eth0"},
        {"dst": "10.123.1.0/24", "dev": "br-demo"},
        {"dst": "10.123.2.0/24", "dev": "eth0"},
        {"dst": "10.123.2.255", "dev": "eth0", "type": "broadcast"},
    ]
    assert network.overlaps(ipaddress.IPv4Network("10.123.1.0/24"), "br-demo", addresses, routes) == []
