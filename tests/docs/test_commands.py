"""The commands on the pages: each could be typed, and each playbook's is run by a scenario or listed here."""

from __future__ import annotations

import ast
import re
import shlex
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest
import yaml
from page_kit import PROJECT, code_spans, written_pages

import pages
from pages import Command

#: Commands that nothing here runs: (page, playbook) → why. `*` is every page.
NOT_RUN = {
    ("*", "site.yml"): "molecule itself runs it: converge, check and idempotence of every scenario",
    ("*", "playbooks/workers.yml"): "a part of site.yml",
    ("docs/aws.md", "playbooks/provision_aws.yml"): "wants AWS; tests/aws runs it on a double of AWS",
    ("docs/aws.md", "playbooks/deprovision_aws.yml"): "wants AWS; tests/aws runs it on a double of AWS",
    ("docs/aws.md", "playbooks/autoscaling.yml"): "wants AWS; tests/aws runs what its timer runs",
    ("docs/awx.md", "playbooks/awx.yml"): "wants a controller; tests/awx runs it on a double of one",
    (
        "docs/image.md",
        "playbooks/build_image.yml",
    ): "minutes of mmdebstrap; `make image-check` and the scenario `image` build by the same role",
}
#: Inventories that a reader has, and the project hasn't.
READERS_OWN = {"inventories/mine", "inventories/stage"}
PAGES = written_pages()


# --- what a command may say ---


@cache
def text_of(playbook: str) -> str:
    """The playbook with all that it imports, without comments."""
    path = PROJECT / playbook
    text = re.sub(r"(?m)^\s*#.*$", "", path.read_text())
    for included in re.findall(r"(?:include|import)_tasks: *(\S+\.yml)\s*$", text, re.MULTILINE):
        text += (path.parent / included).read_text()
    for imported in re.findall(r"import_playbook: *\"?(.+?\.yml)\"?\s*$", text, re.MULTILINE):
        # rotate.yml imports by what is asked for.
        wanted = path.parent / re.sub(r"\{\{.*?\}\}", "*", imported)
        for one in wanted.parent.resolve().glob(wanted.name):
            text += text_of(str(one.relative_to(PROJECT)))
    return text


@cache
def roles_of(playbook: str) -> frozenset[str]:
    """Every role that it includes, and those that these include."""
    every = {path.name for path in (PROJECT / "roles").iterdir()}

    def named(text: str) -> set[str]:
        return every & set(re.findall(r"(?m)(?:name: *|role: *|^ *- )(\w+)\s*$", text))

    found, waiting = set[str](), named(text_of(playbook))
    while waiting:
        role = waiting.pop()
        if role not in found:
            found.add(role)
            tasks = (PROJECT / "roles" / role).glob("*/*.yml")
            waiting |= named("\n".join(path.read_text() for path in tasks if "meta" not in path.parts))
    return frozenset(found)


@cache
def variables_of(playbook: str) -> frozenset[str]:
    """Variables that it knows: what its roles document, what they and it name."""
    text = text_of(playbook)
    # A word with an underscore is none of English; others count where something is worked out.
    known = set(re.findall(r"\b[a-z][a-z0-9]*_[a-z0-9_]+\b", text))
    known |= {
        word
        for part in re.findall(r"\{[{%](.+?)[%}]\}", text, re.DOTALL)
        for word in re.findall(r"(?<!\w)[a-z]+(?!\w)", part)
    }
    for role in roles_of(playbook):
        specs = yaml.safe_load((PROJECT / "roles" / role / "meta/argument_specs.yml").read_text())
        known |= {name for point in specs["argument_specs"].values() for name in point.get("options") or {}}
    return frozenset(known)


# --- what is on the pages ---


def playbook_commands() -> list[Command]:
    return [one for page in PAGES for one in pages.commands(page)]


def inline_commands() -> Iterator[Command]:
    """`playbooks/x.yml -e a=b` in the text of a page."""
    for page in PAGES:
        for span in code_spans((PROJECT / page).read_text()):
            found = re.fullmatch(r"(?:ansible-playbook )?((?:playbooks/)?\w+\.yml)((?: .*)?)", span)
            if found and (PROJECT / "playbooks" / Path(found[1]).name).exists():
                path = found[1] if found[1] == "site.yml" else f"playbooks/{Path(found[1]).name}"
                rest = shlex.split(found[2].replace("…", ""))
                yield Command(page, 0, ("ansible-playbook", path, *rest))


def wrong(command: Command) -> list[str]:
    """What can't be right about it."""
    if command.playbook is None:
        return ["names no playbook"]
    if not (PROJECT / command.playbook).is_file():
        return [f"there is no {command.playbook}"]
    found = [
        f"{command.playbook} knows no variable {name}"
        for name in command.variables
        if name not in variables_of(command.playbook)
    ]
    for inventory in command.inventories:
        if inventory not in READERS_OWN and not (PROJECT / inventory).exists():
            found.append(f"there is no {inventory}")
    return found


