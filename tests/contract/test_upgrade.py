"""The way from one version of the contracts to the next: state made by v1 goes on under v2, v1 is refused.

v2 is this package with a raised VERSION and one more function.
"""

from __future__ import annotations

import pytest
from contract_ledger import CLOCK, SUI, Chain, Pay, Registry, aborts, compiled, compiled_version, created, u64

from k3s_daas.chain import bcs
from k3s_daas_localnet.compiler import CompiledPackage
from k3s_daas_localnet.ledger.errors import Refused

ADDED = """
/// What v2 can that v1 could not.
public fun master_epoch(registry: &Registry): u64 { registry.master_epoch }
"""


@pytest.fixture
def second() -> CompiledPackage:
    return compiled_version(2, ADDED)


def test_v1_state_v2_migrated_and_v1_refused(
    chain: Chain, anne: str, ben: str, master: str, second: CompiledPackage
) -> None:
    admin = chain.actor("admin")
    publishing = chain.publishing(admin, compiled())
    cap = created(publishing, "UpgradeCap")
    (package,) = [item for item in publishing.written if item.package is not None]
    registry = Registry(chain, "0x" + package.object_id.hex(), admin)
    v1 = registry.package

    # State of every kind under v1.
    registry.appoint(master)
    for node_id in ("w", "cheat", "leaver"):
        registry.stake(ben, node_id, 2 * SUI)
    registry.activate(master, "w")
    proof = registry.stake(anne, "a")
    registry.submit(anne, proof, ["w"], 5_000_000)
    registry.propose("cheat")
    registry.call(anne, "slashing::execute_slash", bcs.string("cheat"), CLOCK)
    registry.call(ben, "worker_registry::request_unstake", bcs.string("leaver"), CLOCK)
    registry.call(anne, "rewards::fund_rewards", Pay(SUI))
    token = bcs.data(bytes(32)), u64(chain.now_ms + 1_000_000), CLOCK
    registry.call(ben, "k8s_gateway::create_owner_seal_token", *token)
    before = registry.read(), registry.workers(), registry.requests(), registry.owners()

    with pytest.raises(Refused):  # the UpgradeCap is its holder's
        chain.upgrade(ben, v1, cap, second)
    v2 = chain.upgrade(admin, v1, cap, second)
    assert v2 != v1

    # Until somebody with the AdminCap migrates, v1 works and v2 does not.
    registry.call(anne, "rewards::fund_rewards", Pay(1))
    registry.package = v2
    with aborts("EWrongVersion"):
        registry.call(anne, "rewards::fund_rewards", Pay(1))
    registry.call(admin, "worker_registry::migrate", registry.admin_cap)
    with aborts("ENotUpgrade"):
        registry.call(admin, "worker_registry::migrate", registry.admin_cap)

    # Nothing but the version (and the one MIST) changed.
    after = registry.read()
    assert after["version"] == "2"
    assert int(after["rewards"]["balance"]) == SUI + 1
    after["version"], after["rewards"]["balance"] = "1", str(SUI)
    assert (after, registry.workers(), registry.requests(), registry.owners()) == before

    # v1 is refused, money on the way out included.
    registry.package = v1
    for function, *args in (
        ("rewards::fund_rewards", Pay(1)),
        ("worker_registry::withdraw", bcs.string("leaver"), CLOCK),
        ("worker_registry::request_unstake", bcs.string("w"), CLOCK),
        ("k8s_scheduler::time_out_request", u64(1), CLOCK),
        ("k8s_gateway::revoke_owner_seal_token",),
        ("slashing::execute_slash", bcs.string("w"), CLOCK),
    ):
        with aborts("EWrongVersion"):
            registry.call(ben, function, *args)
    with aborts("EWrongVersion"):
        registry.stake(anne, "late")
    with aborts("ENotUpgrade"):  # nor back
        registry.call(admin, "worker_registry::migrate", registry.admin_cap)

    # And v2 goes on where v1 was: request, token, exit, remainder, capabilities of v1.
    registry.package = v2
    assert registry.serve(master, 1)["node_id"] == "w"
    registry.call(ben, "k8s_gateway::revoke_owner_seal_token")
    paid = chain.balance(ben)
    for node_id, amount in (("leaver", 2 * SUI), ("cheat", SUI)):
        done = registry.call(ben, "worker_registry::withdraw", bcs.string(node_id), CLOCK)
        paid += amount - done.gas.net
    assert chain.balance(ben) == paid
    registry.appoint(master)
    registry.stake(anne, "new")
    registry.activate(master, "new")
    registry.chain.send(anne, (f"{v2}::worker_registry::master_epoch", [registry.id]))


def test_a_new_registry_of_v2_is_refused_by_v1(chain: Chain, anne: str, second: CompiledPackage) -> None:
    admin = chain.actor("admin")
    publishing = chain.publishing(admin, compiled())
    (package,) = [item for item in publishing.written if item.package is not None]
    v1 = "0x" + package.object_id.hex()
    registry = Registry(chain, chain.upgrade(admin, v1, created(publishing, "UpgradeCap"), second), admin)
    registry.stake(anne, "w")
    registry.package = v1
    with aborts("EWrongVersion"):
        registry.stake(anne, "w-2")
