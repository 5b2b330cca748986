"""Others hold the GPU: how long a batch waits for it, and what it is content with then.

The order: the usual tiles, tried again with growing pauses for `engine.gpu_wait_seconds`; then once with whatever can
be had (smaller tiles, another GPU, a CPU where the device is `auto`), which the engine chooses; then the pictures wait.
"""

import contextlib
import time
from collections.abc import Callable, Mapping

from sr_engine import protocol
from watcher.engine.ends import EngineGaveUp, EngineStopped
from watcher.engine.nvidia import may_use_nvidia
from watcher.journal import tell, warn
from watcher.ledger import Ledger
from watcher.sections import Engine

NOTE = "gpu_waiting"
_FIRST_SECONDS, _LONGEST_SECONDS = 1.0, 10.0
_POLL_SECONDS = 0.2
_FULL, _ANY = "full", "any"  # of the engine's --admission


class GpuWait:
    """The patience of one batch."""

    def __init__(self, settings: Engine, ledger: Ledger, stopping: Callable[[], float | None]) -> None:
        """Nothing was tried yet.

        Args:
            settings: of the engine.
            ledger: where `status` reads that a batch waits.
            stopping: as `Workshop.stopping`.
        """
        self._settings = settings
        self._ledger = ledger
        self._stopping = stopping
        self._since: float | None = None  # monotonic
        self._reason = ""
        self._delay_seconds = _FIRST_SECONDS
        self._may_wait = may_use_nvidia(settings)
        self.admission = first_admission(settings)

    @property
    def takes_less(self) -> bool:
        """Whether the next engine may be one that makes do, which is not worth keeping."""
        return self.admission == _ANY

    def again(self, gave_up: EngineGaveUp) -> bool:
        """Whether to start an engine once more; when this returns it is time to.

        Raises:
            EngineStopped: the watcher was asked to stop meanwhile.
        """
        if not gave_up.busy or self.admission in ("", _ANY):
            self._forget()
            return False
        now = time.monotonic()
        if self._since is None:
            self._since = now
            text = "{reason}; waiting up to {seconds:g} s"
            warn("gpu_busy", text, reason=gave_up.message, seconds=self._settings.gpu_wait_seconds)
        self._reason = gave_up.message
        until = self._since + self._settings.gpu_wait_seconds
        if now >= until:
            warn("gpu_still_busy", "{reason}; trying with less", reason=gave_up.message)
            self.admission = _ANY
            return True
        self._pause(min(self._delay_seconds, until - now))
        self._delay_seconds = min(2 * self._delay_seconds, _LONGEST_SECONDS)
        return True

    def ready(self, event: protocol.Ready) -> None:
        """An engine has its device."""
        if self._since is not None:
            seconds = time.monotonic() - self._since
            tell("gpu_free", "{device} was got after {seconds:.0f} s", device=event.device, seconds=seconds)
            self._forget()
            self._since, self._delay_seconds = None, _FIRST_SECONDS
        if self._may_wait:
            warn_of_cpu(event, self._reason)

    def _pause(self, seconds: float) -> None:
        until = time.monotonic() + seconds
        # for `status`, also while the next engine starts; after that it was left by a watcher that was killed
        stale_at = time.time() + seconds + self._settings.start_seconds
        self._ledger.note(**{NOTE: f"{stale_at:.3f} {self._reason}"})
        while (left := until - time.monotonic()) > 0:
            if self._stopping() is not None:
                self._forget()
                raise EngineStopped(set())
            time.sleep(min(left, _POLL_SECONDS))

    def _forget(self) -> None:
        if self._since is not None:
            self._ledger.note(**{NOTE: ""})


def first_admission(settings: Engine) -> str:
    """What an engine is asked for first: the usual tiles on the usual GPU, where there is a choice."""
    return _FULL if settings.gpu_wait_seconds and may_use_nvidia(settings) else ""


def warn_of_cpu(event: protocol.Ready, reason: str = "") -> None:
    """An engine is ready that should have a GPU: say so if it has none."""
    if event.device.partition(":")[0] == "cpu":
        why = reason or event.reason or "no reason was told"
        warn("not_on_the_gpu", "WORKING ON THE CPU, not on the GPU that is expected here: {reason}", reason=why)


def waiting(notes: Mapping[str, str], now: float) -> str:
    """What a batch waits for, of the ledger's notes; empty: for nothing.

    Args:
        notes: `Ledger.notes`.
        now: Unix time.
    """
    stale_at, _, reason = notes.get(NOTE, "").partition(" ")
    with contextlib.suppress(ValueError):
        return reason if float(stale_at) > now else ""
    return ""
