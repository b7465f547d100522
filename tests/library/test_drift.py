"""The modules behind playbooks/drift.yml: what a host says, and what becomes of everybody's answers."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import pytest_asyncio
from hypothesis import given
from hypothesis import strategies as st

Run = Callable[..., dict[str, Any]]


@pytest.fixture
def host_info(ansible_module: Callable[[str], ModuleType], monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The module, on a host that has no k3s."""
    module = ansible_module("k3s_daas_host_info")
    monkeypatch.setattr(module, "K3S", "/nonexistent/k3s")
    return module


def program(path: Path, script: str) -> str:
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)
    return str(path)


class TestHostInfo:
    def test_a_bare_host_says_so(self, host_info: ModuleType, run_module: Run, tmp_path: Path) -> None:
        found = run_module("k3s_daas_host_info", seal_token=str(tmp_path / "seal-token"))
        assert not found["failed"]
        assert found["host"] == {"k3s_version": "", "units": {}, "commitment": "", "next_commitment": ""}

    def test_of_a_seal_token_only_the_commitment(
        self, host_info: ModuleType, run_module: Run, tmp_path: Path
    ) -> None:
        path = tmp_path / "seal-token"
        made = run_module("seal_commitment", node_id="worker-1", path=str(path))
        after = run_module("seal_commitment", node_id="worker-1", path=str(path), state="next")
        found = run_module("k3s_daas_host_info", seal_token=str(path))
        assert found["host"]["commitment"] == made["commitment"]
        assert found["host"]["next_commitment"] == after["commitment"]
        assert path.read_text().strip() not in json.dumps(found)

    def test_a_damaged_seal_token_is_told_of_and_not_shown(
        self, host_info: ModuleType, run_module: Run, tmp_path: Path
    ) -> None:
        path = tmp_path / "seal-token"
        path.write_text("canary of a token\n")
        path.chmod(0o600)
        found = run_module("k3s_daas_host_info", seal_token=str(path))
        assert str(path) in found["host"]["seal_trouble"]
        assert "canary" not in json.dumps(found)

    @pytest.mark.parametrize(
        ("script", "version"),
        [
            ("echo 'k3s version v1.34.2+k3s1 (abc)'; echo 'go version go1.24'", "v1.34.2+k3s1"),
            ("echo something else", ""),
            ("exit 1", ""),
        ],
    )
    def test_the_binary_says_its_version(
        self,
        host_info: ModuleType,
        run_module: Run,
        tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch,
        script: str,
        version: str,
    ) -> None:
        monkeypatch.setattr(host_info, "K3S", program(tmp_path / "k3s", script))
        assert run_module("k3s_daas_host_info")["host"]["k3s_version"] == version

    def test_units_as_systemd_prints_them(self, host_info: ModuleType) -> None:
        text = (
            "Id=k3s.service\nActiveState=active\nSubState=running\nUnitFileState=enabled\n\n"
            "Id=gone.service\nActiveState=inactive\nSubState=dead\nUnitFileState=\n"
        )
        assert host_info.parse_units(text) == {
            "k3s.service": {"active": "active", "sub": "running", "enabled": "enabled"},
            "gone.service": {"active": "inactive", "sub": "dead", "enabled": ""},
        }

    @given(text=st.text())
    def test_whatever_systemd_prints_is_read(self, ansible_module: Any, text: str) -> None:
        assert isinstance(ansible_module("k3s_daas_host_info").parse_units(text), dict)

    def test_a_host_without_systemd(
        self, host_info: ModuleType, run_module: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("PATH", str(tmp_path))
        found = run_module("k3s_daas_host_info", units=["k3s.service"])
        assert found["failed"]
        assert "systemd" in found["msg"]

    @pytest.mark.parametrize(
        ("script", "trouble"),
        [
            (
                "echo 'E1 noise' >&2; echo 'The connection to the server was refused' >&2; exit 1",
                "was refused",
            ),
            ("echo '{}'", "something else than nodes"),
            ("echo nonsense", "something else than nodes"),
            ("""echo '{"items": []}'""", "https://127.0.0.1:1/cacerts"),
        ],
    )
    def test_a_cluster_that_does_not_answer(
        self,
        host_info: ModuleType,
        run_module: Run,
        tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch,
        script: str,
        trouble: str,
    ) -> None:
        monkeypatch.setattr(host_info, "K3S", program(tmp_path / "k3s", script))
        found = run_module(
            "k3s_daas_host_info", api_server="https://127.0.0.1:1", endpoint="https://127.0.0.1:2"
        )
        assert not found["failed"]
        assert "cluster" not in found
        assert trouble in found["cluster_trouble"]

    def test_only_https_is_asked(self, host_info: ModuleType, tmp_path: Path) -> None:
        binary = program(tmp_path / "k3s", """echo '{"items": []}'""")
        with pytest.raises(ValueError, match="wanted https://"):
            host_info.cluster_of(binary, "file:///etc", "https://127.0.0.1:2")

    def test_nodes_are_cut_down_to_what_is_compared(self, host_info: ModuleType, tmp_path: Path) -> None:
        ready = {"conditions": [{"type": "Ready", "status": "True"}], "nodeInfo": {"kubeletVersion": "v1"}}
        items = [
            {"metadata": {"name": "a"}, "spec": {"unschedulable": True}, "status": ready},
            {"metadata": {"name": "b"}},
        ]
        (tmp_path / "nodes.json").write_text(json.dumps({"items": items}))
        binary = program(tmp_path / "k3s", f"cat {tmp_path}/nodes.json")
        assert host_info.nodes_of(binary) == {
            "a": {"ready": True, "unschedulable": True, "version": "v1"},
            "b": {"ready": False, "unschedulable": False, "version": ""},
        }


@pytest_asyncio.fixture(loop_scope="session")
async def arguments(fleet: Any) -> dict[str, Any]:
    """What the playbook passes of a registry with one worker, which staked and never joined."""
    staked = await fleet("sui_stake", workers=[{"node_id": "worker-1", "commitment": "01" * 32}])
    assert staked["changed"], staked
    return {
        "name": "test",
        "key_file": str(fleet.key_file),
        **fleet.ids,
        "terms": {
            "open": True,
            "allowed_owners": None,
            "min_stake": "1",
            "slash_window_ms": 0,
            "unbonding_window_ms": 0,
            "slash_share_bps": 5000,
            "require_attestation": False,
            "reward_rates": {},
        },
        "attested": False,
        "master": "master",
        "workers": ["worker-1"],
        "endpoint": "https://10.0.0.11:8443",
        "api_server": "https://10.0.0.11:6443",
        "answers": {
            "master": {"host": None, "cluster": None, "not_asked": []},
            "worker-1": {"host": {"commitment": "01" * 32}, "cluster": None, "not_asked": []},
        },
        "changes": [],
    }


def about(found: dict[str, Any]) -> set[tuple[str, str]]:
    return {(one["who"], one["what"]) for one in found["differences"]}


@pytest.mark.asyncio(loop_scope="session")
class TestDrift:
    async def test_it_reads_the_chain_and_writes_the_report(
        self, fleet: Any, arguments: dict[str, Any], tmp_path: Path
    ) -> None:
        report = tmp_path / "report.json"
        found = await fleet("k3s_daas_drift", **arguments, report=str(report))
        assert not found["failed"], found
        assert not found["changed"]
        # Staked, and never joined; and nobody was appointed.
        assert about(found) == {("worker-1", "status"), ("master", "master")}
        assert found["exit_code"] == 2
        assert "worker-1" in found["table"]
        (line,) = report.read_text().splitlines()
        said = json.loads(line)
        assert said["differences"] == found["differences"]
        assert (said["exit_code"], said["registry"]) == (2, "test")
        assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".")] == []

    async def test_the_registry_is_found_by_its_name_and_its_terms_are_compared(
        self, fleet: Any, arguments: dict[str, Any]
    ) -> None:
        terms = arguments["terms"] | {"unbonding_window_ms": 1, "min_stake": "1.5"}
        by_name = arguments | {"package_id": None, "registry_id": None, "terms": terms}
        found = await fleet("k3s_daas_drift", **by_name)
        assert not found["failed"], found
        assert about(found) >= {("registry", "unbonding_window_ms"), ("registry", "min_stake_mist")}
        nobody = await fleet("k3s_daas_drift", **by_name | {"name": "other"})
        assert [one["who"] for one in nobody["not_asked"]] == ["chain"]
        assert "no registry 'other'" in nobody["not_asked"][0]["why"]

    async def test_a_chain_that_does_not_answer_is_no_failure(
        self, fleet: Any, arguments: dict[str, Any]
    ) -> None:
        found = await fleet("k3s_daas_drift", **arguments | {"endpoints": ["http://127.0.0.1:1"]})
        assert not found["failed"]
        assert (found["exit_code"], about(found)) == (4, set())
        assert "No Sui endpoint answered" in found["not_asked"][0]["why"]

    async def test_whoever_answers_nonsense_was_not_asked(
        self, fleet: Any, arguments: dict[str, Any]
    ) -> None:
        arguments["answers"]["worker-1"]["host"] = {"commitment": 7}
        arguments["answers"]["master"] |= {"cluster": {"nodes": []}, "not_asked": ["no ssh: refused"]}
        found = await fleet("k3s_daas_drift", **arguments)
        assert not found["failed"]
        why = {(one["who"], one["why"].partition(";")[0]) for one in found["not_asked"]}
        assert why == {
            ("worker-1", "its answer (host) has another shape"),
            ("master", "its answer (cluster) has another shape"),
            ("master", "no ssh: refused"),
        }

    async def test_what_roles_would_change_is_a_difference(
        self, fleet: Any, arguments: dict[str, Any]
    ) -> None:
        change = {
            "host": "worker-1",
            "role": "watcher",
            "task": "Write it",
            "what": "/etc/k3s-daas/watcher.json",
        }
        found = await fleet("k3s_daas_drift", **arguments | {"changes": [change]})
        assert ("worker-1", "/etc/k3s-daas/watcher.json") in about(found)

    @pytest.mark.parametrize(
        ("wrong", "words"),
        [
            ({"workers": ["Worker_1"]}, "RFC 1123"),
            ({"report": "/nonexistent/report.json"}, "Can't write the report"),
            ({"registry_id": None}, "required together"),
        ],
    )
    async def test_what_it_refuses(
        self, fleet: Any, arguments: dict[str, Any], wrong: dict[str, Any], words: str
    ) -> None:
        found = await fleet("k3s_daas_drift", **arguments | wrong)
        assert found["failed"]
        assert words in found["msg"]


