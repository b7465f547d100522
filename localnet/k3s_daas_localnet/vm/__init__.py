"""A Move virtual machine for Sui's bytecode, versions 5 to 7.

How a ledger uses it:

    store = CodeStore.with_framework()                # once; 0x1, 0x2, 0x3
    fork = store.fork()                               # per transaction that publishes
    module = Module.parse(relocate(raw, package_id))  # MalformedModule
    verify_module(module, fork.module)                # VerificationError(code, detail)
    fork.add(module)
    vm = Interpreter(fork, host, step_limit)          # per transaction; vm.steps is the work done
    results = vm.call(module.id, "init", [], [Ref.to(context)])   # MoveAbort, VmError, OutOfGas
    fork.commit()                                     # only when the transaction succeeded

Publish modules of a package in the order of their dependencies (`order_by_dependencies`).
`CodeStore.layout(type)` gives BCS and JSON of a type's values (`to_bcs`, `from_bcs`, `Layout.json`),
`CodeStore.abilities(type)` and `CodeStore.check_type(type)` what a programmable transaction has to check.
A module of an upgraded package, or of one that uses such packages, is parsed a second time with `Links` and
added in that form; `CodeStore.link` then says which versions a call into its package runs with.
`Host` is what the ledger implements for natives; `PureHost` serves calls that touch no objects. Values are
plain Python: see the table in `values`. Errors: see `errors`.

The VM trusts its caller for argument values (they must fit the function's types) and for code (it must be
verified).
"""

from .bytecode import (
    Ability,
    DatatypeHandle,
    FunctionDef,
    Links,
    Module,
    Visibility,
    order_by_dependencies,
    relocate,
)
from .errors import MalformedModule, ModuleId, MoveAbort, NativeAbort, OutOfGas, VerificationError, VmError
from .framework import FrameworkMissing, framework_modules, load_framework
from .host import Child, Host, PureHost
from .interpreter import DEFAULT_STEP_LIMIT, Interpreter
from .natives import blake2b256, derive_id, dynamic_field_id
from .store import CodeStore, Linkage
from .types import (
    Primitive,
    Reference,
    StructType,
    Type,
    TypeParameter,
    VectorType,
    address_to_string,
    decode_type,
    encode_type,
    parse_address,
    parse_type,
    read_type,
    struct,
    substitute,
    type_to_string,
)
from .values import EnumValue, Layout, Ref, Value, clone, from_bcs, object_id, to_bcs

__all__ = [
    "DEFAULT_STEP_LIMIT",
    "Ability",
    "Child",
    "CodeStore",
    "DatatypeHandle",
    "EnumValue",
    "FrameworkMissing",
    "FunctionDef",
    "Host",
    "Interpreter",
    "Layout",
    "Linkage",
    "Links",
    "MalformedModule",
    "Module",
    "ModuleId",
    "MoveAbort",
    "NativeAbort",
    "OutOfGas",
    "Primitive",
    "PureHost",
    "Ref",
    "Reference",
    "StructType",
    "Type",
    "TypeParameter",
    "Value",
    "VectorType",
    "VerificationError",
    "Visibility",
    "VmError",
    "address_to_string",
    "blake2b256",
    "clone",
    "decode_type",
    "derive_id",
    "dynamic_field_id",
    "encode_type",
    "framework_modules",
    "from_bcs",
    "load_framework",
    "object_id",
    "order_by_dependencies",
    "parse_address",
    "parse_type",
    "read_type",
    "relocate",
    "struct",
    "substitute",
    "to_bcs",
    "type_to_string",
]
