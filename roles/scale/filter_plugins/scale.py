"""The role's filters; what they do is in k3s_daas.scaling, which is imported when it is needed: it takes the
chain's library with it, and Ansible loads filters in every process."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any

from ansible.errors import AnsibleFilterError

if TYPE_CHECKING:
    from k3s_daas.scaling.decide import Policy


def scale_policy(found: Mapping[str, Any]) -> dict[str, Any]:
    """`found` as it is understood. Raises AnsibleFilterError with every finding."""
    result: dict[str, Any] = _policy(found).model_dump(mode="json")
    return result


def scale_decision(
    policy: Mapping[str, Any],
    *,
    registry: Mapping[str, Any],
    names: Iterable[str],
    pods: Mapping[str, int],
    journal: str,
    forget: Iterable[str],
) -> dict[str, Any]:
    """What to do about the fleet's size.

    Args:
        registry: what sui_registry_info returned, with the wallet whose workers are scaled
        names: those of the inventory, which no new worker is given
        pods: what `k3s-daas demand` printed
        journal: text of earlier runs, "" for none
        forget: hosts that are gone, whatever the journal says

    Raises:
        AnsibleFilterError: a policy that makes no sense, a journal that can't be read
    """
    from k3s_daas.registry import WorkerStatus
    from k3s_daas.scaling.decide import Seen, decide
    from k3s_daas.scaling.demand import Pods
    from k3s_daas.scaling.journal import Journal

    limits = _policy(policy)
    try:
        known = Journal.parse(journal).without(forget)
    except ValueError as error:
        raise AnsibleFilterError(str(error)) from None
    workers = registry["workers"]
    seen = Seen(
        now_ms=int(registry["chain"]["timestamp_ms"]),
        workers={
            name: (WorkerStatus(one["status"]), int(one["workload"]), int(one["reputation"]))
            for name, one in workers.items()
            if one["owner"] == registry["wallet"]
        },
        taken={*workers, *names},
        pods=Pods(int(pods["running"]), int(pods["unplaced"])),
    )
    found = decide(seen, limits, known)
    return {
        "have": found.have,
        "wanted": found.wanted,
        "add": list(found.add),
        "new": list(found.new),
        "let_go": list(found.let_go),
        "remove": list(found.remove),
        "summary": f"{found.have} workers serve or are about to; {found.wanted} are wanted.",
        "reasons": list(found.reasons),
        "next": _next(found.add, found.let_go),
        "before": found.before.text(),
        "after": found.after.text(),
    }


def _next(add: Iterable[str], let_go: Iterable[str]) -> list[str]:
    steps = [f"playbooks/exit.yml -e node_id={name} -e confirm={name}, then this again." for name in let_go]
    if names := ", ".join(add):
        steps.insert(0, f"playbooks/workers.yml, with {names} in the inventory: it stakes for them.")
    return steps


def _policy(found: Mapping[str, Any]) -> Policy:
    from pydantic import ValidationError

    from k3s_daas.scaling.decide import Policy

    try:
        return Policy.model_validate(dict(found))
    except ValidationError as error:
        wrong = "; ".join(
            f"scale_{'_'.join(map(str, item['loc'])) or 'minimum and scale_maximum'}: {item['msg']}, "
            f"found {item['input']!r:.80}"
            for item in error.errors(include_url=False)
        )
        raise AnsibleFilterError(
            f"{wrong}. Wanted limits as roles/scale/meta/argument_specs.yml has them; correct the inventory."
        ) from None


class FilterModule:
    def filters(self) -> dict[str, Callable[..., Any]]:
        return {"scale_decision": scale_decision, "scale_policy": scale_policy}
