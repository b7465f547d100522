"""From what chain and master say to what a person reads: one function per kind of finding.

Also the one place that decides whether this worker may go on with the master it found.
"""

from __future__ import annotations

import datetime as dt

from k3s_daas import seal
from k3s_daas.chainconfig import ChainConfig
from k3s_daas.registry.model import Master, WorkerStatus

from .chainview import Outcome, View
from .config import WatcherConfig
from .errors import Exit, Refusal
from .master_client import MasterRefused, MasterUnreachable, MasterUntrusted

SIMULATED_NOTICE = (
    "SIMULATED: the master's trusted execution environment is simulated. It proves nothing about what the "
    "master runs; don't trust it with anything of value."
)

_TOKEN_CODES = {"token_unknown", "token_expired", "token_revoked", "token_malformed", "node_mismatch"}


def check_tee(config: WatcherConfig) -> None:
    """Raise Refusal when a simulated master would be trusted where it may not be, or by nobody's word."""
    if not config.simulated:
        return
    if config.network == "mainnet":
        raise Refusal(
            "simulated_on_mainnet",
            "a simulated master is refused on mainnet",
            found="tee_mode: simulated, network: mainnet",
            wanted="tee_mode: nitro",
            fix="run the master in a Nitro enclave; the seal token was not sent",
            exit_code=Exit.NOT_ATTESTED,
        )
    if not config.accept_simulated:
        raise Refusal(
            "simulated_not_accepted",
            "SIMULATED: the master's attestation is simulated, and nobody accepted that",
            found="tee_mode: simulated, accept_simulated: false",
            wanted="tee_mode: nitro, or accept_simulated: true",
            fix="set accept_simulated: true if this is a trial; the seal token was not sent",
            exit_code=Exit.NOT_ATTESTED,
        )


def check_worker(config: WatcherConfig, view: View, token: str, now_ms: int) -> Master:
    """The announced master, when the chain says that this worker may join with this token.

    Raises Refusal. Nothing has been sent anywhere at this point.
    """
    sighting = view.sighting
    if sighting is None:
        raise chain_refusal(config, view)
    worker, record, master = sighting.worker, sighting.token, sighting.master
    if worker is None:
        raise Refusal(
            "worker_unknown",
            f"the registry has no worker {config.node_id}",
            found=f"no record of {config.node_id} in registry {config.registry_id} on {config.network}",
            wanted="a staked worker",
            fix="run playbooks/workers.yml, or correct node_id, registry_id or network",
            exit_code=Exit.NOT_STAKED,
        )
    if worker.status is WorkerStatus.SLASHED:
        raise slashed_refusal(config)
    if worker.status in {WorkerStatus.UNBONDING, WorkerStatus.JAILED}:
        raise Refusal(
            "worker_not_eligible",
            f"worker {config.node_id} may not join while it is {worker.status}",
            found=f"status {worker.status}",
            wanted="pending, active, busy or offline",
            fix="wait until the proposal is cancelled, or stake a new node id",
            exit_code=Exit.NOT_STAKED,
        )
    commitment = seal.commitment(token)
    if record is None:
        raise _token_refusal(
            "token_unknown", "no seal token on-chain for this worker", "run playbooks/workers.yml"
        )
    if not seal.equal(record.commitment, commitment):
        raise _token_refusal(
            "token_mismatch",
            f"generation {record.generation} on-chain has commitment {record.commitment.hex()[:12]}…, this "
            f"host's token has {commitment.hex()[:12]}…",
            "run playbooks/rotate.yml -e rotate=seal_tokens for this worker, or restore its seal token file",
        )
    if record.revoked:
        raise _token_refusal(
            "token_revoked",
            f"generation {record.generation} is revoked",
            "run playbooks/rotate.yml -e rotate=seal_tokens",
        )
    if record.expires_at_ms <= now_ms:
        raise _token_refusal(
            "token_expired",
            f"generation {record.generation} expired {when(record.expires_at_ms)}, this host's clock says "
            f"{when(now_ms)}",
            "run playbooks/rotate.yml -e rotate=seal_tokens, or correct the clock",
        )
    if master is None or not master.endpoint or not master.api_server:
        raise Refusal(
            "master_not_announced",
            "the registry names no master to join",
            found="no master appointed"
            if master is None
            else f"master epoch {master.epoch}, no endpoint yet",
            wanted="a master that announced its endpoint and CA hash",
            fix="run playbooks/master.yml first",
            exit_code=Exit.MASTER_NOT_ANNOUNCED,
        )
    return master


