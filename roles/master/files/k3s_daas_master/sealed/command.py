"""`k3s-daas-master snapshot …`: root's half of sealed state. Prints one line of JSON, never a secret."""

from __future__ import annotations

import argparse
import asyncio
import json
from pathlib import Path
from typing import Any

from k3s_daas_master import nsm
from k3s_daas_master.backups.places import BackupError, Places
from k3s_daas_master.clock import Clock
from k3s_daas_master.config import Config, load
from k3s_daas_master.errors import StateError
from k3s_daas_master.sealed import exchange
from k3s_daas_master.sealed.errors import SealedError
from k3s_daas_master.sealed.exchange import Answer, Request
from k3s_daas_master.sealed.keys import Keys, LocalKeys
from k3s_daas_master.sealed.kms import KmsKeys
from k3s_daas_master.sealed.put_back import Word, ask, chain_word, has_state, restore
from k3s_daas_master.sealed.s3 import S3Store
from k3s_daas_master.sealed.store import DirectoryStore, Store
from k3s_daas_master.sealed.take import take


def add_arguments(parser: argparse.ArgumentParser) -> None:
    actions = parser.add_subparsers(dest="action", required=True)
    for name, text in (
        ("make-key", "make the sealing key's file once"),
        ("take", "make the snapshot that the service asked for"),
        ("look", "whether this host has to get its state back"),
        ("restore", "give a host without its state the snapshot that the chain anchors; k3s must be stopped"),
    ):
        action = actions.add_parser(name, help=text)
        action.add_argument("--config", type=Path, required=True, help="the service's JSON configuration")


def run(options: argparse.Namespace, places: Places | None = None) -> int:
    """Exit code 0. Raises SealedError, BackupError, StateError, ConfigError."""
    config = load(options.config)
    places = places or Places(config=options.config)
    match options.action:
        case "make-key":
            said = _make_key(config)
        case "look":
            said = asyncio.run(_look(config, places))
        case "take":
            said = answer_request(config, places)
        case _:
            said = asyncio.run(_restore(config, places))
    print(json.dumps(said))
    return 0


def answer_request(config: Config, places: Places, answer_file: Path = exchange.ANSWER) -> dict[str, Any]:
    """Answer the service's request, if there is one that has no answer yet. Raises SealedError, BackupError,
    StateError, after the answer says so, too."""
    request = exchange.read(config.state_dir / exchange.REQUEST_NAME, Request)
    before = exchange.read(answer_file, Answer)
    if request is None or (before is not None and before.id == request.id):
        return {"made": None, "because": "nobody asks for one"}
    try:
        answer = take(request, config, places, store_of(config), keys_of(config))
    except (SealedError, BackupError, StateError) as error:
        exchange.write(answer_file, Answer(id=request.id, error=str(error)), 0o644)
        raise
    exchange.write(answer_file, answer, 0o644)
    return answer.model_dump()


def store_of(config: Config) -> Store:
    """Where this configuration's snapshots lie. Raises SealedError where they lie nowhere."""
    if config.snapshot_url is not None:
        return S3Store(config.snapshot_url)
    if config.snapshot_dir is None:
        raise _off()
    return DirectoryStore(config.snapshot_dir)


def keys_of(config: Config) -> Keys:
    """Who wraps their data keys. Raises SealedError."""
    if config.snapshot_key_file is not None:
        return LocalKeys(config.snapshot_key_file)
    module = nsm.of(config.tee_mode, config.nsm_socket)
    if config.snapshot_kms_key is None or module is None:
        raise _off()
    return KmsKeys(config.snapshot_kms_key, module)


def _off() -> SealedError:
    return SealedError(
        "store",
        "no place for snapshots in the configuration",
        "sealed state to be on",
        "Set master_snapshot_dir or master_snapshot_url.",
    )


def _make_key(config: Config) -> dict[str, Any]:
    if config.snapshot_key_file is None:
        return {"changed": False}
    try:
        return {"changed": LocalKeys.create(config.snapshot_key_file)}
    except OSError as error:
        raise StateError(
            f"{config.snapshot_key_file}: {error.strerror}. Wanted a place for the sealing key."
        ) from None


async def _look(config: Config, places: Places) -> dict[str, Any]:
    has = has_state(places)
    word = None if has or not config.seals else await ask(lambda: chain_word(config), config, Clock())
    return {"has_state": has, "to_restore": word is not None and bool(word.hash)}


async def _restore(config: Config, places: Places) -> dict[str, Any]:
    if not config.seals or has_state(places):
        # Whatever the chain says now; the service asks it.
        word = Word(0, b"", "", 0)
    else:
        word = await ask(lambda: chain_word(config), config, Clock())
    if not config.seals:
        return {"restored": None, "because": "sealed state is off"}
    return restore(word, config, places, store_of(config), keys_of(config))
