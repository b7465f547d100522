"""What the role wants before anything is made: of the inventory alone, and of AWS."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from aws_kit import PUBLIC_KEY, REGION, Aws, ansible

GOOD: dict[str, Any] = {
    "aws_infrastructure_name": "fleet",
    "aws_infrastructure_tee_mode": "nitro",
    "aws_infrastructure_region": REGION,
    "aws_infrastructure_zones": [f"{REGION}a", f"{REGION}b"],
    "aws_infrastructure_ssh_public_key": PUBLIC_KEY,
    "aws_infrastructure_master_image": "ami-0b301ce3ce347599c",
    "aws_infrastructure_worker_image": "ami-000c540e28953ace2",
    "aws_infrastructure_master_type": "m5.xlarge",
    "aws_infrastructure_worker_groups": [{"name": "general", "type": "t3.large", "min": 1, "max": 2}],
}


def group(**changes: Any) -> dict[str, Any]:
    return {"aws_infrastructure_worker_groups": [GOOD["aws_infrastructure_worker_groups"][0] | changes]}


INVENTORY_CASES: dict[str, tuple[dict[str, Any], str]] = {
    "good": ({}, ""),
    "as large as it gets": (
        {"aws_infrastructure_masters": 2, "aws_infrastructure_client_cidrs": ["10.8.0.0/16"]},
        "",
    ),
    "simulated and public": (
        {"aws_infrastructure_tee_mode": "simulated", "aws_infrastructure_public": True},
        "",
    ),
    "a name with a dot": ({"aws_infrastructure_name": "my.fleet"}, "Found the name my.fleet"),
    "no zone": ({"aws_infrastructure_zones": []}, "and the zones none; wanted"),
    "a zone twice": ({"aws_infrastructure_zones": [f"{REGION}a"] * 2}, "zones of that region, each once"),
    "a zone elsewhere": ({"aws_infrastructure_zones": ["us-east-1a"]}, "and the zones us-east-1a; wanted"),
    "a standby without a zone": (
        {"aws_infrastructure_masters": 2, "aws_infrastructure_zones": [f"{REGION}a"]},
        f"Found aws_infrastructure_masters 2 and 1 zones ({REGION}a); wanted at least one master, and a zone "
        "for each",
    ),
    "no master": ({"aws_infrastructure_masters": 0}, "Found aws_infrastructure_masters 0"),
    "no workers": ({"aws_infrastructure_worker_groups": []}, "Found the worker group none"),
    "more at least than at most": (group(min=3), "Found the worker group general with min 3 and max 2"),
    "none at most": (group(min=0, max=0), "0 <= min <= max with max at least 1"),
    "a group's name": (group(name="big-ones"), "Found the worker group big-ones"),
    "a group twice": (
        {"aws_infrastructure_worker_groups": GOOD["aws_infrastructure_worker_groups"] * 2},
        "among general, general; wanted names",
    ),
    "addresses of pods": (
        {"aws_infrastructure_cidr": "10.42.0.0/16"},
        "Found 10.42.0.0/16 within aws_infrastructure_cidr",
    ),
    "addresses of clients": (
        {"aws_infrastructure_client_cidrs": ["10.80.7.0/24"]},
        "Found 10.80.7.0/24 within aws_infrastructure_cidr 10.80.0.0/16",
    ),
    "a small network": (
        {"aws_infrastructure_cidr": "10.80.0.0/20"},
        "Found the address range 10.80.0.0/20, wanted a /16",
    ),
    "no network": ({"aws_infrastructure_cidr": "10.80"}, "Found '10.80', wanted an IPv4 range"),
    "ssh for everybody": (
        {"aws_infrastructure_control_cidrs": ["0.0.0.0/1"]},
        "Found 0.0.0.0/1",
    ),
    "a TEE in public": (
        {"aws_infrastructure_public": True},
        "Found aws_infrastructure_public: true with the TEE mode nitro; wanted hosts without public",
    ),
    "a private key": (
        {"aws_infrastructure_ssh_public_key": "-----BEGIN OPENSSH PRIVATE KEY-----\nb3BlbnNzaC1rZXk"},
        "wanted an ssh-ed25519 or ssh-rsa public key",
    ),
    "no image": (
        {"aws_infrastructure_master_image": ""},
        "Found aws_infrastructure_ssh_public_key 'ssh-ed25519",
    ),
}
AWS_CASES: dict[str, tuple[dict[str, Any], str]] = {
    "a zone that isn't there": (
        {"aws_infrastructure_zones": [f"{REGION}a", f"{REGION}j"]},
        f"Found the zones {REGION}a, {REGION}b, {REGION}c open to this account in {REGION}; "
        f"wanted {REGION}a,",
    ),
    "a type that isn't there": (
        group(type="t3.huge"),
        f"Found the instance type t3.huge in no zone of {REGION}; wanted",
    ),
    "too few vCPUs": (
        {"aws_infrastructure_master_type": "m5.large"},
        "Found aws_infrastructure_master_type m5.large with 2 vCPUs, unable to carry Nitro enclaves; wanted",
    ),
    "no enclaves": (
        {"aws_infrastructure_master_type": "t3.xlarge"},
        "Found aws_infrastructure_master_type t3.xlarge with 4 vCPUs, unable to carry Nitro enclaves",
    ),
    "small and simulated": (
        {"aws_infrastructure_master_type": "m5.large", "aws_infrastructure_tee_mode": "simulated"},
        "",
    ),
    "an image that isn't there": (
        {"aws_infrastructure_worker_image": "ami-0123456789abcdef0"},
        "Found the image ami-0123456789abcdef0 for t3.large nowhere",
    ),
    "an image for others": (
        {"aws_infrastructure_worker_image": "ami-0e9271c829888680e"},
        "Found the image ami-0e9271c829888680e for t3.large available, of the architecture arm64; wanted",
    ),
}


def refusals(
    folder: Path, tasks: str, cases: dict[str, tuple[dict[str, Any], str]], aws: Aws | None = None
) -> dict[str, str]:
    """What each case's checks end with, "" where they pass. One run: Ansible's start takes the time."""
    attempt = folder / "attempt.yml"
    include = {"ansible.builtin.include_role": {"name": "aws_infrastructure", "tasks_from": tasks}}
    failed = (
        "ansible_failed_result.results | default([]) | selectattr('failed', 'true') | map(attribute='msg')"
    )
    said = f"{failed} | first | default(ansible_failed_result.msg)"
    keep = {"refusals": f"{{{{ refusals | default({{}}) | combine({{case: ({said})}}) }}}}"}
    block = {"block": [include], "rescue": [{"ansible.builtin.set_fact": keep}]}
    attempt.write_text(yaml.safe_dump([block], width=1000))
    steps: list[dict[str, Any]] = [
        {"ansible.builtin.include_tasks": str(attempt), "vars": GOOD | changes | {"case": case}}
        for case, (changes, _) in cases.items()
    ]
    content = "{{ refusals | default({}) | to_json }}"
    steps.append({"ansible.builtin.copy": {"content": content, "dest": str(folder / "refusals.json")}})
    play = {
        "hosts": "localhost",
        "gather_facts": False,
        "environment": {"AWS_REGION": REGION},
        "tasks": steps,
    }
    (folder / "play.yml").write_text(yaml.safe_dump([play], width=1000))
    (folder / "nobody.yml").write_text("all: {}")
    command: list[str | Path] = ["ansible-playbook", folder / "play.yml", "-i", folder / "nobody.yml"]
    done = aws.ansible(*command) if aws else ansible(folder, *command)
    assert done.returncode == 0, done.stdout + done.stderr
    found: dict[str, str] = json.loads((folder / "refusals.json").read_text())
    assert found.keys() <= cases.keys()
    return {case: " ".join(found.get(case, "").split()) for case in cases}


def unexpected(cases: dict[str, tuple[dict[str, Any], str]], found: dict[str, str]) -> dict[str, str]:
    """Those that didn't end as they should, with what they said."""
    return {
        case: said for case, said in found.items() if (cases[case][1] not in said if cases[case][1] else said)
    }


