"""An operator rotates each kind once before the tests look; each time, a first run is killed on its way.

In the end the cluster is made one that knows no encryption at rest, and `playbooks/master.yml` takes it over.
"""

from __future__ import annotations

import json
import ssl
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import httpx
import pytest
from testinfra.host import Host

from pages import told
from scenario import Run, play, play_killed_at

# Everything that Ansible could say of a secret is said, for the tests to search.
WORDS = "-vvv"
ENCRYPTION = "/etc/rancher/k3s/encryption.json"

# Of the master: files as they are, and what the newest row of each Secret in k3s' datastore begins with: the
# provider and name of the key, and no content.
LOOK = """
import json, pathlib, sqlite3, subprocess
def out(*command):
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout
def rows():
    if "STAND-IN" in out("k3s", "--version"):
        return []
    database = sqlite3.connect("file:/var/lib/rancher/k3s/server/db/state.db?mode=ro", uri=True)
    return database.execute(
        "select name, value from kine where id in (select max(id) from kine"
        " where name like '/registry/secrets/%' group by name) and deleted = 0"
    )
def begin(value):
    return b":".join(value.split(b":")[:5]) if value.startswith(b"k8s:enc:") else value[:4]
encryption = pathlib.Path("/etc/rancher/k3s/encryption.json")
print(json.dumps({
    "restarted": out("systemctl", "show", "-P", "ExecMainStartTimestampMonotonic", "k3s"),
    "server_token": pathlib.Path("/var/lib/rancher/k3s/server/token").read_text().strip(),
    "kept": {
        path.name: [path.stat().st_mode & 0o777, path.read_text().strip()]
        for path in pathlib.Path("/var/lib/k3s-daas/server-tokens").glob("*")
    },
    "config": json.loads(encryption.read_text()) if encryption.exists() else None,
    "secrets": json.loads(out("k3s", "kubectl", "get", "secrets", "-A", "-o", "json"))["items"],
    "nodes": json.loads(out("k3s", "kubectl", "get", "nodes", "-o", "json"))["items"],
    "rows": {name: begin(bytes(value)).decode() for name, value in rows()},
}))
"""

# The cluster as one that was made before there was encryption: plaintext first, then no word of any key.
FORGET = f"""
import json, pathlib
path = pathlib.Path("{ENCRYPTION}")
config = json.loads(path.read_text())
config["resources"][0]["providers"].insert(0, {{"identity": {{}}}})
path.write_text(json.dumps(config))
"""
UNENCRYPTED = f"""
set -e
python3 -c '{FORGET}'
systemctl restart k3s
if ! k3s --version | grep -q STAND-IN; then
  # Again, if k3s wrote one of them in between.
  until k3s kubectl get secrets -A -o json | k3s kubectl replace -f - > /dev/null; do sleep 1; done
fi
rm {ENCRYPTION}
sed -i /encryption-provider-config/d /etc/rancher/k3s/config.yaml
systemctl restart k3s
"""


@dataclass(frozen=True)
class Look:
    """What is true between two runs."""

    ready: tuple[str, str]
    restarted: str
    seal_token: str
    generation: int
    server_token: str
    # File name → (mode, content).
    kept: dict[str, tuple[int, str]]
    keys: list[str]
    secrets: list[str]
    # Of a real k3s; empty with the stand-in, which encrypts nothing.
    rows: dict[str, str]
    content: str


@dataclass(frozen=True)
class Story:
    """Each run, and what was true after it."""

    before: Look
    seal_killed: Look
    seal: tuple[Run, Look]
    token_killed: Look
    token: tuple[Run, Look]
    checked: tuple[Run, Look]
    key_killed: Look
    key: tuple[Run, Look]
    unencrypted: Look
    taken_over: tuple[Run, Look]

    @property
    def runs(self) -> list[Run]:
        return [self.seal[0], self.token[0], self.checked[0], self.key[0], self.taken_over[0]]

    @property
    def looks(self) -> list[Look]:
        """In the order of time."""
        return [
            *(self.before, self.seal_killed, self.seal[1], self.token_killed, self.token[1], self.checked[1]),
            *(self.key_killed, self.key[1], self.unencrypted, self.taken_over[1]),
        ]


@pytest.fixture(scope="session")
def real(hosts: dict[str, Host]) -> bool:
    return "STAND-IN" not in hosts["master"].check_output("k3s --version")


