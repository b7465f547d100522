"""Move modules, binary format versions 5 to 7 as Sui uses them.

The names of the parts are those of Move's `file_format.rs`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from enum import IntEnum, IntFlag
from typing import NamedTuple

from .errors import MalformedModule, ModuleId, VerificationError
from .types import StructType, Type

LOCAL_MAX = 0xFF  # parameters and locals of a function together


class Ability(IntFlag):
    COPY = 1
    DROP = 2
    STORE = 4
    KEY = 8


ALL_ABILITIES = 15


class Visibility(IntEnum):
    PRIVATE = 0
    PUBLIC = 1
    FRIEND = 3


class DatatypeParameter(NamedTuple):
    constraints: int
    phantom: bool


class DatatypeHandle(NamedTuple):
    module: ModuleId
    name: str
    abilities: int
    parameters: tuple[DatatypeParameter, ...]

    def type(self, args: tuple[Type, ...] = ()) -> StructType:
        return StructType(self.module.address, self.module.name, self.name, args)


class FunctionHandle(NamedTuple):
    module: ModuleId
    name: str
    parameters: int  # index of a signature
    results: int  # index of a signature
    type_parameters: tuple[int, ...]  # ability constraints


class Field(NamedTuple):
    name: str
    type: Type


class StructDef(NamedTuple):
    handle: int
    fields: tuple[Field, ...] | None  # None: native


class Variant(NamedTuple):
    name: str
    fields: tuple[Field, ...]


class EnumDef(NamedTuple):
    handle: int
    variants: tuple[Variant, ...]


class Instantiation(NamedTuple):
    """A generic definition or handle and the signature with its type arguments."""

    target: int
    signature: int


class FieldHandle(NamedTuple):
    struct: int  # index of a struct definition
    field: int


class VariantHandle(NamedTuple):
    enum: int  # index of an enum definition (or of an enum instantiation, in `variant_instantiations`)
    variant: int


class Constant(NamedTuple):
    type: Type
    data: bytes


class JumpTable(NamedTuple):
    enum: int
    targets: tuple[int, ...]


class Links(NamedTuple):
    """Where a module of an upgraded package, or one that uses such packages, finds things.

    Bytecode names packages by their original ids; types are known outside by the package version that first
    defined them, functions by the version they are stored in.
    """

    storage_id: bytes  # the package version the module itself is stored in
    defining_ids: Mapping[tuple[ModuleId, str], bytes]  # of every type the module can name


# (opcode, operand, second operand); absent operands are 0. Only VEC_PACK and VEC_UNPACK have a second one.
Instruction = tuple[int, int, int]


@dataclass(slots=True, eq=False)
class FunctionDef:
    """A function of a module, with its signature resolved for convenience."""

    index: int
    handle: int
    module: ModuleId
    name: str
    visibility: Visibility
    is_entry: bool
    is_native: bool
    acquires: tuple[int, ...]
    type_parameters: tuple[int, ...]
    parameters: tuple[Type, ...]
    results: tuple[Type, ...]
    locals_signature: int = 0
    locals: tuple[Type, ...] = ()
    code: tuple[Instruction, ...] = ()
    jump_tables: tuple[JumpTable, ...] = ()


@dataclass(slots=True, eq=False)
class Module:
    """A parsed module. Types inside are already resolved from handles to `StructType`.

    With `links` its types have their defining ids and its own id is where it is stored; its function handles
    still name original ids, since only the package that a transaction calls says which versions those are.
    """

    raw: bytes
    links: Links | None = None
    version: int = 0
    self_handle: int = 0
    id: ModuleId = field(default_factory=lambda: ModuleId(bytes(32), ""))
    identifiers: list[str] = field(default_factory=list)
    addresses: list[bytes] = field(default_factory=list)
    module_handles: list[ModuleId] = field(default_factory=list)
    datatype_handles: list[DatatypeHandle] = field(default_factory=list)
    function_handles: list[FunctionHandle] = field(default_factory=list)
    function_instantiations: list[Instantiation] = field(default_factory=list)
    signatures: list[tuple[Type, ...]] = field(default_factory=list)
    constants: list[Constant] = field(default_factory=list)
    struct_defs: list[StructDef] = field(default_factory=list)
    struct_instantiations: list[Instantiation] = field(default_factory=list)
    function_defs: list[FunctionDef] = field(default_factory=list)
    field_handles: list[FieldHandle] = field(default_factory=list)
    field_instantiations: list[Instantiation] = field(default_factory=list)
    friends: list[ModuleId] = field(default_factory=list)
    metadata: list[tuple[bytes, bytes]] = field(default_factory=list)
    enum_defs: list[EnumDef] = field(default_factory=list)
    enum_instantiations: list[Instantiation] = field(default_factory=list)
    variant_handles: list[VariantHandle] = field(default_factory=list)
    variant_instantiations: list[VariantHandle] = field(default_factory=list)
    functions: dict[str, FunctionDef] = field(default_factory=dict)
    structs: dict[str, StructDef] = field(default_factory=dict)
    enums: dict[str, EnumDef] = field(default_factory=dict)

    @property
    def address(self) -> bytes:
        return self.id.address

    @property
    def name(self) -> str:
        return self.id.name

    @staticmethod
    def parse(raw: bytes, links: Links | None = None) -> Module:
        """Read a module. Raises MalformedModule, never anything else, whatever the bytes.

        `links` has to hold every type that the module names.
        """
        from .deserializer import ModuleReader  # it needs the classes of this file

        try:
            return ModuleReader(bytes(raw), links).read()
        except (ValueError, IndexError, RecursionError) as error:
            raise MalformedModule(str(error)) from error

    def dependencies(self) -> list[ModuleId]:
        """Modules this one names, itself excluded."""
        return [handle for handle in self.module_handles if handle != self.id]

    def datatype(self, name: str) -> DatatypeHandle | None:
        """The handle of a struct or enum defined here."""
        definition: StructDef | EnumDef | None = self.structs.get(name) or self.enums.get(name)
        return self.datatype_handles[definition.handle] if definition else None


def relocate(raw: bytes, new_address: bytes) -> bytes:
    """The module with its own address replaced: what publish does with modules compiled for 0x0.

    Every use of that address in the module follows, other modules of the same package included, since the
    address table has one entry for it. Raises MalformedModule.
    """
    if len(new_address) != 32:
        raise ValueError(f"an address has 32 bytes, found {len(new_address)}")
    from .deserializer import ModuleReader

    reader = ModuleReader(bytes(raw))
    try:
        reader.read()
        at = reader.self_address_offset()
    except (ValueError, IndexError, RecursionError) as error:
        raise MalformedModule(str(error)) from error
    return raw[:at] + new_address + raw[at + 32 :]


def order_by_dependencies(modules: Iterable[Module]) -> list[Module]:
    """The modules, each after those of them it uses.

    Raises VerificationError when there is a cycle, or a module twice.
    """
    given: dict[ModuleId, Module] = {}
    for module in modules:
        if given.setdefault(module.id, module) is not module:
            raise VerificationError("DUPLICATE_MODULE_NAME", f"{module.id} is there twice")
    ordered: dict[ModuleId, Module] = {}
    open_: set[ModuleId] = set()

    def visit(module: Module) -> None:
        if module.id in ordered:
            return
        if module.id in open_:
            raise VerificationError("CYCLIC_MODULE_DEPENDENCY", f"{module.id} depends on itself")
        open_.add(module.id)
        for dependency in module.dependencies():
            if dependency in given:
                visit(given[dependency])
        ordered[module.id] = module

    for module in given.values():
        visit(module)
    return list(ordered.values())
