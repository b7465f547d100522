"""Writes docs/reference: a page for each module, plugin and role, of what `ansible-doc` says of them.

make docs
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

PROJECT = Path(__file__).resolve().parents[1]
FOLDER = PROJECT / "docs/reference"
WRITTEN = "<!-- Written by `make docs`. Change the code's documentation instead. -->\n"
#: `C(code)`, `O(option)`, `V(value)`, `RV(returned)`, `M(module)` and the like; `\\)` is a bracket inside.
_MARKUP = re.compile(r"\b(RV|[OVCEIBMP])\(((?:\\.|[^)\\])*)\)")


def ask(*arguments: str) -> dict[str, Any]:
    """What `ansible-doc` says, found by ansible.cfg."""
    program = Path(sys.executable).parent / "ansible-doc"
    done = subprocess.run(
        [program, "--json", *arguments], cwd=PROJECT, capture_output=True, text=True, timeout=120, check=True
    )
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def pages() -> dict[str, str]:
    """Content of each page by its file's name."""
    modules = ask("--type=module", *sorted(path.stem for path in (PROJECT / "library").glob("*.py")))
    plugins = ask("--type=inventory", *sorted(p.stem for p in (PROJECT / "inventory_plugins").glob("*.py")))
    roles = ask("--type=role", *sorted(path.name for path in (PROJECT / "roles").iterdir()))
    made = {f"{name}.md": plugin_page(name, said, "") for name, said in modules.items()}
    made |= {f"{name}.md": plugin_page(name, said, ", an inventory plugin") for name, said in plugins.items()}
    own = {name: said["entry_points"]["main"] for name, said in roles.items()}
    made |= {f"role_{name}.md": role_page(name, said) for name, said in own.items()}
    documents = {name: said["doc"] for name, said in (modules | plugins).items()}
    index = [WRITTEN, "# Reference\n"]
    for title, prefix, entries in (
        ("Modules", "", {name: documents[name] for name in modules}),
        ("Inventory plugin", "", {name: documents[name] for name in plugins}),
        ("Roles and their variables", "role_", own),
    ):
        index.append(f"## {title}\n\n| | |\n|---|---|")
        index += [
            f"| [{name}]({prefix}{name}.md) | {text(entry['short_description'])} |"
            for name, entry in sorted(entries.items())
        ]
        index.append("")
    return made | {"README.md": "\n".join(index)}


def plugin_page(name: str, said: Mapping[str, Any], kind: str) -> str:
    doc = said["doc"]
    parts = [
        WRITTEN,
        f"# {name}{kind}\n",
        f"{text(doc['short_description'])}.\n",
        paragraphs(doc["description"]),
    ]
    if wanted := doc.get("requirements"):
        parts.append("Needs " + "; ".join(text(one) for one in wanted) + ".\n")
    parts += ["## Options\n", options_table(doc["options"])]
    if attributes := doc.get("attributes"):
        parts += ["## Attributes\n", "| attribute | support | |\n|---|---|---|"]
        parts += [
            f"| {attribute} | {told['support']} | {cell(told.get('description', ''))} |"
            for attribute, told in sorted(attributes.items())
        ]
        parts.append("")
    if notes := doc.get("notes"):
        parts += ["## Notes\n", *(f"- {text(note)}" for note in notes), ""]
    parts += ["## Examples\n", f"```yaml\n{said['examples'].strip()}\n```\n"]
    if returned := said.get("return"):
        parts += ["## Returns\n", "| value | type | returned | |\n|---|---|---|---|", *returns(returned), ""]
    return "\n".join(parts)


def role_page(name: str, main: Mapping[str, Any]) -> str:
    parts = [WRITTEN, f"# Role {name}\n", f"{text(main['short_description'])}.\n"]
    if described := main.get("description"):
        parts.append(paragraphs(described))
    return "\n".join([*parts, "## Variables\n", options_table(main["options"])])


def options_table(options: Mapping[str, Any]) -> str:
    return "\n".join(["| option | type | default | |\n|---|---|---|---|", *rows(options), ""])


def rows(options: Mapping[str, Any], inside: str = "") -> Iterable[str]:
    for name, told in sorted(options.items()):
        kind = told.get("type", "str") + (f" of {told['elements']}" if "elements" in told else "")
        default = "**required**" if told.get("required") else code(told.get("default"))
        about = cell(told["description"])
        if choices := told.get("choices"):
            about += f"<br>One of {', '.join(code(choice) for choice in choices)}."
        if variables := [one["name"] for one in told.get("env", ())]:
            about += f"<br>In the environment: {', '.join(code(variable) for variable in variables)}."
        yield f"| `{inside}{name}` | {kind} | {default} | {about} |"
        yield from rows(told.get("suboptions") or told.get("options") or {}, f"{inside}{name}.")


def returns(values: Mapping[str, Any], inside: str = "") -> Iterable[str]:
    for name, told in values.items():
        kind = told["type"] + (f" of {told['elements']}" if "elements" in told else "")
        yield f"| `{inside}{name}` | {kind} | {told.get('returned', '')} | {cell(told['description'])} |"
        yield from returns(told.get("contains", {}), f"{inside}{name}.")


def paragraphs(described: str | list[str]) -> str:
    every = [described] if isinstance(described, str) else described
    return "\n\n".join(text(one) for one in every) + "\n"


def cell(described: str | list[str]) -> str:
    every = [described] if isinstance(described, str) else described
    return "<br>".join(text(one).replace("|", "\\|") for one in every)


def code(value: Any) -> str:
    if value is None:
        return ""
    shown = value if isinstance(value, str) and value else json.dumps(value)
    return f"`{' '.join(shown.split())}`".replace("|", "\\|")


def text(described: str) -> str:
    """With Ansible's markup as Markdown's."""

    def shown(found: re.Match[str]) -> str:
        inside = re.sub(r"\\(.)", r"\1", found[2]).removeprefix("ignore:")
        if found[1] == "M" and (PROJECT / "library" / f"{inside}.py").exists():
            return f"[{inside}]({inside}.md)"
        if found[1] in "IB":
            return f"*{inside}*"
        return f"`{inside}`"

    return _MARKUP.sub(shown, " ".join(described.split()))


def main() -> None:
    made = pages()
    FOLDER.mkdir(exist_ok=True)
    for path in FOLDER.glob("*.md"):
        if path.name not in made:
            path.unlink()
    for name, content in made.items():
        (FOLDER / name).write_text(content)
    print(f"{FOLDER.relative_to(PROJECT)}: {len(made)} pages")


if __name__ == "__main__":
    main()