def test_not_asked_ends_like_a_host_that_is_out_of_reach(run_module: Run) -> None:
    found = run_module("k3s_daas_not_asked", msg="nobody answered")
    assert (found["unreachable"], found["changed"], found["msg"]) == (True, False, "nobody answered")


def test_host_info_runs_with_a_host_s_own_python(tmp_path: Path) -> None:
    """As Ansible sends it: nothing but the standard library and our module_utils is there."""
    project = Path(__file__).parents[2]
    python = shutil.which("python3", path="/usr/bin:/bin")
    if python is None:
        pytest.skip("this machine has no Python of its own")
    for path in (project / "library/k3s_daas_host_info.py", project / "module_utils/k3s_daas_seal.py"):
        text = path.read_text().replace("from ansible.module_utils.k3s_daas_seal", "from k3s_daas_seal")
        (tmp_path / path.name).write_text(
            text.replace("from ansible.module_utils.basic import AnsibleModule", "AnsibleModule = None")
        )
    code = "import k3s_daas_host_info as m; print(m.version_of('/nonexistent'), m.units_of([]))"
    done = subprocess.run(
        [python, "-I", "-c", f"import sys; sys.path.insert(0, {str(tmp_path)!r}); {code}"],
        capture_output=True,
        text=True,
        env={"PATH": os.environ["PATH"]},
        timeout=30,
        check=False,
    )
    assert (done.returncode, done.stdout.split()) == (0, ["{}"]), done.stderr
