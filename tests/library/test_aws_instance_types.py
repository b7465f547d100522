"""What the module says of EC2's answers. botocore's Stubber stands in for AWS."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from types import ModuleType
from typing import Any

import pytest

boto3 = pytest.importorskip("boto3", reason="boto3 isn't installed: run `make .state/aws`")
NAMES = ["m5.xlarge", "t3.large"]
FILTER = [{"Name": "instance-type", "Values": NAMES}]


def kind(name: str, vcpus: int, enclaves: str) -> dict[str, Any]:
    return {
        "InstanceType": name,
        "VCpuInfo": {"DefaultVCpus": vcpus},
        "ProcessorInfo": {"SupportedArchitectures": ["x86_64"]},
        "NitroEnclavesSupport": enclaves,
    }


@pytest.fixture
def ec2(ansible_module: Callable[[str], ModuleType], monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """The Stubber of the client that the module will get."""
    from botocore.stub import Stubber

    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "none")
    client = boto3.client("ec2", region_name="eu-central-1")
    module = ansible_module("aws_instance_types")
    asked: list[tuple[str, str]] = []

    def get(service: str, region_name: str) -> Any:
        asked.append((service, region_name))
        return client

    monkeypatch.setattr(module, "boto3", type("boto3", (), {"client": staticmethod(get)}))
    with Stubber(client) as stub:
        yield stub
        stub.assert_no_pending_responses()
        assert asked == [("ec2", "eu-central-1")]


def test_what_ec2_says_of_all_pages(ec2: Any, run_module: Callable[..., dict[str, Any]]) -> None:
    ec2.add_response(
        "describe_instance_types",
        {"InstanceTypes": [kind("m5.xlarge", 4, "supported")], "NextToken": "more"},
        {"Filters": FILTER},
    )
    ec2.add_response(
        "describe_instance_types",
        {"InstanceTypes": [kind("t3.large", 2, "unsupported")]},
        {"Filters": FILTER, "NextToken": "more"},
    )
    offers = [("m5.xlarge", "eu-central-1b"), ("m5.xlarge", "eu-central-1a"), ("t3.large", "eu-central-1a")]
    ec2.add_response(
        "describe_instance_type_offerings",
        {"InstanceTypeOfferings": [{"InstanceType": name, "Location": zone} for name, zone in offers]},
        {"Filters": FILTER, "LocationType": "availability-zone"},
    )
    result = run_module("aws_instance_types", check=True, names=NAMES, region="eu-central-1")
    assert not result["changed"]
    assert result["types"] == {
        "m5.xlarge": {
            "vcpus": 4,
            "enclaves": True,
            "architectures": ["x86_64"],
            "zones": ["eu-central-1a", "eu-central-1b"],
        },
        "t3.large": {"vcpus": 2, "enclaves": False, "architectures": ["x86_64"], "zones": ["eu-central-1a"]},
    }


def test_a_type_that_nobody_knows_isnt_there(ec2: Any, run_module: Callable[..., dict[str, Any]]) -> None:
    ec2.add_response("describe_instance_types", {"InstanceTypes": []})
    ec2.add_response("describe_instance_type_offerings", {"InstanceTypeOfferings": []})
    assert run_module("aws_instance_types", names=["t3.huge"], region="eu-central-1")["types"] == {}


def test_aws_refuses(ec2: Any, run_module: Callable[..., dict[str, Any]]) -> None:
    ec2.add_client_error("describe_instance_types", service_error_code="UnauthorizedOperation")
    result = run_module("aws_instance_types", names=NAMES, region="eu-central-1")
    assert result["failed"]
    assert "no answer about instance types in eu-central-1" in result["msg"]
    assert "UnauthorizedOperation" in result["msg"]
    assert "Wanted credentials with ec2:DescribeInstanceTypes" in result["msg"]


def test_without_boto3_it_says_what_to_install(
    ansible_module: Callable[[str], ModuleType],
    run_module: Callable[..., dict[str, Any]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(ansible_module("aws_instance_types"), "MISSING", "Traceback")
    result = run_module("aws_instance_types", names=NAMES, region="eu-central-1")
    assert result["failed"]
    assert "boto3" in result["msg"]
