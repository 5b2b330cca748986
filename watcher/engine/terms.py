"""What the keeper of the engine is told: how engines are started, and how long one is kept."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import msgspec

from sr_engine import protocol
from watcher.sections import Engine, Retry

if TYPE_CHECKING:
    from watcher.engine.schedule import Schedule


class Order(NamedTuple):
    """What engines are started with, as `EngineProcess` takes it."""

    settings: Engine
    models_folder: str
    limits: protocol.Limits
    cache_folder: str
    sha256: str

    def makes_the_same(self, other: "Order") -> bool:
        """Whether an engine of one is as good as one of the other."""
        settings = msgspec.structs.replace(self.settings, keep_warm_seconds=other.settings.keep_warm_seconds)
        return self._replace(settings=settings) == other


@dataclass(frozen=True)
class Terms:
    """How a watcher that stays keeps its engine.

    Attributes:
        schedule: times at which it is to be warm; None: none.
        retry: how long to wait after a start ahead that failed.
        refusal: why no engine may be kept or loaded ahead now, a sentence without its full stop; empty: it may. Asked
            from several threads.
        wake: called from another thread when a held engine told something.
    """

    schedule: "Schedule | None"
    retry: Retry
    refusal: Callable[[], str]
    wake: Callable[[], None]
