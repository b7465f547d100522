"""One pass over what AWS holds now, and over those that left before and have a stake to withdraw."""

from __future__ import annotations

import logging
from dataclasses import dataclass

from .heartbeats import Heartbeats
from .plays import PlayFailed, Plays
from .scaling import GOING, LAUNCHED, Instance, Scaling, ScalingError
from .state import State, StateFile

LOG = logging.getLogger(__name__)


@dataclass
class Pass:
    """:ivar now_ms: since 1970. :ivar heartbeat_s: seconds between two heartbeats to AWS."""

    scaling: Scaling
    plays: Plays
    states: StateFile
    now_ms: int
    heartbeat_s: float

    def run(self) -> bool:
        """False when something failed and has to be tried again.

        Raises:
            ScalingError, StateError, OSError: nothing could be done
        """
        state = self.states.load()
        instances = self.scaling.instances()
        going = {instance.node_id: instance for instance in instances if instance.state == GOING}
        launched = [instance for instance in instances if instance.state == LAUNCHED]
        _remember(state, instances)
        # Before the first play: a worker whose instance is gone by the next pass is known from here alone.
        self.states.save(state)
        with Heartbeats(self.scaling, self.heartbeat_s):
            left = [self._leave(state, node_id, going.get(node_id)) for node_id in sorted(state.leaving)]
            if going and any(left):
                # For some seconds AWS still has them running; workers.yml refuses workers that left.
                return all(left)
            return self._join(state, launched) and all(left)

    def _leave(self, state: State, node_id: str, instance: Instance | None) -> bool:
        if state.leaving[node_id] <= self.now_ms:
            try:
                state.leaving[node_id] = self.plays.leave(node_id)
            except PlayFailed as error:
                LOG.error("%s could not leave, and will be tried again: %s", node_id, error)
                return False
            self.states.save(state)
        # Drained, and its stake asked for. For the withdrawal no instance is needed.
        if instance is not None and not self._go_on(instance):
            return False
        if state.leaving[node_id] == 0:
            del state.leaving[node_id]
            self.states.save(state)
        return True

    def _join(self, state: State, launched: list[Instance]) -> bool:
        if not launched:
            return True
        node_ids = sorted(instance.node_id for instance in launched)
        try:
            self.plays.join(node_ids)
        except PlayFailed as error:
            LOG.error("%s could not join, and will be tried again: %s", ", ".join(node_ids), error)
            return False
        # All of them, also when one fails.
        went_on = [instance for instance in launched if self._go_on(instance)]
        state.coming -= {instance.node_id for instance in went_on}
        self.states.save(state)
        return len(went_on) == len(launched)

    def _go_on(self, instance: Instance) -> bool:
        try:
            self.scaling.go_on(instance)
        except ScalingError as error:
            LOG.error("%s", error)
            return False
        return True


def _remember(state: State, instances: list[Instance]) -> None:
    """Notes who comes and who goes. Who was coming and isn't there any more was given up by AWS: it may have
    staked, so it leaves like any other."""
    states = {instance.node_id: instance.state for instance in instances}
    state.coming |= {node_id for node_id, now in states.items() if now == LAUNCHED}
    arrived = {node_id for node_id in state.coming if states.get(node_id) == "InService"}
    lost = {
        node_id
        for node_id in state.coming
        if not states.get(node_id, "").startswith(("Pending", "InService"))
    }
    state.coming -= arrived | lost
    for node_id in lost | {node_id for node_id, now in states.items() if now == GOING}:
        state.leaving.setdefault(node_id, 0)
