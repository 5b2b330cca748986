"""What every batch works with, and what it reports."""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass

import msgspec

from sr_engine.models import Model
from watcher.config import Config
from watcher.delivery import Delivery
from watcher.ledger import Ledger
from watcher.progress import Progress


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


@dataclass(frozen=True)
class Workshop:
    """What every batch works with.

    Attributes:
        stopping: None, or the monotonic time by which the picture in work has to be finished.
    """

    config: Config
    model: Model
    models_folder: str
    ledger: Ledger
    delivery: Delivery
    progress: Progress
    stopping: Callable[[], float | None]

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
