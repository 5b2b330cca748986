"""The story of one window: claim, reuse, upscale, deliver, settle the bill.

Runs in a thread of its own, so that the next window fills meanwhile.
"""

import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING

from sr_engine import protocol
from watcher.accounting import engine_runs
from watcher.claims import Claims
from watcher.delivery import Staged
from watcher.endings import Endings
from watcher.engine import coldstart
from watcher.engine.ends import MOST_RESTARTS, EngineGaveUp, EngineStopped, EngineTrouble
from watcher.engine.gpu_wait import GpuWait
from watcher.engine.keeper import tell_ready
from watcher.engine.process import EngineProcess
from watcher.files.filesystem import Digest, holds
from watcher.files.names import display, told
from watcher.journal import tell, warn
from watcher.rows import Picture
from watcher.workshop import Outcome, Workshop

if TYPE_CHECKING:
    from watcher.queue.executor import QueueEngine


def run_batch(
    workshop: Workshop, found: Sequence[tuple[str, Digest]], closed_by: str, arrived: Mapping[str, float] | None = None
) -> Outcome:
    """Bring a window's pictures to their end.

    Args:
        workshop: settings, ledger and folders.
        found: path below the inbox and content of each picture.
        closed_by: why the window closed.
        arrived: when each was seen to be whole, Unix time, for the accounts.

    Raises:
        LedgerError: the ledger cannot be written; recovery carries on.
    """
    gpu_wait = GpuWait(workshop.config.engine, workshop.ledger, workshop.stopping)
    claims = Claims()
    endings = Endings(workshop, claims)
    batch = _Batch(workshop, workshop.ledger.open_batch(closed_by, len(found)), gpu_wait, claims, endings)
    workshop.progress.begin(len(found))
    began = time.monotonic()
    try:
        claimed = batch.claim(found, arrived)
        new = batch.reuse(claimed)
        batch.upscale_and_deliver(new)
    except EngineStopped as stopped:
        batch.tell_stopped(stopped)
    finally:
        batch.settle()
        workshop.progress.end()
    endings.outcome.tell_end(batch.id, time.monotonic() - began)
    return endings.outcome


