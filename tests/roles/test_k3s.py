"""What the roles k3s_binary, k3s_server and k3s_agent make of an inventory, and what they refuse."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

import pytest
import yaml
from ansible.errors import AnsibleFilterError
from hypothesis import given
from hypothesis import strategies as st
from playbook_kit import PROJECT, ansible_playbook

from k3s_daas_master.identity import USER

FILTERS = PROJECT / "filter_plugins/k3s.py"
_SPEC = importlib.util.spec_from_file_location("filters_of_k3s", FILTERS)
assert _SPEC is not None
assert _SPEC.loader is not None
filters = importlib.util.module_from_spec(_SPEC)
_SPEC.loader.exec_module(filters)
STAND_IN = PROJECT / "molecule/resources/standin/k3s"

GROUPS: dict[str, Any] = {
    "k3s_daas_master": {"hosts": {"master": {"ansible_host": "10.0.0.11"}}},
    "k3s_daas_workers": {
        "hosts": {"worker-1": {"ansible_host": "10.0.0.12"}, "worker-2": {"ansible_host": "10.0.0.13"}}
    },
}


def run(
    folder: Path,
    tasks: list[dict[str, Any]],
    groups: dict[str, Any] = GROUPS,
    hosts: str = "all",
    **given: Any,
) -> tuple[int, str]:
    """(exit code, output as one line) of tasks on hosts that are this machine."""
    inventory = {"all": {"vars": {"ansible_connection": "local", **given}, "children": groups}}
    facts = {"service_mgr": "systemd", "architecture": "x86_64", "cacheable": True}
    play = {
        "hosts": hosts,
        "gather_facts": False,
        "tasks": [{"ansible.builtin.set_fact": facts}, *tasks],
    }
    return ansible_playbook(folder, [play], inventory)


def rendered(
    folder: Path, role: str, expression: str, groups: dict[str, Any] = GROUPS, **given: Any
) -> dict[str, Any]:
    """The value of an expression over a role's variables, by host."""
    tasks = [
        # A role's variables come with its tasks; these are those that change nothing.
        {"ansible.builtin.include_role": {"name": role, "tasks_from": "preflight", "public": True}},
        {
            "ansible.builtin.copy": {
                "content": "{{ (" + expression + ") | to_json }}",
                "dest": f"{folder}/{{{{ inventory_hostname }}}}.json",
                "mode": "0600",
            }
        },
    ]
    code, output = run(folder, tasks, groups, k3s_binary_path=str(STAND_IN), **given)
    assert code == 0, output
    return {path.stem: yaml.safe_load(path.read_text()) for path in folder.glob("*.json")}


SERVER = "_k3s_server_config | k3s_config(k3s_server_config, 'k3s_server_config')"
AGENT = "_k3s_agent_config | k3s_config(k3s_agent_config, 'k3s_agent_config')"


def flags(config: dict[str, Any], key: str) -> dict[str, str]:
    pairs = [flag.partition("=") for flag in config[key]]
    assert len({name for name, _, _ in pairs}) == len(pairs)
    return {name: value for name, _, value in pairs}


def test_the_server_s_configuration(tmp_path: Path) -> None:
    config = rendered(tmp_path, "k3s_server", SERVER)["master"]
    assert config["disable-agent"] is True
    assert config["egress-selector-mode"] in ("cluster", "pod"), "what a server without an agent needs"
    assert config["tls-san"] == ["10.0.0.11", "master"]
    assert config["agent-token-file"] == "/etc/rancher/k3s/agent-token"
    assert "token" not in config
    found = flags(config, "kube-apiserver-arg")
    assert found["authentication-token-webhook-version"] == "v1"
    assert found["authentication-token-webhook-cache-ttl"] == "8s"
    assert found["audit-policy-file"] == "/etc/rancher/k3s/audit-policy.yaml"
    sizes = [found[f"audit-log-{name}"] for name in ("maxsize", "maxbackup", "maxage")]
    assert sizes == ["100", "10", "30"]


