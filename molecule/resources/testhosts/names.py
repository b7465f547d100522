"""Names and addresses of a fleet and its hosts: pure, nothing here touches the machine."""

import hashlib
import ipaddress
import re
from collections.abc import Iterable
from dataclasses import dataclass

from testhosts.errors import HostsError

PROGRAM = "testhosts"
_FLEET = re.compile(r"[a-z][a-z0-9]{0,7}")
_HOST = re.compile(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?")


@dataclass(frozen=True)
class Fleet:
    """A fleet's name and addresses, and the names that follow from them."""

    name: str
    subnet: ipaddress.IPv4Network

    @classmethod
    def parse(cls, name: str, subnet: str) -> "Fleet":
        """Check both texts; raises HostsError saying which rule is broken."""
        # 8 characters: vb-FLEET-NNN is an interface name, and those end at 15.
        if not _FLEET.fullmatch(name):
            raise HostsError(
                f"fleet name {name!r}: wanted 1 to 8 of a-z and 0-9, a letter first; choose another --fleet"
            )
        try:
            network = ipaddress.IPv4Network(subnet)
        except ValueError as error:
            raise HostsError(f"--subnet {subnet!r}: {error}; give one such as 10.123.1.0/24") from None
        if not 24 <= network.prefixlen <= 29 or not network.is_private:
            raise HostsError(
                f"--subnet {subnet}: wanted a private IPv4 subnet of /24 to /29, such as 10.123.1.0/24"
            )
        return cls(name, network)

    @property
    def bridge(self) -> str:
        return f"br-{self.name}"

    @property
    def bridge_mac(self) -> str:
        """A bridge of ours is known by its hardware address, given at creation: no moment without a mark."""
        tail = hashlib.sha256(self.name.encode()).digest()[:3]
        return "02:74:68:" + ":".join(f"{byte:02x}" for byte in tail)

    @property
    def gateway(self) -> ipaddress.IPv4Address:
        return self.subnet.network_address + 1

    @property
    def cgroup(self) -> str:
        """Path below the root of every cgroup hierarchy."""
        return f"{PROGRAM}/{self.name}"

    @property
    def tag(self) -> str:
        """Source of the fleet's mounts and comment of its firewall rules."""
        return f"{PROGRAM}:{self.name}"

    def owns_interface(self, interface: str) -> bool:
        return re.fullmatch(rf"vb-{self.name}-\d{{1,3}}", interface) is not None

    def host(self, name: str, address: str) -> "Host":
        """Check a host's name and address; raises HostsError."""
        if not _HOST.fullmatch(name):
            raise HostsError(
                f"host name {name!r}: wanted an RFC 1123 label (a-z, 0-9 and inner '-', up to 63 characters)"
            )
        try:
            ip = ipaddress.IPv4Address(address)
        except ValueError as error:
            raise HostsError(f"{name}={address}: {error}; give an address in {self.subnet}") from None
        if ip not in self.subnet:
            raise HostsError(
                f"{name}={address}: not in the fleet's subnet {self.subnet}; give an address in it"
            )
        taken = {self.subnet.network_address, self.subnet.broadcast_address, self.gateway}
        if ip in taken:
            raise HostsError(f"{name}={address}: the network's own, the bridge's or the broadcast address")
        return Host(self, name, ip)

    def hosts(self, pairs: Iterable[str]) -> list["Host"]:
        """Parse NAME=ADDRESS texts; raises HostsError when one is malformed or used twice."""
        hosts: list[Host] = []
        for pair in pairs:
            name, equals, address = pair.partition("=")
            if not equals:
                raise HostsError(f"{pair!r}: wanted NAME=ADDRESS, such as worker-1={self.gateway + 11}")
            host = self.host(name, address)
            for other in hosts:
                if other.name == host.name or other.address == host.address:
                    raise HostsError(
                        f"{pair!r} and '{other.name}={other.address}' share a name or an address"
                    )
            hosts.append(host)
        return hosts


@dataclass(frozen=True)
class Host:
    """One host of a fleet."""

    fleet: Fleet
    name: str
    address: ipaddress.IPv4Address

    @property
    def machine(self) -> str:
        """Its name for systemd-nspawn, and of its cgroup."""
        return f"{self.fleet.name}-{int(self.address) - int(self.fleet.subnet.network_address)}"

    @property
    def veth(self) -> str:
        """The machine's end of its cable; systemd-nspawn makes this name of the machine's."""
        return f"vb-{self.machine}"

    @property
    def cgroup(self) -> str:
        return f"{self.fleet.cgroup}/{self.machine}"


def etc_hosts(hosts: Iterable[Host]) -> str:
    """The block of /etc/hosts that lets the hosts of a fleet find one another."""
    lines = [f"{host.address}\t{host.name}" for host in sorted(hosts, key=lambda host: host.address)]
    return "\n".join([f"# {PROGRAM}: begin", *lines, f"# {PROGRAM}: end", ""])


def with_etc_hosts(current: str, block: str) -> str:
    """`current` with our block put in, or exchanged for the one that is there; other lines stay."""
    pattern = re.compile(rf"^# {PROGRAM}: begin\n.*?^# {PROGRAM}: end\n", re.DOTALL | re.MULTILINE)
    if pattern.search(current):
        return pattern.sub(lambda _: block, current, count=1)
    return current + block


def ssh_config(hosts: Iterable[Host], key: str, known_hosts: str) -> str:
    """An ssh client configuration for the hosts; give absolute paths, it is used from anywhere."""
    blocks = [
        f"Host {host.name} {host.address}\n"
        f"  HostName {host.address}\n"
        "  User root\n"
        f'  IdentityFile "{key}"\n'
        "  IdentitiesOnly yes\n"
        f'  UserKnownHostsFile "{known_hosts}"\n'
        "  GlobalKnownHostsFile /dev/null\n"
        "  StrictHostKeyChecking yes\n"
        "  ConnectTimeout 10\n"
        "  LogLevel ERROR\n"
        for host in hosts
    ]
    return "\n".join(blocks)
