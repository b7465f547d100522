"""What an enclave takes from its parent, and what it makes of it."""

import importlib
import json
import os
import socket
import stat
import threading
from pathlib import Path
from typing import Any

import ansible.module_utils
import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from k3s_daas.enclave import __main__ as command
from k3s_daas.enclave import cluster, configure
from k3s_daas.enclave.cluster import ClusterError
from k3s_daas.enclave.configure import Place
from k3s_daas_master import config

PROJECT = Path(__file__).parents[2]
ID = "0x" + "a1" * 32
GIVEN: dict[str, Any] = {
    "network": "localnet",
    "endpoints": ["http://10.0.0.1:9000"],
    "chain_id": "4btiuiMPvEENsttpZC7CZ53DruC3MAgfznDbASZ7DR6S",
    "package_id": ID,
    "registry_id": ID,
    "address": "10.0.0.11",
    "names": ["master", "k8s.example.com"],
}
# What the role master puts into the image, as far as a configuration needs it.
POLICY = {
    "listen": "0.0.0.0:8443",
    "kubeconfig": "/etc/k3s-daas/kubernetes/kubeconfig",
    "key_file": "/var/lib/k3s-daas-master/sui.key",
    "state_dir": "/var/lib/k3s-daas-master",
    "slashing": "observe",
}


def given_but(**changes: object) -> bytes:
    return json.dumps({key: value for key, value in (GIVEN | changes).items() if value != "-"}).encode()


@pytest.fixture
def place(tmp_path: Path) -> Place:
    (tmp_path / "usr/lib/k3s-daas").mkdir(parents=True)
    (tmp_path / "usr/lib/k3s-daas/master.json").write_text(json.dumps(POLICY))
    return Place(tmp_path)


class TestCluster:
    def test_it_says_ids_and_addresses(self) -> None:
        found = cluster.parse(given_but())
        assert (found.address, found.names, found.operator_cap_id) == ("10.0.0.11", GIVEN["names"], None)

    @pytest.mark.parametrize(
        ("changes", "found"),
        [
            ({"tee_mode": "nitro"}, "tee_mode"),
            ({"slashing": "armed"}, "slashing"),
            ({"nsm_socket": "/x"}, "nsm_socket"),
            ({"registry_id": "-"}, "registry_id"),
            ({"registry_id": "0x1"}, "registry_id"),
            ({"chain_id": "-"}, "chain_id"),
            ({"chain_id": "0"}, "chain_id"),
            ({"address": "master"}, "address"),
            ({"address": "::1"}, "address"),
            ({"address": "10.0.0.1\nK3S=1"}, "address"),
            ({"names": ["a b"]}, "names"),
            ({"names": ["-a"]}, "names"),
            ({"names": ["a\nX=1"]}, "names"),
            ({"names": ["${HOME}"]}, "names"),
            ({"names": ["x"] * 17}, "names"),
            ({"endpoints": []}, "endpoints"),
            ({"endpoints": ["ftp://x"]}, "endpoints"),
            ({"endpoints": ["http://a b"]}, "endpoints"),
            ({"network": "othernet"}, "network"),
        ],
    )
    def test_nothing_else_and_nothing_malformed(self, changes: dict[str, object], found: str) -> None:
        with pytest.raises(ClusterError, match=found):
            cluster.parse(given_but(**changes))

    @given(st.binary(max_size=200))
    @settings(max_examples=100, deadline=None)
    def test_arbitrary_bytes_are_refused(self, text: bytes) -> None:
        with pytest.raises(ClusterError):
            cluster.parse(text)

    def test_deep_or_large_objects_are_refused(self) -> None:
        with pytest.raises(ClusterError):
            cluster.parse(b"[" * 60_000)
        with pytest.raises(ClusterError, match="more than 65536"):
            cluster.parse(b" " * 65_537)

    def test_a_simulated_parent_gives_a_file(self, tmp_path: Path) -> None:
        (tmp_path / "cluster.json").write_bytes(given_but())
        assert cluster.from_parent(tmp_path) == given_but()

    def test_a_simulated_parent_that_says_nothing_is_told_of(self, tmp_path: Path) -> None:
        with pytest.raises(ClusterError, match=r"cluster\.json"):
            cluster.from_parent(tmp_path)

    def test_no_more_is_read_than_may_be(self) -> None:
        ours, theirs = socket.socketpair()
        sender = threading.Thread(target=lambda: (theirs.sendall(b" " * 200_000), theirs.close()))
        sender.start()
        with ours:
            assert cluster.MAX_BYTES < len(cluster.read_all(ours)) < 200_000
        sender.join()


