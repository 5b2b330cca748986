"""What every batch works with, and what it reports."""

import hashlib
import logging
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import msgspec

from sr_engine.models import Model
from watcher.delivery import Delivery
from watcher.engine.keeper import EngineKeeper
from watcher.engine.terms import Order
from watcher.journal import tell
from watcher.ledger import Ledger
from watcher.progress import Progress
from watcher.rows import Picture
from watcher.sections import Config

if TYPE_CHECKING:
    from watcher.queue.executor import QueueExecutor


@dataclass
class Outcome:
    """What became of a window's pictures."""

    delivered: int = 0
    reused: int = 0
    failed: int = 0
    waiting: int = 0
    trouble: str = ""  # why pictures wait, if the surroundings are to blame

    def __iadd__(self, other: "Outcome") -> "Outcome":
        self.delivered += other.delivered
        self.reused += other.reused
        self.failed += other.failed
        self.waiting += other.waiting
        self.trouble = other.trouble or self.trouble
        return self

    def tell_end(self, batch: int, seconds: float) -> None:
        """Say what became of a window, to those that listen: the log has told of each picture."""
        tell(
            "batch",
            "the batch took {seconds:.1f} s: {delivered} delivered, {failed} failed, {waiting} waiting",
            level=logging.DEBUG,
            batch=batch,
            seconds=seconds,
            delivered=self.delivered,
            reused=self.reused,
            failed=self.failed,
            waiting=self.waiting,
        )


@dataclass(frozen=True)
class Workshop:
    """What every batch works with.

    Attributes:
        keeper: who has the engine.
        stopping: None, or the monotonic time by which the picture in work has to be finished.
        queue: where workers do the upscaling; None: an engine process here does.
    """

    config: Config
    model: Model
    models_folder: str
    ledger: Ledger
    delivery: Delivery
    keeper: EngineKeeper
    progress: Progress
    stopping: Callable[[], float | None]
    queue: "QueueExecutor | None" = None
    _doubted: dict[int, float] = field(default_factory=dict)  # since when, monotonic, by the id of the picture

    @property
    def recipe(self) -> str:
        """Digest of all that decides, beside the content, what a result looks like."""
        model = self.model
        facts = [model.sha256, model.color, model.value_range, model.scale, model.halo]
        parts = [msgspec.json.encode(facts), msgspec.json.encode(self.config.output)]
        precision = self.config.engine.precision
        if precision != "auto":  # who asks for one wants to see the difference
            parts.append(precision.encode())
        if self.config.engine.ensemble:
            parts.append(b"ensemble")
        return hashlib.sha256(b" ".join(parts)).hexdigest()[:32]

    @property
    def order(self) -> Order:
        """What engines are started with."""
        config = self.config
        limits = config.limits.wire()
        return Order(config.engine, self.models_folder, limits, config.folders.engines, self.model.sha256)

    def doubt(self, picture: Picture, reason: str) -> float:
        """A picture cannot be decoded: how many more seconds it is given to become whole; 0 or less: no more.

        The clock may be set meanwhile: what the ledger says counts only for what another watcher doubted.
        """
        now = time.monotonic()
        if picture.suspected_at is None:
            self.ledger.suspect(picture.id, reason)
            self._doubted[picture.id] = now
        elif picture.id not in self._doubted:
            self._doubted[picture.id] = now - max(time.time() - picture.suspected_at, 0)
        return self._doubted[picture.id] + self.config.watch.incomplete_seconds - now

    def forget_doubt(self, picture: Picture) -> None:
        """It came to its end."""
        self._doubted.pop(picture.id, None)
