"""Reading of /proc/mounts and /proc/PID/cgroup."""

from pathlib import Path

import pytest

from testhosts import cgroups, mounts

MOUNTS = r"""/dev/vda / ext4 rw,relatime 0 0
cgroup /sys/fs/cgroup/memory cgroup rw,relatime,memory 0 0
cgroup /sys/fs/cgroup/systemd cgroup rw,relatime,name=systemd 0 0
cgroup2 /sys/fs/cgroup/unified cgroup2 rw,relatime 0 0
cgroup /elsewhere/cgroup cgroup rw,memory 0 0
testhosts:demo /a\040b/.state/demo/hosts/x/root overlay rw,lowerdir=/i 0 0
testhosts:demo2 /other/root overlay rw,lowerdir=/i 0 0
testhosts:demo /tmp/share nfs rw 0 0
testhosts:demo /a\040b/.state/demo/hosts/x/root overlay rw,lowerdir=/i 0 0
testhosts:demo /gone/root//deleted overlay rw,lowerdir=/i 0 0
"""


def test_overlays_of_the_fleet_are_found_as_often_as_they_are_mounted() -> None:
    found = mounts.of_fleet(mounts.parse(MOUNTS), "testhosts:demo")
    twice = Path("/a b/.state/demo/hosts/x/root")
    assert [mount.target for mount in found] == [twice, twice, Path("/gone/root")]


def test_below_means_the_folder_and_inside_it_not_beside_it() -> None:
    table = mounts.parse("a /x ext4 rw 0 0\nb /x/y ext4 rw 0 0\nc /xy ext4 rw 0 0\n")
    assert [mount.source for mount in mounts.below(table, Path("/x"))] == ["a", "b"]


def test_hierarchies_are_all_of_both_versions() -> None:
    assert cgroups.hierarchies(mounts.parse(MOUNTS)) == [
        Path("/sys/fs/cgroup/memory"),
        Path("/sys/fs/cgroup/systemd"),
        Path("/sys/fs/cgroup/unified"),
    ]


def test_pure_version_2_has_one_hierarchy() -> None:
    table = mounts.parse("cgroup2 /sys/fs/cgroup cgroup2 rw,nsdelegate 0 0\n")
    assert cgroups.hierarchies(table) == [Path("/sys/fs/cgroup")]


@pytest.mark.parametrize(
    ("text", "member"),
    [
        ("4:memory:/testhosts/demo/demo-11\n0::/\n", True),
        ("1:name=systemd:/\n0::/testhosts/demo/demo-11/system.slice/ssh.service\n", True),
        ("4:memory:/testhosts/demo/demo-112\n0::/\n", False),
        ("4:memory:/testhosts/demo2/demo-11\n0::/\n", False),
        ("4:memory:/\n0::/init.scope\n", False),
        ("", False),
    ],
)
def test_a_process_is_killed_only_as_a_member(text: str, member: bool) -> None:
    assert cgroups.is_member(text, "testhosts/demo/demo-11") is member


@pytest.mark.parametrize("cgroup", ["system.slice", "testhosts/../init.scope", ""])
def test_cgroups_of_others_are_never_touched(cgroup: str) -> None:
    with pytest.raises(ValueError, match="not a cgroup of ours"):
        cgroups.paths(cgroup)