@dataclass
class _Batch:
    workshop: Workshop
    id: int
    gpu_wait: GpuWait
    claims: Claims
    endings: Endings
    _suspects: list[Picture] = field(default_factory=list)  # to be tried alone when the others are done
    _illness: str | None = None  # of the engine, once it was tested

    # The steps

    def claim(self, found: Sequence[tuple[str, Digest]], arrived: Mapping[str, float] | None) -> list[Picture]:
        """Write the pictures into the ledger; returns one for each different content."""
        claimed = self.workshop.ledger.claim(self.id, found, self.workshop.recipe, arrived)
        self.claims.add(claimed)
        for picture in claimed:
            if picture.suspected_at is not None:
                self.endings.doubt(picture, picture.reason)
        return self.claims.group()

    def reuse(self, pictures: list[Picture]) -> list[Picture]:
        """Deliver what has been done before; returns what has not."""
        return [picture for picture in pictures if not self._deliver_earlier(picture)]

    def upscale_and_deliver(self, pictures: list[Picture]) -> None:
        """Run an engine over the pictures; each is delivered as soon as its result is staged.

        After a crash the rest is run again without the picture that was in work; that one then alone.
        """
        restarts = 0
        while pictures:
            trouble = self._run_engine(pictures)
            if trouble is None:
                break
            left = self._left(pictures)
            in_work = [picture for picture in left if picture.id in trouble.in_work]
            self._suspects += in_work
            pictures = [picture for picture in left if picture.id not in trouble.in_work]
            restarts += not in_work
            if pictures and restarts >= self.workshop.config.engine.attempts:
                self.endings.wait(self.claims.with_twins(pictures), trouble.message)  # the engine itself is ill
                break
        while self._suspects:
            self._try_alone(self._suspects.pop(0))

    def settle(self) -> None:
        """Close the books: what is still claimed goes back to the inbox."""
        self.workshop.ledger.release(self.claims)
        self.workshop.delivery.close_staging(self.id)
        self.workshop.ledger.close_batch(self.id)

    def tell_stopped(self, stopped: EngineStopped) -> None:
        """Say what the stop left undone."""
        if not len(self.claims):
            return
        given_up = [display(picture.path) for picture in self.claims.named(stopped.in_work)]
        text = "stopped; {count} of the batch stay in the inbox for the next time"
        text += ", {given_up} was given up half-way" if given_up else ""
        tell("interrupted", text, count=len(self.claims), given_up=", ".join(given_up))

    # Reuse

    def _deliver_earlier(self, picture: Picture) -> bool:
        delivery = self.workshop.delivery
        if self.workshop.stopping() is not None:
            raise EngineStopped(set())
        for row in self.workshop.ledger.earlier_results(picture.sha256, picture.recipe):
            earlier = os.path.join(self.workshop.config.folders.outbox, row.result_path or "")
            try:
                staged = delivery.stage_copy(picture, earlier, row.result_sha256 or "")
                if staged is not None:
                    self.endings.deliver(picture, staged, "as before, no engine needed", reused=True)
                    return True
            except OSError as error:
                self.endings.wait(self.claims.with_twins([picture]), told(error))
                return True
        return False

    # Upscaling

    def _run_engine(self, pictures: list[Picture], *, alone: bool = False) -> EngineTrouble | None:
        """Run an engine over the pictures, and a fresh one whenever it asks for that.

        Args:
            pictures: at least one.
            alone: whether it has to be an engine of their own.

        Returns:
            How it failed, or None when all came to an end or have to wait.
        """
        restarts = 0
        while True:
            try:
                return self._run_process(pictures, alone=alone)
            except EngineGaveUp as gave_up:
                if self.gpu_wait.again(gave_up):
                    continue
                left = self._left(pictures)
                restarts = restarts + 1 if len(left) == len(pictures) else 1
                if not left:
                    return None
                if not gave_up.retryable or restarts > MOST_RESTARTS:
                    warn("engine_unusable", "the engine cannot work: {reason}", reason=gave_up.message)
                    self.endings.wait(self.claims.with_twins(left), gave_up.message)
                    return None
                text = "{reason}; starting a fresh engine for the {pictures} that are left"
                warn("engine_restarts", text, reason=gave_up.message, pictures=len(left))
                pictures = left

    def _run_process(self, pictures: list[Picture], *, alone: bool) -> EngineTrouble | None:
        by_id = {picture.id: picture for picture in pictures}
        try:
            staging = self.workshop.delivery.open_staging(self.id)
        except OSError as error:
            self.endings.wait(self.claims.with_twins(pictures), told(error))
            return None
        requests = [self._request(picture, staging) for picture in pictures]
        queue, keeper = self.workshop.queue, self.workshop.keeper
        engine: EngineProcess | QueueEngine
        try:
            apart = alone or self.gpu_wait.takes_less
            if queue is not None:
                engine = queue.take(self.id, pictures)
            else:
                engine = keeper.take(self.id, alone=apart, admission=self.gpu_wait.admission)
        except OSError as error:
            trouble = f"the engine cannot be started: {told(error)}; see engine.command"
            self.endings.wait(self.claims.with_twins(pictures), trouble)
            return None
        try:
            for event in engine.upscale(requests, self._stopping):
                self._handle(event, by_id, engine)
        except EngineTrouble as ended:
            warn("engine_trouble", "{reason}", reason=ended.message, stderr=ended.stderr)
            if ended.in_work or not engine.rested:
                return ended
        else:
            return None
        finally:
            if isinstance(engine, EngineProcess):
                keeper.give_back(engine)
            else:
                engine.close()
        # what ended it happened while it was held: no picture is to blame, and a fresh one is no further attempt
        left = self._left(pictures)
        return self._run_process(left, alone=alone) if left else None

    def _stopping(self) -> float | None:
        """Asked twice a second while an engine is at work: after a kill, that was its last sign of life."""
        engine_runs.see(self.workshop.ledger)
        return self.workshop.stopping()

    def _request(self, picture: Picture, staging: str) -> protocol.Upscale:
        source = os.path.join(self.workshop.config.folders.inbox, picture.path)
        return protocol.Upscale(
            id=picture.id,
            source=protocol.encode_path(source),
            target=protocol.encode_path(os.path.join(staging, f"{picture.id}-{time.monotonic_ns()}")),
            output=self.workshop.config.output.wire(),
        )

    def _handle(
        self, event: protocol.AnyEvent, pictures: dict[int, Picture], engine: "EngineProcess | QueueEngine"
    ) -> None:
        progress = self.workshop.progress
        if isinstance(event, protocol.Ready) and isinstance(engine, EngineProcess):
            self.workshop.keeper.note_ready(engine)
            self.gpu_wait.ready(event)
            tell_ready(event)
        elif isinstance(event, protocol.Progress) and event.id in pictures:
            progress.work(display(pictures[event.id].path), event.done, event.total)
        elif isinstance(event, protocol.Done) and event.id in pictures:
            self._accept(pictures[event.id], event)
        elif isinstance(event, protocol.Failed) and event.id in pictures:
            # one that did others before may have been short of memory through those
            self._judge(pictures[event.id], event, alone=len(pictures) == 1 and not engine.rested)

    def _accept(self, picture: Picture, done: protocol.Done) -> None:
        staged = Staged(protocol.decode_path(done.target), done.result_sha256, done.result_bytes)
        if done.source_sha256 != picture.sha256:
            self.endings.withdraw(picture)
            return
        try:
            staging = self.workshop.delivery.open_staging(self.id)
            if os.path.dirname(staged.path) != staging or not holds(staged.path, staged.sha256):
                raise FileNotFoundError(2, "the staged result is not what the engine wrote", staged.path)
            seconds = done.decode_seconds + done.upscale_seconds + done.encode_seconds
            how = f"{done.width} x {done.height}, {seconds:.1f} s" + (f"; {done.note}" if done.note else "")
            self.endings.deliver(picture, staged, how, reused=False, seconds=seconds)
        except OSError as error:
            self.endings.wait(self.claims.with_twins([picture]), told(error))

    def _judge(self, picture: Picture, failed: protocol.Failed, *, alone: bool) -> None:
        if failed.source_sha256 not in ("", picture.sha256):
            self.endings.withdraw(picture)
            return
        twins = self.claims.with_twins([picture])
        if failed.fault is protocol.Fault.ENVIRONMENT:
            self.endings.wait(twins, failed.message)
            return
        if failed.code is protocol.Code.OUT_OF_MEMORY and not alone:
            self._suspects.append(picture)  # others may have held the memory that it missed
            return
        for twin in twins:
            if failed.code is protocol.Code.UNDECODABLE:
                self.endings.doubt(twin, failed.message)
            else:
                self.endings.fail(twin, failed.message)

    def _try_alone(self, picture: Picture) -> None:
        """The suspect of a crash gets `engine.attempts` engines of its own, then it fails."""
        attempts = self.workshop.config.engine.attempts
        trouble = None
        for _ in range(attempts):
            trouble = self._run_engine([picture], alone=True)
            if trouble is None:
                return
            guilty = picture.id in trouble.in_work and trouble.blames
            if guilty and self.workshop.ledger.count_attempt(picture.id) >= attempts:
                if not self.workshop.delivery.is_unchanged(picture):
                    self.endings.withdraw(picture)
                    return
                if self._engine_is_ill():
                    break
                for twin in self.claims.with_twins([picture]):
                    self.endings.fail(twin, trouble.verdict(attempts))
                return
        if trouble is not None:
            self.endings.wait(self.claims.with_twins([picture]), trouble.message)

    def _engine_is_ill(self) -> bool:
        """Whether it crashes on a picture that is known to be sound: then none is to blame. Asked once a batch."""
        if self.workshop.queue is not None:
            return False  # the worker has looked
        if self._illness is None:
            tell("engine_tested", "testing the engine with a picture that is sound")
            shop = self.workshop
            enter = partial(shop.keeper.enter, self.id)
            self._illness = coldstart.measure(shop.config, shop.models_folder, self._stopping, enter).problem
        return bool(self._illness)

    def _left(self, pictures: Sequence[Picture]) -> list[Picture]:
        """Those that have not come to an end, and are not to be tried alone later."""
        return [picture for picture in pictures if picture in self.claims and picture not in self._suspects]
