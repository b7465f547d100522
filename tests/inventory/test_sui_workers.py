"""What the plugin makes of a registry: hosts, groups and variables; what it leaves out; what it refuses."""

from __future__ import annotations

import cProfile
import json
import re
from pathlib import Path
from typing import Any

import pytest
from ansible.errors import AnsibleError
from ansible.inventory.data import InventoryData
from ansible.parsing.dataloader import DataLoader
from ansible.plugins.loader import inventory_loader
from ansible.template import Templar, is_trusted_as_template
from ansible.vars.manager import VariableManager
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from inventory_kit import OTHER, OWNER, PACKAGE, REGISTRY, SUI, record, view

from k3s_daas.chain import ChainUnreachable, Key, MalformedRecord
from k3s_daas.inventory import FleetView, Named
from k3s_daas.registry import Deployment, WorkerStatus

STATUSES = [status.value for status in WorkerStatus]
STATIC = {"k3s_daas_workers": {"hosts": {"worker-1": {"ansible_host": "10.0.0.12", "rack": "r1"}}}}


def groups(inventory: Any) -> dict[str, list[str]]:
    """The hosts of each group that has any, without the part of the name that all of ours share."""
    found = {name.removeprefix("sui_workers_"): hosts for name, hosts in inventory.get_groups_dict().items()}
    return {name: sorted(hosts) for name, hosts in found.items() if hosts and name != "all"}


def hostvars(inventory: Any, name: str) -> dict[str, Any]:
    """As a play sees them."""
    manager = VariableManager(loader=DataLoader(), inventory=inventory)
    found: dict[str, Any] = manager.get_vars(host=inventory.get_host(name), include_hostvars=False)
    return found


# -- hosts, groups, variables ------------------------------------------------------------------------------


def test_workers_are_hosts_in_groups(parsed: Any, chain: Any, warnings: list[str]) -> None:
    chain.answer = view(
        [
            record("worker-1", reputation=100),
            record("worker-2", status="jailed", reputation=79),
            record("worker-3", status="slashed", owner=OTHER, reputation=9),
        ]
    )
    assert groups(parsed()) == {
        "sui_workers": ["worker-1", "worker-2", "worker-3"],
        "active": ["worker-1"],
        "jailed": ["worker-2"],
        "slashed": ["worker-3"],
        "reputation_good": ["worker-1"],
        "reputation_fair": ["worker-2"],
        "reputation_low": ["worker-3"],
        f"owner_{OWNER}": ["worker-1", "worker-2"],
        f"owner_{OTHER}": ["worker-3"],
        "chain_only": ["worker-1", "worker-2", "worker-3"],
    }
    assert chain.asked == [
        (["http://127.0.0.1:1"], "localnet", Deployment(PACKAGE, REGISTRY), None, 10.0),
    ]
    assert warnings == []


def test_every_status_has_its_group_from_the_start(parsed: Any) -> None:
    inventory = parsed()
    assert {f"sui_workers_{status}" for status in STATUSES} < set(inventory.groups)
    assert inventory.get_hosts("sui_workers_jailed") == []


def test_a_worker_has_its_record_and_where_it_is_from(parsed: Any, chain: Any) -> None:
    chain.answer = view([record("worker-1", stake_mist=3 * SUI)])
    found = hostvars(parsed(), "worker-1")
    assert found["sui_worker"] == chain.answer.model_dump()["workers"]["worker-1"]
    assert found["sui_worker"]["stake_mist"] == 3 * SUI
    assert found["sui_worker_read"] == chain.answer.model_dump()["source"] | {"cached": False}


def test_bands_are_what_the_file_says(parsed: Any, chain: Any) -> None:
    chain.answer = view([record(f"w-{points}", reputation=points) for points in (0, 29, 30, 99, 100)])
    found = groups(parsed(reputation_bands={"full": 100, "some": 30}, owner_groups=False))
    assert {name: hosts for name, hosts in found.items() if "_" in name and "only" not in name} == {
        "sui_workers": sorted(f"w-{points}" for points in (0, 29, 30, 99, 100)),
        "reputation_some": ["w-30", "w-99"],
        "reputation_full": ["w-100"],
    }


