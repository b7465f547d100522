"""Workers that AWS launches join, those that it takes away leave first.

AWS and the playbooks are doubles here; what is said to AWS is held against botocore's own model of it, and
the playbooks' command lines come to a program that notes them.
"""

from __future__ import annotations

import json
import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("botocore", reason="boto3 isn't installed: run `make .state/aws`")

from aws_kit import ansible

from k3s_daas_autoscaling.config import Config, ConfigError, load
from k3s_daas_autoscaling.heartbeats import Heartbeats
from k3s_daas_autoscaling.passes import Pass
from k3s_daas_autoscaling.plays import AnsiblePlays, PlayFailed
from k3s_daas_autoscaling.scaling import GOING, LAUNCHED, AwsScaling, Instance, ScalingError
from k3s_daas_autoscaling.state import State, StateError, StateFile

OLD, NEW, OTHER = "i-0000000000000000a", "i-0000000000000000b", "i-0000000000000000c"
NOW_MS = 1_795_000_000_000
LATER_MS = NOW_MS + 604_800_000


@dataclass
class FakeScaling:
    """:class:`Scaling` that holds what the test says, and notes what it is told."""

    states: dict[str, str] = field(default_factory=dict)
    refused: set[str] = field(default_factory=set)
    went_on: list[str] = field(default_factory=list)
    beats: list[str] = field(default_factory=list)
    on_beat: threading.Event = field(default_factory=threading.Event)

    def instances(self) -> list[Instance]:
        return [Instance(node_id, "group", state) for node_id, state in self.states.items()]

    def heartbeat(self, instance: Instance) -> None:
        self.beats.append(instance.node_id)
        self.on_beat.set()

    def go_on(self, instance: Instance) -> None:
        if instance.node_id in self.refused:
            raise ScalingError("refused")
        self.went_on.append(instance.node_id)


@dataclass
class FakePlays:
    """:class:`Plays` that does what the test says, and notes what it was asked."""

    withdrawable_at_ms: int = LATER_MS
    failing: set[str] = field(default_factory=set)
    ran: list[tuple[str, ...]] = field(default_factory=list)

    def join(self, node_ids: list[str]) -> None:
        self.ran.append(("join", *node_ids))
        if self.failing & set(node_ids):
            raise PlayFailed("it failed")

    def leave(self, node_id: str) -> int:
        self.ran.append(("leave", node_id))
        if node_id in self.failing:
            raise PlayFailed("it failed")
        return self.withdrawable_at_ms


@dataclass
class Fleet:
    scaling: FakeScaling
    plays: FakePlays
    states: StateFile

    def run(self, now_ms: int = NOW_MS, **states: str) -> bool:
        """One pass over instances in these states; underscores for the id's dashes."""
        self.scaling.states = {node_id.replace("_", "-"): state for node_id, state in states.items()}
        self.plays.ran.clear()
        self.scaling.went_on.clear()
        return Pass(self.scaling, self.plays, self.states, now_ms, heartbeat_s=60).run()


@pytest.fixture
def fleet(tmp_path: Path) -> Fleet:
    return Fleet(FakeScaling(), FakePlays(), StateFile(tmp_path))


OLD_, NEW_, OTHER_ = (node_id.replace("-", "_") for node_id in (OLD, NEW, OTHER))


