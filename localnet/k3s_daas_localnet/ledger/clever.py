"""Named Move errors: what the compiler packs into the abort code of ``#[error]`` constants.

Bits of the code: 63 marks it, 48 to 55 hold an optional number of the author's, 32 to 47 the source line,
16 to 31 and 0 to 15 the constants of the aborting module with the name and the value (all ones for none).
"""

from __future__ import annotations

from ..vm import CodeStore, ModuleId, VectorType, from_bcs, type_to_string
from ..vm.types import ADDRESS, BOOL, INTEGERS, U8
from .effects import CleverError
from .errors import AbortLocation

_NONE = 0xFFFF
_NAME_TYPE = VectorType(U8)


def explain(abort: AbortLocation, code: CodeStore) -> CleverError | None:
    """What a marked abort code says; None for plain numbers and for codes that fit no constant."""
    module = code.module(ModuleId(abort.package, abort.module))
    if not abort.code >> 63 or module is None:
        return None
    line = abort.code >> 32 & 0xFFFF
    number = abort.code >> 48 & 0xFF
    name_index, value_index = abort.code >> 16 & 0xFFFF, abort.code & 0xFFFF
    if any(index not in (_NONE, *range(len(module.constants))) for index in (name_index, value_index)):
        return None
    name = None
    if name_index != _NONE:
        constant = module.constants[name_index]
        if constant.type != _NAME_TYPE:
            return None
        name = bytes(from_bcs(code.layout(_NAME_TYPE), constant.data)).decode("utf-8", "replace")
    if value_index == _NONE:
        return CleverError(line, number or None, name, None, None, None)
    constant = module.constants[value_index]
    value = from_bcs(code.layout(constant.type), constant.data)
    rendered: str | None = None
    if constant.type == _NAME_TYPE:
        try:
            rendered = bytes(value).decode()
        except UnicodeDecodeError:
            rendered = None
    elif constant.type in INTEGERS:
        rendered = str(int(value))
    elif constant.type in (BOOL, ADDRESS):
        rendered = str(code.layout(constant.type).json(value)).lower()
    raw = constant.data if rendered is None else None
    return CleverError(line, number or None, name, type_to_string(constant.type), rendered, raw)
