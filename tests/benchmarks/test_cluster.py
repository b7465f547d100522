"""What `make bench-cluster` reads out of playbooks and clusters, and what it makes of the figures."""

import importlib.util
import json
import resource
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

PROJECT = Path(__file__).parents[2]
COUNTS = st.integers(0, 9999)


@pytest.fixture(scope="module")
def cluster() -> Iterator[ModuleType]:
    """benchmarks/cluster.py; it imports its neighbours as a program does."""
    sys.path.insert(0, str(PROJECT / "benchmarks"))
    try:
        spec = importlib.util.spec_from_file_location("bench_cluster", PROJECT / "benchmarks/cluster.py")
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        sys.modules["bench_cluster"] = module
        spec.loader.exec_module(module)
        yield module
    finally:
        sys.path.remove(str(PROJECT / "benchmarks"))
        sys.modules.pop("bench_cluster", None)


def recap(*rows: tuple[str, int, int, int, int]) -> str:
    line = (
        "{:<27}: ok={:<4} changed={:<4} unreachable={:<4} failed={:<4} skipped=3    rescued=0    ignored=1\n"
    )
    return "\nPLAY RECAP *****\n" + "".join(line.format(*row) for row in rows)


@given(rows=st.lists(st.tuples(COUNTS, COUNTS), min_size=1, max_size=6))
def test_the_recap_of_all_hosts_is_added_up(cluster: ModuleType, rows: list[tuple[int, int]]) -> None:
    said = "TASK [one] ***\nok: [master]\n" + recap(*(("a-host", ok, changed, 0, 0) for ok, changed in rows))
    assert cluster.parse_recap(said) == (sum(ok for ok, _ in rows), sum(changed for _, changed in rows))


def test_only_the_last_recap_counts(cluster: ModuleType) -> None:
    assert cluster.parse_recap(recap(("a", 1, 1, 0, 0)) + recap(("a", 2, 0, 0, 0))) == (2, 0)


@pytest.mark.parametrize("said", ["", "PLAY [x] ***\nok: [a]\n", "PLAY RECAP ***\n\n"])
def test_a_run_without_a_recap_is_no_run(cluster: ModuleType, said: str) -> None:
    with pytest.raises(ValueError, match="no recap"):
        cluster.parse_recap(said)


@pytest.mark.parametrize("row", [("a", 1, 0, 1, 0), ("a", 1, 0, 0, 1)])
def test_a_run_that_failed_is_no_run(cluster: ModuleType, row: tuple[str, int, int, int, int]) -> None:
    with pytest.raises(ValueError, match="wanted none"):
        cluster.parse_recap(recap(("b", 1, 0, 0, 0), row))


def test_only_ready_nodes_are_ready(cluster: ModuleType) -> None:
    def node(name: str, **conditions: str) -> dict[str, Any]:
        listed = [{"type": kind, "status": status} for kind, status in conditions.items()]
        return {"metadata": {"name": name}, "status": {"conditions": listed} if listed else {}}

    nodes = [
        node("a", MemoryPressure="False", Ready="True"),
        node("b", MemoryPressure="True", Ready="False"),
        node("c", Ready="Unknown"),
        node("d"),
    ]
    assert cluster.ready_nodes({"items": nodes}) == {"a"}


def runs(cluster: ModuleType, ours: dict[str, list[float]], theirs: dict[str, list[float]]) -> list[Any]:
    """Runs with 1 and 2 workers; with 2 both take twice as long, ours a second more."""
    made = []
    for workers in (1, 2):
        for name, times in (("ours", ours), ("k3s-ansible", theirs)):
            for step, seconds in times.items():
                more = 1 if name == "ours" and workers == 2 else 0
                made += [
                    cluster.Run(name, step, workers, one * workers + more, one, one, 40, 3) for one in seconds
                ]
    return made


def test_medians_are_compared_and_the_worst_told(cluster: ModuleType) -> None:
    ours = {"install": [10.0, 90.0, 11.0], "rerun": [5.0, 5.0, 5.0], "add a worker": [8.0, 8.0, 8.0]}
    theirs = {step: [10.0, 10.0, 10.0] for step in ours}
    found = cluster.figures(runs(cluster, ours, theirs))
    assert found == {
        "ratio_install": {"1": 1.1, "2": 1.15},
        "ratio_rerun": 0.55,
        "ratio_add_worker": 0.85,
    }
    assert list(json.loads(json.dumps(found))) == ["ratio_install", "ratio_rerun", "ratio_add_worker"]