def test_the_inventory_is_checked_before_aws_is_asked(tmp_path: Path) -> None:
    found = refusals(tmp_path, "preflight", INVENTORY_CASES)
    assert unexpected(INVENTORY_CASES, found) == {}


def test_aws_is_asked_before_anything_is_made(tmp_path: Path, aws: Aws) -> None:
    found = refusals(tmp_path, "ask", AWS_CASES, aws)
    assert unexpected(AWS_CASES, found) == {}
    assert aws.client("cloudformation").describe_stacks()["Stacks"] == []


@pytest.mark.usefixtures("collection")
def test_a_broken_stack_is_not_touched(tmp_path: Path) -> None:
    status = "UPDATE_ROLLBACK_FAILED"
    stack = {"stack_status": status, "stack_status_reason": "it broke"}
    given = GOOD | {"_aws_infrastructure_found": {"stack_description": stack}}
    (tmp_path / "nobody.yml").write_text("all: {}")
    play = tmp_path / "play.yml"
    include = {"ansible.builtin.include_role": {"name": "aws_infrastructure", "tasks_from": "stack"}}
    play.write_text(
        yaml.safe_dump([{"hosts": "localhost", "gather_facts": False, "vars": given, "tasks": [include]}])
    )
    done = ansible(tmp_path, "ansible-playbook", play, "-i", tmp_path / "nobody.yml")
    output = " ".join((done.stdout + done.stderr).split())
    assert done.returncode != 0
    assert f"Found the stack k3s-daas-fleet in {status} (it broke); wanted one of CREATE_COMPLETE" in output
    assert "Make or change it" not in output
