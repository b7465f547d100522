"""The real Move VM loads and verifies the contracts, and reads the localnet's state as the localnet does.

The oracle runs single calls over the objects it is given; it is no node and writes nothing.
"""

from __future__ import annotations

import base64
import re
from typing import Any

import pytest
import sui_sandbox
from contract_fleet import MOVE_DIR, SUI, Fleet, digest

from k3s_daas.chain import SuiClient, bcs
from k3s_daas_localnet import compiler
from k3s_daas_localnet.ledger.objects import LedgerObject
from k3s_daas_localnet.vm.bytecode import Module, relocate
from k3s_daas_localnet.vm.types import parse_address, type_to_string

pytestmark = pytest.mark.asyncio(loop_scope="session")


@pytest.fixture(scope="session")
def modules() -> list[bytes]:
    return compiler.build(MOVE_DIR).modules


async def real_vm(fleet: Fleet, modules: list[bytes], function: str, *pure: bytes) -> bytes | int:
    """A getter of the registry: the BCS of its result, or the code it aborts with."""
    ledger = fleet.network.net.ledger
    state = await fleet.read()

    def described(found: LedgerObject, id_key: str) -> dict[str, Any]:
        assert found.type is not None
        return {
            id_key: "0x" + found.object_id.hex(),
            "bcs_bytes": found.contents,
            "type_tag": type_to_string(found.type),
        }

    registry = described(ledger.object(parse_address(fleet.registry)), "object_id")
    module, name = function.split("::")
    answer = sui_sandbox.call_view_function(
        fleet.package,
        module,
        name,
        object_inputs=[registry | {"is_shared": True, "mutable": False}],
        pure_inputs=list(pure),
        child_objects={
            parent: [described(c, "child_id") for c in ledger.owned_by(parse_address(parent), "object")]
            for parent in (fleet.registry, state["workers"]["id"], state["owners"]["id"])
        },
        package_bytecodes={
            fleet.package: [
                base64.b64encode(relocate(raw, parse_address(fleet.package))).decode() for raw in modules
            ]
        },
        fetch_deps=False,
    )
    if not answer["success"]:
        aborted = re.search(r"ABORTED, sub_status: Some\((\d+)\)", answer["error"])
        assert aborted, answer["error"]
        return int(aborted[1])
    return base64.b64decode(answer["return_values"][0][0])


async def test_getters_over_state_the_localnet_wrote(
    fleet: Fleet, alice: SuiClient, bob: SuiClient, modules: list[bytes]
) -> None:
    cap = await fleet.appoint(fleet.admin.require_address())
    await fleet.stake_many(alice, ["a", "b", "c"], [SUI, 2 * SUI, 3 * SUI])
    await fleet.create_token(alice, "a", digest("real vm"))
    await fleet.set_statuses(fleet.admin, cap, ["a"], ["active"])
    await fleet.propose("b")
    await fleet.execute(alice, "b")
    owner, other = bcs.address(alice.require_address()), bcs.address(bob.require_address())

    async def ask(function: str, *pure: bytes) -> bytes | int:
        return await real_vm(fleet, modules, function, *pure)

    def u64(value: int) -> bytes:
        return bcs.unsigned(value, 8)

    name = {letter: bcs.string(letter) for letter in "abcx"}
    registry = "worker_registry"
    assert await ask(f"{registry}::staked") == u64(5 * SUI)
    assert await ask(f"{registry}::treasury_value") == u64(SUI)
    assert await ask(f"{registry}::worker_stake", name["c"]) == u64(3 * SUI)
    assert await ask(f"{registry}::worker_status", name["a"]) == b"\1"
    assert await ask(f"{registry}::worker_status", name["b"]) == b"\5"
    assert await ask(f"{registry}::is_worker_active", name["a"]) == b"\1"
    assert await ask(f"{registry}::is_worker_active", name["b"]) == b"\0"
    assert await ask(f"{registry}::is_worker_active", name["x"]) == b"\0"
    assert await ask(f"{registry}::is_worker_owner", name["a"], owner) == b"\1"
    assert await ask(f"{registry}::is_worker_owner", name["a"], other) == b"\0"
    assert await ask(f"{registry}::owner_workers", owner) == bcs.vector(map(bcs.string, "abc"))
    assert await ask(f"{registry}::owner_workers", other) == b"\0"
    token = await ask("k8s_gateway::worker_seal_token", name["a"])
    assert isinstance(token, bytes)
    assert token.startswith(b"\1" + bcs.data(digest("real vm")) + u64(1))
    assert await ask("k8s_gateway::worker_seal_token", name["b"]) == b"\0"
    code = await ask(f"{registry}::worker_stake", name["x"])
    assert isinstance(code, int)
    source = next(m for m in map(Module.parse, modules) if m.name == registry)
    assert source.constants[code & 0xFFFF].data.endswith(b"registered here")  # EWorkerNotFound's message