def test_a_filter_takes_what_it_names(parsed: Any, chain: Any) -> None:
    chain.answer = view(
        [record("a"), record("b", status="slashed"), record("c", owner=OTHER), record("d", owner=OTHER)]
    )
    hosts = sorted(parsed(owners=[OTHER.upper().replace("X", "x")]).hosts)
    assert hosts == ["c", "d"]
    assert sorted(parsed(statuses=["slashed", "busy"]).hosts) == ["b"]
    assert sorted(parsed(statuses=["slashed"], owners=[OTHER]).hosts) == []
    assert sorted(parsed(before={"all": {"hosts": {"d": {}, "x": {}}}}, known_only=True).hosts) == ["d", "x"]


def test_what_the_file_constructs(parsed: Any, chain: Any) -> None:
    chain.answer = view([record("a", workload=2), record("b", stake_mist=SUI // 2)])
    inventory = parsed(
        strict=True,
        before={"all": {"hosts": {"a": {"rack": "r1"}, "b": {"rack": "r2"}}}},
        compose={
            "stake_sui": "sui_worker.stake_mist / 1000000000",
            "place": "rack ~ '-' ~ inventory_hostname",
        },
        groups={
            "short": "sui_worker.stake_mist < sui_worker.required_stake_mist",
            "placed": "place is defined",
        },
        keyed_groups=[{"key": "rack", "prefix": "rack", "parent_group": "racks"}],
    )
    found = groups(inventory)
    assert {name: found.get(name) for name in ("short", "placed", "rack_r1", "rack_r2", "racks")} == {
        "short": ["b"],
        "placed": ["a", "b"],
        "rack_r1": ["a"],
        "rack_r2": ["b"],
        "racks": ["a", "b"],
    }
    assert (hostvars(inventory, "b")["stake_sui"], hostvars(inventory, "a")["place"]) == (0.5, "r1-a")


def test_what_cant_be_constructed_is_left_out_or_ends_it(parsed: Any, chain: Any) -> None:
    chain.answer = view([record("a")])
    assert "x" not in hostvars(parsed(compose={"x": "nothing.here"}), "a")
    with pytest.raises(AnsibleError, match="Completely failed"):
        parsed(compose={"x": "nothing.here"}, strict=True)


# -- beside other inventories ------------------------------------------------------------------------------


@pytest.mark.parametrize("place", ["before", "after"])
def test_addresses_come_from_elsewhere(parsed: Any, chain: Any, place: str) -> None:
    chain.answer = view([record("worker-1"), record("worker-9")])
    inventory = parsed(**{place: STATIC})
    one, nine = hostvars(inventory, "worker-1"), hostvars(inventory, "worker-9")
    assert (one["ansible_host"], one["rack"], one["sui_worker"]["status"]) == ("10.0.0.12", "r1", "active")
    assert nine["ansible_host"].endswith(".invalid")
    assert "worker-1" in groups(inventory)["k3s_daas_workers"]
    assert groups(inventory)["chain_only"] == (
        ["worker-9"] if place == "before" else ["worker-1", "worker-9"]
    )


def test_a_host_without_an_address_of_its_own_keeps_its_name(parsed: Any, chain: Any) -> None:
    chain.answer = view([record("by-dns")])
    assert "ansible_host" not in hostvars(parsed(before={"all": {"hosts": {"by-dns": {}}}}), "by-dns")


def test_the_file_can_give_addresses_by_a_rule(parsed: Any, chain: Any) -> None:
    chain.answer = view([record("worker-1")])
    inventory = parsed(compose={"ansible_host": "inventory_hostname ~ '.workers.internal'"})
    assert hostvars(inventory, "worker-1")["ansible_host"] == "worker-1.workers.internal"


def test_a_name_in_two_registries_ends_it(parsed: Any, chain: Any, warnings: list[str]) -> None:
    chain.answer = view([record("worker-1")])
    seen = {"sui_worker_read": {"registry_id": "0x1"}}
    with pytest.raises(AnsibleError, match="Completely failed"):
        parsed(before={"all": {"hosts": {"worker-1": seen}}})
    assert "Found worker worker-1 in the registries 0x1 and 0xd4d4" in warnings[0]


# -- hostile -----------------------------------------------------------------------------------------------


def test_names_that_mean_something_else_are_left_out(parsed: Any, chain: Any, warnings: list[str]) -> None:
    names = ["all", "ungrouped", "localhost", "web", "idle", "worker-1"]
    chain.answer = view([record(name, owner=OTHER) for name in names])
    inventory = parsed(
        before={"web": {"hosts": {"w": {}}}}, groups={"idle": "sui_worker.workload == 0"}, compose={"x": "1"}
    )
    assert sorted(inventory.hosts) == ["w", "worker-1"]
    for group in ("all", "ungrouped", "web", "idle"):
        assert inventory.groups[group].vars == {}
    assert inventory.get_host("localhost").vars["ansible_connection"] == "local"
    (warning,) = warnings
    assert "Found workers called all, idle, localhost, ungrouped, web, wanted names" in warning


def test_a_long_list_of_such_names_is_cut(parsed: Any, chain: Any, warnings: list[str]) -> None:
    names = [f"w{number}" for number in range(15)]
    chain.answer = view([record(name) for name in names])
    assert parsed(before={name: {} for name in names}).hosts == {}
    assert "w3, w4 and 5 more, wanted names" in warnings[0]


def test_a_worker_called_like_a_group_made_of_values(parsed: Any, chain: Any) -> None:
    """Only the file's own words are variables and groups; a worker's name can't get at those of a group."""
    chain.answer = view([record("a"), record("active"), record("b")])
    inventory = parsed(
        compose={"mine": "inventory_hostname"},
        groups={"every_one": "true"},
        keyed_groups=[{"key": "sui_worker.status", "prefix": "", "separator": ""}],
    )
    assert sorted(host.name for host in inventory.groups["active"].get_hosts()) == ["a", "active", "b"]
    assert inventory.groups["active"].vars == {}
    assert inventory.get_host("active").vars["mine"] == "active"
    assert sorted(host.name for host in inventory.groups["every_one"].hosts) == ["a", "active", "b"]
    assert inventory.groups["every_one"].child_groups == []


def test_nothing_of_it_is_a_template(parsed: Any, chain: Any, tmp_path: Path) -> None:
    """Were a template to get past the checks, it would stay text."""
    touched = tmp_path / "touched"
    payload = "{{ lookup('ansible.builtin.pipe', 'touch " + str(touched) + "') }}"
    good = view([record("worker-1")])
    worker = good.workers["worker-1"].model_copy(update={"owner": payload, "proof_id": payload})
    chain.answer = good.model_copy(update={"workers": {"worker-1": worker}})
    inventory = parsed(compose={"copy": "sui_worker.proof_id"}, owner_groups=False)
    found = hostvars(inventory, "worker-1")
    assert found["sui_worker"]["owner"] == found["copy"] == payload
    for value in (found["sui_worker"]["owner"], found["copy"], found["sui_worker"]["status"]):
        assert not is_trusted_as_template(value)
        assert Templar(loader=DataLoader(), variables=found).template(value) == value
    assert not touched.exists()
    assert not is_trusted_as_template(inventory.get_host("worker-1").name)


@given(
    st.lists(
        st.from_regex(r"[a-z0-9]([a-z0-9-]{0,12}[a-z0-9])?", fullmatch=True)
        | st.sampled_from(["all", "ungrouped", "localhost", "web", "mine", "0", "1e3", "true", "null", "no"]),
        unique=True,
        max_size=8,
    ),
    st.data(),
)
@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_fleet_makes_hosts_and_touches_nothing_else(
    parsed: Any, chain: Any, names: list[str], data: Any
) -> None:
    chain.answer = view(
        record(
            name,
            status=data.draw(st.sampled_from(STATUSES)),
            owner=data.draw(st.sampled_from([OWNER, OTHER])),
            reputation=data.draw(st.integers(0, 100)),
            stake_mist=data.draw(st.integers(0, 2**64 - 1)),
        )
        for name in names
    )
    static = {"web": {"hosts": {"w": {"ansible_host": "10.0.0.1"}}, "vars": {"port": 80}}}
    inventory = parsed(before=static, groups={"mine": f"sui_worker.owner == '{OWNER}'"})
    taken = {"all", "ungrouped", "localhost", "web", "mine"}
    assert set(inventory.hosts) == set(names) - taken | {"w"}
    assert inventory.groups["web"].vars == {"port": 80}
    assert inventory.get_host("w").vars["ansible_host"] == "10.0.0.1"
    for name in set(names) - taken:
        ours = {key for key in inventory.get_host(name).vars if not key.startswith("inventory_")}
        assert ours - {"ansible_host"} == {"sui_worker", "sui_worker_read"}
        status = chain.answer.workers[name].status
        assert [s for s in STATUSES if name in groups(inventory).get(s, [])] == [status]
    fixed = {"all", "ungrouped", "web", "mine", "sui_workers"}
    assert all(re.fullmatch(r"sui_workers_[a-z0-9_]+", group) for group in set(inventory.groups) - fixed)


class Counted(InventoryData):
    """Counts what is done to it."""

    done = 0

    def _count(self, method: Any, *arguments: Any, **more: Any) -> Any:
        self.done += 1
        return method(*arguments, **more)

    def add_host(self, *arguments: Any, **more: Any) -> Any:
        return self._count(super().add_host, *arguments, **more)

    def add_group(self, *arguments: Any, **more: Any) -> Any:
        return self._count(super().add_group, *arguments, **more)

    def add_child(self, *arguments: Any, **more: Any) -> Any:
        return self._count(super().add_child, *arguments, **more)

    def set_variable(self, *arguments: Any, **more: Any) -> Any:
        return self._count(super().set_variable, *arguments, **more)


def test_ten_thousand_workers_of_as_many_owners(parsed: Any, chain: Any, tmp_path: Path) -> None:
    parsed()  # writes the file
    done = {}
    for count in (100, 10_000):
        chain.answer = view(record(f"worker-{n}", owner=f"0x{n:064x}") for n in range(count))
        inventory = Counted()
        file = str(tmp_path / "b.sui_workers.yml")
        inventory_loader.get("sui_workers").parse(inventory, DataLoader(), file)
        assert len(inventory.groups["sui_workers_active"].hosts) == len(inventory.hosts) == count
        assert len([name for name in inventory.groups if "_owner_" in name]) == count
        done[count] = inventory.done
    # Of a worker: itself, two variables, three groups; of an owner the group, and that it is one of ours.
    assert done[10_000] - done[100] <= 9_900 * 10


def test_ten_times_the_workers_cost_ten_times_as_much(parsed: Any, chain: Any) -> None:
    def calls(count: int) -> int:
        """Of functions, Ansible's and C's among them: what it costs, on any machine."""
        chain.answer = view(record(f"worker-{n}", owner=f"0x{n:064x}") for n in range(count))
        profile = cProfile.Profile()
        profile.enable()
        inventory = parsed(
            compose={"sui": "sui_worker.stake_mist / 1e9"},
            groups={"idle": "sui_worker.workload == 0"},
            keyed_groups=[{"key": "inventory_hostname[-1]", "prefix": "ends"}],
        )
        profile.disable()
        assert len(inventory.groups["idle"].get_hosts()) == count
        return sum(entry.callcount for entry in profile.getstats())

    calls(10)  # what is imported and compiled once
    assert calls(500) < 11 * calls(50)


# -- cache -------------------------------------------------------------------------------------------------


@pytest.fixture
def cached(tmp_path: Path) -> dict[str, Any]:
    return {
        "cache": True,
        "cache_plugin": "ansible.builtin.jsonfile",
        "cache_connection": str(tmp_path / "kept"),
    }


def test_what_is_kept_is_not_asked_again(parsed: Any, chain: Any, cached: Any) -> None:
    chain.answer = view([record("worker-1")])
    assert not hostvars(parsed(**cached), "worker-1")["sui_worker_read"]["cached"]
    chain.answer = view([record("worker-1", status="slashed")], checkpoint=900)
    kept = hostvars(parsed(**cached), "worker-1")
    assert (kept["sui_worker"]["status"], kept["sui_worker_read"]["cached"]) == ("active", True)
    assert kept["sui_worker_read"]["checkpoint"] == 716
    assert len(chain.asked) == 1
    fresh = hostvars(parsed(**cached, flush=True), "worker-1")
    assert (fresh["sui_worker"]["status"], fresh["sui_worker_read"]["cached"]) == ("slashed", False)
    again = hostvars(parsed(**cached), "worker-1")["sui_worker_read"]
    assert (again["checkpoint"], again["cached"], len(chain.asked)) == (900, True, 2)


def test_without_a_cache_every_run_asks(parsed: Any, chain: Any) -> None:
    parsed()
    parsed()
    assert len(chain.asked) == 2


def test_filters_are_not_part_of_what_is_kept(parsed: Any, chain: Any, cached: Any) -> None:
    chain.answer = view([record("a"), record("b", status="slashed")])
    assert sorted(parsed(**cached, statuses=["slashed"]).hosts) == ["b"]
    assert sorted(parsed(**cached).hosts) == ["a", "b"]
    assert len(chain.asked) == 1


@pytest.mark.parametrize(
    "other",
    [{"registry_id": OTHER}, {"package_id": OTHER}, {"network": "devnet"}, {"endpoints": ["http://x:1"]}],
    ids=lambda other: next(iter(other)),
)
def test_another_registry_is_not_answered_from_it(parsed: Any, chain: Any, cached: Any, other: Any) -> None:
    chain.answer = view([record("a")])
    parsed(**cached)
    chain.answer = view([record("b")])
    assert sorted(parsed(**cached | other).hosts) == ["b"]


def test_a_cache_that_somebody_wrote_is_not_believed(
    parsed: Any, chain: Any, cached: Any, tmp_path: Path, warnings: list[str]
) -> None:
    chain.answer = view([record("worker-1")])
    parsed(**cached)
    (file,) = (tmp_path / "kept").iterdir()
    outer = json.loads(file.read_text())
    kept = json.loads(outer["__payload__"])
    kept["workers"]["worker-1"]["ansible_connection"] = "local"
    file.write_text(json.dumps(outer | {"__payload__": json.dumps(kept)}))
    inventory = parsed(**cached)
    assert not hostvars(inventory, "worker-1")["sui_worker_read"]["cached"]
    assert hostvars(inventory, "worker-1").get("ansible_connection") is None
    assert len(chain.asked) == 2
    (warning,) = warnings
    assert "ansible_connection" in warning
    assert "The registry is read from the chain instead" in warning


def test_a_cache_goes_on_where_the_chain_is_out_of_reach(parsed: Any, chain: Any, cached: Any) -> None:
    chain.answer = view([record("worker-1")])
    parsed(**cached)
    chain.answer = ChainUnreachable({"http://x": "down"})
    assert sorted(parsed(**cached).hosts) == ["worker-1"]
    with pytest.raises(AnsibleError, match="Completely failed"):
        parsed(**cached, flush=True)


# -- what is refused ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"registry_id": None, "package_id": None}, "Found none of them; wanted either name and key_file"),
        ({"registry_id": None}, "Found no registry_id beside package_id"),
        ({"package_id": None}, "Found no package_id beside registry_id"),
        ({"name": "fleet"}, "Found name, package_id, registry_id; wanted either"),
        ({"name": "fleet", "registry_id": None, "package_id": None}, "Found no key_file beside name"),
        ({"registry_id": "0xnothing"}, "Found '0xnothing', wanted a Sui address or object id"),
        ({"owners": ["me"]}, "An owner in owners can't be used: Found 'me', wanted a Sui address"),
        ({"statuses": ["gone"]}, "gone"),
        ({"network": "moonnet"}, "moonnet"),
        ({"network": None}, "network"),
        (
            {"reputation_bands": {"low": "0"}},
            "Found 'low': '0' in reputation_bands, wanted a name of letters",
        ),
        ({"reputation_bands": {"low": 101}}, "least reputation in it, 0 to 100"),
        ({"reputation_bands": {"very low": 1}}, "Found 'very low': 1"),
    ],
)
def test_a_file_that_cant_be_meant_ends_it(
    parsed: Any, chain: Any, warnings: list[str], options: Any, told: str
) -> None:
    with pytest.raises(AnsibleError, match="Completely failed"):
        parsed(**options)
    assert any(told in warning for warning in warnings), warnings


@pytest.mark.parametrize(
    "error",
    [
        ChainUnreachable({"http://x": "no route"}),
        MalformedRecord("found 'x', wanted y. Check the package id."),
    ],
    ids=lambda error: type(error).__name__,
)
def test_a_registry_that_cant_be_read_ends_it(
    parsed: Any, chain: Any, warnings: list[str], error: Exception
) -> None:
    """Not with the other sources' hosts alone: what a play excepts by our groups would not be excepted."""
    chain.answer = error
    with pytest.raises(AnsibleError, match="Completely failed"):
        parsed(before=STATIC)
    assert any(f"The registry can't be read: {error}" in warning for warning in warnings)


def test_a_name_that_no_registry_has_gives_no_workers(
    parsed: Any, chain: Any, warnings: list[str], tmp_path: Path
) -> None:
    Key.create(tmp_path / "key")
    chain.answer = FleetView(source=None, workers={})
    by_name = {"name": "fleet", "key_file": str(tmp_path / "key")}
    assert parsed(**by_name, registry_id=None, package_id=None, before=STATIC).get_hosts("sui_workers") == []
    ((*_, where, _, _),) = chain.asked
    assert isinstance(where, Named)
    assert where.name == "fleet"
    assert "Found no registry called 'fleet' that the wallet" in warnings[0]


def test_a_key_that_cant_be_read_is_named(parsed: Any, warnings: list[str], tmp_path: Path) -> None:
    with pytest.raises(AnsibleError, match="Completely failed"):
        parsed(registry_id=None, package_id=None, name="fleet", key_file=str(tmp_path / "nothing"))
    assert any(str(tmp_path / "nothing") in warning for warning in warnings)


def test_options_may_be_templates_and_come_from_the_environment(
    parsed: Any, chain: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SUI_WORKERS_REGISTRY_ID", OTHER)
    monkeypatch.setenv("WHERE", "http://127.0.0.1:2")
    parsed(registry_id=None, endpoints=["{{ lookup('ansible.builtin.env', 'WHERE') }}"])
    assert chain.asked[0][:3] == (["http://127.0.0.1:2"], "localnet", Deployment(PACKAGE, OTHER))


def test_a_file_may_leave_all_of_it_to_the_environment(
    parsed: Any, chain: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """awx/sui_workers.yml does: what a controller's inventory source and its credential set."""
    Key.create(tmp_path / "key")
    given = {"NETWORK": "localnet", "ENDPOINTS": "http://127.0.0.1:2,http://127.0.0.1:3", "NAME": "fleet"}
    given |= {"KEY_FILE": str(tmp_path / "key"), "OWNERS": OTHER}
    for name, value in given.items():
        monkeypatch.setenv(f"SUI_WORKERS_{name}", value)
    chain.answer = view([record("mine", owner=OTHER), record("theirs")])
    none = dict.fromkeys(("network", "endpoints", "package_id", "registry_id"))
    assert [host.name for host in parsed(**none).get_hosts("sui_workers")] == ["mine"]
    ((endpoints, network, where, *_),) = chain.asked
    assert (endpoints, network) == (["http://127.0.0.1:2", "http://127.0.0.1:3"], "localnet")
    assert isinstance(where, Named)
    assert where.name == "fleet"