class TestComing:
    def test_all_that_are_held_join_in_one_run_and_aws_goes_on(self, fleet: Fleet) -> None:
        assert fleet.run(**{OLD_: "InService", NEW_: LAUNCHED, OTHER_: LAUNCHED})
        assert fleet.plays.ran == [("join", NEW, OTHER)]
        assert fleet.scaling.went_on == [NEW, OTHER]
        assert fleet.states.load() == State()

    def test_nothing_runs_when_none_is_held(self, fleet: Fleet) -> None:
        assert fleet.run(**{OLD_: "InService", NEW_: "Pending", OTHER_: "Terminating:Proceed"})
        assert fleet.plays.ran == []

    def test_a_run_that_failed_is_tried_again(self, fleet: Fleet) -> None:
        fleet.plays.failing = {NEW}
        assert not fleet.run(**{NEW_: LAUNCHED})
        assert fleet.scaling.went_on == []
        fleet.plays.failing = set()
        assert fleet.run(**{NEW_: LAUNCHED})
        assert fleet.scaling.went_on == [NEW]

    @pytest.mark.parametrize("then", [{}, {NEW_: "Terminating"}, {NEW_: "Terminated"}])
    def test_one_that_aws_gave_up_may_have_staked_and_leaves(
        self, fleet: Fleet, then: dict[str, str]
    ) -> None:
        fleet.plays.failing = {NEW}
        assert not fleet.run(**{NEW_: LAUNCHED})
        fleet.plays.failing = set()
        assert fleet.run(**then)
        assert fleet.plays.ran == [("leave", NEW)]
        assert fleet.states.load() == State(leaving={NEW: LATER_MS})

    def test_one_that_somebody_let_go_on_stays(self, fleet: Fleet) -> None:
        fleet.plays.failing = {NEW}
        assert not fleet.run(**{NEW_: LAUNCHED})
        assert fleet.run(**{NEW_: "InService"})
        assert fleet.plays.ran == []
        assert fleet.states.load() == State()

    def test_aws_refuses_to_go_on(self, fleet: Fleet) -> None:
        fleet.scaling.refused = {NEW}
        assert not fleet.run(**{NEW_: LAUNCHED, OTHER_: LAUNCHED})
        assert fleet.scaling.went_on == [OTHER]
        assert fleet.states.load() == State(coming={NEW})


class TestGoing:
    def test_it_leaves_before_aws_goes_on(self, fleet: Fleet) -> None:
        assert fleet.run(**{OLD_: GOING})
        assert fleet.plays.ran == [("leave", OLD)]
        assert fleet.scaling.went_on == [OLD]

    def test_a_drain_that_fails_holds_it(self, fleet: Fleet) -> None:
        fleet.plays.failing = {OLD}
        assert not fleet.run(**{OLD_: GOING})
        assert fleet.scaling.went_on == []
        assert fleet.states.load() == State(leaving={OLD: 0})

    def test_the_stake_is_withdrawn_when_its_window_is_over(self, fleet: Fleet) -> None:
        assert fleet.run(**{OLD_: GOING})
        assert fleet.run()
        assert fleet.plays.ran == []
        fleet.plays.withdrawable_at_ms = 0
        assert fleet.run(LATER_MS)
        assert fleet.plays.ran == [("leave", OLD)]
        assert fleet.states.load() == State()

    def test_one_whose_instance_went_without_it_leaves_all_the_same(self, fleet: Fleet) -> None:
        fleet.plays.failing = {OLD}
        assert not fleet.run(**{OLD_: GOING})
        fleet.plays.failing = set()
        assert fleet.run()
        assert fleet.plays.ran == [("leave", OLD)]

    def test_aws_that_refused_is_told_again_and_the_worker_is_not_drained_twice(self, fleet: Fleet) -> None:
        fleet.scaling.refused = {OLD}
        assert not fleet.run(**{OLD_: GOING})
        fleet.scaling.refused = set()
        assert fleet.run(**{OLD_: GOING})
        assert fleet.plays.ran == []
        assert fleet.scaling.went_on == [OLD]

    def test_one_that_fails_holds_back_no_other(self, fleet: Fleet) -> None:
        fleet.plays.failing = {OLD}
        assert not fleet.run(**{OLD_: GOING, OTHER_: GOING})
        assert fleet.scaling.went_on == [OTHER]

    def test_who_comes_waits_until_who_left_is_gone(self, fleet: Fleet) -> None:
        """workers.yml refuses while a worker that left is in the inventory."""
        assert fleet.run(**{OLD_: GOING, NEW_: LAUNCHED})
        assert fleet.plays.ran == [("leave", OLD)]
        assert fleet.run(**{NEW_: LAUNCHED})
        assert fleet.plays.ran == [("join", NEW)]

    def test_who_can_not_leave_holds_back_nobody_who_comes(self, fleet: Fleet) -> None:
        fleet.plays.failing = {OLD}
        assert not fleet.run(**{OLD_: GOING, NEW_: LAUNCHED})
        assert fleet.plays.ran == [("leave", OLD), ("join", NEW)]
        assert fleet.scaling.went_on == [NEW]


