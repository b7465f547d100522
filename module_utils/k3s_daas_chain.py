# Copyright the K3s-DaaS authors
# SPDX-License-Identifier: Apache-2.0
"""What all chain modules share: connection options, the import of k3s_daas, and how errors are reported.

The modules run on the control node, with the Python that has k3s_daas installed; everything about the chain
is in that package. Nothing here or there ever prints a key. doc_fragments/k3s_daas.py documents the options.
"""

from __future__ import annotations

import asyncio
import traceback
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from typing import Any

from ansible.module_utils.basic import AnsibleModule, missing_required_lib

try:
    from k3s_daas.chain import ChainError, Key
    from k3s_daas.chain.bcs import normalize_address
    from k3s_daas.registry import Deployment, Registry
    from k3s_daas.registry.operation import Done, carry_out, estimate, preview
    from k3s_daas.requests.errors import RequestError
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

Work = Callable[[AnsibleModule], Coroutine[Any, Any, dict[str, Any]]]


class Refused(Exception):
    """Something a module finds wrong itself; the message is shown to the user."""


def is_planned(value: str | None) -> bool:
    return value in (None, "", PLANNED)


def have_ids(module: AnsibleModule, *names: str) -> bool:
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


def have_registry(module: AnsibleModule) -> bool:
    """Whether the registry exists; if not, this is check mode."""
    return have_ids(module, "package_id", "registry_id")


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


@asynccontextmanager
async def open_registry(module: AnsibleModule, with_key: bool = True) -> AsyncIterator[Any]:
    """The Registry that the module's ids name, connected. Refused where it would only be created."""
    if not have_registry(module):
        raise Refused(
            f"Found registry_id={module.params['registry_id']!r}, wanted a registry that exists: this one "
            "would only be created by this run, so nothing in it can be planned yet."
        )
    ids = (module.params[name] for name in ("package_id", "registry_id", "original_package_id"))
    package_id, registry_id, original = ids
    async with await connect(module, with_key) as chain:
        yield Registry(chain, Deployment(package_id, registry_id, original or None))


async def foresee(module: AnsibleModule, operation: Any) -> dict[str, Any]:
    """The result of `perform` where what the operation works on would only be made by this run."""
    async with await connect(module) as chain:
        shown = preview(operation, chain.address, await chain.balance(chain.address), None)
    return {"changed": bool(operation.meaning), "preview": shown, "digests": [], "gas_mist": None}


async def perform(module: AnsibleModule, chain: Any, operation: Any) -> tuple[dict[str, Any], Any]:
    """(result, what was done) of an operation: simulated always, sent unless in check mode.

    The result has `changed`, `preview`, `digests` and `gas_mist`; in check mode the gas and the events of
    what was done are those of the simulation, and nothing was created.
    """
    planned = await estimate(chain, operation)
    gas = planned.preview["gas_estimate_mist"]
    send = bool(operation.builds) and not module.check_mode
    done = await carry_out(chain, operation) if send else Done([], gas, planned.events, {})
    result = {"changed": bool(operation.builds), "preview": planned.preview}
    return result | {"digests": done.digests, "gas_mist": done.gas_mist}, done


def start(
    work: Work, options: dict[str, Any], *, registry: bool = True, key: bool = True, **more: Any
) -> None:
    """Run `work` in a module of these options of its own and of those that it shares with others, and exit
    with its result; whatever it refuses becomes the module's failure.

    `registry` says whether it works on one registry, `key` whether it signs; `more` is AnsibleModule's.
    """
    spec = options | CONNECTION_SPEC | (KEY_SPEC if key else {}) | (REGISTRY_SPEC if registry else {})
    module = AnsibleModule(argument_spec=spec, supports_check_mode=True, **more)
    if IMPORT_ERROR is not None:
        module.fail_json(msg=missing_required_lib("k3s-daas"), exception=IMPORT_ERROR)
    try:
        result = asyncio.run(work(module))
    except (Refused, ChainError, RequestError, UnusableToken, ValueError) as error:
        module.fail_json(
            msg=str(error),
            error=type(error).__name__,
            abort_name=getattr(error, "name", None),
            digest=getattr(error, "digest", None),
        )
    module.exit_json(**result)
