"""The watcher: carries forward what a kill left, collects pictures into windows, runs one batch at a time."""

import logging
import queue
import time
import traceback
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from enum import Enum

from sr_engine.models import Model
from watcher import memory
from watcher.accounting import engine_runs
from watcher.delivery import Delivery
from watcher.engine.gate import Gate
from watcher.engine.keeper import EngineKeeper
from watcher.engine.terms import Terms
from watcher.errors import LedgerError, LedgerLost
from watcher.files.filesystem import Identity
from watcher.files.mounted import mounted_now
from watcher.files.names import display
from watcher.files.settling import Settled
from watcher.inbox import Inbox
from watcher.intake import Intake
from watcher.jobs import process_window, resume_moves
from watcher.journal import tell, warn
from watcher.ledger import Ledger
from watcher.operation.vitals import Vitals
from watcher.progress import Progress
from watcher.rows import MOVING, State
from watcher.sections import Config
from watcher.waiting import Waiting
from watcher.wording import count_of
from watcher.workshop import Outcome, Workshop


class Ended(Enum):
    """Why `Service.run` returned."""

    STOPPED = "stopped"
    RELOAD = "reload"


class Service:
    """A watcher for one config. `run` and `once` belong to the main thread."""

    def __init__(
        self,
        config: Config,
        model: Model,
        models_folder: str,
        ledger: Ledger,
        keeper: EngineKeeper,
        progress: Progress,
        renew: Callable[[], bool] = lambda: False,
    ) -> None:
        """Prepare a watcher.

        Args:
            config: what to do.
            model: its facts, to tell results apart.
            models_folder: where the engine finds it.
            ledger: stays open.
            keeper: has the engine, also from one watcher to the next; not closed.
            progress: where batches show how far they are.
            renew: called when a reload was requested; whether there is another config to start again with.
        """
        self._config = config
        self._renew = renew
        self._ledger = ledger
        self._delivery = Delivery(config.folders, ledger)
        far = None
        if config.executor == "rq":
            from watcher.queue.executor import QueueExecutor  # noqa: PLC0415 - RQ takes 20 MB

            far = QueueExecutor(config, model, ledger)
        self._workshop = Workshop(
            config, model, models_folder, ledger, self._delivery, keeper, progress, self._stopping, far
        )
        self._keeper = keeper
        self._keeper.adopt(self._workshop.order)
        self.vitals = Vitals(config.folders.state)
        self.vitals.engine = "off" if keeper.run is None else "warm"  # kept from the watcher before
        self._intake = Intake(config.folders.inbox, config.window)
        self._gate = Gate(config, ledger)
        self.inbox = Inbox(config.folders.inbox, config.watch, self._is_engaged, lambda: self._wake.put(None))
        # SimpleQueue: its put may be called from a signal handler that interrupted its own get
        self._wake: queue.SimpleQueue[None] = queue.SimpleQueue()
        longest = max(config.retry.max_seconds, config.watch.incomplete_seconds)
        self._waiting = Waiting(config.retry, longest)
        self._unread: set[str] = set()  # files of the running job that could not be read
        self._returned: set[str] = set()  # files of the last job, to be looked at again
        self._stale = False  # the ledger has changed since it was read
        self._troubled = False  # the last job did not end well
        self._unswept = False  # a job, perhaps an earlier one, could not clear up: its disk was full, its share gone
        self._worker = ThreadPoolExecutor(1, "batch")
        self._job: Future[Outcome] | None = None
        self._stops = 0
        self._reload = self._renewed = False
        self._grace_until: float | None = None
        self._mounts: dict[str, str] = {}
        self._noted: dict[str, str] = {}

    # Signals

    def request_stop(self) -> None:
        """Stop admitting; finish the picture in work within the grace time. A second call abandons it."""
        self._stops += 1
        self._wake.put(None)

    def request_reload(self) -> None:
        """If there is another config, return from `run` after the running batch, to start again with it."""
        self._reload = True
        self._wake.put(None)

    # Main paths

    def run(self) -> Ended:
        """Watch until stopped or asked to reload.

        Raises:
            LedgerError: the ledger cannot be read or written at the start.
            LedgerLost: the ledger was lost: begin anew, with another one.
            OSError: the inbox is not there at the start.
        """
        memory.limit_arenas()
        self.vitals.beat()
        if self._workshop.queue is None:
            self._keeper.keep(self._terms())
        else:
            self._keeper.close()  # workers have engines of their own
            self._workshop.queue.look_out_for_workers(lambda: self._wake.put(None))
        try:
            self._ledger.bring_forward()  # who starts it, or changes the config, may have mended what was in the way
            self._recover()
            self.inbox.arm(time.monotonic())
            self._show_vitals()
            tell("watching", "watching {inbox}: {how}", inbox=display(self.inbox.root), how=self.inbox.backend)
            memory.return_freed()
            while not self._stops and not (self._renewed and self._job is None):
                try:
                    self._step(time.monotonic())
                except LedgerLost:
                    raise
                except LedgerError as error:
                    warn("ledger", "{problem}; trying again", problem=error.message)
                    self._pause(self._config.retry.first_seconds)
                self._sleep()
            if self._stops and self._job is not None:
                grace = self._config.engine.grace_seconds
                text = "stopping: what is in work has {grace:g} s to finish, a second signal abandons it"
                tell("stopping", text, grace=grace)
        except LedgerLost:
            self._pause(self._config.retry.first_seconds)  # a dying disk may lose one after the other
            raise
        finally:
            self._shut_down()
        return Ended.STOPPED if self._stops else Ended.RELOAD

    def once(self) -> Outcome:
        """Look, give fresh files time to prove that they are whole, process those that are.

        Raises:
            LedgerError: the ledger cannot be read or written.
            OSError: the inbox is not there.
        """
        outcome = Outcome()
        try:
            outcome += self._recover()
            started = time.monotonic()
            self.inbox.arm(started, observe=False)
            self._admit_due(started)
            self._note_health()
            self._show_vitals()
            until = time.monotonic() + self._config.watch.settle_seconds
            while not self._stops and self.inbox.unsettled() and (now := time.monotonic()) < until:
                self._pause(until - now)
            for settled in self.inbox.settled(max(time.monotonic(), until)):
                self._into_window(settled, until)
            for urgent in (True, False):
                while self._intake.waits(urgent=urgent) and not self._stops and (urgent or not self._is_held()):
                    outcome += process_window(self._workshop, self._intake.take(urgent=urgent), "once", self._unread)
                    self._gate.refresh()
        finally:
            self._shut_down()
        return outcome

    # Steps of the loop

    def _step(self, now: float) -> None:
        self.vitals.beat()
        self._ledger.check()
        if self._reload:
            self._reload = False
            self._renewed |= self._renew()
        self._keeper.hear_wishes()
        if self.inbox.check_root(now):
            self._look(now)
        elif len(self._intake):
            self._intake.forget_window()
        self._note_health()
        self._finish_job(now)
        self._catch_up(now)
        self._start_job(now)
        self._show_vitals()

    def _recover(self) -> Outcome:
        """Carry every open row forward, or undo it, from what the folders really hold."""
        engine_runs.close_open(self._ledger, time.time(), self._keeper.run)
        rows = self._ledger.open_rows()
        self._ledger.release(row.id for row in rows if row.state is State.CLAIMED)
        outcome = resume_moves(self._workshop, [row for row in rows if row.state in MOVING])
        self._waiting.reread(self._ledger.open_rows(), time.monotonic(), time.time())
        return outcome

    def _look(self, now: float) -> None:
        self.inbox.take_hints(now)
        self.inbox.rescan_if_due(now)
        self._admit_due(now)
        for settled in self.inbox.settled(now):
            self._into_window(settled, now)

    def _admit_due(self, now: float) -> None:
        """Admit the files whose time to wait is over."""
        for path in self._waiting.due(now):
            if self.inbox.is_gone(path):
                self._ledger.forget_waiting(path)
            self.inbox.admit(path, now, announced=True)

    def _into_window(self, settled: Settled, now: float) -> None:
        self._intake.add(settled.path, settled.identity, now)
        tell("settled", "{picture} is whole", level=logging.DEBUG, picture=display(settled.path))

    def _start_job(self, now: float) -> None:
        may_work = self.inbox.armed and not self._renewed
        if self._job is None and may_work and not self._keeper.is_leaving:
            self._start_batch(now)
        if self._job is not None:
            self._keeper.guard()
        elif errand := self._keeper.errand(may_load=may_work):
            self._submit(lambda: self._run_errand(errand))

    def _start_batch(self, now: float) -> None:
        if due := self._waiting.moving_due(now):
            self._intake.engage(row.path for row in due)
            self._submit(lambda: resume_moves(self._workshop, due))
        elif closing := self._intake.closing(now, urgent_only=self._is_held()):
            found = self._intake.take(urgent=closing.urgent)
            count = len(found)
            what = count_of(count, "picture")
            tell("window", "window closed ({reason}): {what}", reason=closing.reason, what=what, count=count)
            self._submit(lambda: process_window(self._workshop, found, closing.reason, self._unread))

    def _is_held(self) -> bool:
        """Whether no engine may start now for what waits and is not urgent."""
        waits, spending = self._intake.waits(urgent=False), self._keeper.run is not None
        return self._gate.hold(time.time(), wanted=waits, spending=spending) is not None

    def _finish_job(self, now: float) -> None:
        if self._job is None or not self._job.done():
            return
        job, self._job = self._job, None
        paths = self._intake.disengage()
        self._stale = True
        self._gate.refresh()
        unread, self._unread = self._unread, set()
        if isinstance(broken := job.exception(), LedgerLost):
            raise broken
        if broken is not None:
            # of our own errors, too: one picture must not end the watching of all others
            ours = not isinstance(broken, LedgerError | OSError)
            trace = "".join(traceback.format_exception(broken)) if ours else ""
            problem = f"{type(broken).__name__}: {broken}" if ours else str(broken)
            warn("broken_off", "the batch was broken off: {problem}; trying again", problem=problem, traceback=trace)
            unread = paths
        self._troubled = broken is not None or job.result().waiting > 0
        self._unswept |= self._troubled
        for path in paths - unread:
            self._waiting.forgive(path)
        for path in unread:
            self._waiting.defer(path, self.inbox.identity(path), now)
        self._returned |= paths
        memory.return_freed()

    def _catch_up(self, now: float) -> None:
        """Learn from the ledger what the last job changed, and that a worker has come whom pictures waited for."""
        far = self._workshop.queue
        if far is not None and self._job is None and far.workers_have_come():
            tell("workers", "a worker listens: what waited is tried again")
            self._ledger.bring_forward()
            self._stale = True
        if self._stale:
            # no batch runs: what is claimed still, a batch could not release
            self._ledger.release(row.id for row in self._ledger.open_rows() if row.state is State.CLAIMED)
            self._waiting.reread(self._ledger.open_rows(), now, time.time())
            if self._unswept:
                engine_runs.close_open(self._ledger, time.time(), self._keeper.run)
                self._delivery.sweep_staging()
                self._unswept = self._troubled
            self._stale = False
            returned, self._returned = self._returned, set()
            for path in returned:  # those that changed while they were in work are new pictures
                self.inbox.admit(path, now, announced=True)

    def _sleep(self) -> None:
        due = [self.inbox.next_due()]
        if self.inbox.armed:
            idle = self._job is None
            due += self._waiting.times(moving=idle)
            if idle:
                due += self._intake.close_times(urgent_only=self._gate.is_closed)
                due += self._gate.asks_again()
        if self._job is None:
            due += self._keeper.times()
        self._pause(max(min(due) - time.monotonic(), 0))

    def _pause(self, seconds: float) -> None:
        try:
            self._wake.get(timeout=seconds)
            while True:
                self._wake.get_nowait()
        except queue.Empty:
            pass

    def _shut_down(self) -> None:
        self.inbox.disarm()
        self._stops = max(self._stops, 1) if self._job is not None else self._stops
        while self._job is not None and not self._job.done():
            self._keeper.guard()
            self._pause(1.0)
        self._intake.close()
        self._worker.shutdown()
        if self._workshop.queue is not None:
            self._workshop.queue.close()

    def _stopping(self) -> float | None:
        """None, or the monotonic time by which the picture in work has to be finished (asked by the batch)."""
        if self._stops and self._grace_until is None:
            self._grace_until = time.monotonic() + self._config.engine.grace_seconds
        if self._stops > 1:
            self._grace_until = time.monotonic()
        return self._grace_until

    def _terms(self) -> Terms:
        """How the engine is kept between batches."""
        schedule = None
        if self._config.warm:
            from watcher.engine.schedule import Schedule  # noqa: PLC0415 - keep the watcher small where none is configured

            schedule = Schedule(self._config.warm)
        return Terms(schedule, self._config.retry, self._why_not_warm, lambda: self._wake.put(None))

    def _why_not_warm(self) -> str:
        """Why no engine may be kept or loaded ahead now; empty: it may. Asked from several threads."""
        if self._stops:
            return "the watcher is stopping"
        return self._gate.refusal() if self.inbox.armed else "the inbox is gone"

    # Jobs

    @staticmethod
    def _run_errand(errand: Callable[[], None]) -> Outcome:
        errand()
        return Outcome()

    def _submit(self, job: Callable[[], Outcome]) -> None:
        self._job = self._worker.submit(job)
        self._job.add_done_callback(lambda _: self._wake.put(None))

    # What is known of files

    def _is_engaged(self, path: str, identity: Identity) -> bool:
        """Whether a file is in the window, in work, on its way or has to wait: then it is not admitted."""
        self.vitals.beat()  # a look through a large inbox on a slow share may take minutes
        if self._intake.holds(path, identity):
            return True
        return self._waiting.holds(path, identity)

    def _note_health(self) -> None:
        """Tell `status` how the watching goes, when something of it changed."""
        inbox = self.inbox
        self._mounts = mounted_now(self._config.folders, self._mounts)  # a share may come later than the watcher
        health = {
            **self._mounts,
            "watching": "yes" if inbox.armed else "paused: the inbox is gone",
            "backend": inbox.backend,
            "events_missed": str(inbox.events_missed),
            "last_reconcile": f"{inbox.last_reconcile:.3f}",
        }
        if health != self._noted:
            self._ledger.note(**health)
            self._noted = health

    def _show_vitals(self) -> None:
        """For metrics, which must not look into the inbox."""
        inbox, vitals = self.inbox, self.vitals
        vitals.watching, vitals.last_reconcile = inbox.armed, inbox.last_reconcile
        vitals.events_missed = inbox.events_missed
        vitals.waiting = inbox.unsettled() + len(self._intake) + len(self._waiting)
        settling = inbox.unsettled_since()
        times = [self._intake.waiting_since(), settling and time.time() - time.monotonic() + settling]
        vitals.waiting_since = min((moment for moment in times if moment is not None), default=None)