class TestState:
    def test_it_is_written_before_the_first_play(self, fleet: Fleet) -> None:
        def killed(node_id: str) -> int:
            assert fleet.states.load() == State(leaving={OLD: 0})
            raise KeyboardInterrupt

        fleet.plays.leave = killed  # type: ignore[method-assign]
        with pytest.raises(KeyboardInterrupt):
            fleet.run(**{OLD_: GOING})
        assert fleet.states.load() == State(leaving={OLD: 0})

    @pytest.mark.parametrize("content", ["", "{", '{"leaving": {"i-1": "soon"}}', '{"other": 1}'])
    def test_one_that_is_not_ours_is_not_thrown_away(
        self, fleet: Fleet, tmp_path: Path, content: str
    ) -> None:
        (tmp_path / "state.json").write_text(content)
        with pytest.raises(StateError, match=r"Found .*state.json unreadable.*stakes to withdraw"):
            fleet.run(**{OLD_: GOING})
        assert (tmp_path / "state.json").read_text() == content
        assert fleet.plays.ran == []


class TestHeartbeats:
    def test_what_is_held_gets_them_while_a_play_runs(self, fleet: Fleet) -> None:
        def slow(node_id: str) -> int:
            assert fleet.scaling.on_beat.wait(30)
            return LATER_MS

        fleet.plays.leave = slow  # type: ignore[method-assign]
        assert fleet.run(**{OLD_: GOING, OTHER_: "InService"})
        assert set(fleet.scaling.beats) == {OLD}

    def test_one_that_comes_meanwhile_gets_them_too(self) -> None:
        scaling = FakeScaling()
        with Heartbeats(scaling, 0.001):
            scaling.states = {NEW: LAUNCHED}
            assert scaling.on_beat.wait(30)

    def test_aws_out_of_reach_ends_nothing(self, caplog: pytest.LogCaptureFixture) -> None:
        tried, answered = threading.Event(), threading.Event()

        class Broken(FakeScaling):
            def instances(self) -> list[Instance]:
                if not tried.is_set():
                    tried.set()
                    raise ScalingError("no route")
                answered.set()
                return []

        with Heartbeats(Broken(), 0.001):
            assert answered.wait(30)
        assert "no heartbeats: no route" in caplog.text


