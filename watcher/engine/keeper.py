"""The engine of a watcher: started for a batch or ahead of it, metered, kept while it is wanted, then let go at once.

There is at most one, and only the thread of the jobs touches it: batches, and the errands that the watcher's loop asks
for between them. But for one thing: a job may take long that has no work for an engine, as it copies earlier results or
a share does not answer. Then the loop tells the held one to end when its time is up, and no batch takes that any more.
"""

import contextlib
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

from sr_engine import models, protocol
from watcher.accounting import engine_runs, warm_ups
from watcher.accounting.warm_ups import Wanted
from watcher.engine.demand import Demand
from watcher.engine.ends import EngineGaveUp, EngineTrouble
from watcher.engine.gpu_wait import first_admission, warn_of_cpu
from watcher.engine.nvidia import DeviceWatch, may_use_nvidia
from watcher.engine.process import EngineProcess
from watcher.engine.terms import Order, Terms
from watcher.errors import LedgerError
from watcher.files.names import told
from watcher.journal import tell, warn
from watcher.ledger import Ledger
from watcher.wording import clock

_LONGEST_SECONDS = 86_400.0  # memory in pieces, tiles that had to be small: a day of it is enough
_SIGN_SECONDS = 1.0  # how often a held engine is noted to be alive: after a kill of the watcher that is its end
_GOODBYE_SECONDS = 10.0  # from then on it is not asked any more
_OVER = "its time is up"
_OLD = "it is old, a fresh one follows if it is wanted"


@dataclass
class _Hold:
    row: int
    wanted: Wanted
    began: float  # monotonic, as the next
    ended: float | None = None  # when it was told to end: from then on no batch may have it