class TestConfigure:
    def test_the_service_takes_what_is_written(self, place: Place) -> None:
        configure.configure(cluster.parse(given_but()), place)
        found = config.load(place("/etc/k3s-daas/master.json"))
        assert (found.tee_mode, found.network, found.registry_id) == ("simulated", "localnet", ID)
        assert found.endpoint == "https://10.0.0.11:8443"
        assert str(found.nsm_socket) == "/run/k3s-daas-parent/nsm.sock"
        assert found.slashing == "observe"

    def test_the_service_states_the_hash_of_all_that_it_was_told(self, place: Place) -> None:
        def stated(**changes: object) -> bytes:
            configure.configure(cluster.parse(given_but(**changes)), place)
            return config.load(place("/etc/k3s-daas/master.json")).cluster_hash

        told = cluster.parse(given_but())
        assert stated() == configure.told_hash(told)
        others: dict[str, object] = {
            "network": "devnet",
            "endpoints": ["http://10.0.0.2:9000"],
            "chain_id": "69WiPg3DAQiwdxfncX6wYQ2siKwAe6L9BZthQea3JNMD",
            "package_id": "0x" + "b2" * 32,
            "original_package_id": "0x" + "b2" * 32,
            "registry_id": "0x" + "b2" * 32,
            "operator_cap_id": "0x" + "b2" * 32,
            "address": "10.0.0.12",
            "names": ["master"],
        }
        assert others.keys() == cluster.Cluster.model_fields.keys()  # whoever adds one adds it to the hash
        found = {
            key: configure.told_hash(cluster.parse(given_but(**{key: value})))
            for key, value in others.items()
        }
        assert len({configure.told_hash(told), *found.values()}) == len(others) + 1
        # On a simulated host devnet has no emulator's socket.
        assert {key: stated(**{key: value}) for key, value in others.items() if key != "network"} == {
            key: value for key, value in found.items() if key != "network"
        }

    def test_policy_is_not_in_the_hash(self, place: Place) -> None:
        configure.configure(cluster.parse(given_but()), place)
        found = config.load(place("/etc/k3s-daas/master.json"))
        assert found.model_copy(update={"slashing": "armed"}).cluster_hash == found.cluster_hash

    def test_addresses_are_all_that_k3s_is_told(self, place: Place) -> None:
        configure.configure(cluster.parse(given_but()), place)
        found = yaml.safe_load(place("/etc/rancher/k3s/config.yaml.d/cluster.yaml").read_text())
        assert found == {
            "node-ip": "10.0.0.11",
            "advertise-address": "10.0.0.11",
            "tls-san": ["10.0.0.11", "master", "k8s.example.com"],
        }

    def test_the_units_environment_has_two_plain_words(self, place: Place) -> None:
        configure.configure(cluster.parse(given_but(names=[])), place)
        assert place("/run/k3s-daas/master.env").read_text() == (
            "K3S_DAAS_ADDRESS=10.0.0.11\nK3S_DAAS_NAME=10.0.0.11\n"
        )

    def test_secrets_are_random_for_root_alone_and_stay(self, place: Place, tmp_path: Path) -> None:
        found = cluster.parse(given_but())
        names = ("/etc/rancher/k3s/agent-token", "/etc/rancher/k3s/encryption.json")
        configure.configure(found, place)
        before = [place(name).read_text() for name in names]
        configure.configure(found, place)
        assert [place(name).read_text() for name in names] == before
        assert [stat.S_IMODE(place(name).stat().st_mode) for name in names] == [0o600, 0o600]
        for name in names:
            place(name).unlink()
        configure.configure(found, place)
        assert {place(name).read_text() for name in names} & set(before) == set()

    def test_the_roles_module_takes_the_encryption_key_for_its_own(self, place: Place) -> None:
        ansible.module_utils.__path__.append(str(PROJECT / "module_utils"))
        module = importlib.import_module("ansible.module_utils.k3s_daas_encryption")
        configure.configure(cluster.parse(given_but()), place)
        keys = module.parse(place("/etc/rancher/k3s/encryption.json").read_text())
        assert [module.number(name) for name, _ in keys] == [1]

    @pytest.mark.skipif(os.geteuid() != 0, reason="making a device needs root")
    def test_with_a_security_module_it_is_nitro_whatever_the_parent_says(
        self, place: Place, tmp_path: Path
    ) -> None:
        (tmp_path / "dev").mkdir()
        os.mknod(tmp_path / "dev/nsm", stat.S_IFCHR | 0o600, os.makedev(1, 3))
        configure.configure(cluster.parse(given_but()), place)
        found = config.load(place("/etc/k3s-daas/master.json"))
        assert (found.tee_mode, found.nsm_socket) == ("nitro", None)
        told = yaml.safe_load(place("/etc/rancher/k3s/config.yaml.d/cluster.yaml").read_text())
        assert told["node-ip"] == configure.NITRO_ADDRESS
        assert told["advertise-address"] == "10.0.0.11"

    def test_a_file_in_the_devices_place_is_no_security_module(self, place: Place, tmp_path: Path) -> None:
        (tmp_path / "dev").mkdir()
        (tmp_path / "dev/nsm").write_text("")
        assert not configure.is_nitro(place)


class TestHeartbeat:
    def test_it_says_b7_and_hears_it(self) -> None:
        ours, theirs = socket.socketpair()
        theirs.sendall(b"\xb7")
        command.heartbeat(ours)
        assert theirs.recv(2) == b"\xb7"

    @pytest.mark.parametrize("answer", [b"\x00", b""])
    def test_another_answer_ends_it(self, answer: bytes) -> None:
        ours, theirs = socket.socketpair()
        theirs.sendall(answer)
        theirs.shutdown(socket.SHUT_WR)
        with pytest.raises(OSError, match="heartbeat"):
            command.heartbeat(ours)

    def test_what_is_wrong_is_said_and_fails(
        self, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        monkeypatch.setattr(command, "from_parent", lambda: b"{}")
        assert command.main(["configure"]) == 1
        assert "registry_id" in capsys.readouterr().err
