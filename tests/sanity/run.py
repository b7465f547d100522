"""`ansible-test sanity` over our modules and plugins, in a collection that is built of the tree for it.

`ansible-test` knows collections only, and a collection names its parts in full: the copies' imports and doc
fragments are rewritten, nothing else. The collection is thrown away; this project is none.

    python tests/sanity/run.py                                  # with this environment's ansible-core
    python tests/sanity/run.py --core 2.21 --python python3.12  # with that one, in an environment of its own
    python tests/sanity/run.py -- --test validate-modules       # ansible-test's own options
"""

from __future__ import annotations

import argparse
import ast
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
    "playbooks/callback_plugins": "callback",
}
CORES = ("2.19", "2.20", "2.21")
#: Of which ansible-test wants the GPL's header, which a collection under another license hasn't.
LICENSED = ("modules", "inventory", "callback")
IGNORED = (
    # Of open_url the CA can't be given as data; here it is what the API server has just said.
    "plugins/modules/k3s_daas_host_info.py replace-urlopen",
)
#: run_command, which ansible-test asks for since then, has no time limit.
IGNORED_SINCE = {
    "2.21": (
        "plugins/modules/k3s_daas_host_info.py pylint:ansible-bad-function",
        "plugins/modules/k3s_daas_wheelhouse.py pylint:ansible-bad-function",
    )
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
        version = said(programs, "-c", "import sys; print('%d.%d' % sys.version_info[:2])").strip()
        done = subprocess.run(
            [programs / "ansible-test", "sanity", "--color=no", f"--python={version}", *options.options],
            cwd=root,
            env=os.environ | {"PATH": f"{programs}:{os.environ['PATH']}", "HOME": str(home(programs))},
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
    checked = sorted(path for kind in LICENSED for path in (root / "plugins" / kind).iterdir())
    license_ = [f"{path.relative_to(root)} validate-modules:missing-gplv3-license" for path in checked]
    # With us `_` is what isn't used; for ansible-test it is kept for translations.
    names = [
        f"{path.relative_to(root)} pylint:disallowed-name"
        for path in sorted((root / "plugins").rglob("*.py"))
        if "_" in {node.id for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Name)}
    ]
    (root / "tests/sanity").mkdir()
    for version in CORES:
        ignored = [*license_, *names, *IGNORED, *IGNORED_SINCE.get(version, ())]
        (root / f"tests/sanity/ignore-{version}.txt").write_text("".join(f"{line}\n" for line in ignored))
    return root


def rewritten(text: str) -> str:
    """With full names of what the collection has itself."""
    inside = f"ansible_collections.{NAMESPACE}.plugins.module_utils"
    ours = r"(?=\.k3s_daas_| import k3s_daas_)"
    text = re.sub(rf"^from ansible\.module_utils{ours}", f"from {inside}", text, flags=re.M)
    modules = {path.stem for path in (PROJECT / "library").glob("*.py")}
    text = re.sub(r"\bM\((\w+)\)", lambda m: f"M({NAMESPACE}.{m[1]})" if m[1] in modules else m[0], text)
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


def home(programs: Path) -> Path:
    """Where `ansible-test` keeps its environments, with what puts pip into them.

    It would load a script for that from a server of its own. Python brings a pip, which gets the wanted one
    from the package index, as all else here. It also forgets the environment, and with it how pip gets there.
    """
    ask = "from ansible_test._internal.python_requirements import get_venv_packages as p; from types import "
    ask += "SimpleNamespace as N; import sys; print(p(N(version='%d.%d' % sys.version_info[:2]))['pip'])"
    folder = PROJECT / ".state/sanity"
    cache = folder / ".ansible/test/cache"
    cache.mkdir(parents=True, exist_ok=True)
    script = f"get_pip_{said(programs, '-c', ask).strip().replace('.', '_')}.py"
    shutil.copy(PROJECT / "tests/sanity/get_pip.py", cache / script)
    told = re.findall(
        r"^(?:global|:env:)\.([a-z-]+)='(.*)'$", said(programs, "-m", "pip", "config", "list"), re.M
    )
    (folder / ".config/pip").mkdir(parents=True, exist_ok=True)
    lines = [f"{name} = {value}\n" for name, value in dict(told).items()]
    (folder / ".config/pip/pip.conf").write_text("".join(["[global]\n", *lines]))
    return folder


def said(programs: Path, *arguments: str) -> str:
    """The output of that environment's Python."""
    return subprocess.run(
        [programs / "python", *arguments], capture_output=True, text=True, check=True
    ).stdout


if __name__ == "__main__":
    sys.exit(main())