@pytest.fixture(scope="session")
def tls(hosts: dict[str, Host]) -> ssl.SSLContext:
    """What trusts the cluster's CA, which the master's service is certified by too."""
    return ssl.create_default_context(
        cadata=hosts["master"].check_output("cat /var/lib/rancher/k3s/server/tls/server-ca.crt")
    )


@pytest.fixture(scope="session")
def asked(stage: dict[str, Any], tls: ssl.SSLContext) -> Callable[..., int]:
    """`asked(server_token)`: what k3s answers to who comes with it as a server does; 405 is a yes.

    The path is for changing the token; a GET changes nothing. With `path="server-bootstrap"` it is what a
    joining server asks for first, which only a real k3s has.
    """

    def ask(token: str, path: str = "token") -> int:
        user, _, password = token.rpartition("::")[2].partition(":")
        url = f"https://{stage['hosts']['master']}:6443/v1-k3s/{path}"
        return httpx.get(url, auth=(user, password), verify=tls, trust_env=False).status_code

    return ask


@pytest.fixture(scope="session")
def look(hosts: dict[str, Host]) -> Callable[[], Look]:
    def keys(config: dict[str, Any] | None) -> list[str]:
        providers = config["resources"][0]["providers"] if config else []
        return [
            name
            for one in providers
            for name in (
                ["identity"] if "identity" in one else [key["name"] for key in one["aesgcm"]["keys"]]
            )
        ]

    def one() -> Look:
        master = json.loads(hosts["master"].check_output("python3 -c %s", LOOK))
        worker = hosts["worker-1"].check_output(
            "cat /etc/k3s-daas/seal-token; curl -s http://127.0.0.1:10280/api/v1/staking"
        )
        seal_token, _, staking = worker.partition("\n")
        (node,) = master["nodes"]
        ready = next(one for one in node["status"]["conditions"] if one["type"] == "Ready")
        about = [(item["metadata"], item.get("data")) for item in master["secrets"]]
        secrets = {f"{meta['namespace']}/{meta['name']}": data for meta, data in about}
        return Look(
            ready=(ready["status"], ready["lastTransitionTime"]),
            restarted=master["restarted"],
            generation=json.loads(staking)["token"]["generation"],
            seal_token=seal_token,
            server_token=master["server_token"],
            kept={name: (mode, content) for name, (mode, content) in master["kept"].items()},
            keys=keys(master["config"]),
            secrets=sorted(secrets),
            rows=master["rows"],
            content=json.dumps(secrets["kube-system/worker-1.node-password.k3s"]),
        )

    return one


@pytest.fixture(scope="session")
def story(hosts: dict[str, Host], look: Callable[[], Look], asked: Callable[..., int]) -> Story:
    def rotated(*command: str) -> tuple[Run, Look]:
        return play(*command, WORDS), look()

    def killed(at: str, *command: str) -> Look:
        play_killed_at(at, *command)
        return look()

    seal_tokens = told("docs/rotate.md", "playbooks/rotate.yml", "rotate=seal_tokens")
    some = told("docs/rotate.md", "playbooks/rotate.yml", "rotate_serial", rotate_workers="worker-1")
    server_token = told("docs/rotate.md", "playbooks/rotate.yml", "rotate=server_token")
    encryption_key = told("docs/rotate.md", "playbooks/rotate.yml", "rotate=encryption_key")

    before = look()
    # On-chain, and not yet the host's own.
    seal_killed = killed("TASK [watcher : Make it the live one", *seal_tokens)
    seal = rotated(*some)
    # In the file, and not yet the running server's.
    token_killed = killed("RUNNING HANDLER [k3s_server : Restart k3s with what was rotated", *server_token)
    assert [asked(one.server_token) for one in (before, token_killed)] == [405, 401], (
        "the old one still works"
    )
    token = rotated(*server_token)
    checked = rotated(*encryption_key, "--check")
    # The new key writes, and the old one is what everything is written with.
    key_killed = killed("TASK [k3s_server : Write the Secrets again", *encryption_key)
    key = rotated(*encryption_key)
    hosts["master"].check_output("timeout 120 sh -c %s", UNENCRYPTED)
    hosts["master"].check_output("timeout 60 sh -c 'until k3s kubectl get --raw /readyz; do sleep 1; done'")
    unencrypted = look()
    taken_over = play("playbooks/master.yml", WORDS), look()
    return Story(
        before,
        seal_killed,
        seal,
        token_killed,
        token,
        checked,
        key_killed,
        key,
        unencrypted,
        taken_over,
    )
