"""Getting the contracts on-chain, once: find what is there before anything is paid for."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from k3s_daas.chain.errors import ChainError, ObjectNotFound
from k3s_daas.chain.model import Preview, Receipt
from k3s_daas.registry.model import Deployment, RegistryParams

if TYPE_CHECKING:
    from k3s_daas.chain.client import SuiClient
    from k3s_daas.chain.transaction import Build, Transaction

UPGRADE_CAP_TYPE = "0x2::package::UpgradeCap"
ADMIN_CAP = "::worker_registry::AdminCap"


class AmbiguousRegistry(ChainError):
    """One wallet administers several registries of the same name."""

    def __init__(self, name: str, owner: str, found: Sequence[Deployment]) -> None:
        listed = ", ".join(f"{one.registry_id} in package {one.package_id}" for one in found)
        super().__init__(
            f"Found {len(found)} registries called {name!r} that {owner} administers ({listed}), wanted one. "
            "Name the one to use by its ids."
        )


@dataclass(frozen=True)
class CompiledPackage:
    """What the Move compiler printed: bytecode per module, the ids it links to, and the package digest."""

    modules: tuple[bytes, ...]
    dependencies: tuple[str, ...]
    digest: bytes = b""


async def find_package(chain: SuiClient, owner: str, modules: Sequence[bytes]) -> str | None:
    """Id of a package that `owner` may upgrade and whose bytecode is that of `modules`, or None.

    A module's own address is 0x0 when compiled and the package's id once published: the comparison puts
    the zero address back. Nothing but that may differ.
    """
    wanted = sorted(modules)
    async for cap in chain.owned_objects(owner, UPGRADE_CAP_TYPE):
        package_id = str(cap.json.get("package", ""))
        try:
            found = await chain.package_modules(package_id)
        except ObjectNotFound:
            continue  # made immutable elsewhere or pruned: certainly not one we can use
        own, zero = bytes.fromhex(package_id[2:].rjust(64, "0")), bytes(32)
        if sorted(code.replace(own, zero) for code in found.values()) == wanted:
            return package_id
    return None


def publishing(package: CompiledPackage, owner: str) -> Build:
    """A transaction that publishes `package` and gives its UpgradeCap to `owner`."""

    async def build(tx: Transaction) -> None:
        tx.transfer([tx.publish(package.modules, package.dependencies)], owner)

    return build


async def publish(chain: SuiClient, package: CompiledPackage) -> tuple[str, Receipt]:
    """Publish and return the new package's id and what it cost."""
    receipt = await chain.execute(publishing(package, chain.require_address()))
    (package_id,) = receipt.created["package"]
    return package_id, receipt


async def preview_publish(chain: SuiClient, package: CompiledPackage) -> Preview:
    return await chain.simulate(publishing(package, chain.require_address()))


async def find_registry(
    chain: SuiClient, owner: str, name: str, package_id: str | None = None
) -> Deployment | None:
    """The registry called `name` whose AdminCap `owner` holds, in any package or only in `package_id`.

    The name decides, not the bytecode: sources that changed since must not lead to a second registry, in
    which everybody would stake again. Raises AmbiguousRegistry when two packages have one of that name.
    """
    kind = f"{package_id}{ADMIN_CAP}" if package_id else None
    packages = {
        str(cap.json["registry"]): cap.type.removesuffix(ADMIN_CAP)
        async for cap in chain.owned_objects(owner, kind)
        if cap.type.endswith(ADMIN_CAP)
    }
    found = [
        Deployment(packages[record.id], record.id)
        for record in await chain.get_objects(sorted(packages))
        if record is not None
        and record.json.get("name") == name
        and record.type == f"{packages[record.id]}::worker_registry::Registry"
    ]
    if len(found) > 1:
        raise AmbiguousRegistry(name, owner, found)
    return found[0] if found else None


def creating_registry(package_id: str, params: RegistryParams) -> Build:
    async def build(tx: Transaction) -> None:
        tx.call(
            f"{package_id}::worker_registry::create_registry",
            [
                tx.string(params.name),
                tx.boolean(params.open),
                tx.u64(params.min_stake_mist),
                tx.u64(params.slash_window_ms),
                tx.u64(params.unbonding_window_ms),
                tx.u64(params.slash_share_bps),
                tx.boolean(params.require_attestation),
            ],
        )

    return build


async def create_registry(
    chain: SuiClient, package_id: str, params: RegistryParams
) -> tuple[Deployment, Receipt]:
    """Create a registry; its four capabilities go to the wallet's address."""
    receipt = await chain.execute(creating_registry(package_id, params))
    (registry_id,) = receipt.created_of("::worker_registry::Registry")
    return Deployment(package_id, registry_id), receipt
