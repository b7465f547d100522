"""A fleet of the inventory `enterprise` from nothing to nothing, on moto in the place of AWS."""

from __future__ import annotations

import hashlib
import json
import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from aws_kit import INVENTORIES, REGION, REPOSITORY, Aws, ansible, parse

STACK = "k3s-daas-enterprise"
# Of moto's own: Amazon Linux for the masters, another one for the workers.
IMAGES = {
    "aws_infrastructure_master_image": "ami-0b301ce3ce347599c",
    "aws_infrastructure_worker_image": "ami-000c540e28953ace2",
}
# Fewer than in earnest: moto keeps each.
SMALLER = {
    **IMAGES,
    "aws_infrastructure_worker_groups": [{"name": "general", "type": "c5.large", "min": 3, "max": 6}],
}


def play(aws: Aws, playbook: str, *arguments: str, code: int = 0, **given: Any) -> str:
    """Output as one line of a playbook that ends with that code."""
    done = aws.ansible(
        *("ansible-playbook", f"playbooks/{playbook}", "-i", "inventories/enterprise"),
        *("-e", json.dumps(SMALLER | given), *arguments),
    )
    output = " ".join((done.stdout + done.stderr).split())
    assert done.returncode == code, output
    return output


def changed(output: str) -> int:
    found = re.search(r"localhost : ok=\d+ changed=(\d+)", output)
    assert found, output
    return int(found[1])


def left(aws: Aws) -> dict[str, int]:
    """How many of each kind there are, beyond what every account begins with."""
    ec2, scaling = aws.client("ec2"), aws.client("autoscaling")
    instances = ec2.describe_instances(
        Filters=[{"Name": "instance-state-name", "Values": ["pending", "running", "stopping", "stopped"]}]
    )
    nats = ec2.describe_nat_gateways(Filters=[{"Name": "state", "Values": ["pending", "available"]}])
    return {
        "networks": len([vpc for vpc in ec2.describe_vpcs()["Vpcs"] if not vpc["IsDefault"]]),
        "security groups": len(
            [g for g in ec2.describe_security_groups()["SecurityGroups"] if g["GroupName"] != "default"]
        ),
        "instances": sum(len(r["Instances"]) for r in instances["Reservations"]),
        "NAT gateways": len(nats["NatGateways"]),
        "addresses": len(ec2.describe_addresses()["Addresses"]),
        "gateways": len(ec2.describe_internet_gateways()["InternetGateways"]),
        "templates": len(ec2.describe_launch_templates()["LaunchTemplates"]),
        "disks": len(ec2.describe_volumes()["Volumes"]),
        "groups": len(scaling.describe_auto_scaling_groups()["AutoScalingGroups"]),
        "load balancers": len(aws.client("elbv2").describe_load_balancers()["LoadBalancers"]),
        "roles": len(aws.client("iam").list_roles()["Roles"]),
        "profiles": len(aws.client("iam").list_instance_profiles()["InstanceProfiles"]),
        "policies": len(aws.client("iam").list_policies(Scope="Local")["Policies"]),
        "zones": len(aws.client("route53").list_hosted_zones()["HostedZones"]),
    }


@pytest.mark.filterwarnings("ignore:Tried to parse:UserWarning")  # what moto_stacks says it does not know
def test_a_fleet_from_nothing_to_nothing(aws: Aws) -> None:
    nothing = left(aws)
    planned = play(aws, "provision_aws.yml", "--check")
    assert (
        "2 x m5.2xlarge for an enclave, 3 to 6 x c5.large (general), a load balancer, 3 NAT gateway(s)"
        in planned
    )
    assert "New stack would be created" in planned
    assert left(aws) == nothing

    made = play(aws, "provision_aws.yml")
    assert changed(made) == 1
    role = f"arn:aws:iam::123456789012:role/{STACK}-{REGION}-master"
    assert f"Their IAM role is {role}; PCR3 {pcr3(role)} goes beside PCR0" in made
    check_network(aws)
    check_hosts(aws)
    check_inventory(aws)
    check_policy(aws)

    again = play(aws, "provision_aws.yml")
    assert changed(again) == 0
    assert changed(play(aws, "provision_aws.yml", "--check")) == 0
    bigger = {
        "aws_infrastructure_worker_groups": [{"name": "general", "type": "c5.large", "min": 3, "max": 9}]
    }
    assert '"LogicalResourceId": "WorkersGeneral"' in play(aws, "provision_aws.yml", "--check", **bigger)

    # Its hosts are none that could be reset, and there is no chain that could be asked.
    lost = {"confirm": "enterprise", "deprovision_lost_hosts": True, "reset_without_chain": True}
    gone = play(aws, "deprovision_aws.yml", **lost)
    assert changed(gone) == 1
    assert left(aws) == nothing
    assert aws.client("cloudformation").describe_stacks()["Stacks"] == []
    gone = play(aws, "deprovision_aws.yml", **lost)
    assert changed(gone) == 0


