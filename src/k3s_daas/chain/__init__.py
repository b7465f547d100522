"""The chain, through the one adapter over pysui.

Importing this package is cheap. `SuiClient` is loaded on first use, because the messages it speaks cost
half a second and 20 MB, which a module run that only checks its arguments shouldn't pay.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from k3s_daas.chain.errors import (
    ChainError,
    ChainUnreachable,
    ForkedChain,
    InsufficientGas,
    InvalidAddress,
    InvalidEndpoint,
    InvalidKey,
    MalformedRecord,
    MoveAbort,
    ObjectNotFound,
    OutcomeUnknown,
    ReplayGap,
    RpcFailed,
    TransactionFailed,
    WrongNetwork,
)
from k3s_daas.chain.keys import Key
from k3s_daas.chain.model import CheckpointEvents, Event, Object, Preview, Receipt
from k3s_daas.chain.transaction import Transaction

if TYPE_CHECKING:
    from k3s_daas.chain.client import SuiClient

__all__ = [
    "ChainError",
    "ChainUnreachable",
    "CheckpointEvents",
    "Event",
    "ForkedChain",
    "InsufficientGas",
    "InvalidAddress",
    "InvalidEndpoint",
    "InvalidKey",
    "Key",
    "MalformedRecord",
    "MoveAbort",
    "Object",
    "ObjectNotFound",
    "OutcomeUnknown",
    "Preview",
    "Receipt",
    "ReplayGap",
    "RpcFailed",
    "SuiClient",
    "Transaction",
    "TransactionFailed",
    "WrongNetwork",
]


def __getattr__(name: str) -> Any:
    if name == "SuiClient":
        from k3s_daas.chain.client import SuiClient

        return SuiClient
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