class EngineKeeper:
    """Without `Terms` it keeps no engine beyond its batch."""

    def __init__(self, ledger: Ledger, longest_seconds: float = _LONGEST_SECONDS) -> None:
        """It has no engine yet.

        Args:
            ledger: stays open.
            longest_seconds: of a process; who wants it longer gets a fresh one. `Accounts` looks back for a week.
        """
        self._ledger = ledger
        self._demand = Demand(ledger)
        self._longest_seconds = longest_seconds
        self._order: Order | None = None
        self._terms: Terms | None = None
        self._engine: EngineProcess | None = None
        self._watch: DeviceWatch | None = None
        self._run: int | None = None
        self._hold: _Hold | None = None  # as long as it is without work
        self._letting_go = threading.Lock()  # or a batch takes it
        self._taken: tuple[int, int] | None = None  # the row of the hold that a batch ended; what was answered before
        self._taken_at = 0.0  # monotonic: when a batch got it
        self._failures = 0  # starts ahead in a row that came to nothing
        self._retry_at = 0.0  # monotonic

    @property
    def run(self) -> int | None:
        """The ledger's id of the engine that lives."""
        return self._run

    # Set up, before jobs run

    def adopt(self, order: Order) -> None:
        """From now on engines are started so; a held one that was started otherwise is let go."""
        if self._order is not None and not self._order.makes_the_same(order):
            self._release("it was started with other settings")
        self._order = order

    def keep(self, terms: Terms) -> None:
        """From now on the engine is kept after batches and loaded ahead; for a watcher that stays."""
        assert self._order is not None
        self._terms = terms
        self._demand.agree(terms, self._order.settings.keep_warm_seconds)

    def close(self) -> None:
        """Let the engine go, when no job runs any more."""
        self._terms = None
        self._demand.end()
        with contextlib.suppress(LedgerError):  # the next start closes the run, by the last sign of life
            self._release("the watcher ends")

    # For batches

    def take(self, batch: int, *, alone: bool, admission: str = "") -> EngineProcess:
        """The engine for a batch: the one that is held, or a fresh one.

        Args:
            batch: its id.
            alone: whether it has to be one that has done nothing before, and does nothing afterwards.
            admission: for a fresh one, as `EngineProcess` takes it.

        Raises:
            OSError: it cannot be started.
        """
        if alone:
            self._release("a picture is tried alone")
        with self._letting_go:
            if self._engine is not None and not self.is_leaving:
                self._end_hold(self._engine, batch)
        if self.is_leaving:
            self._release(_OVER)
        engine = self._engine
        if engine is None:
            engine = self._start(batch, admission)
        else:
            tell("engine_taken", "the engine is warm (process {pid})", pid=engine.pid)
        engine.stays, self._taken_at = not alone and self._stays(), time.monotonic()
        return engine

    def note_ready(self, engine: EngineProcess) -> None:
        """It has its device.

        Raises:
            LedgerError: that cannot be written.
        """
        if engine is self._engine and self._run is not None:
            engine_runs.note_progress(self._ledger, self._run, engine)

    def enter(self, batch: int, engine: EngineProcess) -> None:
        """A further engine, which a batch started beside ours, has ended: it is paid for, too.

        Raises:
            LedgerError: that cannot be written.
        """
        assert self._order is not None
        settings = self._order.settings
        device = "cpu" if engine.refused or not models.expects_gpu(settings.runtime, settings.device) else None
        run = engine_runs.begin(self._ledger, batch, engine.pid, settings.model, engine.meter.spawned_at, device)
        engine_runs.end(self._ledger, run, engine)

    def give_back(self, engine: EngineProcess) -> None:
        """The batch is done with it: it is kept, or ends."""
        taken, self._taken = self._taken, None
        if not engine.is_fit:
            self._end()
        if taken is not None:
            row, answered_before = taken
            warm_ups.served(self._ledger, row, engine.done + engine.failed - answered_before)
        if self._engine is None:
            return
        self._failures = 0
        if self._order is not None and (keep := self._order.settings.keep_warm_seconds):
            self._demand.keep_after_batch(keep, self._taken_at)
        if self._is_old(engine):
            self._release(_OLD)
        elif (wanted := self._wanted()) is None:
            self._release("it is not wanted any more")
        else:
            self._begin_hold(wanted, starts_engine=False)

    # For the loop, while a job runs

    def guard(self) -> None:
        """See that an engine which the job has no work for does not stay when its time is up."""
        with self._letting_go:
            engine, hold, now = self._engine, self._hold, time.monotonic()
            if engine is None or hold is None:
                return
            engine_runs.see(self._ledger)
            if hold.ended is not None:
                if now > hold.ended + _GOODBYE_SECONDS:
                    engine.bid_goodbye(kindly=False)
            elif self._wanted() is None:
                hold.ended = now
                self._tell_release(engine, self._demand.refused or _OVER)
                engine.bid_goodbye()

    # For the loop, while no job runs

    @property
    def is_leaving(self) -> bool:
        """Whether there is one that was told to end, and whose books are open."""
        return self._hold is not None and self._hold.ended is not None

    def errand(self, *, may_load: bool) -> Callable[[], None] | None:
        """What is to be done with the engine now, in the thread of the jobs; None: nothing.

        Args:
            may_load: whether an engine can be started ahead.
        """
        wanted = self._wanted()
        self._demand.note_refusal()
        engine, hold = self._engine, self._hold
        if engine is None:
            if wanted is None or not may_load or time.monotonic() < self._retry_at:
                return None
            return lambda: self._load_ahead(wanted)
        engine_runs.see(self._ledger)
        if engine.wants_attention and not self.is_leaving:
            return self._attend
        if wanted is None or self._is_old(engine) or self.is_leaving:
            why = _OLD if wanted is not None else self._demand.refused or _OVER
            return lambda: self._release(why)
        if hold is not None and (hold.wanted.why, hold.wanted.until) != (wanted.why, wanted.until):
            return lambda: self._hold_for(wanted)
        return None

    def hear_wishes(self) -> None:
        """See what `dropscale warm` asked for. Also while a job runs."""
        if self._demand.hear_wishes():
            self._failures, self._retry_at = 0, 0.0

    def times(self) -> list[float]:
        """When, on the monotonic clock, `errand` has to be asked again."""
        now = time.monotonic()
        if self._terms is None:
            return []
        if self._hold is not None:
            return [now + _SIGN_SECONDS, self._hold.wanted.until]
        start = self._demand.next_start()
        return [] if start is None else [now + start - time.time()]

    def _wanted(self) -> Wanted | None:
        return self._demand.now(self._hold.wanted if self._hold is not None else None)

    def _stays(self) -> bool:
        keeps = self._order is not None and self._order.settings.keep_warm_seconds > 0
        return not self._demand.refusal() and (keeps or self._wanted() is not None)

    def _is_old(self, engine: EngineProcess) -> bool:
        return time.monotonic() - engine.meter.started > self._longest_seconds

    # The engine and its books, in the thread of the jobs

    def _start(self, batch: int | None, admission: str) -> EngineProcess:
        assert self._order is not None
        watch = DeviceWatch(self._order.settings)
        try:
            engine = EngineProcess(*self._order, admission, on_news=self._on_news)
        except BaseException:
            watch.close()
            raise
        self._engine, self._watch = engine, watch
        try:
            settings = self._order.settings
            # who pays for it must be known, should it never be ready, or this watcher be killed before
            device = None if models.expects_gpu(settings.runtime, settings.device) else "cpu"
            self._run = engine_runs.begin(
                self._ledger, batch, engine.pid, settings.model, engine.meter.spawned_at, device
            )
        except BaseException:
            self._end()
            raise
        tell("engine_started", "engine started (process {pid})", pid=engine.pid)
        return engine

    def _on_news(self) -> None:
        if self._hold is not None and self._terms is not None:
            self._terms.wake()

    def _end(self) -> None:
        """Close the process, which has ended or is to, and its books."""
        engine, self._engine = self._engine, None
        watch, self._watch = self._watch, None
        run, self._run = self._run, None
        self._demand.forget_batch()
        if engine is None or watch is None:
            return
        with contextlib.closing(watch):
            engine.close()
            self._end_hold(engine, None)
            if run is not None:
                engine_runs.end(self._ledger, run, engine)
                watch.end(engine, run, self._ledger)
            tell("engine_ended", "engine ended (process {pid})", pid=engine.pid, exit_code=engine.returncode)

    def _release(self, why: str) -> None:
        engine = self._engine
        if engine is None:
            return
        if not self.is_leaving:
            self._tell_release(engine, why)
        if self._hold is not None and self._hold.ended is None:
            self._hold.ended = time.monotonic()
        engine.dismiss()  # before any book: whatever becomes of those, its memory is to be free
        self._end()

    @staticmethod
    def _tell_release(engine: EngineProcess, why: str) -> None:
        tell("engine_released", "releasing the engine (process {pid}): {why}", pid=engine.pid, why=why)

    def _load_ahead(self, wanted: Wanted) -> None:
        try:
            self._start(None, first_admission(self._order.settings) if self._order else "")
        except OSError as error:
            self._fail(f"it cannot be started: {told(error)}; see engine.command")
            return
        self._begin_hold(wanted, starts_engine=True)

    def _attend(self) -> None:
        engine = self._engine
        if engine is None or self.is_leaving:
            return
        was_ready = engine.ready is not None
        try:
            engine.attend()
        except EngineTrouble as trouble:
            self._end()
            self._fail(trouble.message, trouble.stderr)
        except EngineGaveUp as gave_up:
            self._end()
            self._fail(gave_up.message)
        else:
            if engine.ready is not None and not was_ready:
                tell_ready(engine.ready)
                if self._order is not None and may_use_nvidia(self._order.settings):
                    warn_of_cpu(engine.ready)
                if self._run is not None:
                    engine_runs.note_progress(self._ledger, self._run, engine)
                self._tell_warm()

    def _fail(self, reason: str, stderr: str = "") -> None:
        """No picture was in it, so none is to blame; the next batch starts a fresh one."""
        delay = self._terms.retry.delay_seconds(self._failures) if self._terms is not None else 0.0
        self._failures += 1
        self._retry_at = time.monotonic() + delay
        warn("engine_lost", "the engine that was kept warm is lost: {reason}", reason=reason, stderr=stderr)

    def _begin_hold(self, wanted: Wanted, *, starts_engine: bool) -> None:
        engine, run, began = self._engine, self._run, time.monotonic()
        assert engine is not None and run is not None
        engine.rested = True
        row = warm_ups.begin(self._ledger, run, wanted, starts_engine=starts_engine)
        self._hold = _Hold(row, wanted, began)
        if not starts_engine:
            engine_runs.note_progress(self._ledger, run, engine)
        self._tell_warm()

    def _hold_for(self, wanted: Wanted) -> None:
        """It is wanted for another reason, or until another time."""
        engine, hold = self._engine, self._hold
        if hold is None or engine is None:
            return
        if wanted.why == hold.wanted.why:
            warm_ups.prolong(self._ledger, hold.row, wanted)
            hold.wanted = wanted
            self._tell_warm()
        else:
            self._end_hold(engine, None)
            self._begin_hold(wanted, starts_engine=False)

    def _tell_warm(self) -> None:
        engine, hold = self._engine, self._hold
        if engine is not None and engine.ready is not None and hold is not None:
            text = "the engine is kept warm until {until} (process {pid})"
            tell("engine_warm", text, until=clock(hold.wanted.until_at), pid=engine.pid)

    def _end_hold(self, engine: EngineProcess, batch: int | None) -> None:
        hold, self._hold = self._hold, None
        if hold is None:
            return
        now = time.monotonic() if hold.ended is None else hold.ended
        cold_seconds = engine.meter.spawn_seconds + engine.meter.load_seconds
        if engine.ready is None:
            idle, cold_seconds = 0.0, now - engine.meter.started
        else:
            idle = now - max(hold.began, engine.meter.started + cold_seconds)
        if batch is None:
            warm_ups.end(self._ledger, hold.row, idle)
        else:
            warm_ups.end(self._ledger, hold.row, idle, batch, cold_seconds)
            self._taken = (hold.row, engine.done + engine.failed)


def tell_ready(ready: protocol.Ready) -> None:
    """An engine has its model loaded."""
    tell(
        "engine_ready",
        "engine ready after {seconds:.1f} s: {runtime} on {device}, {precision}"
        + (" ({reason})" if ready.reason else ""),
        seconds=ready.load_seconds,
        runtime=ready.runtime,
        device=ready.device,
        precision=ready.precision,
        reason=ready.reason,
    )