def test_the_agent_s_configuration_and_the_operator_s_last_word(tmp_path: Path) -> None:
    words = {"kubelet-arg": ["max-pods=50"], "node-ip": "10.9.9.9", "node-label": ["a=b"]}
    told = {"ansible_host": "10.0.0.13", "k3s_agent_config": words}
    workers = {"hosts": {"worker-1": {"ansible_host": "10.0.0.12"}, "worker-2": told}}
    found = rendered(tmp_path, "k3s_agent", AGENT, {**GROUPS, "k3s_daas_workers": workers})

    config = found["worker-1"]
    assert config["server"] == "https://10.0.0.11:6443"
    assert config["token-file"] == "/etc/rancher/k3s/join-token"
    assert (config["node-name"], config["node-ip"]) == ("worker-1", "10.0.0.12")
    assert config["protect-kernel-defaults"] is True
    assert config["docker"] is False
    own = flags(config, "kubelet-arg")
    assert own["max-pods"] == "110"
    assert own["authentication-token-webhook-cache-ttl"] == "10s"

    config = found["worker-2"]
    assert (config["node-ip"], config["node-label"]) == ("10.9.9.9", ["a=b"])
    # Of the flags only what is named.
    assert flags(config, "kubelet-arg") == own | {"max-pods": "50"}


def test_one_variable_tells_agent_and_watcher_the_runtime(tmp_path: Path) -> None:
    told = {
        role: yaml.safe_load((PROJECT / "roles" / role / file).read_text())
        for role, file in (("watcher", "defaults/main.yml"), ("k3s_agent", "vars/main.yml"))
    }
    given = {
        "k3s_agent_runtime": "docker",
        "watcher": told["watcher"]["watcher_runtime"],
        "agent": told["k3s_agent"]["_k3s_agent_config"]["docker"],
    }
    tasks = [{"ansible.builtin.assert": {"that": ["watcher == 'docker'", "agent"]}}]
    code, output = run(tmp_path, tasks, hosts="worker-1", **given)
    assert code == 0, output


class TestMerge:
    OWN: dict[str, Any] = {"tls-san": ["a"], "kubelet-arg": ["x=1", "y=2"]}  # noqa: RUF012 - never changed

    @pytest.mark.parametrize(
        ("operator", "wanted"),
        [
            ([], ["x=1", "y=2"]),
            (["x=3"], ["y=2", "x=3"]),
            (["--x=3"], ["y=2", "--x=3"]),
            ("x=3", ["y=2", "x=3"]),
            (["x=3", "x=4"], ["y=2", "x=3", "x=4"]),
            # As in k3s: beside the role's.
            (["x+=3"], ["x=1", "y=2", "x+=3"]),
            (["z"], ["x=1", "y=2", "z"]),
        ],
    )
    def test_flags(self, operator: Any, wanted: list[str]) -> None:
        assert filters.k3s_config(self.OWN, {"kubelet-arg": operator}, "v")["kubelet-arg"] == wanted

    def test_what_only_the_operator_has_stays(self) -> None:
        merged = filters.k3s_config(self.OWN, {"kube-proxy-arg": ["a=1"], "debug": True}, "v")
        assert (merged["kube-proxy-arg"], merged["debug"], merged["tls-san"]) == (["a=1"], True, ["a"])

    @pytest.mark.parametrize(
        ("operator", "words"),
        [
            ({"--tls-san": "x"}, "Found '--tls-san' in v"),
            ({"tls_san": "x"}, "without dashes in front"),
            ({"kubelet-arg": {"max-pods": 5}}, "wanted a list of flag=value"),
            ({"token": "s3cret"}, "Use token-file"),
            ({"etcd-s3-secret-key": "s3cret"}, "Use etcd-s3-config-secret"),
            ({"datastore-endpoint": "postgres://me:s3cret@db/k3s"}, "K3S_DATASTORE_ENDPOINT"),
            ({"datastore-endpoint": "mysql://me:s3cret@tcp(db:3306)/k3s"}, "K3S_DATASTORE_ENDPOINT"),
        ],
    )
    def test_refusals_say_what_to_do_and_show_no_secret(self, operator: Any, words: str) -> None:
        with pytest.raises(AnsibleFilterError) as refused:
            filters.k3s_config(self.OWN, operator, "v")
        assert words in str(refused.value)
        assert "s3cret" not in str(refused.value)

    def test_an_endpoint_without_a_password_is_fine(self) -> None:
        endpoint = "https://10.0.0.1:2379,https://10.0.0.2:2379"
        assert filters.k3s_config({}, {"datastore-endpoint": endpoint}, "v") == {
            "datastore-endpoint": endpoint
        }


