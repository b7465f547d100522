"""The code a VM runs: modules, and what is derived from them (layouts, prepared functions).

`fork` gives a store that sees all of its parent and keeps what is added to itself; `commit` hands it to the
parent. A failed or simulated publish is thus a fork that nobody commits.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from .bytecode import ALL_ABILITIES, Ability, DatatypeHandle, FunctionDef, Module
from .errors import ModuleId, VmError
from .types import (
    SIGNER,
    Primitive,
    Reference,
    StructType,
    Type,
    VectorType,
    depth,
    substitute,
    type_to_string,
    walk,
)
from .values import Layout, build_layout

if TYPE_CHECKING:
    from .prepare import Prepared

# Original id to storage id of the packages that are linked at another version than their first.
Linkage = tuple[tuple[bytes, bytes], ...]

# Sui's protocol config: max_type_argument_depth and max_type_nodes.
MAX_TYPE_ARGUMENT_DEPTH = 16
MAX_TYPE_NODES = 256
MAX_VALUE_DEPTH = 128

_PRIMITIVE_ABILITIES = Ability.COPY | Ability.DROP | Ability.STORE
_REFERENCE_ABILITIES = Ability.COPY | Ability.DROP


class CodeStore:
    """Modules by id. Not thread-safe; one per ledger, forked per transaction that publishes."""

    def __init__(self, parent: CodeStore | None = None) -> None:
        self._parent = parent
        self._modules: dict[ModuleId, Module] = {}
        self._layouts: dict[Type, Layout] = {}
        self._prepared: dict[tuple[ModuleId, int, tuple[Type, ...], Linkage], Prepared] = {}
        self._abilities: dict[Type, int] = {}
        self._depths: dict[Type, int] = {}
        self._originals: dict[bytes, bytes] = {}
        self._linkages: dict[bytes, Linkage] = {}

    @staticmethod
    def with_framework() -> CodeStore:
        """A store holding 0x1, 0x2 and 0x3. Raises FrameworkMissing."""
        from .framework import framework_modules

        store = CodeStore()
        for module in framework_modules():
            store.add(module)
        return store

    def fork(self) -> CodeStore:
        return CodeStore(self)

    def commit(self) -> None:
        """Give everything added here to the parent."""
        parent = self._parent
        if parent is None:
            raise ValueError("a store without parent has nobody to commit to")
        for module in self._modules.values():
            parent.add(module)
        parent._layouts |= self._layouts
        parent._abilities |= self._abilities
        parent._originals |= self._originals
        parent._linkages |= self._linkages
        # Prepared functions are left behind: they would keep this fork alive, and cost little to make again.
        self._modules = {}

    def add(self, module: Module) -> None:
        """Add a module that has been verified. Code never changes: an upgrade is stored at a new id."""
        if self.module(module.id) is not None:
            raise ValueError(f"{module.id} exists already")
        self._modules[module.id] = module

    def link(self, package: bytes, original_id: bytes, linkage: Linkage) -> None:
        """Say what a package is a version of, and which versions it and all it calls are linked against.

        Only needed where either differs from the packages' own ids.
        """
        self._originals[package] = original_id
        self._linkages[package] = tuple(sorted(linkage))

    def original_id(self, package: bytes) -> bytes:
        """The id of a package's first version."""
        store: CodeStore | None = self
        while store is not None:
            if package in store._originals:
                return store._originals[package]
            store = store._parent
        return package

    def linkage(self, package: bytes) -> Linkage:
        """Versions that a call into this package runs with."""
        store: CodeStore | None = self
        while store is not None:
            if package in store._linkages:
                return store._linkages[package]
            store = store._parent
        return ()

    def canonical(self, type_: Type) -> Type:
        """The type with defining ids, where it names types by a later version of their package.

        Unknown types stay as they are: `check_type` refuses them.
        """
        match type_:
            case VectorType(element):
                return VectorType(self.canonical(element))
            case StructType():
                handle = self.datatype(type_)
                args = tuple(map(self.canonical, type_.args))
                return type_._replace(args=args) if handle is None else handle.type(args)
            case _:
                return type_

    def module(self, module_id: ModuleId) -> Module | None:
        store: CodeStore | None = self
        while store is not None:
            found = store._modules.get(module_id)
            if found is not None:
                return found
            store = store._parent
        return None

    def modules(self) -> Iterator[Module]:
        """All modules, the parent's too; a replaced one once."""
        seen: set[ModuleId] = set()
        store: CodeStore | None = self
        while store is not None:
            for module_id, module in store._modules.items():
                if module_id not in seen:
                    seen.add(module_id)
                    yield module
            store = store._parent

    def function(self, module_id: ModuleId, name: str) -> FunctionDef | None:
        module = self.module(module_id)
        return module.functions.get(name) if module else None

    def datatype(self, type_: StructType) -> DatatypeHandle | None:
        """The definition's handle of a struct or enum: declared abilities and type parameters."""
        module = self.module(type_.module_id)
        return module.datatype(type_.name) if module else None

    def struct_fields(self, type_: StructType) -> list[tuple[str, Type]] | None:
        """Names and closed types of the fields; None when it is no struct."""
        module = self.module(type_.module_id)
        definition = module.structs.get(type_.name) if module else None
        if definition is None or definition.fields is None:
            return None
        return [(f.name, substitute(f.type, type_.args)) for f in definition.fields]

    def enum_variants(self, type_: StructType) -> list[tuple[str, list[tuple[str, Type]]]] | None:
        """Variants with names and closed types of their fields; None when it is no enum."""
        module = self.module(type_.module_id)
        definition = module.enums.get(type_.name) if module else None
        if definition is None:
            return None
        return [
            (v.name, [(f.name, substitute(f.type, type_.args)) for f in v.fields])
            for v in definition.variants
        ]

    def layout(self, type_: Type) -> Layout:
        """BCS and JSON layout of a closed type, cached. Raises VmError when the type is not known."""
        store: CodeStore | None = self
        while store is not None:
            found = store._layouts.get(type_)
            if found is not None:
                return found
            store = store._parent
        self.value_depth(type_)
        made = build_layout(self, type_)
        self._layouts[type_] = made
        return made

    def value_depth(self, type_: Type, above: int = 0) -> int:
        """How deep values of a closed type nest; a primitive has 1.

        Raises VmError above the VM's limit, which also keeps everything that walks values off Python's own.
        """
        known = self._depths.get(type_)
        if known is None:
            if above >= MAX_VALUE_DEPTH:
                raise VmError("VM_MAX_VALUE_DEPTH_REACHED", f"values nest deeper than {MAX_VALUE_DEPTH}")
            inner: list[Type] = []
            if isinstance(type_, VectorType):
                inner = [type_.element]
            elif isinstance(type_, StructType):
                inner = [t for _, t in self.struct_fields(type_) or ()]
                inner += [t for _, fields in self.enum_variants(type_) or () for _, t in fields]
            known = 1 + max((self.value_depth(t, above + 1) for t in inner), default=0)
            self._depths[type_] = known
        if above + known > MAX_VALUE_DEPTH:
            raise VmError("VM_MAX_VALUE_DEPTH_REACHED", f"values nest deeper than {MAX_VALUE_DEPTH}")
        return known

    def abilities(self, type_: Type) -> int:
        """Abilities (bits of `Ability`) of a closed type, its type arguments taken into account."""
        match type_:
            case Primitive():
                return Ability.DROP if type_ == SIGNER else _PRIMITIVE_ABILITIES
            case Reference():
                return _REFERENCE_ABILITIES
            case VectorType(element):
                return self.abilities(element) & _PRIMITIVE_ABILITIES
            case StructType():
                cached = self._abilities.get(type_)
                if cached is None:
                    cached = self._abilities[type_] = self._datatype_abilities(type_)
                return cached
            case _:
                raise VmError("TYPE_RESOLUTION_FAILURE", f"{type_to_string(type_)} is not closed")

    def _datatype_abilities(self, type_: StructType) -> int:
        handle = self.datatype(type_)
        if handle is None:
            raise VmError("TYPE_RESOLUTION_FAILURE", f"unknown type {type_to_string(type_)}")
        arguments = [
            self.abilities(argument)
            for argument, parameter in zip(type_.args, handle.parameters, strict=True)
            if not parameter.phantom
        ]
        return combine_abilities(handle.abilities, arguments)

    def check_type(self, type_: Type) -> None:
        """A type argument from outside: known, right number of arguments, constraints met. Raises VmError."""
        nodes = 0
        if depth(type_) > MAX_TYPE_ARGUMENT_DEPTH:
            raise VmError("VM_MAX_TYPE_DEPTH_REACHED", f"type nested deeper than {MAX_TYPE_ARGUMENT_DEPTH}")
        for inner in walk(type_):
            nodes += 1
            if isinstance(inner, StructType):
                handle = self.datatype(inner)
                if handle is None:
                    raise VmError("TYPE_RESOLUTION_FAILURE", f"unknown type {type_to_string(inner)}")
                self.check_constraints([p.constraints for p in handle.parameters], inner.args)
            elif not isinstance(inner, Primitive | VectorType):
                raise VmError("INVALID_SIGNATURE_TOKEN", f"{type_to_string(inner)} as a type argument")
        if nodes > MAX_TYPE_NODES:
            raise VmError("TOO_MANY_TYPE_NODES", f"{nodes} nodes in a type, at most {MAX_TYPE_NODES}")

    def check_constraints(self, constraints: list[int], args: tuple[Type, ...]) -> None:
        """Type arguments against declared constraints. Raises VmError."""
        if len(constraints) != len(args):
            raise VmError(
                "NUMBER_OF_TYPE_ARGUMENTS_MISMATCH", f"{len(args)} type arguments, wanted {len(constraints)}"
            )
        for wanted, argument in zip(constraints, args, strict=True):
            if wanted & ~self.abilities(argument):
                raise VmError(
                    "CONSTRAINT_NOT_SATISFIED",
                    f"{type_to_string(argument)} lacks {Ability(wanted & ~self.abilities(argument))!r}",
                )

    def prepared(self, function: FunctionDef, type_args: tuple[Type, ...], linkage: Linkage = ()) -> Prepared:
        """The runnable form of a function for these type arguments and package versions, cached."""
        key = (function.module, function.index, type_args, linkage)
        store: CodeStore | None = self
        while store is not None:
            found = store._prepared.get(key)
            if found is not None:
                return found
            store = store._parent
        from .prepare import Prepared

        made = Prepared(self, function, type_args, linkage)
        self._prepared[key] = made
        return made


def combine_abilities(declared: int, arguments: list[int]) -> int:
    """Abilities of a generic type: each declared one also needs its counterpart in every (non-phantom)
    argument.

    `key` needs `store` of the arguments; the others need themselves.
    """
    result = 0
    for ability, needed in (
        (Ability.COPY, Ability.COPY),
        (Ability.DROP, Ability.DROP),
        (Ability.STORE, Ability.STORE),
        (Ability.KEY, Ability.STORE),
    ):
        if declared & ability and all(a & needed for a in arguments):
            result |= ability
    return result & ALL_ABILITIES
