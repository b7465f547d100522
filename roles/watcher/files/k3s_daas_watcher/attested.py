"""Whether the master proves what it runs: checked before the seal token leaves this host.

The chain is asked after the document has come, so that its time and its word are newer than the document.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from k3s_daas import attest
from k3s_daas.attestation import Root
from k3s_daas.attestation.serving import ServingRefused, check_serving, new_nonce
from k3s_daas.logs import get_logger
from k3s_daas.registry.agreed import EndpointsDisagree
from k3s_daas.registry.attested import Basis, agree, live_master
from k3s_daas.registry.model import Master

from .chainview import Outcome, Reader, View, ask_all, summary
from .config import WatcherConfig
from .errors import Exit, Refusal
from .findings import chain_refusal

log = get_logger("k3s_daas_watcher.attested")


async def prove(config: WatcherConfig, master: Master, ca_pem: bytes, readers: Sequence[Reader]) -> None:
    """Have `master`, whose CA is `ca_pem`, prove itself, where the configuration wants that.

    Raises Refusal; nothing that is secret has been sent.
    """
    if not config.wants_proof:
        return
    root, nonce = _root(config), new_nonce()
    try:
        raw = await attest.fetch_document(master.endpoint, ca_pem, nonce)
    except attest.NoAnswer as error:
        raise _no_document(error) from None
    basis = await _basis(config, readers)
    if basis.master is None or _where(basis.master) != _where(master):
        raise Refusal(
            "master_changed",
            "another master took over while this one proved itself",
            found="another live master on-chain than a moment ago",
            wanted="one and the same",
            fix="run it again; the seal token was not sent",
            exit_code=Exit.NOT_ATTESTED,
        )
    try:
        live = live_master(config.network, config.deployment, basis)
        document = check_serving(raw, nonce, live, now_ms=basis.time_ms, root=root)
    except ServingRefused as error:
        raise Refusal(
            error.code,
            "the master doesn't prove what it runs",
            found=error.found,
            wanted=error.wanted,
            fix=f"{error.fix}; the seal token was not sent",
            exit_code=Exit.NOT_ATTESTED,
        ) from None
    log.info(
        "master attested",
        tee="SIMULATED: nothing is proved" if document.simulated else "nitro",
        epoch=master.epoch,
        pcr0=document.pcr(0).hex(),
    )


def _root(config: WatcherConfig) -> Root:
    path = config.simulation_root_file
    try:
        return attest.trusted_root(config.network, None if path is None else Path(path))
    except attest.InvalidRoot as error:
        raise Refusal(
            "simulation_root_invalid",
            "the simulation root can't be used",
            found=str(error),
            wanted="the root certificate of the localnet's emulator",
            fix="correct simulation_root_file; the seal token was not sent",
            exit_code=Exit.CONFIG,
        ) from None


async def _basis(config: WatcherConfig, readers: Sequence[Reader]) -> Basis:
    results = await ask_all(readers, lambda reader: reader.basis())
    answers, errors = summary(readers, results)
    found = [result for result in results if isinstance(result, Basis)]
    if len(found) < config.wanted_answers:
        outcome = Outcome.TOO_FEW if found else Outcome.UNREACHABLE
        raise chain_refusal(config, View(outcome, None, answers, errors))
    try:
        return agree(found)
    except EndpointsDisagree as error:
        raise chain_refusal(config, View(Outcome.DISAGREE, None, answers, str(error))) from None


def _where(master: Master) -> tuple[int, str, str, str, bytes]:
    return master.epoch, master.account, master.endpoint, master.api_server, master.ca_hash


def _no_document(error: attest.NoAnswer) -> Refusal:
    if error.status == 404:
        return Refusal(
            "attestation_missing",
            "the master has no attestation to show",
            found=str(error),
            wanted="the document of a Nitro enclave",
            fix="run the master in an enclave; the seal token was not sent",
            exit_code=Exit.NOT_ATTESTED,
        )
    return Refusal(
        "attestation_unreachable",
        "the master gives no attestation document",
        found=str(error),
        wanted="a document at its on-chain endpoint, over TLS of its on-chain CA",
        fix="check that k3s-daas-master runs and is reached from here; the seal token was not sent",
        exit_code=Exit.MASTER_UNREACHABLE,
    )
