"""What EC2 Auto Scaling holds, and the two things that are said to it. Only this module talks to AWS."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import Any, Protocol

from botocore.exceptions import BotoCoreError, ClientError

LOG = logging.getLogger(__name__)

#: The states in which a hook holds an instance, and the names of the stack's hooks: templates/stack.yml.j2 in
#: roles/aws_infrastructure.
LAUNCHED, GOING = "Pending:Wait", "Terminating:Wait"
HOOKS = {LAUNCHED: "k3s-daas-launch", GOING: "k3s-daas-terminate"}


class ScalingError(Exception):
    """AWS gave no answer, or refused."""


@dataclass(frozen=True)
class Instance:
    """An instance of one of the fleet's groups. Its id is the worker's node id.

    :ivar state: Auto Scaling's lifecycle state, as `InService` or `Terminating:Wait`.
    """

    node_id: str
    group: str
    state: str


class Scaling(Protocol):
    """What a pass needs of AWS."""

    def instances(self) -> list[Instance]: ...

    def heartbeat(self, instance: Instance) -> None: ...

    def go_on(self, instance: Instance) -> None: ...


class AwsScaling:
    """:class:`Scaling` over boto3's client of `autoscaling`."""

    def __init__(self, client: Any, fleet: str) -> None:
        self._client = client
        self._fleet = fleet

    def instances(self) -> list[Instance]:
        """All of the fleet's groups.

        Raises:
            ScalingError: AWS gave no answer
        """
        pages = self._client.get_paginator("describe_auto_scaling_groups")
        mine = [{"Name": "tag:k3s-daas-fleet", "Values": [self._fleet]}]
        try:
            return [
                Instance(instance["InstanceId"], group["AutoScalingGroupName"], instance["LifecycleState"])
                for page in pages.paginate(Filters=mine)
                for group in page["AutoScalingGroups"]
                for instance in group["Instances"]
            ]
        except (BotoCoreError, ClientError) as error:
            raise ScalingError(
                f"Auto Scaling didn't say which instances it has: {error}. Wanted credentials with the "
                "policy that playbooks/provision_aws.yml names."
            ) from None

    def heartbeat(self, instance: Instance) -> None:
        """Has AWS hold it for another timeout of its hook. A failure is logged: the next one may do."""
        try:
            self._client.record_lifecycle_action_heartbeat(**_names(instance))
        except (BotoCoreError, ClientError) as error:
            LOG.warning("no heartbeat for %s: %s", instance.node_id, error)

    def go_on(self, instance: Instance) -> None:
        """Has AWS go on with it. That it went on already, as after its hook's timeout, is as good.

        Raises:
            ScalingError: AWS refused
        """
        try:
            self._client.complete_lifecycle_action(**_names(instance), LifecycleActionResult="CONTINUE")
        except (BotoCoreError, ClientError) as error:
            if isinstance(error, ClientError) and error.response["Error"]["Code"] == "ValidationError":
                LOG.warning("%s isn't held any more: %s", instance.node_id, error)
            else:
                raise ScalingError(f"Auto Scaling didn't go on with {instance.node_id}: {error}") from None


def _names(instance: Instance) -> dict[str, str]:
    return {
        "AutoScalingGroupName": instance.group,
        "LifecycleHookName": HOOKS[instance.state],
        "InstanceId": instance.node_id,
    }
