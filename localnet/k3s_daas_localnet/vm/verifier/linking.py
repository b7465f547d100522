"""What a module says of other modules is true of them. Source: move-bytecode-verifier `dependencies.rs`."""

from __future__ import annotations

from collections.abc import Callable

from ..bytecode import Module, Visibility
from ..errors import ModuleId, VerificationError


def verify(module: Module, resolver: Callable[[ModuleId], Module | None]) -> None:
    dependencies: dict[ModuleId, Module] = {}
    for module_id in module.dependencies():
        found = resolver(module_id)
        if found is None:
            raise VerificationError("MISSING_DEPENDENCY", f"there is no module {module_id}")
        dependencies[module_id] = found
    for datatype in module.datatype_handles:
        if datatype.module == module.id:
            continue
        where = f"{datatype.module}::{datatype.name}"
        defined = dependencies[datatype.module].datatype(datatype.name)
        if defined is None:
            raise VerificationError("LOOKUP_FAILED", f"there is no type {where}")
        # A module may know less of a type than is true (fewer abilities, stricter constraints), never more.
        fits = not datatype.abilities & ~defined.abilities and len(datatype.parameters) == len(
            defined.parameters
        )
        for mine, theirs in zip(datatype.parameters, defined.parameters, strict=fits):
            fits = fits and not theirs.constraints & ~mine.constraints
            fits = fits and (theirs.phantom or not mine.phantom)
        if not fits:
            raise VerificationError("TYPE_MISMATCH", f"abilities or type parameters of {where}")
    for function in module.function_handles:
        if function.module == module.id:
            continue
        where = f"{function.module}::{function.name}"
        owner = dependencies[function.module]
        definition = owner.functions.get(function.name)
        callable_ = definition is not None and (
            definition.visibility == Visibility.PUBLIC
            or (definition.visibility == Visibility.FRIEND and module.id in owner.friends)
        )
        if definition is None or not callable_:
            raise VerificationError("LOOKUP_FAILED", f"{where} does not exist or is not visible here")
        constraints = zip(function.type_parameters, definition.type_parameters, strict=False)
        if (
            len(function.type_parameters) != len(definition.type_parameters)
            or any(theirs & ~mine for mine, theirs in constraints)
            or module.signatures[function.parameters] != definition.parameters
            or module.signatures[function.results] != definition.results
        ):
            raise VerificationError("TYPE_MISMATCH", f"signature of {where}")