def pcr3(role: str) -> str:
    """As nitro-cli's documentation has it: SHA-384 over 48 zero bytes and the role's ARN."""
    return hashlib.sha384(bytes(48) + role.encode()).hexdigest()


def check_network(aws: Aws) -> None:
    """What AWS says is open, which is what it was told and nothing that it adds."""
    ec2 = aws.client("ec2")
    groups = {g["Description"].split(" - ")[0]: g for g in ec2.describe_security_groups()["SecurityGroups"]}
    names = {group["GroupId"]: name for name, group in groups.items()}
    found = {
        name: {
            (p["IpProtocol"], p["FromPort"], p["ToPort"], source)
            for p in group["IpPermissions"]
            for source in [r["CidrIp"] for r in p["IpRanges"]]
            + [names[g["GroupId"]] for g in p["UserIdGroupPairs"]]
        }
        for name, group in groups.items()
        if name in ("Load balancer", "Masters", "Workers")
    }
    assert found == {
        "Load balancer": {("tcp", 6443, 6443, "10.81.0.0/16"), ("tcp", 8443, 8443, "10.81.0.0/16")},
        "Masters": {("tcp", 6443, 6443, "Load balancer"), ("tcp", 8443, 8443, "Load balancer")},
        "Workers": {("udp", 8472, 8472, "Workers")},
    }
    elb = aws.client("elbv2")
    (balancer,) = elb.describe_load_balancers()["LoadBalancers"]
    assert balancer["Scheme"] == "internal"
    listeners = elb.describe_listeners(LoadBalancerArn=balancer["LoadBalancerArn"])["Listeners"]
    # TCP: nothing on the way ends TLS.
    assert {(listener["Protocol"], listener["Port"]) for listener in listeners} == {
        ("TCP", 6443),
        ("TCP", 8443),
    }
    (zone,) = aws.client("route53").list_hosted_zones()["HostedZones"]
    records = aws.client("route53").list_resource_record_sets(HostedZoneId=zone["Id"])["ResourceRecordSets"]
    names = {
        record["Name"].rstrip("."): record["ResourceRecords"]
        for record in records
        if record["Type"] == "CNAME"
    }
    assert names == {"master.enterprise.k3s-daas.internal": [{"Value": balancer["DNSName"]}]}


def check_hosts(aws: Aws) -> None:
    ec2 = aws.client("ec2")
    hosts = [i for r in ec2.describe_instances()["Reservations"] for i in r["Instances"]]
    assert sorted(host["InstanceType"] for host in hosts) == ["c5.large"] * 3 + ["m5.2xlarge"] * 2
    subnets = {subnet["SubnetId"]: subnet for subnet in ec2.describe_subnets()["Subnets"]}
    assert not [host for host in hosts if subnets[host["SubnetId"]]["MapPublicIpOnLaunch"]]
    # moto gives addresses by the subnet's setting alone.
    assert not [host for host in hosts if host.get("PublicIpAddress")]
    workers = [host for host in hosts if host["InstanceType"] == "c5.large"]
    ((template,),) = [ec2.describe_launch_templates()["LaunchTemplates"]]
    (version,) = ec2.describe_launch_template_versions(LaunchTemplateId=template["LaunchTemplateId"])[
        "LaunchTemplateVersions"
    ]
    data = version["LaunchTemplateData"]
    assert data["MetadataOptions"]["HttpTokens"] == "required"
    assert [disk["Ebs"]["Encrypted"] for disk in data["BlockDeviceMappings"]] == [True]
    assert len(workers) == 3
    # moto forgets what it doesn't act on, as enclaves; what it was told is here.
    told = aws.client("cloudformation").get_template(StackName=STACK)["TemplateBody"]
    stack = told if isinstance(told, dict) else parse(told)
    masters = [r["Properties"] for r in stack["Resources"].values() if r["Type"] == "AWS::EC2::Instance"]
    assert [dict(master["EnclaveOptions"]) for master in masters] == [{"Enabled": True}] * 2


