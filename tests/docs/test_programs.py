"""Programs on the pages other than ansible-playbook: known ones, with targets and options that they have."""

from __future__ import annotations

import argparse
import re
import shutil
from collections.abc import Iterator
from importlib import import_module

from page_kit import PROJECT, code_spans, written_pages

import pages
from k3s_daas.cli import COMMANDS
from k3s_daas_master.backups import command as backups

#: Other programs on the pages, that are not looked into: what they are for.
OTHER_PROGRAMS = {
    "ansible": "modules alone, by hand",
    "ansible-builder": "wants a container engine",
    "ansible-doc": "a module's options",
    "ansible-galaxy": "wants Galaxy",
    "ansible-inventory": "the example's hosts are nobody's",
    "apt-get": "the operator's machine",
    "curl": "asks services by hand",
    "export": "the operator's shell",
    "git": "wants the network",
    "kubectl": "wants a real k3s; the scenario real-k3s has one",
    "k3s": "k3s' own",
    "nitro-cli": "AWS's, on a Nitro instance",
    "pip": "wants a package index",
    "podman": "a container engine",
    "python": "the localnet and the emulator; their tests start them",
    "read": "the operator's shell",
    "reboot": "the operator's hosts",
    "rm": "the operator's hosts",
    "sed": "the operator's hosts",
    "sui": "Sui's own",
    "systemctl": "systemd's",
    "uv": "wants a package index",
}
#: Words that begin samples of output, and are programs, too.
NO_PROGRAMS = {"who"}
CHECKED = {"ansible-playbook", "make", "k3s-daas", "k3s-daas-master"}
PAGES = written_pages()


def options_of(program: str, words: tuple[str, ...]) -> set[str]:
    """Every option of the subcommand that the words name.

    Raises:
        LookupError: there is none of that name.
    """
    parser = argparse.ArgumentParser()
    name = next((word for word in words[1:] if not word.startswith("-")), "")
    if program == "k3s-daas-master":
        if name != "backup":
            raise LookupError(name)
        backups.add_arguments(parser)
    elif name in COMMANDS:
        import_module(COMMANDS[name][0]).add_arguments(parser)
    else:
        raise LookupError(name)
    found, waiting = {"--help"}, [parser]
    while waiting:
        for action in waiting.pop()._actions:
            found |= set(action.option_strings)
            if isinstance(action, argparse._SubParsersAction):
                waiting += action.choices.values()
    return found


def blocks_with_commands() -> Iterator[tuple[str, list[str]]]:
    """(place, lines) of each block whose first line is a command."""
    for page in PAGES:
        for number, lines in pages.shell_lines((PROJECT / page).read_text()):
            written = [line for line in lines if line.strip() and not line.startswith((" ", "#", "…"))]
            first = written[0].split(" ")[0].rpartition("/")[2] if written else ""
            if (
                first in CHECKED
                or first in OTHER_PROGRAMS
                or (first.islower() and first not in NO_PROGRAMS and shutil.which(first))
            ):
                yield f"{page}:{number}", written


def test_every_program_is_known() -> None:
    used = set()
    for place, lines in blocks_with_commands():
        for line in lines:
            # K3S_BINARY=… make demo
            word = next(w for w in line.split(" ") if not re.match(r"[A-Z_]+=", w)).rpartition("/")[2]
            assert word in CHECKED or word in OTHER_PROGRAMS, f"{place}: {line}"
            used.add(word)
    assert used >= CHECKED
    assert sorted(set(OTHER_PROGRAMS) - used) == [], "listed, and on no page"


def test_make_has_every_target() -> None:
    text = (PROJECT / "Makefile").read_text()
    targets = {
        name for line in re.findall(r"^([^\s:=#][^:=\n]*):(?!=)", text, re.MULTILINE) for name in line.split()
    }
    targets |= {name.replace("$(STATE)", ".state") for name in targets}
    asked = set()
    for page in PAGES:
        for one in (
            *code_spans((PROJECT / page).read_text()),
            *(line for _, b in blocks_with_commands() for line in b),
        ):
            found = re.match(r"(?:[A-Z0-9_]+=\S+ )*make ([^\s=#]+)(?![=\S])", one)
            asked |= {found[1]} if found else set()
    assert "demo" in asked
    assert asked - targets == set()


def test_tests_and_scenarios_that_pages_name_are_there() -> None:
    seen = 0
    for page in PAGES:
        for span in code_spans((PROJECT / page).read_text()):
            named = re.findall(r"(?<![\w/])(?:tests|benchmarks|molecule)/[\w/.-]*\w", span)
            named += [
                f"molecule/{name}"
                for name in re.findall(r"(?:--scenario-name|molecule \w+ -s) ([a-z0-9-]+)", span)
            ]
            assert [path for path in named if not (PROJECT / path).exists()] == [], page
            seen += len(named)
    assert seen > 20


def test_our_own_programs_know_their_options() -> None:
    seen = 0
    for page in PAGES:
        for program in ("k3s-daas", "k3s-daas-master"):
            inline = (
                span for span in code_spans((PROJECT / page).read_text()) if span.startswith(f"{program} ")
            )
            typed = [one.words for one in pages.commands(page, program)]
            for words in (*typed, *(tuple(span.split()) for span in inline)):
                known = options_of(program, words)
                used = {word.partition("=")[0] for word in words if re.match(r"--\w", word)}
                assert used <= known, f"{page}: {' '.join(words)}"
                seen += 1
    assert seen > 10
