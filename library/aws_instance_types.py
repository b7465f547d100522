#!/usr/bin/python
# Copyright the K3s-DaaS authors
# SPDX-License-Identifier: Apache-2.0
"""Read what EC2's instance types can do, which no module of amazon.aws does."""

from __future__ import annotations

DOCUMENTATION = r"""
---
module: aws_instance_types
short_description: Read what EC2's instance types can do, and where they are offered
version_added: "0.1.0"
description:
  - Asks a region for its instance types. Changes nothing.
  - Credentials come from where boto3 looks for them; C(AWS_PROFILE) in the environment picks one.
options:
  names:
    description: The instance types, as V(m5.xlarge).
    type: list
    elements: str
    required: true
  region:
    description: The region that is asked.
    type: str
    required: true
attributes:
  check_mode:
    support: full
    description: Only reads.
  diff_mode:
    support: none
    description: Only reads.
requirements: [boto3]
author:
  - K3s-DaaS authors (@k3s-daas)
"""

EXAMPLES = r"""
- name: Ask for the parent's instance type
  aws_instance_types:
    names: [m5.xlarge]
    region: eu-central-1
  delegate_to: localhost
  register: offered
"""

RETURN = r"""
types:
  description: Those that the region knows, by name, each with C(vcpus), C(enclaves) (whether it can carry a
    Nitro enclave), C(architectures) and the C(zones) that offer it.
  type: dict
  returned: success
  sample: {m5.xlarge: {vcpus: 4, enclaves: true, architectures: [x86_64], zones: [eu-central-1a]}}
"""

import traceback

from ansible.module_utils.basic import AnsibleModule, missing_required_lib

try:
    import boto3
    from botocore.exceptions import BotoCoreError, ClientError
except ImportError:
    MISSING = traceback.format_exc()
else:
    MISSING = ""


def types_of(ec2, names):
    wanted = [{"Name": "instance-type", "Values": names}]
    found = {}
    for page in ec2.get_paginator("describe_instance_types").paginate(Filters=wanted):
        for entry in page["InstanceTypes"]:
            found[entry["InstanceType"]] = {
                "vcpus": entry["VCpuInfo"]["DefaultVCpus"],
                "enclaves": entry.get("NitroEnclavesSupport") == "supported",
                "architectures": entry["ProcessorInfo"]["SupportedArchitectures"],
                "zones": [],
            }
    offers = ec2.get_paginator("describe_instance_type_offerings")
    for page in offers.paginate(LocationType="availability-zone", Filters=wanted):
        for offer in page["InstanceTypeOfferings"]:
            if offer["InstanceType"] in found:
                found[offer["InstanceType"]]["zones"].append(offer["Location"])
    for entry in found.values():
        entry["zones"].sort()
    return found


def main():
    spec = {
        "names": {"type": "list", "elements": "str", "required": True},
        "region": {"type": "str", "required": True},
    }
    module = AnsibleModule(argument_spec=spec, supports_check_mode=True)
    if MISSING:
        module.fail_json(msg=missing_required_lib("boto3"), exception=MISSING)
    region = module.params["region"]
    try:
        types = types_of(boto3.client("ec2", region_name=region), module.params["names"])
    except (BotoCoreError, ClientError) as error:
        module.fail_json(
            msg=f"AWS gave no answer about instance types in {region}: {error}. Wanted credentials with "
            "ec2:DescribeInstanceTypes and ec2:DescribeInstanceTypeOfferings, and a region that exists."
        )
    module.exit_json(changed=False, types=types)


if __name__ == "__main__":
    main()