def check_inventory(aws: Aws) -> None:
    done = aws.ansible("ansible-inventory", "-i", "inventories/enterprise", "--list")
    assert done.returncode == 0, done.stderr
    # What comes from AWS is marked as such, so that it is never taken for a template.
    found = json.loads(done.stdout, object_hook=lambda entry: entry.get("__ansible_unsafe", entry))
    counts = {
        name: len(found[name]["hosts"])
        for name in ("k3s_daas_master", "k3s_daas_standby", "k3s_daas_workers")
    }
    assert counts == {"k3s_daas_master": 1, "k3s_daas_standby": 1, "k3s_daas_workers": 3}
    for name in found["k3s_daas_workers"]["hosts"]:
        assert re.fullmatch("i-[0-9a-f]{17}", name)
        host = found["_meta"]["hostvars"][name]
        assert host["ansible_host"] == host["k3s_agent_node_ip"]
        assert host["ansible_host"].startswith("10.81.")
        assert host["ansible_user"] == "admin"
        assert host["master_address"] == "master.{{ aws_infrastructure_name }}.k3s-daas.internal"


def check_policy(aws: Aws) -> None:
    """A master isn't replaced unless that is asked for."""
    policy = json.loads(aws.client("cloudformation").get_stack_policy(StackName=STACK)["StackPolicyBody"])
    (denied,) = [entry for entry in policy["Statement"] if entry["Effect"] == "Deny"]
    assert denied["Action"] == ["Update:Replace", "Update:Delete"]
    assert denied["Condition"] == {"StringEquals": {"ResourceType": ["AWS::EC2::Instance"]}}


def test_it_is_not_deprovisioned_by_mistake(tmp_path: Path) -> None:
    inventory = tmp_path / "inventory.yml"
    inventory.write_text(yaml.safe_dump({"all": {"vars": {"k3s_daas_registry_name": "enterprise"}}}))
    for given, found in (({}, "nothing"), ({"confirm": "production"}, "production")):
        done = ansible(
            *(tmp_path, "ansible-playbook", "playbooks/deprovision_aws.yml", "-i", inventory),
            *("-e", json.dumps(given)),
        )
        output = " ".join((done.stdout + done.stderr).split())
        assert done.returncode != 0
        assert (
            f"Found confirm={found}, wanted the registry's name. Run again with -e confirm=enterprise"
            in output
        )
        assert "PLAY [Check what is asked]" in output
        assert output.count("PLAY [") == 1


@pytest.mark.parametrize("inventory", INVENTORIES)
def test_its_inventory_asks_for_the_fleet_that_it_provisions(inventory: str) -> None:
    folder = REPOSITORY / "inventories" / inventory
    asked = yaml.safe_load((folder / "aws_ec2.yml").read_text())
    given = yaml.safe_load((folder / "group_vars/all.yml").read_text())
    assert asked["regions"] == [given["aws_infrastructure_region"]]
    assert given["aws_infrastructure_name"] == "{{ k3s_daas_registry_name }}"
    assert asked["filters"]["tag:k3s-daas-fleet"] == given["k3s_daas_registry_name"] == inventory


def test_operators_get_the_collection_that_is_tested(collection: Path) -> None:
    manifest = collection / "MANIFEST.json"
    listed = yaml.safe_load((REPOSITORY / "requirements/collections.yml").read_text())["collections"]
    wanted = {one["name"]: one["version"] for one in listed}
    assert json.loads(manifest.read_text())["collection_info"]["version"] == wanted["amazon.aws"]
