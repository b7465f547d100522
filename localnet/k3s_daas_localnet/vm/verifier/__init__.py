"""Move's bytecode verifier and Sui's additions to it.

The passes are those of Sui's move-bytecode-verifier and sui-verifier, in their order, so that a module
refused there is refused here. Each pass may rely on what the ones before it have established.
"""

from __future__ import annotations

from collections.abc import Callable

from ..bytecode import Module
from ..errors import ModuleId, VerificationError
from . import bounds, declarations, linking, signatures, sui
from .code import verify_code
from .control_flow import ControlFlow
from .references import verify_references
from .sui import INTERNAL_FUNCTIONS

Resolver = Callable[[ModuleId], Module | None]

__all__ = ["INTERNAL_FUNCTIONS", "Resolver", "verify_module"]


def verify_module(module: Module, resolver: Resolver) -> None:
    """Check a module against the modules it uses. Raises VerificationError(code, detail).

    `resolver` gives a dependency by id (`CodeStore.module`); the dependencies must be verified already.
    """
    bounds.verify(module)
    declarations.verify_duplication(module)
    declarations.verify_limits(module)
    signatures.verify(module)
    declarations.verify_constants(module)
    declarations.verify_friends(module)
    declarations.verify_fields(module)
    declarations.verify_no_recursive_types(module)
    declarations.verify_no_growing_instantiations(module)
    linking.verify(module, resolver)
    flows: dict[int, ControlFlow] = {}
    for function in module.function_defs:
        if function.is_native:
            continue
        try:
            flow = flows[function.index] = ControlFlow(function)
            verify_code(module, function, flow)
            verify_references(module, function, flow)
        except VerificationError as error:
            raise VerificationError(error.code, f"{module.id}::{function.name}: {error.detail}") from None
    sui.verify(module, flows)
