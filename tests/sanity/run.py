"""`ansible-test sanity` over our modules and plugins, in a collection that is built of the tree for it.

`ansible-test` knows collections only, and a collection names its parts in full: the copies' imports and doc
fragments are rewritten, nothing else. The collection is thrown away; this project is none.

    python tests/sanity/run.py                                  # with this environment's ansible-core
    python tests/sanity/run.py --core 2.21 --python python3.12  # with that one, in an environment of its own
    python tests/sanity/run.py -- --test validate-modules       # ansible-test's own options
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

PROJECT = Path(__file__).resolve().parents[2]
NAMESPACE = "k3s_daas.k3s_daas"
PARTS = {
    "library": "modules",
    "module_utils": "module_utils",
    "doc_fragments": "doc_fragments",
    "inventory_plugins": "inventory",
    "filter_plugins": "filter",
    "callback_plugins": "callback",
}
FILES = {
    "galaxy.yml": f"""\
namespace: {NAMESPACE.split(".", maxsplit=1)[0]}
name: {NAMESPACE.split(".", maxsplit=1)[1]}
version: 0.1.0
readme: README.md
authors: [K3s-DaaS authors]
license: [Apache-2.0]
""",
    "README.md": "# Built for ansible-test\n",
    "meta/runtime.yml": "---\nrequires_ansible: '>=2.19.0'\n",
    # What runs on hosts wants the Python of Debian 12, and the control node no older one.
    "tests/config.yml": "---\nmodules:\n  python_requires: '>=3.11'\n",
}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--core", help="version of ansible-core, as 2.20; this environment's if not given")
    parser.add_argument("--python", default=sys.executable, help="the Python of --core's environment")
    parser.add_argument("options", nargs="*", help="options of ansible-test, after --")
    options = parser.parse_args()
    programs = environment(options.core, options.python) if options.core else Path(sys.executable).parent
    with tempfile.TemporaryDirectory(prefix="k3s-daas-sanity-") as folder:
        root = build(Path(folder))
        # By its own way it would look for the tree's .git, in which the collection is not.
        done = subprocess.run(
            [programs / "ansible-test", "sanity", "--color=no", "--python=default", *options.options],
            cwd=root,
            env=os.environ | {"PATH": f"{programs}:{os.environ['PATH']}"},
        )
    return done.returncode


def build(folder: Path) -> Path:
    """The collection's directory below `folder`."""
    root = folder / "ansible_collections" / NAMESPACE.replace(".", "/")
    for name, content in FILES.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(content)
    for source, kind in PARTS.items():
        (root / "plugins" / kind).mkdir(parents=True)
        for path in sorted((PROJECT / source).glob("*.py")):
            (root / "plugins" / kind / path.name).write_text(rewritten(path.read_text()))
    for path in (PROJECT / "tests/sanity").glob("ignore-*.txt"):
        (root / "tests/sanity").mkdir(exist_ok=True)
        shutil.copy(path, root / "tests/sanity")
    return root


def rewritten(text: str) -> str:
    """With full names of what the collection has itself."""
    inside = f"ansible_collections.{NAMESPACE}.plugins.module_utils."
    text = re.sub(r"^from ansible\.module_utils\.(?=k3s_daas_)", f"from {inside}", text, flags=re.M)
    return re.sub(
        r"^(extends_documentation_fragment: )\[(.*)\]$",
        lambda found: found[1] + "[" + re.sub(r"\bk3s_daas\b", f"{NAMESPACE}.k3s_daas", found[2]) + "]",
        text,
        flags=re.M,
    )


def environment(core: str, python: str) -> Path:
    """The programs of a virtual environment with that ansible-core and nothing else."""
    major, minor = (int(part) for part in core.split("."))
    folder = PROJECT / ".state/sanity" / core
    if not (folder / "bin/ansible-test").exists():
        subprocess.run([python, "-m", "venv", "--clear", folder], check=True)
        wanted = f"ansible-core>={core},<{major}.{minor + 1}"
        subprocess.run([folder / "bin/pip", "install", "--quiet", wanted], check=True)
    return folder / "bin"


if __name__ == "__main__":
    sys.exit(main())
