"""Names and addresses of fleets."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from testhosts import names
from testhosts.errors import HostsError
from testhosts.names import Fleet

FLEET = Fleet.parse("demo", "10.123.1.0/24")


def test_every_name_follows_from_the_fleet() -> None:
    host = FLEET.host("worker-1", "10.123.1.12")
    assert (FLEET.bridge, str(FLEET.gateway), FLEET.tag) == ("br-demo", "10.123.1.1", "testhosts:demo")
    assert (host.machine, host.veth, host.cgroup) == ("demo-12", "vb-demo-12", "testhosts/demo/demo-12")


@given(st.from_regex(r"[a-z][a-z0-9]{0,7}", fullmatch=True), st.integers(2, 254))
def test_interface_names_fit_and_are_known_again(name: str, place: int) -> None:
    fleet = Fleet.parse(name, "10.9.8.0/24")
    host = fleet.host("a", f"10.9.8.{place}")
    assert len(host.veth) <= 15
    assert len(fleet.bridge) <= 15
    assert fleet.owns_interface(host.veth)


@pytest.mark.parametrize(
    "interface", ["vb-demo2-11", "vb-demo-11x", "vb-dem-11", "eth0", "vb-demo-", "xvb-demo-11"]
)
def test_interfaces_of_others_are_not_ours(interface: str) -> None:
    assert not FLEET.owns_interface(interface)


def test_bridges_of_two_fleets_differ_in_hardware_address() -> None:
    other = Fleet.parse("demo2", "10.123.1.0/24")
    assert FLEET.bridge_mac != other.bridge_mac
    assert int(FLEET.bridge_mac[:2], 16) & 0b11 == 0b10, "wanted a locally administered unicast address"


@pytest.mark.parametrize("name", ["", "Demo", "de-mo", "1demo", "demodemod", "démo", "demo\n"])
def test_bad_fleet_names_are_refused(name: str) -> None:
    with pytest.raises(HostsError, match="--fleet"):
        Fleet.parse(name, "10.123.1.0/24")


@pytest.mark.parametrize(
    "subnet", ["10.0.0.0/8", "10.1.2.0/30", "8.8.8.0/24", "10.1.2.3/24", "fd00::/64", "x"]
)
def test_bad_subnets_are_refused(subnet: str) -> None:
    with pytest.raises(HostsError, match="--subnet"):
        Fleet.parse("demo", subnet)


@pytest.mark.parametrize(
    ("pair", "reason"),
    [
        ("a", "NAME=ADDRESS"),
        ("a_b=10.123.1.11", "RFC 1123"),
        ("A=10.123.1.11", "RFC 1123"),
        ("-a=10.123.1.11", "RFC 1123"),
        (f"{'a' * 64}=10.123.1.11", "RFC 1123"),
        ("a=10.123.2.11", "not in the fleet's subnet"),
        ("a=10.123.1.1", "the bridge's"),
        ("a=10.123.1.0", "the network's own"),
        ("a=10.123.1.255", "broadcast"),
        ("a=somewhere", "give an address"),
    ],
)
def test_bad_hosts_are_refused(pair: str, reason: str) -> None:
    with pytest.raises(HostsError, match=reason):
        FLEET.hosts([pair])


@pytest.mark.parametrize("second", ["a=10.123.1.12", "b=10.123.1.11"])
def test_hosts_share_neither_name_nor_address(second: str) -> None:
    with pytest.raises(HostsError, match="share a name or an address"):
        FLEET.hosts(["a=10.123.1.11", second])


def test_etc_hosts_block_is_exchanged_and_other_lines_stay() -> None:
    one = names.etc_hosts(FLEET.hosts(["a=10.123.1.11"]))
    two = names.etc_hosts(FLEET.hosts(["b=10.123.1.12", "a=10.123.1.11"]))
    first = names.with_etc_hosts("127.0.0.1\tlocalhost\n", one) + "10.0.0.1\tadded-by-a-role\n"
    second = names.with_etc_hosts(first, two)
    assert second.splitlines() == [
        "127.0.0.1\tlocalhost",
        "# testhosts: begin",
        "10.123.1.11\ta",
        "10.123.1.12\tb",
        "# testhosts: end",
        "10.0.0.1\tadded-by-a-role",
    ]
    assert names.with_etc_hosts(second, two) == second
