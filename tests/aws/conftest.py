"""The stack's templates as the role fills them, and moto's server in the place of AWS.

moto (from requirements/aws-test.txt; the tests' own process serves it on loopback) keeps what it is told and
gives it back; it starts no instance. What it doesn't know, as lifecycle hooks in a stack, is read off the
template.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

sys.path.insert(0, str(Path(__file__).parent))  # importlib mode leaves test folders off the path

from aws_kit import COLLECTIONS, REPOSITORY, ROLE, VARIANTS, Aws, ansible, parse, reset


@pytest.fixture(scope="session")
def templates(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Of each variant the template, filled by Ansible out of the role's and the inventory's variables."""
    folder = tmp_path_factory.mktemp("templates")
    images = {
        "_aws_infrastructure_images": {
            "images": [{"image_id": f"ami-0{kind * 16}", "root_device_name": "/dev/xvda"} for kind in "ab"]
        },
        "aws_infrastructure_master_image": "ami-0" + "a" * 16,
        "aws_infrastructure_worker_image": "ami-0" + "b" * 16,
    }
    steps = []
    for variant in VARIANTS:
        changes = folder / f"{variant.name}-changes.yml"
        changes.write_text(yaml.safe_dump(images | variant.changes))
        files = [
            *(ROLE / "defaults/main.yml", ROLE / "vars/main.yml"),
            REPOSITORY / "inventories" / variant.inventory / "group_vars/all.yml",
            changes,
        ]
        steps += [{"ansible.builtin.include_vars": {"file": str(file)}} for file in files]
        filled = f"{{{{ lookup('ansible.builtin.template', '{ROLE}/templates/stack.yml.j2') }}}}"
        steps.append({"ansible.builtin.copy": {"content": filled, "dest": str(folder / variant.name)}})
    play = folder / "render.yml"
    play.write_text(
        yaml.safe_dump([{"hosts": "localhost", "gather_facts": False, "tasks": steps}], width=1000)
    )
    (folder / "nobody.yml").write_text("all: {}")  # so that localhost is the implicit one
    done = ansible(folder, "ansible-playbook", play, "-i", folder / "nobody.yml")
    assert done.returncode == 0, done.stdout + done.stderr
    return {variant.name: (folder / variant.name).read_text() for variant in VARIANTS}


@pytest.fixture(scope="session")
def resources(templates: dict[str, str]) -> Callable[..., dict[str, dict[str, Any]]]:
    """`resources("dev", "AWS::EC2::Instance")`: a variant's resources of a type, by name, properties only."""

    def of(variant: str, kind: str) -> dict[str, dict[str, Any]]:
        found = parse(templates[variant])["Resources"]
        return {name: entry.get("Properties", {}) for name, entry in found.items() if entry["Type"] == kind}

    return of


@pytest.fixture(scope="session")
def collection() -> Path:
    """Where amazon.aws is. Skipped where it isn't: nothing but the tests needs it here."""
    path = COLLECTIONS / "ansible_collections/amazon/aws"
    if not path.is_dir():
        pytest.skip("the collection amazon.aws isn't there: run `make .state/aws`")
    return path


@pytest.fixture
def aws(tmp_path: Path, collection: Path) -> Iterator[Aws]:
    """An empty account."""
    server = pytest.importorskip("moto.server", reason="moto isn't installed: run `make .state/aws`")
    import moto_stacks

    moto_stacks.complete()
    moto = server.ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    moto.start()
    try:
        host, port = moto.get_host_and_port()
        account = Aws(f"http://{host}:{port}", tmp_path)
        account.client("sts").get_caller_identity()
        reset(account.url)
        yield account
        reset(account.url)
    finally:
        moto.stop()
