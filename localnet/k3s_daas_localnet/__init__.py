"""An embedded Sui network: real Move bytecode behind sui.rpc.v2, for the demo and for tests."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .localnet import Localnet
else:

    def __getattr__(name):
        # The server's message classes take a second to import, which the compiler command can do without.
        if name == "Localnet":
            from .localnet import Localnet

            return Localnet
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


__all__ = ["Localnet"]
