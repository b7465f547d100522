"""Who may command: the holder of this worker's seal token, and not all the time."""

from __future__ import annotations

from k3s_daas import seal

from .clock import Clock
from .errors import Refusal


class Denied(Exception):
    """A command that isn't carried out; `retry_after_s` is set when it came too often."""

    def __init__(self, status: int, refusal: Refusal, retry_after_s: int = 0) -> None:
        super().__init__(str(refusal))
        self.status = status
        self.refusal = refusal
        self.retry_after_s = retry_after_s


class Bucket:
    """`burst` tries at once, refilled with one every `refill_s` seconds."""

    def __init__(self, burst: int, refill_s: float, clock: Clock) -> None:
        self._burst, self._refill_s, self._clock = float(burst), refill_s, clock
        self._left, self._since = float(burst), clock.monotonic()

    def take(self) -> float:
        """Take one try; 0 when it was there, else the seconds until the next one."""
        now = self._clock.monotonic()
        self._left = min(self._burst, self._left + (now - self._since) / self._refill_s)
        self._since = now
        if self._left >= 1:
            self._left -= 1
            return 0.0
        return (1 - self._left) * self._refill_s


class Guard:
    """Compares tokens in constant time; wrong ones are counted apart, so that they lock nobody out."""

    def __init__(self, token: str, clock: Clock) -> None:
        self._token = token
        self._right = Bucket(10, 6.0, clock)
        self._wrong = Bucket(10, 6.0, clock)

    def check(self, header: str | None) -> None:
        """Raises Denied."""
        known = header is not None and seal.equal(header, self._token)
        wait = (self._right if known else self._wrong).take()
        if wait:
            raise Denied(
                429,
                Refusal(
                    "rate_limited",
                    "too many commands",
                    found="more than 10 at once",
                    wanted="one every 6 s",
                    fix=f"wait {wait:.0f} s",
                ),
                retry_after_s=max(1, round(wait)),
            )
        if not known:
            raise Denied(
                401,
                Refusal(
                    "token_unknown",
                    "this command needs the worker's seal token",
                    found="no X-Seal-Token" if header is None else "another X-Seal-Token",
                    wanted="the seal token of this worker, which its root may read",
                    fix="as root: sed 's/^/X-Seal-Token: /' /etc/k3s-daas/seal-token | curl -H @- …",
                ),
            )
