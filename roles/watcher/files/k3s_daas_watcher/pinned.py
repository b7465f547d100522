"""The cluster's CA, fetched from anybody and believed only when it has the hash that is on-chain."""

from __future__ import annotations

from collections.abc import Callable

from k3s_daas import join

from .errors import Exit, Refusal

FetchCa = Callable[[str, bytes], bytes]


def pinned_ca(api_server: str, ca_hash: bytes, fetch_ca: FetchCa = join.fetch_cacerts) -> bytes:
    """The CA bundle at `api_server` that has the on-chain hash. Blocks. Raises Refusal."""
    try:
        return fetch_ca(api_server, ca_hash)
    except join.CaMismatch as error:
        raise Refusal(
            "ca_mismatch",
            f"{api_server} shows another CA than the chain names",
            found=error.found,
            wanted=error.wanted,
            fix="find out who answers there; if the CA was renewed, let the master announce it "
            "(playbooks/master.yml); the seal token was not sent",
            exit_code=Exit.CA_MISMATCH,
        ) from None
    except join.JoinError as error:
        raise Refusal(
            "cacerts_unreachable",
            "the cluster's CA can't be fetched",
            found=str(error),
            wanted=f"the CA bundle at {api_server}/cacerts",
            fix="check that k3s runs on the master and that this host reaches its port",
            exit_code=Exit.MASTER_UNREACHABLE,
        ) from None
