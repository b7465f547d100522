"""Everything the VM raises.

`status` texts are the names of Move's own `StatusCode`, so that what a caller sees reads as on a real
network.
"""

from __future__ import annotations

from typing import NamedTuple


class ModuleId(NamedTuple):
    """Where a module lives: 32-byte account address and module name."""

    address: bytes
    name: str

    def __str__(self) -> str:
        return f"0x{self.address.hex()}::{self.name}"


class MalformedModule(Exception):
    """The bytes are not a Move module (found while reading, before any verification)."""


class VerificationError(Exception):
    """A module that reads well but breaks a rule of the bytecode verifier; `code` is Move's status name."""

    def __init__(self, code: str, detail: str) -> None:
        super().__init__(f"{code}: {detail}")
        self.code = code
        self.detail = detail


class VmError(Exception):
    """Execution stopped by the machine itself: arithmetic, vector bounds, missing function, host refusal…

    The location (module, function, instruction) is None until the interpreter knows it.
    """

    def __init__(self, status: str, detail: str = "") -> None:
        super().__init__(status, detail)
        self.status = status
        self.detail = detail
        self.module: ModuleId | None = None
        self.function_name: str | None = None
        self.function_index: int | None = None
        self.instruction: int | None = None

    def locate(self, module: ModuleId, name: str, index: int, instruction: int) -> None:
        """Record where it happened; the first (innermost) location wins."""
        if self.module is None:
            self.module = module
            self.function_name = name
            self.function_index = index
            self.instruction = instruction

    def __str__(self) -> str:
        where = f" at {self.module}::{self.function_name} @{self.instruction}" if self.module else ""
        return self.status + (f": {self.detail}" if self.detail else "") + where


class OutOfGas(VmError):
    """A bound of the interpreter was reached."""

    def __init__(self, limit: int, what: str = "steps") -> None:
        super().__init__("OUT_OF_GAS", f"more than {limit} {what}")


class MoveAbort(Exception):
    """The program itself stopped with `abort code` (or a native did so in its name)."""

    def __init__(
        self, module: ModuleId, function_name: str, function_index: int, instruction: int, code: int
    ) -> None:
        super().__init__(f"MoveAbort({module}::{function_name} @{instruction}, code {code})")
        self.module = module
        self.function_name = function_name
        self.function_index = function_index
        self.instruction = instruction
        self.code = code


class NativeAbort(Exception):
    """Raised by natives and hosts to abort with a Move code; the interpreter turns it into `MoveAbort`."""

    def __init__(self, code: int) -> None:
        super().__init__(code)
        self.code = code
