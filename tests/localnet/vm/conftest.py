"""Framework code, the real Move VM as oracle, and an assembler for modules no compiler would make."""

from __future__ import annotations

import base64
import re
from collections.abc import Callable, Sequence

import pytest
import sui_sandbox

from k3s_daas_localnet.vm import CodeStore, Module, ModuleId, address_to_string, opcodes
from k3s_daas_localnet.vm.types import encode_uleb

PACKAGE = bytes(31) + b"\x77"
_REFUSED = re.compile("UNEXPECTED_VERIFIER_ERROR|LINKER_ERROR|not found in module")


@pytest.fixture(scope="session")
def store() -> CodeStore:
    """The framework. Fork it to add anything."""
    return CodeStore.with_framework()


@pytest.fixture(scope="session")
def real_vm_loads() -> Callable[[Sequence[bytes], str, str, int], bool]:
    """Whether the real VM loads and verifies modules (at PACKAGE); it does so to call a function."""

    def loads(modules: Sequence[bytes], module: str, function: str, type_parameters: int = 0) -> bool:
        package = address_to_string(PACKAGE)
        answer = sui_sandbox.call_view_function(
            package,
            module,
            function,
            type_args=["u64"] * type_parameters,
            package_bytecodes={package: [base64.b64encode(raw).decode() for raw in modules]},
            fetch_deps=False,
        )
        return bool(answer["success"]) or not _REFUSED.search(answer["error"])

    return loads


def _uleb_list(items: Sequence[bytes]) -> bytes:
    return encode_uleb(len(items)) + b"".join(items)


