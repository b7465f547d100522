# Copyright the K3s-DaaS authors
# SPDX-License-Identifier: Apache-2.0
"""Keeps which tasks would change something, for playbooks/drift.yml; of no effect in any other playbook.

Ansible shows such tasks and forgets them: a playbook can't ask for them unless every task of every role is
registered. So they are gathered here, in plays with the variable `drift_gathers`, and handed to the play with
the variable `drift_changes`.
"""

from __future__ import annotations

DOCUMENTATION = r"""
name: drift
type: aggregate
short_description: Keeps which tasks would change something, for playbooks/drift.yml
description:
  - Gathers the tasks that report a change, in plays with the variable C(drift_gathers), and puts them into
    the variable C(drift_changes) of a later play that has one.
"""

from typing import Any

from ansible.plugins.callback import CallbackBase

#: Arguments that name what a task is about. The others may hold anything.
_NAMES = ("dest", "path", "name")


class CallbackModule(CallbackBase):
    """Loaded by every run, for Ansible has no way to ask for it in a playbook."""

    CALLBACK_VERSION = 2.0
    CALLBACK_TYPE = "aggregate"
    CALLBACK_NAME = "drift"

    def __init__(self, display: Any = None, options: Any = None) -> None:
        super().__init__(display, options)
        self._gathers = False
        self._changes: list[dict[str, str]] = []

    def v2_playbook_on_play_start(self, play: Any) -> None:
        self._gathers = "drift_gathers" in play.vars
        if "drift_changes" in play.vars:
            play.vars["drift_changes"] = list(self._changes)

    def v2_runner_item_on_ok(self, result: Any) -> None:
        if result.is_changed():
            self._keep(result)

    def v2_runner_on_ok(self, result: Any) -> None:
        # Of a loop each item was kept before.
        if result.is_changed() and not result.result.get("results"):
            self._keep(result)

    def _keep(self, result: Any) -> None:
        # A handler's change follows from a task's; a delegated task's is not the host's.
        if not self._gathers or "Handler" in type(result.task).__name__ or result.task.delegate_to:
            return
        arguments = result.task_fields.get("args") or {}
        named = (str(arguments[name]) for name in _NAMES if isinstance(arguments.get(name), str))
        role = result.task._role
        # k3s_daas_files is about many paths, and says which would change.
        self._changes += [
            {
                "host": result.host.get_name(),
                "role": role.get_name() if role else "",
                "task": str(result.task.name or result.task.action)[:200],
                "what": str(what)[:200],
            }
            for what in result.result.get("paths") or [next(named, "")]
        ]