def test_the_table_says_what_misses_its_target(cluster: ModuleType) -> None:
    ours = {"install": [11.0], "rerun": [11.0], "add a worker": [9.0]}
    lines = cluster.table(runs(cluster, ours, {step: [10.0] for step in ours}))
    missed = {tuple(line.split()[:2]) for line in lines if line.endswith("missed")}
    assert missed == {("1", "rerun"), ("2", "rerun")}
    assert all(len(line) <= 110 for line in lines)


@pytest.mark.parametrize(
    ("path", "text"),
    [
        ("cpuacct/testhosts/bench/cpuacct.usage", "5000000000\n"),
        ("testhosts/bench/cpu.stat", "usage_usec 5000000\nuser_usec 1\n"),
    ],
)
def test_the_hosts_processor_time_is_read_in_either_hierarchy(
    cluster: ModuleType, tmp_path: Path, path: str, text: str
) -> None:
    (tmp_path / path).parent.mkdir(parents=True)
    (tmp_path / path).write_text(text)
    found = cluster.cpu_seconds(tmp_path)
    ended = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert found == pytest.approx(5 + ended.ru_utime + ended.ru_stime, abs=0.001)


def stage_of(tmp_path: Path) -> dict[str, Any]:
    hosts = {"master": "10.0.0.11"} | {f"worker-{n}": f"10.0.0.{11 + n}" for n in (1, 2, 3)}
    return {
        "name": "bench",
        "hosts": hosts,
        "chain_id": "c",
        "ssh_config": str(tmp_path / "ssh_config"),
    }


def test_ours_gets_the_inventory_of_the_demo(cluster: ModuleType, tmp_path: Path) -> None:
    command = cluster.Ours(tmp_path / "ours").command(stage_of(tmp_path), 2)
    inventory = Path(command[1].removeprefix("--inventory="))
    groups = yaml.safe_load(inventory.read_text())
    assert list(groups["k3s_daas_workers"]["hosts"]) == ["worker-1", "worker-2"]
    assert groups["k3s_daas_master"]["hosts"] == {"master": {"ansible_host": "10.0.0.11"}}
    assert (inventory.parent / "group_vars/all.yml").read_text() == (
        PROJECT / "inventories/local/group_vars/all.yml"
    ).read_text()


@pytest.fixture
def field(cluster: ModuleType, tmp_path: Path) -> Any:
    for name in ("k3s", "ansible-playbook", "install.sh"):
        path = tmp_path / "bin" / name
        path.parent.mkdir(exist_ok=True)
        path.write_text("#!/bin/sh\necho 'k3s version v1.34.2+k3s1 (abc)'\n")
        path.chmod(0o755)
    folder = tmp_path / "bin"
    return cluster.K3sAnsible(
        tmp_path / "field", tmp_path / "checkout", tmp_path, folder / "k3s", folder / "install.sh"
    )


def test_theirs_gets_the_same_hosts_and_binary(field: Any, tmp_path: Path) -> None:
    stage = stage_of(tmp_path)
    command = field.command(stage, 3)
    inventory = Path(command[1].removeprefix("--inventory="))
    group = json.loads(inventory.read_text())["k3s_cluster"]
    assert list(group["children"]["agent"]["hosts"]) == ["worker-1", "worker-2", "worker-3"]
    assert list(group["children"]["server"]["hosts"]) == ["master"]
    assert group["vars"]["k3s_version"] == "v1.34.2+k3s1"
    assert (Path(group["vars"]["airgap_dir"]) / "k3s").read_bytes() == (tmp_path / "bin/k3s").read_bytes()
    assert field.token(stage) == field.token(stage) != field.token(stage | {"chain_id": "another"})


def test_our_packages_are_not_shown_to_theirs(
    field: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYTHONPATH", "/ours")
    environment = field.environment(stage_of(tmp_path))
    assert "PYTHONPATH" not in environment
    assert environment["ANSIBLE_FORKS"] == "20"


def test_nobodys_kubeconfig_is_changed(field: Any, tmp_path: Path) -> None:
    environment = field.environment(stage_of(tmp_path))
    assert Path(environment["HOME"]).is_relative_to(tmp_path)
    assert shutil.which("kubectl", path=environment["PATH"]) == f"{environment['HOME']}/bin/kubectl"
    assert subprocess.run(["kubectl"], env=environment, check=False).returncode == 127


def test_a_missing_environment_is_named(cluster: ModuleType, field: Any, tmp_path: Path) -> None:
    (tmp_path / "bin/ansible-playbook").unlink()
    with pytest.raises(SystemExit, match=r"found no .*ansible-playbook; wanted"):
        field.command(stage_of(tmp_path), 1)