class TestAws:
    """Against botocore's model of the service: an unknown parameter, or one of a wrong type, fails."""

    @pytest.fixture
    def stubbed(self, monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[AwsScaling, Any]]:
        import boto3
        from botocore.stub import Stubber

        for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
            monkeypatch.setenv(name, "none")
        client = boto3.client("autoscaling", "eu-central-1")
        with Stubber(client) as stub:
            yield AwsScaling(client, "production"), stub
            stub.assert_no_pending_responses()

    def test_it_asks_for_the_fleets_groups_page_by_page(self, stubbed: tuple[AwsScaling, Any]) -> None:
        scaling, stub = stubbed
        asked = {"Filters": [{"Name": "tag:k3s-daas-fleet", "Values": ["production"]}]}
        stub.add_response(
            "describe_auto_scaling_groups", page("one", {OLD: GOING}) | {"NextToken": "more"}, asked
        )
        stub.add_response(
            "describe_auto_scaling_groups", page("two", {NEW: LAUNCHED}), asked | {"NextToken": "more"}
        )
        assert scaling.instances() == [Instance(OLD, "one", GOING), Instance(NEW, "two", LAUNCHED)]

    @pytest.mark.parametrize(
        ("state", "hook"), [(LAUNCHED, "k3s-daas-launch"), (GOING, "k3s-daas-terminate")]
    )
    def test_it_names_hook_and_instance(self, stubbed: tuple[AwsScaling, Any], state: str, hook: str) -> None:
        scaling, stub = stubbed
        names = {"AutoScalingGroupName": "one", "LifecycleHookName": hook, "InstanceId": OLD}
        stub.add_response("record_lifecycle_action_heartbeat", {}, names)
        stub.add_response("complete_lifecycle_action", {}, names | {"LifecycleActionResult": "CONTINUE"})
        scaling.heartbeat(Instance(OLD, "one", state))
        scaling.go_on(Instance(OLD, "one", state))

    def test_one_that_went_on_by_itself_is_as_good(self, stubbed: tuple[AwsScaling, Any]) -> None:
        scaling, stub = stubbed
        over = {
            "service_error_code": "ValidationError",
            "service_message": "No active Lifecycle Action found",
        }
        stub.add_client_error("complete_lifecycle_action", **over)
        stub.add_client_error("record_lifecycle_action_heartbeat", **over)
        scaling.go_on(Instance(OLD, "one", GOING))
        scaling.heartbeat(Instance(OLD, "one", GOING))

    def test_a_refusal_is_an_error(self, stubbed: tuple[AwsScaling, Any]) -> None:
        scaling, stub = stubbed
        stub.add_client_error("complete_lifecycle_action", service_error_code="AccessDenied")
        stub.add_client_error("describe_auto_scaling_groups", service_error_code="AccessDenied")
        with pytest.raises(ScalingError, match=f"didn't go on with {OLD}.*AccessDenied"):
            scaling.go_on(Instance(OLD, "one", GOING))
        with pytest.raises(ScalingError, match=r"AccessDenied.*Wanted credentials with the policy"):
            scaling.instances()


def page(group: str, instances: dict[str, str]) -> dict[str, Any]:
    common = {"AvailabilityZone": "eu-central-1a", "HealthStatus": "Healthy", "ProtectedFromScaleIn": False}
    return {
        "AutoScalingGroups": [
            {
                **{"AutoScalingGroupName": group, "MinSize": 1, "MaxSize": 2, "DesiredCapacity": 1},
                **{"DefaultCooldown": 300, "AvailabilityZones": ["eu-central-1a"], "HealthCheckType": "EC2"},
                "CreatedTime": 0,
                "Instances": [{"InstanceId": i, "LifecycleState": s} | common for i, s in instances.items()],
            }
        ]
    }


