"""Names, users and groups of owners."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from k3s_daas import tenancy

ADDRESSES = st.binary(min_size=32, max_size=32).map(lambda raw: "0x" + raw.hex())
A = "0x" + "0a" * 32


def test_the_namespace_is_named_after_the_address() -> None:
    assert tenancy.tenant_namespace(A) == "owner-" + "0a" * 20


@given(ADDRESSES)
def test_every_address_has_a_namespace_that_kubernetes_takes(owner: str) -> None:
    name = tenancy.tenant_namespace(owner)
    assert re.fullmatch(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?", name)
    assert len(name) <= 63


@given(ADDRESSES, ADDRESSES)
def test_two_owners_share_a_namespace_only_if_40_digits_agree(one: str, other: str) -> None:
    same = tenancy.tenant_namespace(one) == tenancy.tenant_namespace(other)
    assert same == (one[2:42] == other[2:42])


@given(st.text(max_size=80))
def test_anything_else_is_refused(text: str) -> None:
    if re.fullmatch(r"0x[0-9a-f]{64}", text, re.ASCII):
        return
    for make in (tenancy.tenant_namespace, lambda t: tenancy.groups_of(t, stale=False, operator=False)):
        with pytest.raises(tenancy.InvalidOwner, match="wanted an address"):
            make(text)


@given(ADDRESSES, st.booleans(), st.booleans())
def test_groups(owner: str, stale: bool, operator: bool) -> None:
    groups = tenancy.groups_of(owner, stale=stale, operator=operator)
    assert not [group for group in groups if not group.startswith("k3s-daas:")], "never one of system:"
    assert (tenancy.OWNERS_GROUP in groups) == (not stale)
    assert (tenancy.READONLY_GROUP in groups) == stale
    assert (tenancy.OPERATORS_GROUP in groups) == (operator and not stale)
    assert (tenancy.OPERATORS_READONLY_GROUP in groups) == (operator and stale)
    assert len(set(groups)) == len(groups) == 1 + operator
