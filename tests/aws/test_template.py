"""The stack's template: what AWS's schemas say of it, and what it opens."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from aws_kit import INVENTORIES, REPOSITORY, VARIANTS, ansible, parse

CFN_LINT = (
    *(sys.executable, "-c", "from cfnlint.runner import main; main()", "--regions=eu-central-1"),
    "--ignore-checks=W3010",  # zones by name: a zone's address ranges follow from its letter
)
INVENTORY = REPOSITORY / "inventories"
Resources = Callable[..., dict[str, dict[str, Any]]]
PRIVATE = ("production", "enterprise", "open", "grown")


@pytest.fixture(scope="module")
def ports(resources: Resources) -> Callable[[str], dict[str, set[tuple[str, int, int, str]]]]:
    """Of a variant, by security group: protocol, first and last port, and who may come in."""

    def of(variant: str) -> dict[str, set[tuple[str, int, int, str]]]:
        groups = resources(variant, "AWS::EC2::SecurityGroup")
        found = {
            name: set(map(rule, group.get("SecurityGroupIngress") or [])) for name, group in groups.items()
        }
        for extra in resources(variant, "AWS::EC2::SecurityGroupIngress").values():
            found[extra["GroupId"]["Fn::GetAtt"][0]].add(rule(extra))
        return found

    return of


def rule(entry: dict[str, Any]) -> tuple[str, int, int, str]:
    source = entry.get("CidrIp") or entry["SourceSecurityGroupId"]["Fn::GetAtt"][0]
    return entry["IpProtocol"], entry["FromPort"], entry["ToPort"], source


def test_aws_schemas_know_all_of_it(templates: dict[str, str], tmp_path: Path) -> None:
    pytest.importorskip("cfnlint", reason="cfn-lint isn't installed: run `make .state/aws`")
    for name, template in templates.items():
        (tmp_path / f"{name}.yaml").write_text(template)
    command = [*CFN_LINT, "--format=json", "--"]
    done = subprocess.run(
        [*command, *sorted(tmp_path.glob("*.yaml"))], capture_output=True, text=True, timeout=300, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert json.loads(done.stdout or "[]") == []


def test_a_wrong_property_would_be_found(templates: dict[str, str], tmp_path: Path) -> None:
    pytest.importorskip("cfnlint", reason="cfn-lint isn't installed: run `make .state/aws`")
    wrong = tmp_path / "wrong.yaml"
    wrong.write_text(templates["dev"].replace("EnclaveOptions: {Enabled:", "EnclaveOptions: {Enable:"))
    command = [*CFN_LINT, "--", wrong]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode != 0
    assert "Enable" in done.stdout


@pytest.mark.parametrize("variant", [variant.name for variant in VARIANTS])
def test_it_is_short_enough_for_aws(variant: str, templates: dict[str, str]) -> None:
    assert len(templates[variant].encode()) < 51_200


class TestPorts:
    @pytest.mark.parametrize("inventory", ["production", "enterprise"])
    def test_nothing_else_is_open(self, inventory: str, ports: Any, resources: Resources) -> None:
        (network,) = resources(inventory, "AWS::EC2::VPC").values()
        assert ports(inventory) == {
            "LoadBalancerGroup": {
                ("tcp", 6443, 6443, network["CidrBlock"]),
                ("tcp", 8443, 8443, network["CidrBlock"]),
            },
            "MasterGroup": {
                ("tcp", 6443, 6443, "LoadBalancerGroup"),
                ("tcp", 8443, 8443, "LoadBalancerGroup"),
            },
            "WorkerGroup": {("udp", 8472, 8472, "WorkerGroup")},
        }

    def test_control_node_and_clients_come_in_where_they_are_said_to_be(self, ports: Any) -> None:
        more = {name: ports("open")[name] - ports("production")[name] for name in ports("open")}
        assert more == {
            "LoadBalancerGroup": {
                ("tcp", port, port, cidr) for port in (6443, 8443) for cidr in ("10.8.0.0/16", "10.7.0.0/16")
            },
            "MasterGroup": {("tcp", 22, 22, "10.9.0.0/24")},
            "WorkerGroup": {("tcp", 22, 22, "10.9.0.0/24")},
        }

    def test_in_development_the_master_has_no_load_balancer_before_it(self, ports: Any) -> None:
        assert ports("dev") == {
            "MasterGroup": {("tcp", 6443, 6443, "10.80.0.0/16"), ("tcp", 8443, 8443, "10.80.0.0/16")},
            "WorkerGroup": {("udp", 8472, 8472, "WorkerGroup")},
        }


class TestHosts:
    @pytest.mark.parametrize("variant", PRIVATE)
    def test_none_is_public(self, variant: str, resources: Resources) -> None:
        subnets = resources(variant, "AWS::EC2::Subnet")
        assert not [name for name, subnet in subnets.items() if subnet.get("MapPublicIpOnLaunch")]
        public = {name for name in subnets if name.startswith("PublicSubnet")}
        for group in resources(variant, "AWS::AutoScaling::AutoScalingGroup").values():
            assert public.isdisjoint(subnet["Ref"] for subnet in group["VPCZoneIdentifier"])
        for master in resources(variant, "AWS::EC2::Instance").values():
            assert master["SubnetId"]["Ref"] not in public
            assert "NetworkInterfaces" not in master

    @pytest.mark.parametrize("inventory", INVENTORIES)
    def test_only_a_real_tee_has_an_enclave(self, inventory: str, resources: Resources) -> None:
        masters = resources(inventory, "AWS::EC2::Instance").values()
        assert {master["EnclaveOptions"]["Enabled"] for master in masters} == {inventory != "dev"}

    @pytest.mark.parametrize("variant", [variant.name for variant in VARIANTS])
    def test_disks_are_encrypted_and_metadata_wants_a_token(self, variant: str, resources: Resources) -> None:
        hosts = [
            *resources(variant, "AWS::EC2::Instance").values(),
            *(t["LaunchTemplateData"] for t in resources(variant, "AWS::EC2::LaunchTemplate").values()),
        ]
        assert len(hosts) >= 2
        for host in hosts:
            assert [disk["Ebs"]["Encrypted"] for disk in host["BlockDeviceMappings"]] == [True]
            # One hop: a pod, which is a hop further, gets no answer.
            assert host["MetadataOptions"] == {"HttpTokens": "required", "HttpPutResponseHopLimit": 1}

    def test_workers_have_no_role_and_the_masters_may_nothing(self, resources: Resources) -> None:
        for template in resources("enterprise", "AWS::EC2::LaunchTemplate").values():
            assert "IamInstanceProfile" not in template["LaunchTemplateData"]
        (role,) = resources("enterprise", "AWS::IAM::Role").values()
        assert set(role) == {"RoleName", "AssumeRolePolicyDocument"}

    def test_sealed_state_has_a_bucket_that_the_masters_alone_may_use_over_tls(
        self, resources: Resources, templates: dict[str, str]
    ) -> None:
        (bucket,) = resources("sealed", "AWS::S3::Bucket").values()
        assert bucket["BucketName"] == "k3s-daas-enterprise-111122223333"
        assert set(bucket["PublicAccessBlockConfiguration"].values()) == {True}
        assert len(bucket["PublicAccessBlockConfiguration"]) == 4
        assert bucket["OwnershipControls"]["Rules"] == [{"ObjectOwnership": "BucketOwnerEnforced"}]
        assert bucket["VersioningConfiguration"] == {"Status": "Enabled"}
        (rule,) = bucket["LifecycleConfiguration"]["Rules"]
        assert rule["NoncurrentVersionExpiration"] == {"NoncurrentDays": 7}
        (policy,) = resources("sealed", "AWS::S3::BucketPolicy").values()
        (statement,) = policy["PolicyDocument"]["Statement"]
        assert (statement["Effect"], statement["Action"]) == ("Deny", "s3:*")
        assert statement["Condition"] == {"Bool": {"aws:SecureTransport": "false"}}
        (role,) = resources("sealed", "AWS::IAM::Role").values()
        (given,) = role["Policies"]
        actions = [one["Action"] for one in given["PolicyDocument"]["Statement"]]
        # No version of what it let go of, and nothing of the bucket's own.
        assert actions == ["s3:ListBucket", ["s3:GetObject", "s3:PutObject", "s3:DeleteObject"]]
        assert (
            parse(templates["sealed"])["Resources"]["Snapshots"]["DeletionPolicy"] == "RetainExceptOnCreate"
        )

    def test_the_masters_are_told_of_that_bucket(self, tmp_path: Path) -> None:
        told = {
            "url": "{{ master_snapshot_url }}",
            "kms": "{{ master_snapshot_kms_key }}",
            "metadata": "{{ nitro_parent_metadata_access | string }}",
        }
        key = "arn:aws:kms:eu-central-1:111122223333:key/1234abcd"
        for name in ("production", "enterprise"):
            tasks = [
                {"ansible.builtin.include_vars": {"file": str(INVENTORY / name / "group_vars/all.yml")}},
                {"ansible.builtin.copy": {"content": "{{ told | to_json }}", "dest": str(tmp_path / name)}},
            ]
            play = [{"hosts": "localhost", "gather_facts": False, "vars": {"told": told}, "tasks": tasks}]
            (tmp_path / "play.yml").write_text(yaml.safe_dump(play, width=1000))
            for given, wanted in (
                (key, f"https://k3s-daas-{name}-111122223333.s3.eu-central-1.amazonaws.com/sealed"),
                ("", ""),
            ):
                done = ansible(
                    tmp_path,
                    "ansible-playbook",
                    tmp_path / "play.yml",
                    "-e",
                    f"master_snapshot_kms_key={given}",
                )
                assert done.returncode == 0, done.stdout
                said = json.loads((tmp_path / name).read_text())
                assert said == {"url": wanted, "kms": given, "metadata": str(bool(given))}

    def test_a_standby_is_in_another_zone(self, resources: Resources) -> None:
        subnets = resources("enterprise", "AWS::EC2::Subnet")
        masters = list(resources("enterprise", "AWS::EC2::Instance").values())
        roles = [{tag["Key"]: tag["Value"] for tag in master["Tags"]}["k3s-daas-role"] for master in masters]
        assert roles == ["master", "standby"]
        assert len({subnets[master["SubnetId"]["Ref"]]["AvailabilityZone"] for master in masters}) == 2

    def test_sizes_are_those_of_the_scenarios(self, resources: Resources) -> None:
        found = {
            name: (
                [master["InstanceType"] for master in resources(name, "AWS::EC2::Instance").values()],
                [
                    t["LaunchTemplateData"]["InstanceType"]
                    for t in resources(name, "AWS::EC2::LaunchTemplate").values()
                ],
                [
                    (g["MinSize"], g["MaxSize"])
                    for g in resources(name, "AWS::AutoScaling::AutoScalingGroup").values()
                ],
            )
            for name in INVENTORIES
        }
        assert found == {
            "dev": (["m5.large"], ["t3.medium"], [("2", "2")]),
            "production": (["m5.xlarge"], ["t3.large"], [("5", "20")]),
            "enterprise": (["m5.2xlarge", "m5.2xlarge"], ["c5.large"], [("50", "100")]),
        }


def test_a_master_reaches_itself_by_its_name(resources: Resources) -> None:
    """With the clients' addresses kept, a load balancer doesn't bring a target's packets back to it."""
    for group in resources("enterprise", "AWS::ElasticLoadBalancingV2::TargetGroup").values():
        assert {"Key": "preserve_client_ip.enabled", "Value": "false"} in group["TargetGroupAttributes"]
        assert [target["Id"]["Ref"] for target in group["Targets"]] == ["MasterA", "MasterB"]


