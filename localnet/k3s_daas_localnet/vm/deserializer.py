"""Reads the bytes of Move modules.

What the reader checks is what Move's own deserializer checks: the shape of the bytes, and that every index it
has to follow while reading exists. All else is the verifier's. Source: move-binary-format `deserializer.rs`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from typing import TypeVar

from . import opcodes as op
from .bytecode import (
    ALL_ABILITIES,
    LOCAL_MAX,
    Constant,
    DatatypeHandle,
    DatatypeParameter,
    EnumDef,
    Field,
    FieldHandle,
    FunctionDef,
    FunctionHandle,
    Instantiation,
    Instruction,
    JumpTable,
    Links,
    Module,
    StructDef,
    Variant,
    VariantHandle,
    Visibility,
)
from .errors import MalformedModule, ModuleId
from .types import (
    ADDRESS,
    BOOL,
    SIGNER,
    U8,
    U16,
    U32,
    U64,
    U128,
    U256,
    Reader,
    Reference,
    Type,
    TypeParameter,
    VectorType,
)

T = TypeVar("T")

MAGIC = b"\xa1\x1c\xeb\x0b"
VERSIONS = range(5, 8)
_SUI_FLAVOR = 5  # top byte of the version word, from version 7 on

TABLE_MAX = 0xFFFF
BYTECODE_MAX = 0xFFFF
SIGNATURE_MAX = 0xFF
FIELD_MAX = 0xFF
TYPE_PARAMETER_MAX = 0xFF
VARIANT_MAX = 127
IDENTIFIER_MAX = 128
TOKEN_DEPTH_MAX = 256

_IDENTIFIER = re.compile(r"(?:[A-Za-z][A-Za-z0-9_]*|_[A-Za-z0-9_]+)\Z|<SELF>\Z", re.ASCII)


class _Table:
    MODULE_HANDLES = 0x1
    DATATYPE_HANDLES = 0x2
    FUNCTION_HANDLES = 0x3
    FUNCTION_INST = 0x4
    SIGNATURES = 0x5
    CONSTANTS = 0x6
    IDENTIFIERS = 0x7
    ADDRESSES = 0x8
    STRUCT_DEFS = 0xA
    STRUCT_INST = 0xB
    FUNCTION_DEFS = 0xC
    FIELD_HANDLES = 0xD
    FIELD_INST = 0xE
    FRIENDS = 0xF
    METADATA = 0x10
    ENUM_DEFS = 0x11
    ENUM_INST = 0x12
    VARIANT_HANDLES = 0x13
    VARIANT_INST = 0x14


_KNOWN_TABLES = frozenset(v for k, v in vars(_Table).items() if k.isupper())
_VERSION_7_TABLES = frozenset(
    (_Table.ENUM_DEFS, _Table.ENUM_INST, _Table.VARIANT_HANDLES, _Table.VARIANT_INST)
)

_PRIMITIVE_TOKENS: dict[int, Type] = {
    0x1: BOOL,
    0x2: U8,
    0x3: U64,
    0x4: U128,
    0x5: ADDRESS,
    0xC: SIGNER,
    0xD: U16,
    0xE: U32,
    0xF: U256,
}
_TOKEN_REFERENCE = 0x6
_TOKEN_MUTABLE_REFERENCE = 0x7
_TOKEN_STRUCT = 0x8
_TOKEN_TYPE_PARAMETER = 0x9
_TOKEN_VECTOR = 0xA
_TOKEN_STRUCT_INSTANCE = 0xB


class ModuleReader:
    def __init__(self, raw: bytes, links: Links | None = None) -> None:
        self.raw = raw
        self.links = links
        self.module = Module(raw, links)
        self.tables: dict[int, tuple[int, int]] = {}

    def self_address_offset(self) -> int:
        """Where in the raw bytes the module's own address stands. Only after `read`."""
        start, _ = self.tables[_Table.MODULE_HANDLES]
        reader = Reader(self.raw, start)
        address_index = 0
        for _ in range(self.module.self_handle + 1):
            address_index = reader.uleb(TABLE_MAX)
            reader.uleb(TABLE_MAX)
        return self.tables[_Table.ADDRESSES][0] + 32 * address_index

    def read(self) -> Module:
        module = self.module
        reader = Reader(self.raw)
        if reader.take(4) != MAGIC:
            raise ValueError("no Move module: wrong magic")
        word = reader.integer(4)
        version, flavor = word & 0xFFFFFF, word >> 24
        if version not in VERSIONS:
            raise ValueError(f"binary format version {version}, supported are 5 to 7")
        if flavor != (_SUI_FLAVOR if version >= 7 else 0):
            raise ValueError(f"binary flavor {flavor} does not belong to version {version}")
        module.version = version
        self._read_directory(reader)
        self._read_tables()
        if module.self_handle >= len(module.module_handles):
            raise ValueError("the module's own handle does not exist")
        module.id = module.module_handles[module.self_handle]
        if self.links is not None:
            module.id = ModuleId(self.links.storage_id, module.id.name)
            for function in module.function_defs:
                function.module = module.id
        self._index_definitions()
        return module

    def _read_directory(self, reader: Reader) -> None:
        count = reader.uleb(0xFF)
        entries = []
        for _ in range(count):
            kind = reader.byte()
            if kind not in _KNOWN_TABLES or (kind in _VERSION_7_TABLES and self.module.version < 7):
                raise ValueError(f"unknown table kind {kind:#x}")
            entries.append((reader.uleb(), reader.uleb(), kind))
        base = reader.position
        at = 0
        for offset, length, kind in sorted(entries):
            if offset != at or length == 0 or kind in self.tables:
                raise ValueError(f"table {kind:#x} is empty, twice there, or overlaps another")
            self.tables[kind] = (base + offset, length)
            at += length
        if base + at > len(self.raw):
            raise ValueError("a table reaches past the end")
        tail = Reader(self.raw, base + at)
        self.module.self_handle = tail.uleb(TABLE_MAX)
        if tail.left:
            raise ValueError(f"{tail.left} bytes left over after the module")

    def _each(self, kind: int, read: Callable[[Reader], T]) -> list[T]:
        found: list[T] = []
        if kind in self.tables:
            start, length = self.tables[kind]
            reader = Reader(self.raw, start, start + length)
            while reader.left:
                found.append(read(reader))
            if len(found) > TABLE_MAX:
                raise ValueError(f"table {kind:#x} has more than {TABLE_MAX} entries")
        return found

    def _read_tables(self) -> None:
        """Read in the order of need: names, handles, signatures, then definitions."""
        m = self.module
        m.identifiers = self._each(_Table.IDENTIFIERS, self._identifier)
        m.addresses = self._each(_Table.ADDRESSES, lambda r: r.take(32))
        m.module_handles = self._each(_Table.MODULE_HANDLES, self._module_id)
        m.datatype_handles = self._each(_Table.DATATYPE_HANDLES, self._datatype_handle)
        m.function_handles = self._each(_Table.FUNCTION_HANDLES, self._function_handle)
        m.signatures = self._each(_Table.SIGNATURES, self._signature)
        m.constants = self._each(_Table.CONSTANTS, self._constant)
        m.function_instantiations = self._each(_Table.FUNCTION_INST, self._instantiation)
        m.struct_defs = self._each(_Table.STRUCT_DEFS, self._struct_def)
        m.struct_instantiations = self._each(_Table.STRUCT_INST, self._instantiation)
        m.field_handles = self._each(
            _Table.FIELD_HANDLES, lambda r: FieldHandle(r.uleb(TABLE_MAX), r.uleb(FIELD_MAX))
        )
        m.field_instantiations = self._each(_Table.FIELD_INST, self._instantiation)
        m.friends = self._each(_Table.FRIENDS, self._module_id)
        m.metadata = self._each(_Table.METADATA, lambda r: (r.take(r.uleb(1023)), r.take(r.uleb(TABLE_MAX))))
        m.enum_defs = self._each(_Table.ENUM_DEFS, self._enum_def)
        m.enum_instantiations = self._each(_Table.ENUM_INST, self._instantiation)
        m.variant_handles = self._each(_Table.VARIANT_HANDLES, self._variant_handle)
        m.variant_instantiations = self._each(_Table.VARIANT_INST, self._variant_handle)
        m.function_defs = self._each(_Table.FUNCTION_DEFS, self._function_def)

    def _index_definitions(self) -> None:
        m = self.module
        for index, function in enumerate(m.function_defs):
            function.index = index
            m.functions[function.name] = function
        for definition in m.struct_defs:
            m.structs[m.datatype_handles[definition.handle].name] = definition
        for enum in m.enum_defs:
            m.enums[m.datatype_handles[enum.handle].name] = enum

    @staticmethod
    def _at(items: list[T], index: int, what: str) -> T:
        if index >= len(items):
            raise ValueError(f"{what} {index} does not exist, there are {len(items)}")
        return items[index]

    def _identifier(self, r: Reader) -> str:
        name = r.take(r.uleb(IDENTIFIER_MAX)).decode("ascii")
        if not _IDENTIFIER.match(name):
            raise ValueError(f"not an identifier: {name!r}")
        return name

    def _name(self, r: Reader) -> str:
        return self._at(self.module.identifiers, r.uleb(TABLE_MAX), "identifier")

    def _module_id(self, r: Reader) -> ModuleId:
        address = self._at(self.module.addresses, r.uleb(TABLE_MAX), "address")
        return ModuleId(address, self._name(r))

    def _module_handle(self, r: Reader) -> ModuleId:
        return self._at(self.module.module_handles, r.uleb(TABLE_MAX), "module handle")

    @staticmethod
    def _abilities(r: Reader, allowed: int = ALL_ABILITIES) -> int:
        bits = r.uleb(0xFF)
        if bits & ~allowed:
            raise ValueError(f"unknown abilities {bits:#x}")
        return bits

    def _datatype_handle(self, r: Reader) -> DatatypeHandle:
        module, name, abilities = self._module_handle(r), self._name(r), self._abilities(r)
        parameters = []
        for _ in range(r.uleb(TYPE_PARAMETER_MAX)):
            constraints, phantom = self._abilities(r), r.byte()
            if phantom > 1:
                raise ValueError("phantom marker is neither 0 nor 1")
            parameters.append(DatatypeParameter(constraints, bool(phantom)))
        if self.links is not None:
            defining_id = self.links.defining_ids.get((module, name))
            if defining_id is None:
                raise ValueError(f"no package is known to define {module}::{name}")
            module = ModuleId(defining_id, module.name)
        return DatatypeHandle(module, name, abilities, tuple(parameters))

    def _function_handle(self, r: Reader) -> FunctionHandle:
        module, name = self._module_handle(r), self._name(r)
        parameters, results = r.uleb(TABLE_MAX), r.uleb(TABLE_MAX)
        constraints = tuple(self._abilities(r) for _ in range(r.uleb(TYPE_PARAMETER_MAX)))
        return FunctionHandle(module, name, parameters, results, constraints)

    @staticmethod
    def _instantiation(r: Reader) -> Instantiation:
        return Instantiation(r.uleb(TABLE_MAX), r.uleb(TABLE_MAX))

    @staticmethod
    def _variant_handle(r: Reader) -> VariantHandle:
        return VariantHandle(r.uleb(TABLE_MAX), r.uleb(VARIANT_MAX - 1))

    def _signature(self, r: Reader) -> tuple[Type, ...]:
        return tuple(self._token(r) for _ in range(r.uleb(SIGNATURE_MAX)))

    def _token(self, r: Reader, depth: int = 1) -> Type:
        if depth > TOKEN_DEPTH_MAX:
            raise ValueError(f"type nested deeper than {TOKEN_DEPTH_MAX}")
        kind = r.byte()
        if kind in _PRIMITIVE_TOKENS:
            if kind >= 0xD and self.module.version < 6:
                raise ValueError("u16, u32 and u256 came with version 6")
            return _PRIMITIVE_TOKENS[kind]
        match kind:
            case 0x6 | 0x7:
                return Reference(kind == _TOKEN_MUTABLE_REFERENCE, self._token(r, depth + 1))
            case 0x9:
                return TypeParameter(r.uleb(TABLE_MAX))
            case 0xA:
                return VectorType(self._token(r, depth + 1))
            case 0x8:
                return self._at(self.module.datatype_handles, r.uleb(TABLE_MAX), "datatype handle").type()
            case 0xB:
                handle = self._at(self.module.datatype_handles, r.uleb(TABLE_MAX), "datatype handle")
                count = r.uleb(TYPE_PARAMETER_MAX)
                if count == 0:
                    raise ValueError("a generic type without arguments")
                return handle.type(tuple([self._token(r, depth + 1) for _ in range(count)]))
            case _:
                raise ValueError(f"unknown type token {kind:#x}")

    def _constant(self, r: Reader) -> Constant:
        return Constant(self._token(r), r.take(r.uleb(TABLE_MAX)))

    def _fields(self, r: Reader) -> tuple[Field, ...]:
        return tuple(Field(self._name(r), self._token(r)) for _ in range(r.uleb(FIELD_MAX)))

    def _defined_handle(self, r: Reader) -> int:
        index = r.uleb(TABLE_MAX)
        self._at(self.module.datatype_handles, index, "datatype handle")
        return index

    def _struct_def(self, r: Reader) -> StructDef:
        handle, kind = self._defined_handle(r), r.byte()
        if kind == 1:
            return StructDef(handle, None)
        if kind == 2:
            return StructDef(handle, self._fields(r))
        raise ValueError(f"unknown kind of struct {kind}")

    def _enum_def(self, r: Reader) -> EnumDef:
        handle, kind = self._defined_handle(r), r.byte()
        if kind != 2:
            raise ValueError(f"unknown kind of enum {kind}")
        count = r.uleb(VARIANT_MAX)
        if count == 0:
            raise ValueError("an enum without variants")
        return EnumDef(handle, tuple(Variant(self._name(r), self._fields(r)) for _ in range(count)))

    def _function_def(self, r: Reader) -> FunctionDef:
        m = self.module
        handle_index = r.uleb(TABLE_MAX)
        handle = self._at(m.function_handles, handle_index, "function handle")
        visibility_byte, flags = r.byte(), r.byte()
        if flags & ~0x6:
            raise ValueError(f"unknown function flags {flags:#x}")
        if visibility_byte not in (0, 1, 3):
            raise ValueError(f"unknown visibility {visibility_byte}")
        function = FunctionDef(
            index=0,
            handle=handle_index,
            module=handle.module,
            name=handle.name,
            visibility=Visibility(visibility_byte),
            is_entry=bool(flags & 0x4),
            is_native=bool(flags & 0x2),
            acquires=tuple(r.uleb(TABLE_MAX) for _ in range(r.uleb(0xFF))),
            type_parameters=handle.type_parameters,
            parameters=self._at(m.signatures, handle.parameters, "signature"),
            results=self._at(m.signatures, handle.results, "signature"),
        )
        if not function.is_native:
            function.locals_signature = r.uleb(TABLE_MAX)
            function.locals = self._at(m.signatures, function.locals_signature, "signature")
            function.code = tuple(self._instruction(r) for _ in range(r.uleb(BYTECODE_MAX)))
            if m.version >= 7:
                function.jump_tables = tuple(self._jump_table(r) for _ in range(r.uleb(TABLE_MAX)))
        return function

    @staticmethod
    def _jump_table(r: Reader) -> JumpTable:
        enum, branches = r.uleb(TABLE_MAX), r.uleb(VARIANT_MAX)
        if branches == 0:
            raise ValueError("a jump table without branches")
        kind = r.byte()
        if kind != 1:
            raise ValueError(f"unknown kind of jump table {kind}")
        return JumpTable(enum, tuple(r.uleb(BYTECODE_MAX) for _ in range(branches)))

    def _instruction(self, r: Reader) -> Instruction:
        code = r.byte()
        if code not in op.NAMES or op.SINCE_VERSION.get(code, 0) > self.module.version:
            raise ValueError(f"unknown or refused instruction {code:#x}")
        if code in op.LOCAL_OPERAND:
            return code, r.uleb(LOCAL_MAX), 0
        if code in op.BRANCH_OPERAND:
            return code, r.uleb(BYTECODE_MAX), 0
        if code in op.INDEX_OPERAND:
            return code, r.uleb(TABLE_MAX), 0
        if code in op.VECTOR_COUNT_OPERAND:
            return code, r.uleb(TABLE_MAX), r.integer(8)
        if code in op.LITERAL_BYTES:
            return code, r.integer(op.LITERAL_BYTES[code]), 0
        return code, 0, 0


def find_modules(data: bytes) -> Iterable[Module]:
    """Modules inside a blob where each is preceded by its length as ULEB128 (BCS `vector<vector<u8>>`)."""
    at = data.find(MAGIC)
    while at >= 0:
        for width in (1, 2, 3):
            reader = Reader(data, max(0, at - width))
            try:
                length = reader.uleb()
                if reader.position == at and 8 < length <= len(data) - at:
                    yield Module.parse(data[at : at + length])
                    break
            except (ValueError, MalformedModule):
                continue
        at = data.find(MAGIC, at + len(MAGIC))
