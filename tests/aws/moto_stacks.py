"""What moto's CloudFormation leaves out and AWS's does.

A Network Load Balancer is one. A stack that is deleted takes all of its resources along; moto's services
refuse what something else depends on, as AWS's do. A change set for a stack that is there is one that
updates it.

Key pairs, lifecycle hooks and scaling policies it doesn't know in a stack; those are read off the template.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import moto.cloudformation.parsing as parsing
from moto.cloudformation.models import CloudFormationBackend
from moto.ec2.models import ec2_backends
from moto.elbv2.models import FakeLoadBalancer, elbv2_backends
from moto.iam.models import iam_backends
from moto.route53.models import route53_backends

# What goes with something else: an association with its route table, a listener with its load balancer.
GO_ALONG = {
    "AWS::EC2::Route",
    "AWS::EC2::SubnetRouteTableAssociation",
    "AWS::EC2::SecurityGroupIngress",
    "AWS::ElasticLoadBalancingV2::Listener",
}
DELETIONS: dict[str, Callable[[Any, str, str], Any]] = {
    "AWS::EC2::RouteTable": lambda r, a, g: ec2_backends[a][g].delete_route_table(r.id),
    "AWS::EC2::VPCGatewayAttachment": lambda r, a, g: [
        ec2_backends[a][g].detach_internet_gateway(gateway.id, r.vpc_id)
        for gateway in list(ec2_backends[a][g].internet_gateways.values())
        if gateway.vpc and gateway.vpc.id == r.vpc_id
    ],
    "AWS::EC2::InternetGateway": lambda r, a, g: ec2_backends[a][g].delete_internet_gateway(r.id),
    "AWS::EC2::NatGateway": lambda r, a, g: ec2_backends[a][g].delete_nat_gateway(r.id),
    "AWS::EC2::EIP": lambda r, a, g: ec2_backends[a][g].release_address(allocation_id=r.allocation_id),
    "AWS::IAM::ManagedPolicy": lambda r, a, g: iam_backends[a]["aws"].delete_policy(r.arn),
    "AWS::ElasticLoadBalancingV2::TargetGroup": lambda r, a, g: elbv2_backends[a][g].delete_target_group(
        r.arn
    ),
    "AWS::Route53::HostedZone": lambda r, a, g: route53_backends[a]["aws"].delete_hosted_zone(r.id),
}


def complete() -> None:
    """Has the moto of this process do so."""

    def create(
        cls: Any, name: str, cloudformation_json: dict[str, Any], account_id: str, region_name: str, **_: Any
    ) -> Any:
        given = cloudformation_json["Properties"]
        return elbv2_backends[account_id][region_name].create_load_balancer(
            *(name, given.get("SecurityGroups"), given.get("Subnets")),
            scheme=given.get("Scheme", "internet-facing"),
            loadbalancer_type=given.get("Type", "application"),
        )

    FakeLoadBalancer.create_from_cloudformation_json = classmethod(create)  # type: ignore[assignment, method-assign]
    its_own = parsing.ResourceMap._delete_resource

    def delete(self: Any, resource: Any, resource_json: dict[str, Any]) -> None:
        kind = resource_json["Type"]
        if kind in DELETIONS:
            DELETIONS[kind](resource, self._account_id, self._region_name)
        elif kind not in GO_ALONG:
            its_own(self, resource, resource_json)

    if its_own.__module__ == parsing.__name__:
        parsing.ResourceMap._delete_resource = delete  # type: ignore[method-assign]
    any_kind = CloudFormationBackend.create_change_set

    def create_change_set(self: Any, **given: Any) -> Any:
        if given["stack_name"] in {stack.name for stack in self.stacks.values()}:
            given["change_set_type"] = "UPDATE"
        return any_kind(self, **given)

    if any_kind.__module__ == CloudFormationBackend.__module__:
        CloudFormationBackend.create_change_set = create_change_set  # type: ignore[method-assign]
