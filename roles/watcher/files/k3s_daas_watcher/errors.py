"""One exception for everything a person has to read, and the exit codes of the commands.

Exit codes are part of the interface: units and the role tell "try again" from "never again" by them.
"""

from __future__ import annotations

from enum import IntEnum


class Exit(IntEnum):
    """Exit codes of all commands of `k3s-daas-watcher`."""

    OK = 0
    FAILED = 1
    CHAIN_UNREACHABLE = 10
    CHAIN_DISAGREES = 11
    WRONG_NETWORK = 12
    NOT_STAKED = 13
    MASTER_NOT_ANNOUNCED = 14
    MASTER_UNREACHABLE = 15
    CA_MISMATCH = 16
    TOKEN_REFUSED = 17
    MASTER_REFUSED = 18
    NOT_ATTESTED = 19
    # In the watcher unit's RestartPreventExitStatus: a restart would only meet the same slash.
    SLASHED = 64
    # The agent of a slashed worker isn't confirmed stopped: systemd must start the watcher again.
    STOP_UNCONFIRMED = 70
    CONFIG = 78


class Refusal(Exception):
    """Something can't go on; says what was found, what was wanted and what to do. Never holds a secret."""

    def __init__(
        self, code: str, message: str, *, found: str, wanted: str, fix: str, exit_code: Exit = Exit.FAILED
    ) -> None:
        super().__init__(f"{message} ({code}): found {found}; wanted {wanted}; {fix}")
        self.code = code
        self.message = message
        self.found = found
        self.wanted = wanted
        self.fix = fix
        self.exit_code = exit_code

    def text(self) -> str:
        """Several lines for a terminal or the journal."""
        return (
            f"{self.message} ({self.code})\n"
            f"  found:  {self.found}\n  wanted: {self.wanted}\n  fix:    {self.fix}"
        )
