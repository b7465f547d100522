"""Do the inventory, the hosts, the cluster and the chain say the same? `compare` is pure; others gather."""

from k3s_daas.drift.compare import compare
from k3s_daas.drift.facts import Change, Cluster, Fleet, Host, Node, OnChain, Seen, Unit
from k3s_daas.drift.report import Difference, NotAsked, Report

__all__ = [
    "Change",
    "Cluster",
    "Difference",
    "Fleet",
    "Host",
    "Node",
    "NotAsked",
    "OnChain",
    "Report",
    "Seen",
    "Unit",
    "compare",
]
