"""A master's host in a folder, with databases that somebody has open."""

from __future__ import annotations

import datetime as dt
import json
import sqlite3
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import NameOID

from k3s_daas_master.backups.make import make
from k3s_daas_master.backups.places import Places
from k3s_daas_master.store import Store

REGISTRY, CHAIN = "0x" + "bb" * 32, "4c78adac"
VERSION = "v1.34.2+k3s1"
START = dt.datetime(2026, 11, 21, 16, 5, 1, tzinfo=dt.UTC)


@dataclass
class Host:
    """`datastore` is open all the time, as k3s has it; `store` as the service has it."""

    places: Places
    datastore: sqlite3.Connection
    store: Store
    clock: dt.datetime = START

    def back_up(self, keep: int = 7) -> Path:
        self.clock += dt.timedelta(seconds=1)
        return make(self.places, keep, now=lambda: self.clock, k3s_version=lambda _: VERSION)

    def keys(self) -> list[str]:
        with sqlite3.connect(self.places.datastore) as found:
            return [row[0] for row in found.execute("SELECT name FROM kine ORDER BY id")]


def ca() -> bytes:
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "k3s-server-ca")])
    builder = x509.CertificateBuilder().subject_name(name).issuer_name(name).public_key(key.public_key())
    builder = builder.serial_number(7).not_valid_before(START).not_valid_after(START + dt.timedelta(days=9))
    return builder.sign(key, hashes.SHA256()).public_bytes(Encoding.PEM)


def write(path: Path, content: bytes | str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    path.chmod(0o600)


def places_in(root: Path) -> Places:
    return Places(
        server=root / "rancher/server",
        etc=root / "etc-rancher",
        config=root / "etc/master.json",
        master=root / "master",
        home=root / "home",
        k3s=root / "k3s",
    )


@pytest.fixture
def host(tmp_path: Path) -> Iterator[Host]:
    places = places_in(tmp_path)
    for name in ("server-ca", "client-ca"):
        write(places.server / f"tls/{name}.crt", ca())
        write(places.server / f"tls/{name}.key", f"key of {name}")
    write(places.server / "token", "K10aa::server:secret\n")
    (places.server / "node-token").symlink_to(places.server / "token")
    write(places.server / "cred/passwd", "secret,server,server,k3s:server")
    write(places.server / "manifests/k3s-daas.yaml", "of the role")
    write(places.etc / "agent-token", "unused")
    write(places.etc / "encryption.json", "{}")
    write(places.etc / "k3s.yaml", "admin")
    write(places.master / "sui.key", "the wallet")
    write(places.master / "node-password.key", b"k" * 32)
    write(places.master / "evidence/aa.bcs", "evidence")
    config = {
        "network": "localnet", "endpoints": ["http://127.0.0.1:9000"], "chain_id": CHAIN,
        "package_id": "0x" + "aa" * 32, "registry_id": REGISTRY, "tee_mode": "simulated",
        "endpoint": "https://10.0.0.1:8443", "api_server": "https://10.0.0.1:6443",
        "kubeconfig": "/k", "key_file": str(places.master / "sui.key"), "state_dir": str(places.master),
    }  # fmt: skip
    write(places.config, json.dumps(config))
    places.datastore.parent.mkdir()
    datastore = sqlite3.connect(places.datastore, isolation_level=None)
    datastore.execute("PRAGMA journal_mode=WAL")
    datastore.execute("CREATE TABLE kine (id INTEGER PRIMARY KEY AUTOINCREMENT, name TEXT)")
    datastore.execute("INSERT INTO kine VALUES (7, '/registry/minions/worker-1')")
    store = Store(places.master)
    yield Host(places, datastore, store)
    datastore.close()
    store.close()
