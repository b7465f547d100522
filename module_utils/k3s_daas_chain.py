# Copyright the K3s-DaaS authors
# SPDX-License-Identifier: Apache-2.0
"""What all chain modules share: connection options, the import of k3s_daas, and how errors are reported.

The modules run on the control node, with the Python that has k3s_daas installed; everything about the chain
is in that package. Nothing here or there ever prints a key.
"""

from __future__ import annotations

import asyncio
import traceback
from collections.abc import Awaitable, Callable
from typing import Any

from ansible.module_utils.basic import AnsibleModule, missing_required_lib

try:
    from k3s_daas.chain import ChainError, Key
    from k3s_daas.chain.bcs import normalize_address
    from k3s_daas.registry import Deployment, Registry
    from k3s_daas.registry.operation import carry_out, estimate
    from k3s_daas.requests.client import RequestError
    from k3s_daas.tokenfile import UnusableToken

    IMPORT_ERROR = None
except ImportError:  # pragma: no cover - seen only on a control node without the package
    IMPORT_ERROR = traceback.format_exc()

#: Stands for an id that only the real run makes. Modules take it in check mode and plan around it.
PLANNED = "published by this run"

CONNECTION_SPEC: dict[str, Any] = {
    "network": {
        "type": "str",
        "required": True,
        "choices": ["localnet", "devnet", "testnet", "mainnet"],
    },
    "endpoints": {"type": "list", "elements": "str", "required": True},
    "chain_id": {"type": "str"},
    "timeout_s": {"type": "float", "default": 10.0},
}
#: The path of a key is no secret; the key itself never passes through a module.
KEY_SPEC: dict[str, Any] = {"key_file": {"type": "path", "required": True, "no_log": False}}
REGISTRY_SPEC: dict[str, Any] = {
    "package_id": {"type": "str", "required": True},
    "original_package_id": {"type": "str"},
    "registry_id": {"type": "str", "required": True},
}


class Refused(Exception):
    """Something a module finds wrong itself; the message is shown to the user."""


def is_planned(value: str | None) -> bool:
    return value in (None, "", PLANNED)


def registry_ids(module: AnsibleModule, *names: str) -> bool:
    """Whether all of the id options are real. In check mode an id may be missing: the run would make it.

    Outside of check mode a missing id is refused.
    """
    missing = [name for name in names if is_planned(module.params[name])]
    for name in set(names) - set(missing):
        normalize_address(module.params[name])
    if missing and not module.check_mode:
        found = ", ".join(f"{name}={module.params[name]!r}" for name in missing)
        raise Refused(
            f"Found {found}, wanted object ids (0x…). Only check mode plans with ids that don't exist yet: "
            "run playbooks/contracts.yml first, which publishes the package and creates the registry."
        )
    return not missing


async def connect(module: AnsibleModule, with_key: bool = True) -> Any:
    """A connected SuiClient for the module's connection options."""
    key = Key.load(module.params["key_file"]) if with_key else None
    from k3s_daas.chain import SuiClient  # costs a second: not before the arguments are known to be good

    return await SuiClient.connect(
        module.params["endpoints"],
        module.params["network"],
        key,
        module.params["chain_id"] or None,
        timeout_s=module.params["timeout_s"],
    )


def open_registry(module: AnsibleModule, chain: Any) -> Any:
    """The Registry that the module's ids name."""
    ids = (module.params[name] for name in ("package_id", "registry_id", "original_package_id"))
    package_id, registry_id, original = ids
    return Registry(chain, Deployment(package_id, registry_id, original or None))


async def perform(module: AnsibleModule, chain: Any, operation: Any, *, with_created: bool = False) -> Any:
    """(result, events) of an operation: simulated always, sent unless in check mode.

    The result has `changed`, `preview`, `digests` and `gas_mist`; in check mode events and gas are those of
    the simulation. `with_created` adds the ids of what was created, by type.
    """
    planned = await estimate(chain, operation)
    result = {"changed": bool(operation.builds), "preview": planned.preview, "digests": []}
    result["gas_mist"] = planned.preview["gas_estimate_mist"]
    if module.check_mode or not operation.builds:
        return (result, planned.events, {}) if with_created else (result, planned.events)
    done = await carry_out(chain, operation)
    result |= {"digests": done.digests, "gas_mist": done.gas_mist}
    return (result, done.events, done.created) if with_created else (result, done.events)


def run(module: AnsibleModule, work: Callable[[AnsibleModule], Awaitable[dict[str, Any]]]) -> None:
    """Run `work` and exit with its result; whatever it refuses becomes the module's failure."""
    if IMPORT_ERROR is not None:
        module.fail_json(msg=missing_required_lib("k3s-daas"), exception=IMPORT_ERROR)
    try:
        result = asyncio.run(_awaited(work, module))
    except (Refused, ChainError, RequestError, UnusableToken, ValueError) as error:
        module.fail_json(
            msg=str(error),
            error=type(error).__name__,
            abort_name=getattr(error, "name", None),
            digest=getattr(error, "digest", None),
        )
    module.exit_json(**result)


async def _awaited(
    work: Callable[[AnsibleModule], Awaitable[dict[str, Any]]], module: AnsibleModule
) -> dict[str, Any]:
    return await work(module)