def slashed_refusal(config: WatcherConfig) -> Refusal:
    """A slash is final."""
    return Refusal(
        "worker_slashed",
        f"worker {config.node_id} is slashed",
        found="status slashed",
        wanted="a worker in good standing",
        fix="a slash is final and its node id is never used again: stake a new node id",
        exit_code=Exit.SLASHED,
    )


def chain_refusal(config: ChainConfig, view: View) -> Refusal:
    """Why nothing can be believed about the chain just now."""
    wanted, fix, exit_code = {
        Outcome.WRONG_NETWORK: (
            f"{config.network}" + (f" (chain id {config.chain_id})" if config.chain_id else ""),
            "correct network, chain_id or endpoints",
            Exit.WRONG_NETWORK,
        ),
        Outcome.NO_REGISTRY: (
            f"registry {config.registry_id} of package {config.package_id} on {config.network}",
            "correct registry_id, package_id or network",
            Exit.WRONG_NETWORK,
        ),
        Outcome.DISAGREE: (
            "the same records from every endpoint that answers",
            "wait, or remove the endpoint that lags, forks or lies",
            Exit.CHAIN_DISAGREES,
        ),
    }.get(
        view.outcome,
        (
            f"answers of at least {config.wanted_answers} endpoint(s)",
            "check the endpoints, DNS and this host's way out",
            Exit.CHAIN_UNREACHABLE,
        ),
    )
    return Refusal(
        view.outcome.value,
        "the chain can't be read",
        found=view.detail,
        wanted=wanted,
        fix=fix,
        exit_code=exit_code,
    )


def master_refusal(error: MasterRefused | MasterUnreachable) -> Refusal:
    """What the master said, or that it said nothing."""
    if isinstance(error, MasterUntrusted):
        return Refusal(
            "ca_mismatch",
            "the master's certificate is not of the on-chain CA",
            found=str(error),
            wanted="a certificate signed by the CA whose hash is on-chain",
            fix="let the master announce itself again (playbooks/master.yml); the seal token was not sent",
            exit_code=Exit.CA_MISMATCH,
        )
    if isinstance(error, MasterUnreachable):
        return Refusal(
            "master_unreachable",
            "the master doesn't answer",
            found=str(error),
            wanted="the master's own answer at its on-chain endpoint",
            fix="check that k3s-daas-master runs and that this host reaches its port",
            exit_code=Exit.MASTER_UNREACHABLE,
        )
    if error.code == "worker_slashed":
        exit_code = Exit.SLASHED
    elif error.code in _TOKEN_CODES or error.status == 401:
        exit_code = Exit.TOKEN_REFUSED
    else:
        exit_code = Exit.MASTER_REFUSED
    return Refusal(
        error.code,
        f"the master refused: {error.message}",
        found=error.found,
        wanted=error.wanted,
        fix=error.fix,
        exit_code=exit_code,
    )


def when(ms: int) -> str:
    """A time in ms since the epoch as UTC text, also where it is beyond what a calendar holds."""
    try:
        return dt.datetime.fromtimestamp(ms / 1000, dt.UTC).strftime("%Y-%m-%d %H:%M:%SZ")
    except (OverflowError, ValueError, OSError):
        return f"{ms} ms"


def _token_refusal(code: str, found: str, fix: str) -> Refusal:
    return Refusal(
        code,
        "the chain doesn't know this host's seal token as good",
        found=found,
        wanted="a live seal token of this worker",
        fix=f"{fix}; the token was not sent",
        exit_code=Exit.TOKEN_REFUSED,
    )
