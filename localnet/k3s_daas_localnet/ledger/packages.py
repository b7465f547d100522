"""Packages: publishing, upgrading, and how stored ones are linked.

A package's versions are stored under ids of their own and share the *original id*, that of the first.
Bytecode names packages by original ids; each version's linkage table says which versions those are for it,
and its type origins which version first defined each type. Source: sui-types ``move_package.rs`` and
sui-adapter's programmable transactions.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from ..vm import (
    CodeStore,
    Links,
    MalformedModule,
    Module,
    ModuleId,
    VerificationError,
    order_by_dependencies,
    relocate,
)
from ..vm.verifier import verify_module
from . import compatibility, limits
from .encoding import ZERO_ADDRESS, blake2b, hex_address
from .errors import ExecutionFailure, upgrade_error
from .inputs import Find
from .objects import LedgerObject, PackageData, TypeOrigin, Upgraded
from .transaction import Publish, Upgrade


@dataclass(frozen=True)
class Published:
    """A package that is new with this transaction; its modules as they are in the code store."""

    package_id: bytes
    version: int
    data: PackageData
    modules: tuple[Module, ...]


@dataclass(frozen=True)
class Ticket:
    """``0x2::package::UpgradeTicket``."""

    cap: bytes
    package: bytes
    policy: int
    digest: bytes


def publish(command: Publish, package_id: bytes, code: CodeStore, find: Find) -> Published:
    """Moves the modules to ``package_id``, verifies them and adds them to ``code``.

    :param code: a fork, which the caller throws away when the transaction fails.
    :raises ExecutionFailure: the modules don't form a package that may be published.
    """
    modules = _read(command.modules, package_id)
    linkage = _linkage(command.dependencies, find)
    ordered = _verify(modules, package_id, linkage, code)
    data = package_data(modules, linkage)
    return Published(package_id, 1, data, _add(code, package_id, data, ordered, find))


def upgrade(command: Upgrade, ticket: Ticket, package_id: bytes, code: CodeStore, find: Find) -> Published:
    """The same for the next version of a package, which has to be one that the ticket allows.

    :raises ExecutionFailure: ticket and upgrade differ, or the policy forbids a change.
    """
    if command.package != ticket.package:
        raise upgrade_error(
            "PACKAGE_ID_DOES_NOT_MATCH",
            f"Package ID {hex_address(command.package)} does not match the one in the upgrade ticket, "
            f"{hex_address(ticket.package)}",
            package_id=command.package,
            ticket_id=ticket.package,
        )
    digest = package_digest(command.modules, command.dependencies)
    if digest != ticket.digest:
        raise upgrade_error(
            "DIGEST_DOES_NOT_MATCH",
            f"New package digest {digest.hex()} does not match the one in the upgrade ticket, "
            f"{ticket.digest.hex()}",
            digest=digest,
        )
    current = find(ticket.package)
    if current is None or current.package is None:
        raise upgrade_error(
            "UNABLE_TO_FETCH_PACKAGE",
            f"No package at {hex_address(ticket.package)}",
            package_id=ticket.package,
        )
    original_id = current.package.original_id
    modules = _read(command.modules, original_id)
    linkage = _linkage(command.dependencies, find)
    if original_id in linkage:
        raise ExecutionFailure("INVALID_LINKAGE", "The package is among its own dependencies")
    ordered = _verify(modules, original_id, linkage, code)
    compatibility.check(current.package, modules, ticket.policy)
    data = package_data(modules, linkage, package_id, current.package.type_origins)
    return Published(package_id, current.version + 1, data, _add(code, package_id, data, ordered, find))


def package_digest(modules: Iterable[bytes], dependencies: Iterable[bytes]) -> bytes:
    """What an upgrade ticket is made for; the compiler prints it too. Their order does not matter."""
    return blake2b(b"".join(sorted([*map(blake2b, modules), *dependencies])))


def package_data(
    modules: list[Module],
    linkage: dict[bytes, Upgraded],
    package_id: bytes | None = None,
    before: Iterable[TypeOrigin] = (),
) -> PackageData:
    """The stored form of a package.

    :param package_id: where an upgrade is stored; None for a first version, whose modules say it.
    :param before: type origins of the version upgraded from.
    """
    known = {(origin.module, origin.name): origin.package for origin in before}
    origins = (
        TypeOrigin(module.name, name, known.get((module.name, name), package_id or module.address))
        for module in sorted(modules, key=lambda module: module.name)
        for name in (*module.structs, *module.enums)
    )
    return PackageData({module.name: module.raw for module in modules}, tuple(origins), linkage)


def load(code: CodeStore, item: LedgerObject, find: Find) -> None:
    """Adds a stored package, verified when it was published, to ``code``."""
    assert item.package is not None
    modules = [Module.parse(raw) for raw in item.package.modules.values()]
    _add(code, item.object_id, item.package, modules, find)


def _add(
    code: CodeStore, package_id: bytes, data: PackageData, modules: Iterable[Module], find: Find
) -> tuple[Module, ...]:
    original_id = data.original_id
    linkage = tuple(
        (original, upgraded.package)
        for original, upgraded in [*data.linkage.items(), (original_id, Upgraded(package_id, 0))]
        if original != upgraded.package
    )
    if linkage:
        code.link(package_id, original_id, linkage)
        links = Links(package_id, _defining_ids(original_id, data, find))
        modules = [Module.parse(module.raw, links) for module in modules]
    added = tuple(modules)
    for module in added:
        code.add(module)
    return added


def _defining_ids(original_id: bytes, data: PackageData, find: Find) -> dict[tuple[ModuleId, str], bytes]:
    tables = [(original_id, data.type_origins)]
    for original, upgraded in data.linkage.items():
        dependency = find(upgraded.package)
        assert dependency is not None
        assert dependency.package is not None
        tables.append((original, dependency.package.type_origins))
    return {
        (ModuleId(package, origin.module), origin.name): origin.package
        for package, origins in tables
        for origin in origins
    }


def _read(raw_modules: tuple[bytes, ...], address: bytes) -> list[Module]:
    """The modules, moved to their package's original id."""
    found = []
    for raw in raw_modules:
        try:
            module = Module.parse(raw)
            if module.address != ZERO_ADDRESS:
                raise ExecutionFailure(
                    "PUBLISH_ERROR_NON_ZERO_ADDRESS",
                    f"Module {module.name} is compiled for {hex_address(module.address)}, wanted address 0x0",
                )
            found.append(Module.parse(relocate(raw, address)))
        except MalformedModule as error:
            raise ExecutionFailure(
                "VM_VERIFICATION_OR_DESERIALIZATION_ERROR", f"Move bytecode deserialization error: {error}"
            ) from error
    size = sum(len(module.raw) for module in found)
    if size > limits.MAX_PACKAGE_BYTES:
        raise ExecutionFailure(
            "PACKAGE_TOO_BIG",
            f"Package of {size} bytes, at most {limits.MAX_PACKAGE_BYTES} are allowed",
            size=(size, limits.MAX_PACKAGE_BYTES),
        )
    return found


