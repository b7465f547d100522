"""Types, BCS and JSON of values."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from k3s_daas_localnet.vm import (
    CodeStore,
    EnumValue,
    StructType,
    Type,
    Value,
    VectorType,
    VmError,
    decode_type,
    encode_type,
    from_bcs,
    parse_type,
    struct,
    to_bcs,
    type_to_string,
)
from k3s_daas_localnet.vm.bytecode import Ability
from k3s_daas_localnet.vm.types import ADDRESS, BOOL, BYTES, U8, U64, U256, Primitive
from k3s_daas_localnet.vm.values import INTEGER_CLASSES

_PRIMITIVES = [Primitive(name) for name in INTEGER_CLASSES] + [BOOL, ADDRESS]
_names = st.from_regex(r"[A-Za-z][A-Za-z0-9_]{0,8}", fullmatch=True)
_types: st.SearchStrategy[Type] = st.recursive(
    st.sampled_from(_PRIMITIVES),
    lambda inner: st.one_of(
        st.builds(VectorType, inner),
        st.builds(
            StructType,
            st.binary(min_size=32, max_size=32),
            _names,
            _names,
            st.lists(inner, max_size=3).map(tuple),
        ),
    ),
    max_leaves=5,
)
# Types whose layout is known, for values: no structs but the framework's.
_known_types: st.SearchStrategy[Type] = st.recursive(
    st.sampled_from(_PRIMITIVES),
    lambda inner: st.one_of(
        st.builds(VectorType, inner),
        st.builds(lambda t: struct("0x1", "option", "Option", t), inner),
        st.builds(lambda k, v: struct("0x2", "vec_map", "VecMap", k, v), inner, inner),
    ),
    max_leaves=4,
)


def _values(type_: Type) -> st.SearchStrategy[Value]:
    if isinstance(type_, Primitive):
        if type_.name in INTEGER_CLASSES:
            cls = INTEGER_CLASSES[type_.name]
            return st.integers(0, (1 << int(type_.name[1:])) - 1).map(cls)
        return st.booleans() if type_ == BOOL else st.binary(min_size=32, max_size=32)
    if isinstance(type_, VectorType):
        if type_.element == U8:
            return st.binary(max_size=40).map(bytearray)
        return st.lists(_values(type_.element), max_size=4)
    assert isinstance(type_, StructType)
    if type_.name == "Option":
        content = VectorType(type_.args[0])
        return _values(content).map(lambda items: [items[:1]])
    entries = st.lists(st.tuples(*map(_values, type_.args)).map(list), max_size=3)
    return entries.map(lambda items: [items])


@given(_types)
def test_type_survives_text_and_tag(type_: Type) -> None:
    assert parse_type(type_to_string(type_)) == type_
    assert decode_type(encode_type(type_)) == type_


@given(_known_types.flatmap(lambda type_: st.tuples(st.just(type_), _values(type_))))
def test_value_survives_bcs(store: CodeStore, case: tuple[Type, Value]) -> None:
    type_, value = case
    layout = store.layout(type_)
    data = to_bcs(layout, value)
    again = from_bcs(layout, data)
    assert again == value
    assert to_bcs(layout, again) == data
    layout.json(value)


@given(_known_types, st.binary(max_size=60))
def test_any_bytes_decode_or_raise_value_error(store: CodeStore, type_: Type, data: bytes) -> None:
    layout = store.layout(type_)
    try:
        value = from_bcs(layout, data)
    except ValueError:
        return
    assert to_bcs(layout, value) == data  # BCS is canonical


@pytest.mark.parametrize(
    "text",
    ["", "u65", "vector<u8", "0x2::coin", "0x2::coin::Coin<>", "u8 u8 u8,", "0x2::a::B<u8,>", "vector"],
)
def test_bad_type_text_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="not a Move type"):
        parse_type(text)


def test_short_and_spaced_text_is_canonical() -> None:
    coin = parse_type("0x2::coin::Coin< 0x2::sui::SUI >")
    sixty_four = "0" * 63 + "2"
    assert type_to_string(coin) == f"0x{sixty_four}::coin::Coin<0x{sixty_four}::sui::SUI>"


_ID = bytes(31) + b"\x09"


@pytest.mark.parametrize(
    ("type_", "value", "json"),
    [
        ("u32", INTEGER_CLASSES["u32"](7), 7),
        ("u64", 7, "7"),
        ("vector<u8>", bytearray(b"hi"), "aGk="),
        ("vector<bool>", [True], [True]),
        ("address", _ID, "0x" + _ID.hex()),
        ("0x1::string::String", [bytearray("ž".encode())], "ž"),
        ("0x1::option::Option<u64>", [[5]], "5"),
        ("0x1::option::Option<u8>", [bytearray(b"\x05")], 5),
        ("0x1::option::Option<u64>", [[]], None),
        ("0x2::object::UID", [[_ID]], "0x" + _ID.hex()),
        ("0x2::balance::Balance<0x2::sui::SUI>", [12], "12"),
        (
            "0x2::coin::Coin<0x2::sui::SUI>",
            [[[_ID]], [12]],
            {"id": "0x" + _ID.hex(), "balance": "12"},
        ),
        (
            "0x2::table::Table<u64,bool>",
            [[[_ID]], 3],
            {"id": "0x" + _ID.hex(), "size": "3"},
        ),
    ],
)
def test_json_is_that_of_sui_rpc(store: CodeStore, type_: str, value: Value, json: Any) -> None:
    assert store.layout(parse_type(type_)).json(value) == json


def test_json_of_an_enum_names_its_variant(store: CodeStore) -> None:
    enum = next(m for m in store.modules() if m.enum_defs and m.name == "coin_registry")
    handle = next(
        enum.datatype_handles[d.handle]
        for d in enum.enum_defs
        if not enum.datatype_handles[d.handle].parameters
    )
    layout = store.layout(handle.type())
    variants = store.enum_variants(handle.type())
    assert variants is not None
    tag, name = next((n, name) for n, (name, fields) in enumerate(variants) if not fields)
    assert layout.json(EnumValue(tag, [])) == {"@variant": name}
    assert from_bcs(layout, bytes([tag])) == EnumValue(tag, [])
    with pytest.raises(ValueError, match="variant"):
        from_bcs(layout, bytes([len(variants)]))


def test_abilities_depend_on_type_arguments(store: CodeStore) -> None:
    option_of_coin = parse_type("0x1::option::Option<0x2::coin::Coin<0x2::sui::SUI>>")
    assert store.abilities(option_of_coin) == Ability.STORE
    assert store.abilities(parse_type("0x1::option::Option<u8>")) == (
        Ability.COPY | Ability.DROP | Ability.STORE
    )
    assert store.abilities(parse_type("0x2::coin::Coin<0x2::sui::SUI>")) == Ability.KEY | Ability.STORE


@pytest.mark.parametrize(
    ("text", "status"),
    [
        ("0x2::coin::Nothing", "TYPE_RESOLUTION_FAILURE"),
        ("0x77::coin::Coin", "TYPE_RESOLUTION_FAILURE"),
        ("0x2::coin::Coin", "NUMBER_OF_TYPE_ARGUMENTS_MISMATCH"),
        ("0x2::vec_set::VecSet<0x2::coin::Coin<u8>>", "CONSTRAINT_NOT_SATISFIED"),
        ("vector<" * 20 + "u8" + ">" * 20, "VM_MAX_TYPE_DEPTH_REACHED"),
    ],
)
def test_type_arguments_from_outside_are_checked(store: CodeStore, text: str, status: str) -> None:
    with pytest.raises(VmError) as caught:
        store.check_type(parse_type(text))
    assert caught.value.status == status


def test_layouts_are_made_once(store: CodeStore) -> None:
    assert store.layout(BYTES) is store.layout(BYTES)
    assert store.layout(VectorType(U64)) is store.layout(VectorType(U64))
    assert to_bcs(store.layout(U256), 1) == b"\x01" + bytes(31)
