"""Interface stubs of the Sui framework, in Move, made from its bytecode.

The compiler wants the framework's source, of which only the bytecode is at hand. A stub has the same structs,
enums and non-private functions, the functions as `native`; what is compiled against it links and runs against
the real framework. Macros and method aliases are expanded by the compiler and leave nothing in bytecode; the
ones that ordinary Move needs are in `stubs_extra.move`.

Nothing is cached: making all stubs takes 0.1 s.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from pathlib import Path

from ..vm.bytecode import (
    Ability,
    DatatypeHandle,
    DatatypeParameter,
    Field,
    FunctionDef,
    Module,
    Visibility,
)
from ..vm.framework import framework_modules
from ..vm.types import Primitive, Reference, StructType, Type, TypeParameter, VectorType

STDLIB = "move-stdlib"
SUI_FRAMEWORK = "sui-framework"

_ADDRESS_NAMES = {1: "std", 2: "sui"}
_FOLDERS = {1: STDLIB, 2: SUI_FRAMEWORK}
_MANIFESTS = {
    STDLIB: """
[package]
name = "MoveStdlib"
edition = "2024"
published-at = "0x1"
[addresses]
std = "0x1"
""",
    SUI_FRAMEWORK: """
[package]
name = "Sui"
edition = "2024"
published-at = "0x2"
[dependencies]
MoveStdlib = { local = "../move-stdlib" }
[addresses]
sui = "0x2"
""",
}
# Functions of std::vector that the compiler turns into one instruction each.
_VECTOR_INSTRUCTIONS = frozenset(
    ("empty", "length", "borrow", "push_back", "borrow_mut", "pop_back", "destroy_empty", "swap")
)
# Containers whose borrow and borrow_mut stand behind `container[key]`.
_INDEXED = frozenset(("vector", "table", "bag", "object_table", "object_bag", "linked_table", "table_vec"))
# std modules that carry the methods of a primitive type.
_PRIMITIVE_MODULES = frozenset(("vector", "u8", "u16", "u32", "u64", "u128", "u256", "address", "bool"))
# Words that are no field names unless quoted.
_RESERVED = re.compile(
    "as|break|const|continue|copy|else|enum|for|friend|fun|has|if|let|loop|macro|match|module|move|mut|native|"
    "package|phantom|public|return|spec|struct|type|use|while"
)
_SECTION = re.compile(r"^// === (\w+)::(\w+) ===$", re.MULTILINE)


def framework_stubs() -> dict[str, dict[str, str]]:
    """Sources of the two framework packages: folder name -> path -> text. Raises FrameworkMissing."""
    packages = {folder: {"Move.toml": manifest} for folder, manifest in _MANIFESTS.items()}
    extras = _extras()
    for module in framework_modules():
        number = int.from_bytes(module.address, "big")
        if number in _FOLDERS:
            extra = extras.pop((_ADDRESS_NAMES[number], module.name), "")
            packages[_FOLDERS[number]][f"sources/{module.name}.move"] = module_stub(module) + extra
    if extras:
        raise ValueError(
            f"stubs_extra.move adds to modules that the framework does not have: {sorted(extras)}"
        )
    return packages


def module_stub(module: Module) -> str:
    """One module's interface as Move source."""
    address = _ADDRESS_NAMES[int.from_bytes(module.address, "big")]
    lines = []
    if address == "std" and module.name in _PRIMITIVE_MODULES:
        lines.append(f"#[defines_primitive({module.name})]")
    lines.append(f"module {address}::{module.name};")
    for struct in module.structs.values():
        lines.append(_struct(module, module.datatype_handles[struct.handle], struct.fields or ()))
    for enum in module.enums.values():
        handle = module.datatype_handles[enum.handle]
        variants = ", ".join(f"{v.name}{_body(module, v.fields)}" for v in enum.variants)
        name = f"{handle.name}{_datatype_parameters(handle.parameters)}{_has(handle.abilities)}"
        lines.append(f"public enum {name} {{ {variants} }}")
    for function in module.functions.values():
        if function.visibility != Visibility.PRIVATE:
            lines.append(_function(module, function))
    return "\n".join(lines) + "\n"


def _extras() -> dict[tuple[str, str], str]:
    parts = _SECTION.split(Path(__file__).with_name("stubs_extra.move").read_text("utf-8"))
    return {(parts[i], parts[i + 1]): parts[i + 2] for i in range(1, len(parts), 3)}


def _struct(module: Module, handle: DatatypeHandle, fields: Sequence[Field]) -> str:
    name = f"public struct {handle.name}{_datatype_parameters(handle.parameters)}"
    body, has = _body(module, fields) or " {}", _has(handle.abilities)
    return f"{name}{body}{has};" if body.startswith("(") else f"{name}{has}{body}"


def _body(module: Module, fields: Sequence[Field]) -> str:
    if not fields:
        return ""
    if [f.name for f in fields] == [f"pos{i}" for i in range(len(fields))]:
        return f"({', '.join(_type(module, f.type) for f in fields)})"
    named = (f"{_identifier(f.name)}: {_type(module, f.type)}" for f in fields)
    return f" {{ {', '.join(named)} }}"


def _function(module: Module, function: FunctionDef) -> str:
    lines = []
    if module.name == "vector" and function.name in _VECTOR_INSTRUCTIONS:
        lines.append("#[bytecode_instruction]")
    if module.name in _INDEXED and function.name in ("borrow", "borrow_mut"):
        lines.append("#[syntax(index)]")
    visibility = "public" if function.visibility == Visibility.PUBLIC else "public(package)"
    generics = _angle(
        f"T{i}{_constraints(abilities)}" for i, abilities in enumerate(function.type_parameters)
    )
    parameters = ", ".join(f"a{i}: {_type(module, t)}" for i, t in enumerate(function.parameters))
    results = [_type(module, t) for t in function.results]
    result = "" if not results else f": {results[0]}" if len(results) == 1 else f": ({', '.join(results)})"
    lines.append(f"{visibility} native fun {function.name}{generics}({parameters}){result};")
    return "\n".join(lines)


def _type(module: Module, type_: Type) -> str:
    match type_:
        case Primitive(name):
            return name
        case VectorType(element):
            return f"vector<{_type(module, element)}>"
        case TypeParameter(number):
            return f"T{number}"
        case Reference(mutable, target):
            return ("&mut " if mutable else "&") + _type(module, target)
        case StructType(address, module_name, name, args):
            own = (address, module_name) == (module.address, module.name)
            path = "" if own else f"{_ADDRESS_NAMES[int.from_bytes(address, 'big')]}::{module_name}::"
            return path + name + _angle(_type(module, a) for a in args)


def _datatype_parameters(parameters: Sequence[DatatypeParameter]) -> str:
    return _angle(
        f"{'phantom ' if p.phantom else ''}T{i}{_constraints(p.constraints)}"
        for i, p in enumerate(parameters)
    )


def _angle(items: Iterable[str]) -> str:
    text = ", ".join(items)
    return f"<{text}>" if text else ""


def _abilities(abilities: int) -> list[str]:
    return [ability.name.lower() for ability in Ability if abilities & ability and ability.name]


def _constraints(abilities: int) -> str:
    return ": " + " + ".join(_abilities(abilities)) if abilities else ""


def _has(abilities: int) -> str:
    return " has " + ", ".join(_abilities(abilities)) if abilities else ""


def _identifier(name: str) -> str:
    return f"`{name}`" if _RESERVED.fullmatch(name) else name
