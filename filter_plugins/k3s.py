"""Filters of the roles that run k3s: one configuration out of the role's and the operator's, and NO_PROXY."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from ansible.errors import AnsibleFilterError

# What k3s takes these from instead, so that config.yaml and Ansible's diff of it hold no secret.
SECRETS = {
    "token": "token-file",
    "agent-token": "agent-token-file",
    "vpn-auth": "vpn-auth-file",
    "etcd-s3-access-key": "etcd-s3-config-secret",
    "etcd-s3-secret-key": "etcd-s3-config-secret",
    "etcd-s3-session-token": "etcd-s3-config-secret",
}
_KEY = re.compile(r"[a-z][a-z0-9-]*")
_PASSWORD = re.compile(r"://[^/@]*:[^/@]+@")


def k3s_config(own: Mapping[str, Any], operator: Mapping[str, Any], name: str) -> dict[str, Any]:
    """Content of config.yaml: the role's keys, and over them the operator's, who has the last word.

    A key of the operator's replaces the role's. Of the lists of flags (`kubelet-arg` and its like) only the
    flags that it names are replaced; those written `flag+=` or `flag-=` stand beside the role's, as in k3s.

    Args:
        name: the variable that `operator` comes from, for error messages

    Raises:
        AnsibleFilterError: a key that k3s doesn't write so, a flag list that is none, a secret
    """
    _check(operator, name)
    merged = {**own, **operator}
    for key in merged:
        if key.endswith("-arg"):
            merged[key] = _flags(own.get(key, []), operator.get(key, []))
    return merged


def _check(operator: Mapping[str, Any], name: str) -> None:
    for key, value in operator.items():
        if not _KEY.fullmatch(str(key)):
            raise AnsibleFilterError(
                f"Found {key!r} in {name}, wanted k3s' options without dashes in front, as in its "
                "config.yaml: tls-san, kubelet-arg. Correct the inventory."
            )
        if key in SECRETS:
            raise AnsibleFilterError(
                f"Found the secret {key} in {name}, wanted none there: config.yaml shows up in Ansible's "
                f"diff. Use {SECRETS[key]}."
            )
        if key == "datastore-endpoint" and _PASSWORD.search(str(value)):
            raise AnsibleFilterError(
                f"Found a password in datastore-endpoint of {name}, wanted none there: config.yaml shows "
                "up in Ansible's diff. Set K3S_DATASTORE_ENDPOINT in a file of mode 0600, which a drop-in of "
                "k3s.service names as EnvironmentFile."
            )
        if key.endswith("-arg") and not isinstance(value, str | list):
            raise AnsibleFilterError(
                f"Found {value!r} as {key} of {name}, wanted a list of flag=value. Correct the inventory."
            )


def _flags(own: Iterable[str], operator: str | Iterable[str]) -> list[str]:
    given = [operator] if isinstance(operator, str) else [str(flag) for flag in operator]
    replaced = {_flag(word) for word in given}
    return [flag for flag in own if _flag(flag) not in replaced] + given


def _flag(word: str) -> str:
    """`flag` of `--flag=value`; `flag+` and `flag-` are names of their own."""
    return word.lstrip("-").partition("=")[0]


def k3s_no_proxy(hosts: Iterable[str], given: Iterable[str]) -> str:
    """NO_PROXY: what is given, then each host that no given range covers, each once.

    A fleet whose range is given keeps the same value when hosts are added, and so needs no restart.
    """
    listed = list(dict.fromkeys(str(entry) for entry in given))
    ranges = [network for entry in listed if (network := _network(entry))]
    return ",".join([*listed, *(host for host in dict.fromkeys(hosts) if not _covered(host, listed, ranges))])


def _network(entry: str) -> ipaddress.IPv4Network | ipaddress.IPv6Network | None:
    try:
        return ipaddress.ip_network(entry, strict=False)
    except ValueError:
        return None


def _covered(
    host: str, listed: list[str], ranges: list[ipaddress.IPv4Network | ipaddress.IPv6Network]
) -> bool:
    if host in listed:
        return True
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return False
    return any(address in network for network in ranges)


class FilterModule:
    """What Ansible asks for."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        return {"k3s_config": k3s_config, "k3s_no_proxy": k3s_no_proxy}