def _linkage(dependencies: tuple[bytes, ...], find: Find) -> dict[bytes, Upgraded]:
    """The table of a package with these dependencies, the indirect ones among them."""
    linkage: dict[bytes, Upgraded] = {}
    packages: list[PackageData] = []
    for dependency in dependencies:
        found = find(dependency)
        if found is None or found.package is None:
            raise ExecutionFailure(
                "PUBLISH_UPGRADE_MISSING_DEPENDENCY", f"No package at {hex_address(dependency)}"
            )
        original_id = found.package.original_id
        if original_id in linkage and linkage[original_id].package != dependency:
            raise ExecutionFailure(
                "INVALID_LINKAGE",
                f"Two versions of package {hex_address(original_id)} among the dependencies: "
                f"{hex_address(linkage[original_id].package)} and {hex_address(dependency)}",
            )
        linkage[original_id] = Upgraded(dependency, found.version)
        packages.append(found.package)
    for package in packages:
        for original_id, wanted in package.linkage.items():
            ours = linkage.get(original_id)
            if ours is None:
                raise ExecutionFailure(
                    "PUBLISH_UPGRADE_MISSING_DEPENDENCY",
                    f"Dependency {hex_address(package.original_id)} uses {hex_address(original_id)}, "
                    "which is not in the package's dependencies",
                )
            if ours.version < wanted.version:
                raise ExecutionFailure(
                    "PUBLISH_UPGRADE_DEPENDENCY_DOWNGRADE",
                    f"Dependency {hex_address(package.original_id)} uses version {wanted.version} of "
                    f"{hex_address(original_id)}, the package's dependencies have version {ours.version}",
                )
    return linkage


def _verify(
    modules: list[Module], address: bytes, linkage: dict[bytes, Upgraded], code: CodeStore
) -> list[Module]:
    """The modules in the order of their dependencies, verified as bytecode names things: by original ids."""
    for module in modules:
        for dependency in module.dependencies():
            if dependency.address != address and dependency.address not in linkage:
                raise ExecutionFailure(
                    "PUBLISH_UPGRADE_MISSING_DEPENDENCY",
                    f"Module {module.name} uses {hex_address(dependency.address)}::{dependency.name}, "
                    "which is not in the package's dependencies",
                )
    seen: dict[ModuleId, Module | None] = {}

    def resolve(module_id: ModuleId) -> Module | None:
        if module_id not in seen and module_id.address in linkage:
            stored = code.module(ModuleId(linkage[module_id.address].package, module_id.name))
            as_named = stored if stored is None or stored.links is None else Module.parse(stored.raw)
            seen[module_id] = as_named
        return seen.get(module_id)

    try:
        ordered = order_by_dependencies(modules)
        for module in ordered:
            verify_module(module, resolve)
            seen[module.id] = module
    except VerificationError as error:
        raise ExecutionFailure(
            "VM_VERIFICATION_OR_DESERIALIZATION_ERROR", f"Move bytecode verification error: {error}"
        ) from error
    return ordered