class TestAutoscaling:
    def test_each_group_holds_who_comes_and_who_goes(self, resources: Resources) -> None:
        from k3s_daas_autoscaling.scaling import HOOKS

        groups = resources("grown", "AWS::AutoScaling::AutoScalingGroup")
        hooks = resources("grown", "AWS::AutoScaling::LifecycleHook").values()
        found = {(hook["AutoScalingGroupName"]["Ref"], hook["LifecycleHookName"]) for hook in hooks}
        assert found == {(group, hook) for group in groups for hook in HOOKS.values()}
        outcomes = {hook["LifecycleTransition"]: hook["DefaultResult"] for hook in hooks}
        assert outcomes == {
            "autoscaling:EC2_INSTANCE_LAUNCHING": "ABANDON",
            "autoscaling:EC2_INSTANCE_TERMINATING": "CONTINUE",
        }

    def test_the_number_of_workers_is_left_to_it(self, resources: Resources) -> None:
        for group in resources("enterprise", "AWS::AutoScaling::AutoScalingGroup").values():
            assert "DesiredCapacity" not in group
        scaled = resources("grown", "AWS::AutoScaling::ScalingPolicy").values()
        assert [policy["AutoScalingGroupName"]["Ref"] for policy in scaled] == ["WorkersGeneral"]

    def test_workers_are_in_all_zones(self, resources: Resources) -> None:
        (group,) = resources("enterprise", "AWS::AutoScaling::AutoScalingGroup").values()
        assert [subnet["Ref"] for subnet in group["VPCZoneIdentifier"]] == [
            "WorkerSubnetA",
            "WorkerSubnetB",
            "WorkerSubnetC",
        ]

    def test_who_follows_it_may_touch_this_fleet_alone(self, resources: Resources) -> None:
        (policy,) = resources("production", "AWS::IAM::ManagedPolicy").values()
        read, act = policy["PolicyDocument"]["Statement"]
        assert all(":Describe" in action for action in read["Action"])
        assert act["Condition"] == {"StringEquals": {"aws:ResourceTag/k3s-daas-fleet": {"Ref": "Fleet"}}}


def test_a_zone_or_a_group_more_moves_nothing(templates: dict[str, str]) -> None:
    before, after = (parse(templates[name])["Resources"] for name in ("production", "grown"))
    assert set(before) < set(after)
    assert {name for name in before if before[name] != after[name]} == {"LoadBalancer", "WorkersGeneral"}
