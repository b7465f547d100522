"""Versions of k3s, and which step from one to another a cluster can take.

The rules are Kubernetes' own (https://kubernetes.io/releases/version-skew-policy/): the API server goes up
one minor version at a time and never back; a kubelet is never newer than the API server, and at most three
minor versions older. k3s adds a number of its own to each release: v1.34.2+k3s1, v1.34.2+k3s2.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

#: How many minor versions a kubelet may be behind its API server.
KUBELET_BEHIND = 3
_SOME = "-e upgrade_workers=NAME,NAME has those to upgrade"
_VERSION = re.compile(
    r"v(?P<major>\d+)\.(?P<minor>\d+)\.(?P<patch>\d+)(?:-(?P<pre>[0-9A-Za-z.-]+))?(?:\+k3s(?P<build>\d*)\S*)?",
    re.ASCII,
)


@dataclass(frozen=True, order=True)
class Version:
    """Ordered as released: patch by patch, candidates before their release, then by k3s' own number."""

    major: int
    minor: int
    patch: int
    #: A release has the greatest; a candidate's parts, numbers as numbers.
    stage: tuple[tuple[int, int, str], ...]
    build: int
    text: str = field(compare=False)

    @classmethod
    def parse(cls, text: str) -> Version:
        """Of `v1.34.2+k3s1`, `v1.34.2-rc1+k3s1`. Raises ValueError."""
        found = _VERSION.fullmatch(text)
        if found is None:
            raise ValueError(f"found {text!r}, wanted a version of k3s like v1.34.2+k3s1")
        parts = re.findall(r"\d+|[^\d.]+", found["pre"] or "")
        stage = tuple((0, int(part), "") if part.isdecimal() else (1, 0, part) for part in parts)
        numbers = int(found["major"]), int(found["minor"]), int(found["patch"])
        return cls(*numbers, stage or ((2, 0, ""),), int(found["build"] or 0), text)

    @property
    def line(self) -> str:
        """The minor version: `v1.34`."""
        return f"v{self.major}.{self.minor}"


@dataclass(frozen=True)
class Step:
    """What becomes of one host: `found` runs there now (None while nothing does), `wanted` is to run."""

    name: str
    found: Version | None
    wanted: Version

    def downgrade(self) -> str:
        """Why it may not be taken; "" when it may."""
        if self.found is None or self.wanted >= self.found:
            return ""
        return (
            f"Found k3s {self.found.text} on {self.name}, wanted {self.wanted.text}, which is older. k3s "
            "doesn't go back: what the newer one stored, an older one may not read. Set k3s_binary_version "
            f"or k3s_binary_path to {self.found.text} or newer; docs/upgrade.md says how to go back."
        )


def refusals(server: Step, agents: list[Step], others: Mapping[str, Version]) -> list[str]:
    """Why these steps can't be taken, in words; `others` are the cluster's nodes that stay as they are."""
    found = [words for step in (server, *agents) if (words := step.downgrade())]
    if found:
        return found
    if server.found is not None and _behind(server.found, server.wanted) > 1:
        found.append(
            f"Found k3s {server.found.text} on {server.name}, wanted {server.wanted.text}: more than one "
            "minor version at once. Go through each: the next one is the last release of "
            f"v{server.found.major}.{server.found.minor + 1}."
        )
    for step in agents:
        if step.wanted > server.wanted:
            found.append(
                f"Found k3s {step.wanted.text} as what {step.name} shall get, and {server.wanted.text} for "
                f"{server.name}; wanted no agent newer than its server. Give both the same version."
            )
        elif step.found is not None and _behind(step.found, server.wanted) > KUBELET_BEHIND:
            found.append(_too_old(step.name, step.found, server.wanted))
    for name, version in sorted(others.items()):
        if version > server.wanted:
            found.append(
                f"Found node {name} at k3s {version.text}, and {server.wanted.text} as what {server.name} "
                f"shall get; wanted no agent newer than its server. Set {version.text} or newer."
            )
        elif _behind(version, server.wanted) > KUBELET_BEHIND:
            found.append(_too_old(name, version, server.wanted))
    return found


def _behind(old: Version, new: Version) -> int:
    """Minor versions between; a new major counts as more than any."""
    return new.minor - old.minor if new.major == old.major else 1_000