class Assembler:
    """Writes Move binary format, version 7, one table at a time. Tokens of types are bytes."""

    BOOL, U8, U64, ADDRESS = b"\x01", b"\x02", b"\x03", b"\x05"

    def __init__(self, name: str = "m", address: bytes = PACKAGE) -> None:
        self._identifiers: list[str] = []
        self._addresses: list[bytes] = []
        self._modules: list[tuple[bytes, str]] = []
        self._signatures: list[bytes] = []
        self._datatypes: list[bytes] = []
        self._functions: list[bytes] = []
        self._tables: dict[int, list[bytes]] = {}
        self.own = self.module(address, name)

    @staticmethod
    def ref(token: bytes) -> bytes:
        return b"\x06" + token

    @staticmethod
    def mut(token: bytes) -> bytes:
        return b"\x07" + token

    @staticmethod
    def vector(token: bytes) -> bytes:
        return b"\x0a" + token

    @staticmethod
    def type_parameter(number: int) -> bytes:
        return b"\x09" + encode_uleb(number)

    @staticmethod
    def datatype_token(handle: int, *args: bytes) -> bytes:
        if not args:
            return b"\x08" + encode_uleb(handle)
        return b"\x0b" + encode_uleb(handle) + _uleb_list(args)

    @staticmethod
    def _index(items: list, item: object) -> int:  # type: ignore[type-arg]
        if item not in items:
            items.append(item)
        return items.index(item)

    def identifier(self, text: str) -> bytes:
        return encode_uleb(self._index(self._identifiers, text))

    def module(self, address: bytes, name: str) -> int:
        self._index(self._addresses, address)
        self.identifier(name)
        return self._index(self._modules, (address, name))

    def signature(self, *tokens: bytes) -> int:
        return self._index(self._signatures, _uleb_list(tokens))

    def add(self, table: int, entry: bytes) -> int:
        return self._index(self._tables.setdefault(table, []), entry)

    def add_again(self, table: int, entry: bytes) -> None:
        """Even when it is there already."""
        self._tables.setdefault(table, []).append(entry)

    def datatype(
        self,
        name: str,
        abilities: int = 0,
        parameters: Sequence[tuple[int, bool]] = (),
        module: int | None = None,
    ) -> int:
        """A handle; parameters are (constraints, phantom)."""
        entry = (
            encode_uleb(self.own if module is None else module) + self.identifier(name) + bytes([abilities])
        )
        entry += _uleb_list([bytes([constraints, phantom]) for constraints, phantom in parameters])
        return self._index(self._datatypes, entry)

    def struct(self, handle: int, *fields: tuple[str, bytes]) -> int:
        entry = encode_uleb(handle) + b"\x02"
        entry += _uleb_list([self.identifier(name) + token for name, token in fields])
        return self.add(0xA, entry)

    def function_handle(
        self,
        name: str,
        parameters: Sequence[bytes] = (),
        results: Sequence[bytes] = (),
        type_parameters: Sequence[int] = (),
        module: int | None = None,
    ) -> int:
        entry = encode_uleb(self.own if module is None else module) + self.identifier(name)
        entry += encode_uleb(self.signature(*parameters)) + encode_uleb(self.signature(*results))
        return self._index(
            self._functions, entry + encode_uleb(len(type_parameters)) + bytes(type_parameters)
        )

    def function(
        self,
        name: str,
        code: Sequence[tuple[int, ...]],
        parameters: Sequence[bytes] = (),
        results: Sequence[bytes] = (),
        locals_: Sequence[bytes] = (),
        type_parameters: Sequence[int] = (),
        visibility: int = 1,
        entry: bool = False,
    ) -> int:
        handle = self.function_handle(name, parameters, results, type_parameters)
        out = encode_uleb(handle) + bytes([visibility, 4 if entry else 0]) + encode_uleb(0)
        out += encode_uleb(self.signature(*locals_)) + encode_uleb(len(code))
        for instruction in code:
            opcode = instruction[0]
            out += bytes([opcode])
            if opcode in opcodes.LITERAL_BYTES:
                out += instruction[1].to_bytes(opcodes.LITERAL_BYTES[opcode], "little")
            elif len(instruction) > 1:
                out += encode_uleb(instruction[1])
            if opcode in opcodes.VECTOR_COUNT_OPERAND:
                out += instruction[2].to_bytes(8, "little")
        self.add_again(0xC, out + encode_uleb(0))
        return handle

    def build(self) -> bytes:
        tables = dict(self._tables)
        tables[0x1] = [
            encode_uleb(self._addresses.index(address)) + self.identifier(name)
            for address, name in self._modules
        ]
        tables[0x2], tables[0x3], tables[0x5] = self._datatypes, self._functions, self._signatures
        tables[0x7] = [encode_uleb(len(name)) + name.encode() for name in self._identifiers] + tables.get(
            0x7, []
        )
        tables[0x8] = list(self._addresses)
        directory, body = b"", b""
        contents = {kind: b"".join(entries) for kind, entries in sorted(tables.items()) if entries}
        for kind, content in contents.items():
            directory += bytes([kind]) + encode_uleb(len(body)) + encode_uleb(len(content))
            body += content
        header = b"\xa1\x1c\xeb\x0b\x07\x00\x00\x05" + encode_uleb(len(contents))
        return header + directory + body + encode_uleb(self.own)


@pytest.fixture
def assembler() -> Assembler:
    return Assembler()


@pytest.fixture(scope="session")
def make_assembler() -> type[Assembler]:
    return Assembler


@pytest.fixture(scope="session")
def module_id() -> Callable[[str, str], ModuleId]:
    """`module_id("0x1", "vector")`"""
    from k3s_daas_localnet.vm import parse_address

    return lambda address, name: ModuleId(parse_address(address), name)


@pytest.fixture
def publish(store: CodeStore) -> Callable[[bytes], tuple[CodeStore, Module]]:
    """Verify a module and add it to a fork of the framework."""
    from k3s_daas_localnet.vm.verifier import verify_module

    def run(raw: bytes) -> tuple[CodeStore, Module]:
        fork = store.fork()
        module = Module.parse(raw)
        verify_module(module, fork.module)
        fork.add(module)
        return fork, module

    return run
