"""Packages, functions and types as sui.rpc.v2 describes them."""

from __future__ import annotations

from ..ledger.encoding import hex_address
from ..ledger.objects import LedgerObject
from ..vm import CodeStore, ModuleId
from ..vm.bytecode import Ability, DatatypeHandle, Field, FunctionDef, Module, Visibility
from ..vm.types import Primitive, Reference, StructType, Type, TypeParameter, VectorType
from .protocol import Message, v2

_ABILITIES = (
    (Ability.COPY, v2.Ability.COPY),
    (Ability.DROP, v2.Ability.DROP),
    (Ability.STORE, v2.Ability.STORE),
    (Ability.KEY, v2.Ability.KEY),
)
_VISIBILITIES = {
    Visibility.PRIVATE: v2.FunctionDescriptorVisibility.PRIVATE,
    Visibility.PUBLIC: v2.FunctionDescriptorVisibility.PUBLIC,
    Visibility.FRIEND: v2.FunctionDescriptorVisibility.FRIEND,
}


def package(item: LedgerObject, code: CodeStore) -> Message:
    """A whole package, its modules with what they define."""
    assert item.package is not None
    found = (code.module(ModuleId(item.object_id, name)) for name in sorted(item.package.modules))
    identifier = hex_address(item.object_id)
    return v2.Package(
        storage_id=identifier,
        original_id=hex_address(item.package.original_id),
        version=item.version,
        modules=[_module(module) for module in found if module is not None],
        type_origins=[
            v2.TypeOrigin(
                module_name=origin.module, datatype_name=origin.name, package_id=hex_address(origin.package)
            )
            for origin in item.package.type_origins
        ],
        linkage=[
            v2.Linkage(
                original_id=hex_address(original),
                upgraded_id=hex_address(upgraded.package),
                upgraded_version=upgraded.version,
            )
            for original, upgraded in sorted(item.package.linkage.items())
        ],
    )


def _module(module: Module) -> Message:
    return v2.Module(
        name=module.name,
        contents=module.raw,
        datatypes=[datatype(module, defined) for defined in [*module.structs, *module.enums]],
        functions=[function(item) for item in module.function_defs],
    )


def function(definition: FunctionDef) -> Message:
    """A ``FunctionDescriptor``."""
    return v2.FunctionDescriptor(
        name=definition.name,
        visibility=_VISIBILITIES[definition.visibility],
        is_entry=definition.is_entry,
        type_parameters=[
            v2.TypeParameter(constraints=_abilities(bits)) for bits in definition.type_parameters
        ],
        parameters=[_signature(item) for item in definition.parameters],
        returns=[_signature(item) for item in definition.results],
    )


def datatype(module: Module, name: str) -> Message:
    """A ``DatatypeDescriptor`` of a struct or enum that ``module`` defines."""
    handle = module.datatype(name)
    assert handle is not None
    kinds = v2.DatatypeDescriptorDatatypeKind
    described = _datatype(handle)
    if name in module.structs:
        described.kind = kinds.STRUCT
        described.fields = _fields(module.structs[name].fields or ())
    else:
        described.kind = kinds.ENUM
        described.variants = [
            v2.VariantDescriptor(name=variant.name, position=position, fields=_fields(variant.fields))
            for position, variant in enumerate(module.enums[name].variants)
        ]
    return described


def _datatype(handle: DatatypeHandle) -> Message:
    identifier = hex_address(handle.module.address)
    return v2.DatatypeDescriptor(
        type_name=f"{identifier}::{handle.module.name}::{handle.name}",
        defining_id=identifier,
        module=handle.module.name,
        name=handle.name,
        abilities=_abilities(handle.abilities),
        type_parameters=[
            v2.TypeParameter(constraints=_abilities(parameter.constraints), is_phantom=parameter.phantom)
            for parameter in handle.parameters
        ],
    )


def _fields(fields: tuple[Field, ...]) -> list[Message]:
    return [
        v2.FieldDescriptor(name=item.name, position=position, type=_body(item.type))
        for position, item in enumerate(fields)
    ]


def _abilities(bits: int) -> list[Message]:
    return [named for bit, named in _ABILITIES if bits & bit]


def _signature(type_: Type) -> Message:
    if isinstance(type_, Reference):
        references = v2.OpenSignatureReference
        return v2.OpenSignature(
            reference=references.MUTABLE if type_.mutable else references.IMMUTABLE, body=_body(type_.target)
        )
    return v2.OpenSignature(body=_body(type_))


def _body(type_: Type) -> Message:
    types = v2.OpenSignatureBodyType
    match type_:
        case Primitive(name):
            return v2.OpenSignatureBody(type=types[name.upper()])
        case VectorType(element):
            return v2.OpenSignatureBody(type=types.VECTOR, type_parameter_instantiation=[_body(element)])
        case TypeParameter(index):
            return v2.OpenSignatureBody(type=types.TYPE_PARAMETER, type_parameter=index)
        case StructType(address, module, name, args):
            return v2.OpenSignatureBody(
                type=types.DATATYPE,
                type_name=f"{hex_address(address)}::{module}::{name}",
                type_parameter_instantiation=[_body(argument) for argument in args],
            )
        case Reference():
            raise ValueError("a reference inside a type")
