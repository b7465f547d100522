"""The offline Move compiler: what it makes, and what it says when it can't."""

from __future__ import annotations

import base64
import json
from pathlib import Path

import pytest

from k3s_daas_localnet import compiler
from k3s_daas_localnet.vm.bytecode import Module

MANIFEST = '[package]\nname = "probe"\nedition = "2024"\n[addresses]\nprobe = "0x0"\n'


@pytest.fixture
def package(tmp_path: Path):
    """Writes a package of one module `probe::probe` with the given body and returns its folder."""

    def write(body: str) -> Path:
        (tmp_path / "sources").mkdir(exist_ok=True)
        (tmp_path / "Move.toml").write_text(MANIFEST)
        (tmp_path / "sources" / "probe.move").write_text("module probe::probe;\n" + body)
        return tmp_path

    return write


def test_main_prints_what_the_sui_cli_prints(package, capsys) -> None:
    assert compiler.main([str(package("public fun one(): u64 { 1u64 }\n"))]) == 0
    printed = json.loads(capsys.readouterr().out)
    assert set(printed) == {"modules", "dependencies", "digest"}
    assert printed["dependencies"] == [f"0x{1:064x}", f"0x{2:064x}"]
    assert len(printed["digest"]) == 32
    (module,) = (Module.parse(base64.b64decode(raw)) for raw in printed["modules"])
    assert (module.name, module.address) == ("probe", bytes(32))
    assert "one" in module.functions


def test_the_same_sources_give_the_same_bytes(package) -> None:
    folder = package("public struct S has copy, drop { x: u64 }\npublic fun s(): S { S { x: 1 } }\n")
    assert compiler.build(folder) == compiler.build(folder)


def test_aliases_and_macros_that_bytecode_lacks(package) -> None:
    body = """
use sui::balance::Balance;
use sui::sui::SUI;
public fun text(): std::string::String { b"x".to_string() }
public fun coin(b: Balance<SUI>, ctx: &mut TxContext): sui::coin::Coin<SUI> { b.into_coin(ctx) }
public fun inner(id: &UID): ID { id.to_inner() }
public fun sum(v: vector<u64>): u64 {
    let mut total = 0;
    v.do!(|x| total = total + x);
    3u64.do!(|i| total = total + i);
    option::some(total).do_ref!(|t| total = total + *t);
    total
}
"""
    assert compiler.build(package(body)).warnings == ""


def test_a_compile_error_names_file_line_and_message(package, capsys) -> None:
    folder = package("public fun f(): u64 { true }\n")
    assert compiler.main([str(folder)]) == 1
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith(f"{folder}/sources/probe.move:2:23: error[E04007]: incompatible types\n")


def test_a_folder_without_manifest_is_refused(tmp_path: Path, capsys) -> None:
    assert compiler.main([str(tmp_path)]) == 1
    assert f"{tmp_path} is no Move package: it has no Move.toml" in capsys.readouterr().err


def test_a_package_without_sources_is_refused(tmp_path: Path) -> None:
    (tmp_path / "Move.toml").write_text(MANIFEST)
    with pytest.raises(compiler.CompileError, match=r"no \.move file in its folder sources"):
        compiler.build(tmp_path)


def test_other_dependencies_are_refused_instead_of_fetched(package) -> None:
    folder = package("public fun one(): u64 { 1 }\n")
    (folder / "Move.toml").write_text(
        MANIFEST
        + '[dependencies]\nOther = { git = "https://example.invalid/x.git", rev = "main", subdir = "o" }\n'
    )
    with pytest.raises(compiler.CompileError, match=r"works offline.*example\.invalid"):
        compiler.build(folder)


def test_test_code_is_compiled_only_on_demand_and_unpublishable(package) -> None:
    folder = package("public fun one(): u64 { 1 }\n#[mode(localnet)]\npublic fun two(): u64 { 2 }\n")
    assert "two" not in Module.parse(compiler.build(folder).modules[0]).functions
    (raw,) = compiler.build(folder, test=True).modules
    assert raw[:4].hex() == "deadc0de"


def test_missing_node_names_what_to_run(package, monkeypatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(compiler.CompilerMissing, match="make setup"):
        compiler.build(package("public fun one(): u64 { 1 }\n"))


def test_missing_npm_package_names_what_to_run(package, monkeypatch, tmp_path: Path) -> None:
    monkeypatch.setattr(compiler, "_PACKAGE", tmp_path / "absent.json")
    with pytest.raises(compiler.CompilerMissing, match="make setup"):
        compiler.build(package("public fun one(): u64 { 1 }\n"))


def test_another_compiler_version_is_refused(package, monkeypatch, tmp_path: Path) -> None:
    (tmp_path / "package.json").write_text('{"version": "0.4.0"}')
    monkeypatch.setattr(compiler, "_PACKAGE", tmp_path / "package.json")
    with pytest.raises(compiler.CompilerMissing, match=r"0\.4\.0, wanted 0\.5\.1"):
        compiler.build(package("public fun one(): u64 { 1 }\n"))