@pytest.mark.parametrize("command", playbook_commands(), ids=str)
def test_a_playbooks_command_can_be_typed(command: Command) -> None:
    assert wrong(command) == []


def test_what_the_text_names_can_be_typed() -> None:
    found = list(inline_commands())
    assert len(found) > 50
    assert [f"{one}: {why}" for one in found for why in wrong(one)] == []


@pytest.mark.parametrize(
    ("line", "why"),
    [
        ("ansible-playbook playbooks/exit.yml -e node_id=worker-1 -e confirm=worker-1 --check", []),
        ("ansible-playbook playbooks/exit.yml -e node=worker-1", ["knows no variable node"]),
        ("ansible-playbook playbooks/exi.yml", ["there is no playbooks/exi.yml"]),
        ("ansible-playbook playbooks/exit.yml -i inventories/nobodys", ["there is no inventories/nobodys"]),
        ("ansible-playbook playbooks/rotate.yml -e rotate=x -e rotate_serial=5", []),
        ("ansible-playbook playbooks/upgrade.yml -e master_drain_timeout_s=9", []),
        (
            "ansible-playbook playbooks/status.yml -e nitro_parent_image=x",
            ["knows no variable nitro_parent_image"],
        ),
        (
            """ansible-playbook playbooks/scale.yml -e '{"scale_forget": [], "scale_froget": []}'""",
            ["scale_froget"],
        ),
        ("ansible-playbook --check", ["names no playbook"]),
    ],
)
def test_a_wrong_command_is_seen(line: str, why: list[str]) -> None:
    found = wrong(Command("page", 1, tuple(shlex.split(line))))
    assert len(found) == len(why)
    assert all(part in said for part, said in zip(why, found, strict=True))


# --- what is run ---


def taken() -> list[tuple[str, Command]]:
    """(where, command) of each call of `told` in scenarios and tests."""
    found = []
    for top in ("molecule", "tests"):
        for path in sorted((PROJECT / top).rglob("*.py")):
            text = path.read_text()
            takes = re.search(r"^from pages import .*\btold\b", text, re.MULTILINE)
            if not takes or path.name == "test_pages.py":
                continue
            for node in ast.walk(ast.parse(text)):
                if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "told":
                    where = f"{path.relative_to(PROJECT)}:{node.lineno}"
                    assert all(isinstance(one, ast.Constant) for one in node.args), f"{where}: want literals"
                    words = [ast.literal_eval(one) for one in node.args]
                    # What it would say of a variable that the page's command doesn't set, it says here.
                    pages.told(*words, **{one.arg: "x" for one in node.keywords if one.arg})
                    found.append((where, pages.find(*words)))
    return found


def parts(command: Command) -> tuple[str | None, frozenset[str], frozenset[str]]:
    """(playbook, its switches, its variables): in whichever order they are typed."""
    pairs = list(zip(command.options, ("", *command.options), strict=False))
    given = [word for word, before in pairs if before == "-e"]
    switches = frozenset(word for word, _ in pairs if word != "-e" and word not in given)
    # Whose name it is makes no other command.
    return (
        command.playbook,
        switches,
        frozenset(re.sub(r"^(confirm|node_id)=.*", r"\1", one) for one in given),
    )


def test_every_command_is_run_or_listed() -> None:
    run = [parts(one) for _, one in taken()]
    assert len(set(run)) > 20

    def is_run(command: Command) -> bool:
        # Or it is, with more variables.
        playbook, switches, given = parts(command)
        return any((playbook, switches) == one[:2] and given <= one[2] for one in run)

    lost = [
        str(one)
        for one in playbook_commands()
        if not is_run(one) and not {(one.page, one.playbook), ("*", one.playbook)} & NOT_RUN.keys()
    ]
    assert lost == [], "take them with `told` in a scenario, or say in NOT_RUN why not"


def test_what_is_listed_is_on_a_page() -> None:
    there = {key for one in playbook_commands() for key in ((one.page, one.playbook), ("*", one.playbook))}
    assert set(NOT_RUN) - there == set()
    assert all(NOT_RUN.values())


def test_every_playbook_for_people_is_on_a_page() -> None:
    """Those that others import need none of their own."""
    every = set((PROJECT / "playbooks").glob("*.yml"))
    texts = "\n".join(path.read_text() for path in every)
    imported = {Path(name).name for name in re.findall(r"import_playbook: *\"?(.+?\.yml)", texts)}
    patterns = [re.sub(r"\{\{.*?\}\}", "*", name) for name in imported]
    names = {path.name for path in every if not any(path.match(pattern) for pattern in patterns)} - {
        "site.yml"
    }
    assert {"exit.yml", "rotate.yml"} < names
    told = {one.playbook for one in playbook_commands()}
    assert {f"playbooks/{name}" for name in names} - told == set()
