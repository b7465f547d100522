"""Has AWS hold what a pass works on. A drain may take longer than a hook's timeout."""

from __future__ import annotations

import logging
import threading
from types import TracebackType
from typing import Self

from .scaling import HOOKS, Scaling, ScalingError

LOG = logging.getLogger(__name__)


class Heartbeats:
    """While it is entered, all that is held gets a heartbeat each interval, what comes meanwhile too."""

    def __init__(self, scaling: Scaling, interval_s: float) -> None:
        self._scaling = scaling
        self._interval_s = interval_s
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._ended.set()
        self._thread.join()

    def _run(self) -> None:
        while True:
            self._beat()
            if self._ended.wait(self._interval_s):
                return

    def _beat(self) -> None:
        try:
            for instance in self._scaling.instances():
                if instance.state in HOOKS:
                    self._scaling.heartbeat(instance)
        except ScalingError as error:
            LOG.warning("no heartbeats: %s", error)
