"""Bytes that are no module, or a broken one: the only errors are MalformedModule and VerificationError."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from k3s_daas_localnet.vm import (
    CodeStore,
    MalformedModule,
    Module,
    VerificationError,
    Visibility,
    framework_modules,
    relocate,
)
from k3s_daas_localnet.vm.verifier import verify_module

_MAGIC = b"\xa1\x1c\xeb\x0b"
_PACKAGE = bytes(31) + b"\x77"
# Modules that can live at another address alone: no natives, nothing used of their own package.
_MOVABLE = [
    module
    for module in framework_modules()
    if not any(f.is_native for f in module.function_defs)
    and not any(d.address == module.address for d in module.dependencies())
    and len(module.function_defs) > 1
]


def _accepts(store: CodeStore, raw: bytes) -> bool:
    """Any other exception than the two fails the test."""
    try:
        verify_module(Module.parse(raw), store.module)
    except (MalformedModule, VerificationError):
        return False
    return True


@given(
    st.binary(max_size=200), st.sampled_from([b"\x05\x00\x00\x00", b"\x06\x00\x00\x00", b"\x07\x00\x00\x05"])
)
def test_noise_is_malformed(noise: bytes, version: bytes) -> None:
    with pytest.raises(MalformedModule):
        Module.parse(noise)
    try:
        Module.parse(_MAGIC + version + noise)
    except MalformedModule:
        return


def _mutate(rng: random.Random, raw: bytes) -> bytes:
    out = bytearray(raw)
    match rng.randrange(4):
        case 0:
            return bytes(out[: rng.randrange(len(out))])
        case 1:
            at = rng.randrange(8, len(out))
            return bytes(out[:at] + rng.randbytes(rng.randrange(4)) + out[at + rng.randrange(4) :])
        case _:
            for _ in range(rng.randrange(1, 4)):
                out[rng.randrange(8, len(out))] ^= 1 << rng.randrange(8)
            return bytes(out)


@pytest.mark.parametrize("seed", range(4))
def test_broken_modules_raise_nothing_else(store: CodeStore, seed: int) -> None:
    rng = random.Random(seed)  # noqa: S311 - reproducible inputs, nothing secret
    small = [m for m in framework_modules() if len(m.raw) < 4000]
    refused = sum(not _accepts(store, _mutate(rng, rng.choice(small).raw)) for _ in range(300))
    assert refused > 200


@pytest.mark.parametrize("seed", range(4))
def test_what_the_real_vm_refuses_is_refused(
    store: CodeStore, real_vm_loads: Callable[[Sequence[bytes], str, str, int], bool], seed: int
) -> None:
    """One changed byte in a good module: whatever the real VM does not load, we do not accept."""
    rng = random.Random(100 + seed)  # noqa: S311 - reproducible inputs, nothing secret
    accepted = refused = 0
    for _ in range(100):
        raw = bytearray(relocate(rng.choice(_MOVABLE).raw, _PACKAGE))
        at = rng.randrange(len(raw) // 3, len(raw))
        raw[at] = rng.choice([raw[at] ^ (1 << rng.randrange(8)), rng.randrange(256)])
        if not _accepts(store, bytes(raw)):
            refused += 1
            continue
        module = Module.parse(bytes(raw))
        function = next((f for f in module.function_defs if f.visibility == Visibility.PUBLIC), None)
        if function is None:
            continue  # nothing to make the real VM load it by
        assert real_vm_loads([bytes(raw)], module.name, function.name, len(function.type_parameters)), (
            f"the real VM refuses {module.name} with byte {at} set to {raw[at]:#x}, we do not"
        )
        accepted += 1
    assert accepted > 3
    assert refused > 20


def test_relocation_moves_only_the_own_address() -> None:
    for original in _MOVABLE:
        moved = Module.parse(relocate(original.raw, _PACKAGE))
        assert moved.address == _PACKAGE
        assert moved.name == original.name
        assert moved.dependencies() == original.dependencies()
    with pytest.raises(MalformedModule):
        relocate(b"nothing", _PACKAGE)
