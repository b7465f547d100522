"""What a module declares: no duplicates, within limits, fields with the abilities their struct promises, no
types or instantiations without end. Sources: move-bytecode-verifier `check_duplication`, `limits`,
`constants`, `friends`, `ability_field_requirements`, `data_defs`, `instantiation_loops`.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable

from .. import opcodes as op
from ..bytecode import Ability, EnumDef, Field, Module, StructDef
from ..errors import VerificationError
from ..types import ADDRESS, BOOL, INTEGERS, StructType, Type, TypeParameter, VectorType, walk
from ..values import build_layout, from_bcs
from .abilities import ALL, AbilityTable, requirements

# Sui's protocol config.
MAX_FUNCTION_PARAMETERS = 128
MAX_TYPE_PARAMETERS = 32
MAX_TYPE_NODES = 256
MAX_FIELDS = 32
MAX_FUNCTIONS = 1000
MAX_DATATYPES = 200
MAX_CONSTANT_ELEMENTS = 1024 * 1024


def _unique(items: Iterable[Hashable], what: str) -> None:
    seen = set()
    for item in items:
        if item in seen:
            raise VerificationError("DUPLICATE_ELEMENT", f"{what} is there twice: {item}")
        seen.add(item)


def verify_duplication(module: Module) -> None:
    m = module
    _unique(m.identifiers, "identifier")
    _unique(m.addresses, "address")
    _unique(m.constants, "constant")
    _unique(m.signatures, "signature")
    _unique(m.module_handles, "module handle")
    _unique(((h.module, h.name) for h in m.datatype_handles), "datatype handle")
    _unique(((h.module, h.name) for h in m.function_handles), "function handle")
    _unique(m.function_instantiations, "function instantiation")
    _unique(m.struct_instantiations, "struct instantiation")
    _unique(m.enum_instantiations, "enum instantiation")
    _unique(m.field_handles, "field handle")
    _unique(m.field_instantiations, "field instantiation")
    _unique(m.variant_handles, "variant handle")
    _unique(m.variant_instantiations, "variant instantiation")
    _unique(m.friends, "friend")
    defined: list[StructDef | EnumDef] = [*m.struct_defs, *m.enum_defs]
    _unique((d.handle for d in defined), "definition of a datatype")
    _unique((f.handle for f in m.function_defs), "definition of a function")
    for definition in m.struct_defs:
        if definition.fields is not None:
            if not definition.fields:
                raise VerificationError("ZERO_SIZED_STRUCT", m.datatype_handles[definition.handle].name)
            _unique((f.name for f in definition.fields), "field")
    for enum in m.enum_defs:
        _unique((v.name for v in enum.variants), "variant")
        for variant in enum.variants:
            _unique((f.name for f in variant.fields), "field")
    for datatype in defined:
        if m.datatype_handles[datatype.handle].module != m.id:
            raise VerificationError(
                "INVALID_MODULE_HANDLE", f"defines {m.datatype_handles[datatype.handle].name} elsewhere"
            )
    for function in m.function_defs:
        if function.module != m.id:
            raise VerificationError("INVALID_MODULE_HANDLE", f"defines {function.name} elsewhere")
        _unique(function.acquires, "acquired resource")
        if function.acquires:
            raise VerificationError("INVALID_ACQUIRES_ANNOTATION", "global storage does not exist")
    handles = {d.handle for d in defined}
    for index, datatype_handle in enumerate(m.datatype_handles):
        if datatype_handle.module == m.id and index not in handles:
            raise VerificationError("UNIMPLEMENTED_HANDLE", datatype_handle.name)
    handles = {f.handle for f in m.function_defs}
    for index, function_handle in enumerate(m.function_handles):
        if function_handle.module == m.id and index not in handles:
            raise VerificationError("UNIMPLEMENTED_HANDLE", function_handle.name)


def _all_fields(module: Module) -> Iterable[tuple[int, Field]]:
    """(handle of the datatype, field) for all structs and enums."""
    for definition in module.struct_defs:
        for field in definition.fields or ():
            yield definition.handle, field
    for enum in module.enum_defs:
        for variant in enum.variants:
            for field in variant.fields:
                yield enum.handle, field


def verify_limits(module: Module) -> None:
    def limit(found: int, maximum: int, code: str, what: str) -> None:
        if found > maximum:
            raise VerificationError(code, f"{what}: {found}, at most {maximum}")

    for handle in module.datatype_handles:
        limit(len(handle.parameters), MAX_TYPE_PARAMETERS, "TOO_MANY_TYPE_PARAMETERS", handle.name)
    for function in module.function_handles:
        limit(len(function.type_parameters), MAX_TYPE_PARAMETERS, "TOO_MANY_TYPE_PARAMETERS", function.name)
        parameters = len(module.signatures[function.parameters])
        limit(parameters, MAX_FUNCTION_PARAMETERS, "TOO_MANY_PARAMETERS", function.name)
    types = [t for signature in module.signatures for t in signature]
    types += [constant.type for constant in module.constants]
    types += [field.type for _, field in _all_fields(module)]
    for type_ in types:
        # A struct or type parameter weighs 4, as it stands for more.
        weight = sum(4 if isinstance(t, StructType | TypeParameter) else 1 for t in walk(type_))
        limit(weight, MAX_TYPE_NODES, "TOO_MANY_TYPE_NODES", "nodes of a type")
    limit(len(module.function_defs), MAX_FUNCTIONS, "MAX_FUNCTION_DEFINITIONS_REACHED", "functions")
    datatypes = len(module.struct_defs) + len(module.enum_defs)
    limit(datatypes, MAX_DATATYPES, "MAX_STRUCT_DEFINITIONS_REACHED", "structs and enums")
    for definition in module.struct_defs:
        limit(len(definition.fields or ()), MAX_FIELDS, "MAX_FIELD_DEFINITIONS_REACHED", "fields")
    for enum in module.enum_defs:
        fields = sum(len(variant.fields) for variant in enum.variants)
        limit(fields, MAX_FIELDS, "MAX_FIELD_DEFINITIONS_REACHED", "fields")


class _NoDatatypes:
    """Shapes for layouts of constants, which cannot be structs."""

    def struct_fields(self, type_: StructType) -> None:
        return None

    def enum_variants(self, type_: StructType) -> None:
        return None

    def layout(self, type_: Type):  # type: ignore[no-untyped-def]
        return build_layout(self, type_)


def verify_constants(module: Module) -> None:
    shapes = _NoDatatypes()
    for index, constant in enumerate(module.constants):
        inner = constant.type
        while isinstance(inner, VectorType):
            inner = inner.element
        if inner not in INTEGERS and inner not in (BOOL, ADDRESS):
            raise VerificationError("INVALID_CONSTANT_TYPE", f"constant {index}")
        try:
            value = from_bcs(shapes.layout(constant.type), constant.data)
        except ValueError as error:
            raise VerificationError("MALFORMED_CONSTANT_DATA", f"constant {index}: {error}") from error
        if isinstance(constant.type, VectorType) and len(value) > MAX_CONSTANT_ELEMENTS:
            raise VerificationError("TOO_MANY_VECTOR_ELEMENTS", f"constant {index}")


def verify_friends(module: Module) -> None:
    for friend in module.friends:
        if friend == module.id:
            raise VerificationError("INVALID_FRIEND_DECL_WITH_SELF", str(friend))
        if friend.address != module.id.address:
            raise VerificationError("INVALID_FRIEND_DECL_WITH_MODULES_OUTSIDE_ACCOUNT_ADDRESS", str(friend))


def verify_fields(module: Module) -> None:
    """A struct or enum has an ability only when its fields can bear it (type parameters are conditional)."""
    table = AbilityTable(module)
    for handle_index, field in _all_fields(module):
        handle = module.datatype_handles[handle_index]
        missing = requirements(handle.abilities) & ~table.of(field.type, [ALL] * len(handle.parameters))
        if missing:
            raise VerificationError(
                "FIELD_MISSING_TYPE_ABILITY", f"{handle.name}.{field.name} lacks {Ability(missing)!r}"
            )


def verify_no_recursive_types(module: Module) -> None:
    uses: dict[str, set[str]] = {}
    for handle_index, field in _all_fields(module):
        named = uses.setdefault(module.datatype_handles[handle_index].name, set())
        for inner in walk(field.type):
            if isinstance(inner, StructType) and inner.module_id == module.id:
                named.add(inner.name)
    for name in uses:
        if name in _reachable(uses, uses[name]):
            raise VerificationError("RECURSIVE_DATATYPE_DEFINITION", name)


def _reachable(edges: dict[str, set[str]], start: Iterable[str]) -> set[str]:
    seen: set[str] = set()
    open_ = list(start)
    while open_:
        node = open_.pop()
        if node not in seen:
            seen.add(node)
            open_.extend(edges.get(node, ()))
    return seen


def verify_no_growing_instantiations(module: Module) -> None:
    """No cycle of generic calls in which a type argument gets larger each time round."""
    by_handle = {f.handle: f for f in module.function_defs}
    edges: dict[tuple[int, int], set[tuple[int, int]]] = {}
    growing: list[tuple[tuple[int, int], tuple[int, int]]] = []
    for function in module.function_defs:
        for code, operand, _ in function.code:
            if code != op.CALL_GENERIC:
                continue
            instance = module.function_instantiations[operand]
            callee = by_handle.get(instance.target)
            if callee is None:
                continue
            for position, argument in enumerate(module.signatures[instance.signature]):
                for inner in walk(argument):
                    if isinstance(inner, TypeParameter):
                        source, target = (function.index, inner.number), (callee.index, position)
                        edges.setdefault(source, set()).add(target)
                        if inner is not argument:
                            growing.append((source, target))
    for source, target in growing:
        seen: set[tuple[int, int]] = set()
        open_ = [target]
        while open_:
            node = open_.pop()
            if node == source:
                raise VerificationError(
                    "LOOP_IN_INSTANTIATION_GRAPH",
                    f"type arguments of {module.function_defs[source[0]].name} grow without end",
                )
            if node not in seen:
                seen.add(node)
                open_.extend(edges.get(node, ()))