class TestNoProxy:
    def test_on_the_master_all_hosts_and_on_a_worker_the_master(self, tmp_path: Path) -> None:
        found = rendered(
            tmp_path, "k3s_binary", "_k3s_binary_no_proxy", k3s_binary_http_proxy="http://proxy:3128"
        )
        always = {"localhost", "127.0.0.0/8", "::1", ".svc", ".cluster.local", "10.42.0.0/16", "10.43.0.0/16"}
        assert set(found["master"].split(",")) == always | {"10.0.0.11", "10.0.0.12", "10.0.0.13"}
        assert set(found["worker-1"].split(",")) == always | {"10.0.0.11", "10.0.0.12"}

    def test_the_cluster_s_ranges_are_the_server_s(self, tmp_path: Path) -> None:
        ranges = {
            "cluster-cidr": "10.50.0.0/16",
            "service-cidr": "10.51.0.0/16",
            "cluster-domain": "k8s.example",
        }
        master = {"hosts": {"master": {"k3s_server_config": ranges}}}
        groups = {**GROUPS, "k3s_daas_master": master}
        found = rendered(tmp_path, "k3s_binary", "_k3s_binary_no_proxy", groups)["worker-2"].split(",")
        assert {"10.50.0.0/16", "10.51.0.0/16", ".k8s.example"} <= set(found)
        assert "master" in found, "a host without ansible_host goes by its name"
        assert "10.42.0.0/16" not in found

    def test_a_given_range_covers_hosts(self) -> None:
        hosts = ["10.0.0.11", "10.0.0.12", "worker-3", "2001:db8::1"]
        found = filters.k3s_no_proxy(hosts, ["10.0.0.0/24", ".svc", "2001:db8::/64"])
        assert found == "10.0.0.0/24,.svc,2001:db8::/64,worker-3"

    @given(
        st.lists(st.ip_addresses(v=4).map(str)), st.lists(st.sampled_from([".a", "10.0.0.0/8", "0.0.0.0/0"]))
    )
    def test_every_host_is_named_once_or_covered(self, hosts: list[str], ranges: list[str]) -> None:
        found = filters.k3s_no_proxy(hosts, ranges).split(",")
        assert len(found) == len(set(found))
        for host in hosts:
            covered = "0.0.0.0/0" in ranges or ("10.0.0.0/8" in ranges and host.startswith("10."))
            assert (host in found) != covered


REGISTRIES = {"mirrors": {"docker.io": {"endpoint": ["https://mirror.internal"]}}}


REFUSED: list[tuple[dict[str, Any], str]] = [
    (
        {"k3s_binary_path": "", "k3s_binary_version": "v1.33.1+k3s1"},
        'Found no k3s_binary_path, and "" as',
    ),
    ({"k3s_binary_path": "/nowhere/k3s", "k3s_binary_version": "v1.31.9+k3s1"}, "wanted v1.32 or newer"),
    ({"k3s_binary_path": "/nowhere/k3s", "k3s_binary_version": "latest"}, "Found the k3s release latest"),
    ({"k3s_binary_http_proxy": "proxy:3128"}, "wanted http://HOST:PORT"),
    ({"k3s_binary_http_proxy": 'http://a"b:3128'}, "an address of 15 characters"),
    ({"k3s_binary_no_proxy": ["a b"]}, "Found as k3s_binary_http_proxy nothing"),
    (
        {"k3s_binary_path": "", "k3s_binary_http_proxy": "http://me:s3cret@proxy:3128"},
        "Download https://github.com/k3s-io/k3s/releases/download/v1.34.2%2Bk3s1/k3s yourself",
    ),
    ({"k3s_agent_runtime": "podman"}, "Found k3s_agent_runtime podman; wanted containerd or docker"),
    ({"k3s_agent_registries": {"mirror": {}}}, "Found k3s_agent_registries with mirror"),
    (
        {"k3s_agent_registries": REGISTRIES, "k3s_agent_runtime": "docker"},
        "docker reads /etc/docker/daemon.json",
    ),
    ({"k3s_agent_images": ["/nowhere/images.tar"]}, "['/nowhere/images.tar'] are no files here"),
    (
        {"k3s_agent_images": [str(STAND_IN)]},
        "wanted archives on the control node named as k3s imports them",
    ),
    ({"k3s_agent_config": {"token": "s3cret"}}, "Found the secret token in k3s_agent_config"),
]
if not Path("/run/docker.sock").exists():
    REFUSED.append(({"k3s_agent_runtime": "docker"}, "Found no /run/docker.sock on "))
