"""Why a snapshot is refused."""

from __future__ import annotations

from typing import Literal

#: older: an earlier state. forked: of the same number, and not the one that was anchored. foreign: another
#: cluster's, network's or mode's. damaged: not what was written. missing: it isn't there. version: another
#: release's. overtaken: another master goes on from a later state. key: the data key isn't given out. store:
#: the place can't be used.
Kind = Literal["older", "forked", "foreign", "damaged", "missing", "version", "overtaken", "key", "store"]


class SealedError(Exception):
    """What was found, what was wanted, what to do. `kind` is one word for programs."""

    def __init__(self, kind: Kind, found: str, wanted: str, fix: str) -> None:
        super().__init__(f"Found {found}; wanted {wanted}. {fix}")
        self.kind = kind
