"""Every function that a capability or an owner guards, called by somebody else."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from contract_ledger import (
    CLOCK,
    MOVE_DIR,
    SUI,
    Arg,
    Pay,
    Registry,
    aborts,
    sha,
    strings,
    u8,
    u64,
    u64s,
)

from k3s_daas.chain import bcs
from k3s_daas_localnet import compiler
from k3s_daas_localnet.ledger.errors import Refused
from k3s_daas_localnet.vm.bytecode import Module, Visibility
from k3s_daas_localnet.vm.types import Reference, StructType

W = bcs.string("w")
HASH = bcs.data(sha("x"))
PCR = bcs.data(b"\1" * 48)
ADDRESS = bcs.address("0x" + "aa" * 32)
URL = bcs.string("https://h:1")

# function -> (capability, the other arguments)
BY_CAP: dict[str, tuple[str, list[Arg]]] = {
    "worker_registry::allow_owner": ("AdminCap", [ADDRESS]),
    "worker_registry::disallow_owner": ("AdminCap", [ADDRESS]),
    "worker_registry::set_terms": ("AdminCap", [u64(SUI), u64(0), u64(0), u64(0)]),
    "worker_registry::migrate": ("AdminCap", []),
    "rewards::move_treasury": ("AdminCap", [u64(1)]),
    "rewards::set_reward_rates": ("AdminCap", [u64(0), u64(0), u64(0)]),
    "nautilus::enable_attestation": ("AdminCap", []),
    "nautilus::appoint_master": ("OperatorCap", [ADDRESS, CLOCK]),
    "nautilus::allow_image": ("OperatorCap", [PCR, PCR]),
    "nautilus::disallow_image": ("OperatorCap", [PCR, PCR]),
    "snapshots::abandon_snapshots": ("OperatorCap", []),
    "slashing::propose_slash": ("SlasherCap", [W, u8(1), HASH, CLOCK]),
    "slashing::cancel_slash": ("ArbiterCap", [W, CLOCK]),
    "worker_registry::set_worker_statuses": ("MasterCap", [strings(["w"]), strings(["active"]), CLOCK]),
    "rewards::report_ready": ("MasterCap", [strings(["w"]), u64s([0]), CLOCK]),
    "k8s_gateway::announce_master": ("MasterCap", [URL, URL, HASH, CLOCK]),
    "k8s_gateway::announce_master_key": ("MasterCap", [HASH, CLOCK]),
    "snapshots::anchor_snapshot": ("MasterCap", [u64(1), bcs.data(b""), HASH, CLOCK]),
    "k8s_scheduler::claim_request": ("MasterCap", [u64(1), CLOCK]),
    "k8s_scheduler::complete_request": ("MasterCap", [u64(1), HASH, CLOCK]),
}
# function -> (error, arguments), of what only the owner of worker "w" may do
BY_OWNER: dict[str, tuple[str, list[Arg]]] = {
    "worker_registry::add_stake": ("ENotWorkerOwner", [Pay(1), W, CLOCK]),
    "worker_registry::request_unstake": ("ENotWorkerOwner", [W, CLOCK]),
    "worker_registry::withdraw": ("ENotWorkerOwner", [W, CLOCK]),
    "k8s_gateway::create_worker_seal_token": ("EUnauthorizedRequest", [W, HASH, u64(1 << 60), CLOCK]),
    "k8s_gateway::create_worker_seal_tokens": (
        "EUnauthorizedRequest",
        [strings(["w"]), bcs.vector([HASH]), u64s([1 << 60]), CLOCK],
    ),
    "k8s_gateway::rotate_worker_seal_token": ("EUnauthorizedRequest", [W, HASH, u64(1 << 60), CLOCK]),
    "k8s_gateway::revoke_worker_seal_token": ("EUnauthorizedRequest", [W]),
    "k8s_gateway::create_owner_seal_token": ("ENotAnOwner", [HASH, u64(1 << 60), CLOCK]),
    "k8s_gateway::rotate_owner_seal_token": ("ENotAnOwner", [HASH, u64(1 << 60), CLOCK]),
    "k8s_gateway::revoke_owner_seal_token": ("ENoSealToken", []),
}
# Whom these let in is tested where they are: by allow-list, StakeProof or attestation; or they let in all.
OPEN = {
    "worker_registry::stake_and_register_worker",
    "worker_registry::stake_and_register_workers",
    "rewards::fund_rewards",
    "rewards::claim_rewards",
    "slashing::execute_slash",
    "slashing::lapse_slash",
    "k8s_scheduler::submit_k8s_request",
    "k8s_scheduler::time_out_request",
    "nautilus::register_master",
}


def test_the_tables_name_every_function_that_changes_a_registry() -> None:
    changing = {}
    for module in map(Module.parse, compiler.build(MOVE_DIR).modules):
        for function in module.functions.values():
            first = function.parameters[0] if function.parameters else None
            if (
                function.visibility == Visibility.PUBLIC
                and isinstance(first, Reference)
                and first.mutable
                and isinstance(first.target, StructType)
                and first.target.name == "Registry"
            ):
                caps = [
                    each.target.name
                    for each in function.parameters
                    if isinstance(each, Reference)
                    if isinstance(each.target, StructType) and each.target.name.endswith("Cap")
                ]
                changing[f"{module.name}::{function.name}"] = caps
    assert set(changing) == {*BY_CAP, *BY_OWNER, *OPEN}
    assert {name: caps for name, caps in changing.items() if caps} == {
        name: [cap] for name, (cap, _) in BY_CAP.items()
    }


@pytest.fixture
def ours(registry: Registry, anne: str) -> Registry:
    registry.stake(anne, "w")
    return registry


def cap_of(registry: Registry, kind: str) -> str:
    return str(getattr(registry, f"{kind.removesuffix('Cap').lower()}_cap"))


@pytest.mark.parametrize("function", BY_CAP)
def test_a_cap_works_for_its_own_registry_and_in_its_owners_hands(
    ours: Registry, make_registry: Callable[..., Registry], ben: str, master: str, function: str
) -> None:
    kind, args = BY_CAP[function]
    other = make_registry()
    other.appoint(master)
    holder = master if kind == "MasterCap" else ours.admin
    before = ours.read()
    with aborts("EWrongRegistry"):
        ours.call(holder, function, cap_of(other, kind), *args)
    with pytest.raises(Refused):  # the right one, in another's hands
        ours.call(ben, function, cap_of(ours, kind), *args)
    assert ours.read() == before


@pytest.mark.parametrize("function", BY_OWNER)
def test_an_owners_function_refuses_the_others(ours: Registry, ben: str, function: str) -> None:
    error, args = BY_OWNER[function]
    before = ours.read()
    with aborts(error):
        ours.call(ben, function, *args)
    assert ours.read() == before


@pytest.mark.parametrize("kind", ["Admin", "Operator", "Slasher", "Arbiter"])
def test_the_powers_are_separate(ours: Registry, kind: str) -> None:
    """A function takes the capability of its own kind and no other: they are types."""
    wrong = {f"{name}Cap" for name in ("Admin", "Operator", "Slasher", "Arbiter")} - {f"{kind}Cap"}
    for function, (wanted, args) in BY_CAP.items():
        if wanted in wrong:
            with pytest.raises(Exception, match=r"(?i)type"):
                ours.call(ours.admin, function, cap_of(ours, f"{kind}Cap"), *args)
