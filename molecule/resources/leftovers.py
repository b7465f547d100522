"""What the project and k3s leave on a host. The same search finds nothing on a wiped host, and all of it
on one at work."""

from __future__ import annotations

from testinfra.host import Host

#: What a host at work has of it, be it a worker or the master; and what else pods leave.
OF_EVERY_HOST = {"files", "units", "users", "groups", "processes"}
OF_PODS = {"mounts", "network namespaces", "interfaces", "rules"}
_FILES = (
    "find / \\( -path /proc -o -path /sys -o -path /tmp -o -path /root/.ansible \\) -prune -o "
    "\\( -iname '*k3s*' -o -iname '*kubelet*' -o -iname '*rancher*' -o -iname '*flannel*' "
    "-o -name .kube \\) -print"
)
# A stage of a real k3s gives its hosts two mount points for these; they are empty then.
_MOUNT_POINTS = ("/var/lib/rancher", "/var/lib/kubelet")


def search(host: Host) -> dict[str, list[str]]:
    """What is there, by its kind; kinds of which nothing is there are left out."""

    def lines(command: str) -> list[str]:
        return host.run(command).stdout.splitlines()

    inside = [line for at in _MOUNT_POINTS for line in lines(f"find {at} -mindepth 1 -maxdepth 1")]
    mounts = lines("cut -d ' ' -f 2 /proc/self/mounts")
    found = {
        "files": [path for path in lines(_FILES) if path not in _MOUNT_POINTS] + inside,
        "units": lines("systemctl list-units --all --plain --no-legend 'k3s*'")
        + lines("systemctl list-unit-files --no-legend 'k3s*'"),
        "failed units": lines("systemctl list-units --failed --plain --no-legend"),
        "users": [line for line in lines("getent passwd") if "k3s" in line],
        "groups": [line for line in lines("getent group") if "k3s" in line],
        # Not the one that looks: its own command line has the words in brackets.
        "processes": lines("ps -eo args | grep -E '[k]3s|[k]ubelet|[c]ontainerd'"),
        "mounts": [
            at for at in mounts if at.startswith(("/run/k3s", "/var/lib/kubelet/", "/run/netns/cni-"))
        ],
        "network namespaces": lines("ls /run/netns | grep ^cni-"),
        "interfaces": [
            name for name in lines("ls /sys/class/net") if name.startswith(("cni", "flannel", "kube"))
        ],
        "rules": [line for line in lines("iptables-save") if "KUBE-" in line or "CNI-" in line],
    }
    return {kind: there for kind, there in found.items() if there}
