"""The fleet's bridge, its firewall rules, and whether its subnet is free."""

import ipaddress
import itertools
import json
import shlex
from collections.abc import Iterable, Mapping
from typing import Any

from testhosts.errors import HostsError
from testhosts.names import Fleet
from testhosts.system import run

_TABLES = ("nat", "filter")


def rules(fleet: Fleet) -> list[tuple[str, str, str, list[str]]]:
    """(table, add or insert, chain, match and target) of each rule the fleet needs.

    Those that accept go first: other programs (docker and ufw, for two) put a DROP into these chains. INPUT,
    because hosts call services of this machine at the gateway's address.
    """
    comment = ["-m", "comment", "--comment", fleet.tag]
    bridge, subnet = fleet.bridge, str(fleet.subnet)
    return [
        ("nat", "-A", "POSTROUTING", ["-s", subnet, "!", "-o", bridge, *comment, "-j", "MASQUERADE"]),
        ("filter", "-I", "INPUT", ["-i", bridge, *comment, "-j", "ACCEPT"]),
        ("filter", "-I", "FORWARD", ["-i", bridge, *comment, "-j", "ACCEPT"]),
        ("filter", "-I", "FORWARD", ["-o", bridge, *comment, "-j", "ACCEPT"]),
    ]


def removals(table: str, listing: str, tag: str) -> list[list[str]]:
    """iptables arguments that remove each rule commented `tag`, out of the output of `iptables -S`."""
    found = []
    for line in listing.splitlines():
        words = shlex.split(line)
        if words[:1] == ["-A"] and ("--comment", tag) in itertools.pairwise(words):
            found.append(["-t", table, "-D", *words[1:]])
    return found


def overlaps(
    subnet: ipaddress.IPv4Network,
    bridge: str,
    addresses: Iterable[Mapping[str, Any]],
    routes: Iterable[Mapping[str, Any]],
) -> list[str]:
    """What of this machine uses `subnet` or a part of it, other than `bridge`.

    Args:
        addresses: `ip -j -4 address`
        routes: `ip -j -4 route show table all`
    """
    found = []
    for link in addresses:
        if link.get("ifname") == bridge:
            continue
        for info in link.get("addr_info", []):
            network = ipaddress.IPv4Interface(f"{info['local']}/{info['prefixlen']}").network
            if network.overlaps(subnet):
                found.append(f"{info['local']}/{info['prefixlen']} on {link['ifname']}")
    for route in routes:
        if (
            route["dst"] == "default"
            or route.get("dev") == bridge
            or route.get("type") in ("local", "broadcast")
        ):
            continue
        if ipaddress.IPv4Network(route["dst"], strict=False).overlaps(subnet):
            found.append(f"route to {route['dst']} via {route.get('dev', route.get('type', 'nowhere'))}")
    return found


def _ip_json(*arguments: str) -> list[dict[str, Any]]:
    # iproute2 prints nothing at all for an empty list, or a list with empty objects
    entries: list[dict[str, Any]] = json.loads(run("ip", "-j", *arguments).stdout or "[]")
    return [entry for entry in entries if entry]


def interfaces() -> dict[str, dict[str, Any]]:
    """Every interface of this machine by name, as `ip -j link` tells."""
    return {link["ifname"]: link for link in _ip_json("link")}


def check_free(fleet: Fleet) -> None:
    """Raise HostsError when the subnet or the bridge's name belongs to somebody else. Changes nothing."""
    bridge = interfaces().get(fleet.bridge)
    if bridge and bridge.get("address") != fleet.bridge_mac:
        raise HostsError(
            f"interface {fleet.bridge} exists and is not ours (hardware address {bridge.get('address')}, "
            f"wanted {fleet.bridge_mac}); choose another --fleet"
        )
    used = overlaps(
        fleet.subnet, fleet.bridge, _ip_json("-4", "address"), _ip_json("-4", "route", "show", "table", "all")
    )
    if used:
        raise HostsError(f"subnet {fleet.subnet} is in use: {'; '.join(used)}; choose another --subnet")


def up(fleet: Fleet) -> None:
    """Make the bridge and the rules, or what is missing of them."""
    if fleet.bridge not in interfaces():
        run("ip", "link", "add", fleet.bridge, "address", fleet.bridge_mac, "type", "bridge")
    run("ip", "address", "replace", f"{fleet.gateway}/{fleet.subnet.prefixlen}", "dev", fleet.bridge)
    run("ip", "link", "set", fleet.bridge, "up")
    for table, how, chain, rule in rules(fleet):
        if run("iptables", "-w", "-t", table, "-C", chain, *rule, check=False).returncode != 0:
            run("iptables", "-w", "-t", table, how, chain, *rule)


def down(fleet: Fleet) -> None:
    """Remove the bridge, if it is ours, and the rules. What isn't there is fine."""
    if interfaces().get(fleet.bridge, {}).get("address") == fleet.bridge_mac:
        run("ip", "link", "delete", fleet.bridge)
    for table in _TABLES:
        for arguments in removals(table, run("iptables", "-w", "-t", table, "-S").stdout, fleet.tag):
            run("iptables", "-w", *arguments)


def remove_interfaces(fleet: Fleet, keep: set[str]) -> None:
    """Remove the hosts' cables, but those named in `keep`."""
    for name in interfaces():
        if not fleet.owns_interface(name) or name in keep:
            continue
        # The kernel may be at it already: the other end's network namespace ended.
        if run("ip", "link", "delete", name, check=False).returncode != 0 and name in interfaces():
            raise HostsError(f"interface {name} can't be removed; see ip -d link show {name}")
