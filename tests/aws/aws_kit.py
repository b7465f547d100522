"""What the tests about AWS share: variants of the inventories, templates as data, commands that ask moto."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import yaml

REPOSITORY = Path(__file__).parents[2]
COLLECTIONS = REPOSITORY / ".state/collections"
ROLE = REPOSITORY / "roles/aws_infrastructure"
INVENTORIES = ("dev", "production", "enterprise")
PUBLIC_KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIGb9ECWmEzf6FQbrBZ9w7lshQhqowtrbLDFw4rXAxZuE me"
REGION = "eu-central-1"


class _Loader(yaml.SafeLoader):
    """YAML with CloudFormation's short forms: `!Ref X` is {"Ref": "X"}."""


def _short_form(loader: _Loader, name: str, node: yaml.Node) -> dict[str, Any]:
    if isinstance(node, yaml.SequenceNode):
        value: Any = loader.construct_sequence(node, deep=True)
    else:
        value = loader.construct_scalar(node)  # type: ignore[arg-type]
    if name == "GetAtt" and isinstance(value, str):
        value = value.split(".", 1)
    return {name if name == "Ref" else f"Fn::{name}": value}


_Loader.add_multi_constructor("!", _short_form)


def parse(template: str) -> dict[str, Any]:
    found: dict[str, Any] = yaml.load(template, _Loader)  # noqa: S506
    return found


def ansible(home: Path, *arguments: str | Path, **environment: str) -> subprocess.CompletedProcess[str]:
    """An Ansible command with a home of its own, in which is the operator's public key."""
    (home / ".ssh").mkdir(exist_ok=True)
    (home / ".ssh/id_ed25519.pub").write_text(PUBLIC_KEY)
    own = {"ANSIBLE_NOCOLOR": "1", "HOME": str(home), "LC_ALL": "C.UTF-8"}
    own["ANSIBLE_COLLECTIONS_PATH"] = str(COLLECTIONS)
    return subprocess.run(
        [Path(sys.executable).parent / arguments[0], *arguments[1:]],
        cwd=REPOSITORY,
        env=os.environ | own | environment,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )


@dataclass(frozen=True)
class Variant:
    name: str
    inventory: str
    changes: dict[str, Any]


VARIANTS = (
    *(Variant(name, name, {}) for name in INVENTORIES),
    Variant("sealed", "enterprise", {
        "master_snapshot_kms_key": f"arn:aws:kms:{REGION}:111122223333:key/1234abcd",
    }),
    Variant("open", "production", {
        "aws_infrastructure_control_cidrs": ["10.9.0.0/24"],
        "aws_infrastructure_client_cidrs": ["10.8.0.0/16", "10.7.0.0/16"],
    }),
    Variant("grown", "production", {
        "aws_infrastructure_zones": [f"{REGION}{letter}" for letter in "abc"],
        "aws_infrastructure_worker_groups": [
            {"name": "big", "type": "c5.4xlarge", "min": 1, "max": 1},
            {"name": "general", "type": "t3.large", "min": 5, "max": 20},
        ],
    }),
)  # fmt: skip


@dataclass(frozen=True)
class Aws:
    """moto's server, and commands that take it for AWS."""

    url: str
    home: Path

    def environment(self) -> dict[str, str]:
        return {
            "AWS_ENDPOINT_URL": self.url,
            "AWS_ACCESS_KEY_ID": "none",
            "AWS_SECRET_ACCESS_KEY": "nobodys-secret",
            "AWS_EC2_METADATA_DISABLED": "true",
        }

    def ansible(self, *arguments: str | Path) -> subprocess.CompletedProcess[str]:
        return ansible(self.home, *arguments, **self.environment())

    def client(self, service: str) -> Any:
        import boto3

        return boto3.client(
            service,
            region_name=REGION,
            endpoint_url=self.url,
            aws_access_key_id="none",
            aws_secret_access_key="nobodys-secret",  # noqa: S106
        )


def reset(url: str) -> None:
    """moto's accounts belong to the process, not to the server."""
    httpx.post(f"{url}/moto-api/reset").raise_for_status()