def _too_old(name: str, version: Version, server: Version) -> str:
    return (
        f"Found node {name} at k3s {version.text}, more than {KUBELET_BEHIND} minor versions behind the "
        f"{server.text} that the server shall get: too old for it. Upgrade {name} to what the server has "
        "now, then go on."
    )


def plan(looks: Mapping[str, Any], server: str) -> dict[str, Any]:
    """What an upgrade of the hosts in `looks` does, and why it can't.

    `looks` is what roles/k3s_upgrade/files/look.py said on each host, with `wanted` (`version` and `sha256`)
    of the role k3s_binary, or `unreachable` and why. `server` is the master's name; the others are agents.
    Returns `refusals` (list of sentences), `upgraded` (hosts where the binary or what runs isn't the wanted
    one yet), `staged` (those of them whose file isn't), `uncordoned` (nodes to take back and nothing else),
    `lines` (host by host, to show).
    """
    lost = [
        f"{name} is out of reach ({' '.join(str(look['unreachable']).split())}); wanted every host there "
        f"before an upgrade. Make it reachable, or leave a worker out: {_SOME}."
        for name, look in looks.items()
        if "unreachable" in look
    ]
    if lost:
        return {"refusals": lost, "upgraded": [], "staged": [], "uncordoned": [], "lines": []}
    nodes: Mapping[str, Any] | None = looks[server]["nodes"]
    agents = [name for name in looks if name != server]
    running = {server: looks[server]["running"]}
    running |= {name: (nodes or {}).get(name, {}).get("version") for name in agents}
    problems = _not_well(looks, nodes, server, agents)
    steps = {}
    for name, look in looks.items():
        now = running[name] or (look["installed"] or {}).get("version")
        try:
            steps[name] = Step(
                name, Version.parse(now) if now else None, Version.parse(look["wanted"]["version"])
            )
        except ValueError as error:
            problems.append(f"{name}: {error}.")
    others = {
        name: Version.parse(node["version"])
        for name, node in (nodes or {}).items()
        if name not in looks and _VERSION.fullmatch(node["version"])
    }
    if len(steps) == len(looks):
        problems += refusals(steps[server], [steps[name] for name in agents], others)
    staged = [
        name
        for name, look in looks.items()
        if (look["installed"] or {}).get("sha256") != look["wanted"]["sha256"]
    ]
    upgraded = [
        name
        for name, look in looks.items()
        if name in staged or look["unfinished"] or running[name] != look["wanted"]["version"]
    ]
    taken_back = [
        name
        for name in agents
        if name not in upgraded and (nodes or {}).get(name, {}).get("cordoned") == "upgrade"
    ]
    lines = []
    for name in looks:
        now = running[name] or (looks[name]["installed"] or {}).get("version") or "nothing"
        again = " (another build of it)" if now == looks[name]["wanted"]["version"] else ""
        if looks[name]["unfinished"]:
            again = " (a run was interrupted here)"
        if name in upgraded:
            lines.append(f"{name}: {now} -> {looks[name]['wanted']['version']}{again}")
        else:
            lines.append(
                f"{name}: {now}, nothing to do{', but to uncordon it' if name in taken_back else ''}"
            )
    return {
        "refusals": problems,
        "upgraded": upgraded,
        "staged": staged,
        "uncordoned": taken_back,
        "lines": lines,
    }


def _not_well(
    looks: Mapping[str, Any], nodes: Mapping[str, Any] | None, server: str, agents: list[str]
) -> list[str]:
    """Hosts that can't be upgraded as they are; one on which a run was interrupted is to be finished."""
    found = [
        f"Found no k3s on {name}, wanted one to upgrade. Run site.yml, which installs it."
        for name, look in looks.items()
        if look["installed"] is None
    ]
    if found:
        return found
    if nodes is None:
        if looks[server]["unfinished"]:
            return []
        return [
            f"Found no answer of the API server on {server} ({looks[server]['detail']}), wanted it ready. "
            "Read `journalctl -u k3s` there."
        ]
    for name in agents:
        node = nodes.get(name)
        if node is None:
            found.append(
                f"Found no node {name} in the cluster, wanted it Ready. Join it with playbooks/workers.yml, "
                f"or leave it out: {_SOME}."
            )
        elif not node["ready"] and not looks[name]["unfinished"] and node["cordoned"] != "upgrade":
            found.append(
                f"Found node {name} not Ready, wanted every node Ready before an upgrade. Read "
                f"`journalctl -u k3s-agent` there, or leave it out: {_SOME}."
            )
    return found
