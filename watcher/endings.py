"""How the pictures of a batch come to their end: delivered, failed, put off, or changed under its hands.

Only a picture's own faults send it to `failed`; whatever else goes wrong, it waits in the inbox and `status` says why.
"""

import os
import time
from collections.abc import Sequence

from watcher.claims import Claims
from watcher.delivery import Staged
from watcher.journal import tell, warn
from watcher.names import display, told
from watcher.originals import OriginalChanged
from watcher.rows import Picture
from watcher.workshop import Outcome, Workshop


class Endings:
    """Those of one batch. Each takes its picture off the claims, and counts in the outcome."""

    def __init__(self, workshop: Workshop, claims: Claims) -> None:
        self.outcome = Outcome()
        self._workshop = workshop
        self._claims = claims

    def deliver(self, picture: Picture, staged: Staged, how: str, *, reused: bool, seconds: float = 0.0) -> None:
        """Deliver a result to every name of its content; the copies are made while the result cannot be taken."""
        delivery = self._workshop.delivery
        copies = [(picture, staged)]
        for twin in self._claims.with_twins([picture]):
            if twin.id != picture.id and (copy := delivery.stage_copy(twin, staged.path, staged.sha256)):
                copies.append((twin, copy))
        for twin, result in copies:
            again = reused or twin.id != picture.id
            try:
                target = delivery.deliver(twin, result, reused=again)
            except OriginalChanged:
                self._changed(twin)
                continue
            except OSError as error:
                self.wait([twin], told(error))
                continue
            self._end(twin)
            self._workshop.forget_doubt(twin)
            self.outcome.delivered += 1
            self.outcome.reused += again
            tell(
                "delivered",
                "{picture} -> {result} ({how})",
                picture=display(twin.path),
                result=display(target),
                how=how if twin.id == picture.id else f"same content as {display(picture.path)}",
                reused=again,
                seconds=0.0 if again else seconds,
            )

    def doubt(self, picture: Picture, reason: str) -> None:
        """It cannot be decoded: give an unfinished upload time to become whole, and then no more."""
        left = self._workshop.doubt(picture, reason)
        if left <= 0:
            self.fail(picture, reason)
            return
        self._end(picture)
        self.outcome.waiting += 1
        until = time.time() + left
        self._workshop.ledger.wait(picture.id, f"cannot be decoded, perhaps unfinished: {reason}", until, counts=False)
        tell(
            "incomplete",
            "{picture} cannot be decoded ({reason}); looking again in {seconds:.0f} s, perhaps it is not whole yet",
            picture=display(picture.path),
            reason=reason,
            seconds=left,
        )

    def fail(self, picture: Picture, reason: str) -> None:
        """The picture itself is at fault: it goes to `failed`, with the reason beside it."""
        try:
            moved = self._workshop.delivery.quarantine(picture, reason)
        except OriginalChanged:
            self._changed(picture)
            return
        except OSError as error:
            self.wait([picture], told(error))
            return
        self._end(picture)
        self._workshop.forget_doubt(picture)
        self.outcome.failed += 1
        warn(
            "failed",
            "{picture} failed: {reason}; it lies at {folder} now",
            picture=display(picture.path),
            reason=reason,
            folder=display(os.path.join(self._workshop.config.folders.failed, moved)),
        )

    def wait(self, pictures: Sequence[Picture], trouble: str) -> None:
        """The surroundings failed: these pictures are tried again later."""
        until = 0.0
        for picture in pictures:
            until = time.time() + self._workshop.config.retry.delay_seconds(picture.waits)
            self._workshop.ledger.wait(picture.id, trouble, until)
            self._end(picture)
            self.outcome.waiting += 1
        if pictures:
            self.outcome.trouble = trouble
            when = time.strftime("%H:%M:%S", time.localtime(until))
            names = display(pictures[0].path) + (f" and {len(pictures) - 1} more" if len(pictures) > 1 else "")
            warn("waiting", "{pictures} waiting until {when}: {reason}", pictures=names, when=when, reason=trouble)

    def withdraw(self, picture: Picture) -> None:
        """It was rewritten between the claim and the decoding. Its twins were not: they are taken up anew."""
        self._workshop.delivery.withdraw(picture)
        self._changed(picture)

    def _changed(self, picture: Picture) -> None:
        self._end(picture)
        self._workshop.forget_doubt(picture)
        tell("changed", "{picture} changed while it was in work: it is a new picture", picture=display(picture.path))

    def _end(self, picture: Picture) -> None:
        self._claims.end(picture)
        self._workshop.progress.advance()
