"""Publishing a package: checks, verification, and the object that holds it."""

from __future__ import annotations

from dataclasses import dataclass

from ..vm import (
    CodeStore,
    MalformedModule,
    Module,
    VerificationError,
    order_by_dependencies,
    relocate,
)
from ..vm.verifier import verify_module
from . import limits
from .encoding import ZERO_ADDRESS, hex_address
from .errors import ExecutionFailure
from .inputs import Find
from .objects import PackageData, TypeOrigin, Upgraded
from .transaction import Publish


@dataclass(frozen=True)
class Published:
    """A package that is new with this transaction."""

    package_id: bytes
    data: PackageData
    modules: tuple[Module, ...]


def link(command: Publish, package_id: bytes, code: CodeStore, find: Find) -> Published:
    """Moves the modules to ``package_id``, verifies them and adds them to ``code``.

    :param code: a fork, which the caller throws away when the transaction fails.
    :raises ExecutionFailure: the modules don't form a package that may be published.
    """
    modules = [_read(raw, package_id) for raw in command.modules]
    size = sum(len(module.raw) for module in modules)
    if size > limits.MAX_PACKAGE_BYTES:
        raise ExecutionFailure(
            "PACKAGE_TOO_BIG",
            f"Package of {size} bytes, at most {limits.MAX_PACKAGE_BYTES} are allowed",
            size=(size, limits.MAX_PACKAGE_BYTES),
        )
    linkage = _linkage(command, find)
    for module in modules:
        for dependency in module.dependencies():
            if dependency.address != package_id and dependency.address not in linkage:
                raise ExecutionFailure(
                    "PUBLISH_UPGRADE_MISSING_DEPENDENCY",
                    f"Module {module.name} uses {hex_address(dependency.address)}::{dependency.name}, "
                    "which is not in the package's dependencies",
                )
    try:
        ordered = order_by_dependencies(modules)
        for module in ordered:
            verify_module(module, code.module)
            code.add(module)
    except VerificationError as error:
        raise ExecutionFailure(
            "VM_VERIFICATION_OR_DESERIALIZATION_ERROR", f"Move bytecode verification error: {error}"
        ) from error
    return Published(package_id, package_data(modules, linkage), tuple(ordered))


def package_data(modules: list[Module], linkage: dict[bytes, Upgraded]) -> PackageData:
    """The stored form of modules that live at one address."""
    origins = (
        TypeOrigin(module.name, name, module.address)
        for module in sorted(modules, key=lambda module: module.name)
        for name in (*module.structs, *module.enums)
    )
    return PackageData({module.name: module.raw for module in modules}, tuple(origins), linkage)


def _read(raw: bytes, package_id: bytes) -> Module:
    try:
        module = Module.parse(raw)
        if module.address != ZERO_ADDRESS:
            raise ExecutionFailure(
                "PUBLISH_ERROR_NON_ZERO_ADDRESS",
                f"Module {module.name} is compiled for {hex_address(module.address)}, wanted address 0x0",
            )
        return Module.parse(relocate(raw, package_id))
    except MalformedModule as error:
        raise ExecutionFailure(
            "VM_VERIFICATION_OR_DESERIALIZATION_ERROR", f"Move bytecode deserialization error: {error}"
        ) from error


def _linkage(command: Publish, find: Find) -> dict[bytes, Upgraded]:
    linkage: dict[bytes, Upgraded] = {}
    for dependency in command.dependencies:
        found = find(dependency)
        if found is None or found.package is None:
            raise ExecutionFailure(
                "PUBLISH_UPGRADE_MISSING_DEPENDENCY", f"No package at {hex_address(dependency)}"
            )
        linkage[dependency] = Upgraded(dependency, found.version)
    return linkage
