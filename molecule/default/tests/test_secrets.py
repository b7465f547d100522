"""The canary: after a whole run, every secret is where it belongs and nowhere else."""

from __future__ import annotations

import base64
import json
import os
from pathlib import Path
from typing import Any

import pytest
from testinfra.host import Host

PROJECT = Path(__file__).parents[3]

# Where each secret belongs. Nothing else on any host may hold it, unless only root can read it there.
ON_MASTER = [
    "/var/lib/k3s-daas-master/sui.key",
    "/etc/rancher/k3s/agent-token",
    "/var/lib/rancher/k3s/server/token",
]
ENCRYPTION = "/etc/rancher/k3s/encryption.json"
ON_WORKERS = ["/etc/k3s-daas/seal-token", "/etc/rancher/node/password", "/etc/rancher/k3s/join-token"]


def forms(secret: str) -> list[bytes]:
    """A secret as it is, and as encodings would show it."""
    raw = secret.encode()
    return [raw, base64.b64encode(raw).rstrip(b"=")[:-1], raw.hex().encode()]


@pytest.fixture(scope="session")
def secrets(hosts: dict[str, Host], stage: dict[str, Any]) -> dict[str, str]:
    found = {"operator.key": Path(stage["wallet"]).read_text().strip()}
    for name, host in hosts.items():
        for path in ON_MASTER if name == "master" else ON_WORKERS:
            text = host.check_output(f"cat {path}").strip()
            assert len(text) >= 16, path
            found[f"{name}:{path}"] = text
            if "::" in text:  # the part that is secret also without the CA's hash
                found[f"{name}:{path} (bare)"] = text.rpartition(":")[2]
    config = json.loads(hosts["master"].check_output(f"cat {ENCRYPTION}"))
    (provider,) = config["resources"][0]["providers"]
    (key,) = provider["aesgcm"]["keys"]
    return found | {f"master:{ENCRYPTION}": key["secret"]}


@pytest.fixture(scope="session")
def patterns(secrets: dict[str, str]) -> dict[bytes, str]:
    return {form: name for name, secret in secrets.items() for form in forms(secret)}


def leaks(text: bytes, patterns: dict[bytes, str]) -> list[str]:
    return sorted({name for form, name in patterns.items() if form in text})


@pytest.mark.parametrize(
    "command",
    [
        "journalctl --no-pager --output=json --all",
        "cat /proc/[0-9]*/cmdline | tr '\\0' '\\n'",
        "cat /proc/[0-9]*/environ | tr '\\0' '\\n'",
        "systemctl show '*' --all; systemctl cat '*' 2>/dev/null",
        # Every file that somebody else than its owner may read.
        "find / -xdev \\( -path /proc -o -path /sys -o -path /usr \\) -prune "
        "-o -type f -perm /044 -size -4M -print0 | xargs -0 cat 2>/dev/null",
    ],
    ids=["journal", "arguments", "environments", "units", "readable-files"],
)
@pytest.mark.parametrize("name", ["master", "worker-1", "worker-2"])
def test_no_secret_on_a_host(
    hosts: dict[str, Host], patterns: dict[bytes, str], name: str, command: str
) -> None:
    done = hosts[name].run(command)
    assert len(done.stdout_bytes) > 100, "nothing was searched"
    assert leaks(done.stdout_bytes, patterns) == []


@pytest.mark.parametrize("name", ["master", "worker-1", "worker-2"])
def test_secrets_are_their_owners_alone(hosts: dict[str, Host], name: str) -> None:
    for path in [*ON_MASTER, ENCRYPTION] if name == "master" else ON_WORKERS:
        assert hosts[name].file(path).mode == 0o600, path


def test_no_secret_in_ansible_s_output_or_fact_cache(patterns: dict[bytes, str]) -> None:
    log = Path(os.environ["ANSIBLE_LOG_PATH"])
    cache = Path(os.environ["ANSIBLE_CACHE_PLUGIN_CONNECTION"])
    assert b"EXEC" in log.read_bytes(), "the log was not made with -vvv"
    found = {str(path): leaks(path.read_bytes(), patterns) for path in [log, *cache.iterdir()]}
    assert {name: leaked for name, leaked in found.items() if leaked} == {}


def test_no_secret_on_the_chain(stage: dict[str, Any], patterns: dict[bytes, str]) -> None:
    """The localnet's own files hold every object, event and transaction; its log what it said."""
    folder = Path(stage["ssh_config"]).parent
    files = [path for path in (folder / "localnet").rglob("*") if path.is_file()] + [folder / "localnet.log"]
    assert sum(path.stat().st_size for path in files) > 100_000, "nothing was searched"
    assert {
        path.name: leaks(path.read_bytes(), patterns) for path in files if leaks(path.read_bytes(), patterns)
    } == {}


def test_the_search_finds_what_is_there(secrets: dict[str, str], patterns: dict[bytes, str]) -> None:
    for name, secret in secrets.items():
        assert name in leaks(json.dumps({"log": f"before {secret} after"}).encode(), patterns)