if not Path("/sys/fs/cgroup/cgroup.controllers").exists():
    newer = {"k3s_binary_path": "/nowhere/k3s", "k3s_binary_version": "v1.35.0+k3s1"}
    REFUSED.append((newer, "and the k3s release v1.35.0+k3s1; wanted cgroup v2"))


def test_what_is_refused_before_anything_is_changed(tmp_path: Path) -> None:
    """Every case is a worker of one inventory."""
    stand_in = {"k3s_binary_path": str(STAND_IN)}
    workers = {f"case-{number}": stand_in | given for number, (given, _) in enumerate(REFUSED)}
    said = {"content": "{{ ansible_failed_result.msg }}", "dest": f"{tmp_path}/{{{{ inventory_hostname }}}}"}
    tasks = [
        {
            "block": [{"ansible.builtin.include_role": {"name": "k3s_agent", "tasks_from": "preflight"}}],
            "rescue": [{"ansible.builtin.copy": said | {"mode": "0600"}}],
        }
    ]
    groups = {**GROUPS, "k3s_daas_workers": {"hosts": workers}}
    code, output = run(tmp_path, tasks, groups, hosts="k3s_daas_workers")
    assert code == 0, output
    for number, (told, words) in enumerate(REFUSED):
        path = tmp_path / f"case-{number}"
        assert path.exists(), f"{told} was let through"
        message = " ".join(path.read_text().split())
        assert words in message, told
        assert "s3cret" not in message
    assert "s3cret" not in output


def test_a_good_inventory_passes(tmp_path: Path) -> None:
    archive = tmp_path / "images.tar.zst"
    archive.touch()
    tasks = [
        {"ansible.builtin.include_role": {"name": "k3s_agent", "tasks_from": "preflight"}},
        {"ansible.builtin.assert": {"that": "_k3s_binary_release == 'v1.34.0+k3s-STAND-IN'"}},
    ]
    code, output = run(
        tmp_path,
        tasks,
        hosts="worker-1",
        k3s_binary_path=str(STAND_IN),
        k3s_binary_http_proxy="http://me:p%40ss@proxy.internal:3128",
        k3s_binary_no_proxy=["10.0.0.0/24", ".internal"],
        k3s_agent_images=[str(archive)],
        k3s_agent_registries={**REGISTRIES, "configs": {"mirror.internal": {"auth": {"username": "u"}}}},
    )
    assert code == 0, output


class TestAuditPolicy:
    POLICY = yaml.safe_load((PROJECT / "roles/k3s_server/files/audit-policy.yaml").read_text())

    def test_it_never_logs_a_body(self) -> None:
        assert {rule["level"] for rule in self.POLICY["rules"]} == {"None", "Metadata"}
        assert self.POLICY["rules"][-1] == {"level": "Metadata"}, "what no other rule names"

    def test_what_it_leaves_out_is_named_and_harmless(self) -> None:
        for rule in self.POLICY["rules"][:-1]:
            assert rule["level"] == "None"
            if "resources" not in rule:
                assert rule["verbs"] == ["get"]
                assert rule["nonResourceURLs"]
                continue
            assert rule.get("users") or rule.get("userGroups")
            left_out = {name for group in rule["resources"] for name in group["resources"]}
            if set(rule["verbs"]) <= {"get", "list"}:
                assert left_out <= {"leases", "nodes"}
            else:
                assert set(rule["verbs"]) <= {"get", "update", "patch"}
                assert left_out == {"leases"}
                assert rule["namespaces"]

    def test_it_names_the_master_as_the_master_is_named(self) -> None:
        assert [USER] in [rule.get("users") for rule in self.POLICY["rules"]]


def test_the_release_that_is_pinned_has_its_checksums() -> None:
    defaults = yaml.safe_load((PROJECT / "roles/k3s_binary/defaults/main.yml").read_text())
    known = yaml.safe_load((PROJECT / "roles/k3s_binary/vars/main.yml").read_text())["_k3s_binary_checksums"]
    assert set(known[defaults["k3s_binary_version"]]) == {"x86_64", "aarch64"}
    for sums in known.values():
        assert all(len(value) == 64 and int(value, 16) for value in sums.values())