class TestPlays:
    """`ansible-playbook` is a program here that notes its command line, and writes the report if told to."""

    @pytest.fixture
    def config(self, tmp_path: Path) -> Config:
        program = tmp_path / "ansible-playbook"
        program.write_text(
            f"#!{sys.executable}\n"
            "import json, pathlib, sys\n"
            f"here = pathlib.Path({str(tmp_path)!r})\n"
            "given = json.loads(sys.argv[sys.argv.index('-e') + 1])\n"
            "extra = [json.load(open(a)) for a in sys.argv if a.endswith('leaving.json')]\n"
            "noted = {'argv': sys.argv[1:], 'cwd': str(pathlib.Path.cwd()), 'given': given, 'extra': extra}\n"
            "(here / 'noted.json').write_text(json.dumps(noted))\n"
            "answer = here / 'answer'\n"
            "if 'exit_report' in given and answer.exists():\n"
            "    pathlib.Path(given['exit_report']).write_text(answer.read_text())\n"
            "sys.exit(int((here / 'code').read_text()))\n"
        )
        program.chmod(0o755)
        (tmp_path / "code").write_text("0")
        return Config(
            fleet="production",
            region="eu-central-1",
            project=tmp_path,
            inventory=Path("inventories/production"),
            ansible_playbook=program,
            state_dir=tmp_path,
        )

    def noted(self, config: Config) -> dict[str, Any]:
        found: dict[str, Any] = json.loads((config.project / "noted.json").read_text())
        assert found["cwd"] == str(config.project)
        return found

    def test_workers_wait_for_those_that_come(self, config: Config) -> None:
        AnsiblePlays(config).join([NEW, OTHER])
        noted = self.noted(config)
        assert noted["argv"][:3] == ["playbooks/workers.yml", "-i", "inventories/production"]
        assert noted["given"] == {"master_wanted_workers": [NEW, OTHER], "contracts_confirm": False}

    def test_one_that_goes_is_in_the_inventory_even_when_its_instance_is_not(self, config: Config) -> None:
        (config.project / "answer").write_text(json.dumps({"node_id": OLD, "withdrawable_at_ms": LATER_MS}))
        assert AnsiblePlays(config).leave(OLD) == LATER_MS
        noted = self.noted(config)
        assert noted["argv"][0] == "playbooks/exit.yml"
        # Before the real one, whose address of an instance that is there has the last word.
        assert [Path(noted["argv"][i + 1]).name for i, a in enumerate(noted["argv"]) if a == "-i"] == [
            "leaving.json",
            "production",
        ]
        assert noted["extra"] == [{"k3s_daas_workers": {"hosts": {OLD: {"ansible_host": f"{OLD}.invalid"}}}}]
        assert noted["given"]["node_id"] == noted["given"]["confirm"] == OLD

    @pytest.mark.parametrize(
        ("known", "address"), [({OLD: {"ansible_host": "10.80.32.7"}}, "10.80.32.7"), ({}, "")]
    )
    def test_its_address_is_that_of_ec2_or_nobodys(
        self, config: Config, tmp_path: Path, known: dict[str, Any], address: str
    ) -> None:
        """By Ansible itself, with what the program was given."""
        (config.project / "answer").write_text(json.dumps({"withdrawable_at_ms": 0}))
        AnsiblePlays(config).leave(OLD)
        (tmp_path / "leaving.json").write_text(json.dumps(self.noted(config)["extra"][0]))
        (tmp_path / "ec2.json").write_text(json.dumps({"k3s_daas_workers": {"hosts": known}}))
        inventories = [option for name in ("leaving", "ec2") for option in ("-i", tmp_path / f"{name}.json")]
        done = ansible(tmp_path, "ansible-inventory", *inventories, "--host", OLD)
        assert json.loads(done.stdout)["ansible_host"] == (address or f"{OLD}.invalid")

    @pytest.mark.parametrize("answer", [None, "", "[]", '{"withdrawable_at_ms": null}'])
    def test_an_exit_without_a_report_is_none(self, config: Config, answer: str | None) -> None:
        if answer is not None:
            (config.project / "answer").write_text(answer)
        with pytest.raises(PlayFailed, match="left no report"):
            AnsiblePlays(config).leave(OLD)

    def test_a_playbook_that_fails_says_so(self, config: Config) -> None:
        (config.project / "code").write_text("2")
        with pytest.raises(PlayFailed, match=r"workers.yml ended with 2"):
            AnsiblePlays(config).join([NEW])

    def test_a_playbook_that_can_not_be_run(self, config: Config) -> None:
        config.ansible_playbook.unlink()
        with pytest.raises(PlayFailed, match="can't be run: No such file"):
            AnsiblePlays(config).join([NEW])

    @pytest.mark.parametrize("name", ["", "worker-1", "i-1; rm -rf /", "i-0000000000000000a\n", "-i"])
    def test_a_name_that_is_no_instance_is_never_given_to_ansible(self, config: Config, name: str) -> None:
        with pytest.raises(PlayFailed, match="as an instance's id"):
            AnsiblePlays(config).leave(name)
        assert not (config.project / "noted.json").exists()


class TestConfig:
    def test_a_missing_file(self, tmp_path: Path) -> None:
        with pytest.raises(ConfigError, match=r"no readable .*No such file.*Run playbooks/autoscaling.yml"):
            load(tmp_path / "absent.json")

    @pytest.mark.parametrize(
        ("content", "found"),
        [("{", "all of it: Invalid JSON"), ("{}", "fleet: Field required"), ('{"flet": 1}', "flet: Extra")],
    )
    def test_a_wrong_one_is_told_by_name(self, tmp_path: Path, content: str, found: str) -> None:
        (tmp_path / "c.json").write_text(content)
        with pytest.raises(ConfigError, match=found):
            load(tmp_path / "c.json")
