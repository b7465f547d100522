"""Getting the contracts on-chain, once: find what is there before anything is paid for."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from k3s_daas.chain.bcs import normalize_address
from k3s_daas.chain.errors import ChainError, ObjectNotFound
from k3s_daas.chain.model import Package, Receipt
from k3s_daas.registry.model import Deployment, RegistryParams
from k3s_daas.registry.operation import Operation

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


class CantUpgrade(ChainError):
    """The wallet may not upgrade a package."""


@dataclass(frozen=True)
class CompiledPackage:
    """What the Move compiler printed: bytecode per module, the ids it links to, and the package digest."""

    modules: tuple[bytes, ...]
    dependencies: tuple[str, ...]
    digest: bytes = b""


@dataclass(frozen=True)
class Upgradable:
    """The newest version of a package that a wallet may upgrade, and its UpgradeCap.

    `policy` is what upgrades may do at most: 0 compatible changes, 128 additions only, 192 dependencies only.
    """

    cap_id: str
    policy: int
    package: Package


async def upgradable_packages(chain: SuiClient, owner: str) -> list[Upgradable]:
    """All packages whose UpgradeCap `owner` holds."""
    found = []
    async for cap in chain.owned_objects(owner, UPGRADE_CAP_TYPE):
        try:
            package = await chain.package(str(cap.json.get("package", "")))
        except ObjectNotFound:
            continue  # pruned: certainly not one we can use
        found.append(Upgradable(cap.id, int(cap.json.get("policy", 0)), package))
    return found


def same_code(package: Package, modules: Sequence[bytes]) -> bool:
    """Whether `modules` is what `package` was published from.

    A module's own address is 0x0 when compiled and the package's first id once published: the comparison puts
    the zero address back. Nothing but that may differ.
    """
    own, zero = bytes.fromhex(package.original_id[2:]), bytes(32)
    return sorted(code.replace(own, zero) for code in package.modules.values()) == sorted(modules)


async def find_package(chain: SuiClient, owner: str, modules: Sequence[bytes]) -> str | None:
    """Id of a package that `owner` may upgrade and whose bytecode is that of `modules`, or None."""
    for found in await upgradable_packages(chain, owner):
        if same_code(found.package, modules):
            return found.package.id
    return None


async def find_upgradable(chain: SuiClient, owner: str, package_id: str) -> Upgradable:
    """The newest version of the package of which `package_id` is any version. CantUpgrade when the wallet
    holds no UpgradeCap of it."""
    original = (await chain.package(package_id)).original_id
    for found in await upgradable_packages(chain, owner):
        if found.package.original_id == original:
            return found
    raise CantUpgrade(
        f"Address {owner} holds no UpgradeCap of package {package_id}, which upgrading needs. Use the key "
        "of the address that holds it; when the cap was destroyed, the package can't be upgraded by anybody."
    )


def upgrading(found: Upgradable, package: CompiledPackage) -> Build:
    """A transaction that publishes `package` as the next version of what was found."""

    async def build(tx: Transaction) -> None:
        cap = tx.object(found.cap_id)
        asked = [cap, tx.u8(found.policy), tx.data(package.digest)]
        ticket = tx.call("0x2::package::authorize_upgrade", asked)
        done = tx.upgrade(package.modules, package.dependencies, found.package.id, ticket)
        tx.call("0x2::package::commit_upgrade", [cap, done])

    return build


async def plan_package(
    chain: SuiClient, package: CompiledPackage, known_id: str | None
) -> tuple[Package | None, bool, Operation]:
    """(what is published, whether that is to be upgraded, what to send).

    With `known_id`, any version of a package, that one is brought to `package`'s bytecode; otherwise only the
    very same bytecode counts as there.
    """
    owner = chain.require_address()
    if known_id is not None:
        newest = (found := await find_upgradable(chain, owner, known_id)).package
        if same_code(newest, package.modules):
            return newest, False, Operation()
        meaning = [
            f"Upgrades package {newest.id} (version {newest.version}) to the sources' bytecode, digest "
            f"{package.digest.hex()}. This can't be taken back. Version {newest.version} can be called as "
            "before until its registries are migrated.",
            _who_upgrades(owner, found.policy),
        ]
        return newest, True, Operation([upgrading(found, package)], meaning=meaning)
    for found in await upgradable_packages(chain, owner):
        if same_code(found.package, package.modules):
            return found.package, False, Operation()
    meaning = [
        f"Publishes {len(package.modules)} modules, digest {package.digest.hex()}. This can't be taken back.",
        _who_upgrades(owner, 0),
    ]
    return None, False, Operation([publishing(package, owner)], meaning=meaning)


def _who_upgrades(owner: str, policy: int) -> str:
    allowed = {0: "compatible changes", 128: "additions only", 192: "changes of dependencies only"}
    return (
        "Who holds its UpgradeCap can change the rules for everybody's stake "
        f"({allowed.get(policy, policy)}): that is {owner}. Give the cap to a multi-signature address, or "
        "make the package immutable, before others stake."
    )


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


async def find_registry(
    chain: SuiClient, owner: str, name: str, package_id: str | None = None
) -> Deployment | None:
    """The registry called `name` whose AdminCap `owner` holds, in any package or only in `package_id`.

    The name decides, not the bytecode: sources that changed since must not lead to a second registry, in
    which everybody would stake again. Raises AmbiguousRegistry when two packages have one of that name.
    """
    # Types are named by the first version for ever.
    original = (await chain.package(package_id)).original_id if package_id else None
    kind = f"{original}{ADMIN_CAP}" if original else None
    packages = {
        str(cap.json["registry"]): cap.type.removesuffix(ADMIN_CAP)
        async for cap in chain.owned_objects(owner, kind)
        if cap.type.endswith(ADMIN_CAP)
    }
    records = await chain.get_objects(sorted(packages))
    newest = {one.package.original_id: one.package.id for one in await upgradable_packages(chain, owner)}
    found = []
    for record in records:
        if record is None or record.json.get("name") != name:
            continue
        first = packages[record.id]
        if record.type == f"{first}::worker_registry::Registry":
            found.append(deployment_of(package_id or newest.get(first, first), record.id, first))
    if len(found) > 1:
        raise AmbiguousRegistry(name, owner, found)
    return found[0] if found else None


def deployment_of(package_id: str, registry_id: str, original_id: str) -> Deployment:
    same = normalize_address(package_id) == normalize_address(original_id)
    return Deployment(package_id, registry_id, None if same else original_id)


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
    original = (await chain.package(package_id)).original_id
    return deployment_of(package_id, registry_id, original), receipt
