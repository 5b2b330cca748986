"""How the pictures of a batch come to their end: delivered, failed, put off, or changed under its hands.

Only a picture's own faults send it to `failed`; whatever else goes wrong, it waits in the inbox and `status` says why.
"""

import time
from collections.abc import Sequence

from watcher.claims import Claims
from watcher.delivery import Staged
from watcher.files.names import Location, display, told
from watcher.files.originals import OriginalChanged
from watcher.journal import tell, warn
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
            told_how = how if twin.id == picture.id else f"same content as {display(picture.path)}"
            seconds_of_it = 0.0 if again else seconds
            tell_delivered(self._workshop, twin, target, told_how, reused=again, seconds=seconds_of_it)

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
        tell_failed(self._workshop, picture, moved, reason)

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


def tell_delivered(
    workshop: Workshop, picture: Picture, result: str, how: str, *, reused: bool, seconds: float = 0.0
) -> None:
    """Tell that a result lies in the outbox and its original in the archive.

    Args:
        workshop: where.
        picture: the original.
        result: its path below the outbox.
        how: for people.
        reused: whether no engine worked on it.
        seconds: that the engine did.
    """
    tell(
        "delivered",
        "{picture} -> {result} ({how})",
        picture=display(picture.path),
        result=display(result),
        result_path=Location(workshop.config.folders.outbox, result),
        how=how,
        reused=reused,
        seconds=seconds,
    )


def tell_failed(workshop: Workshop, picture: Picture, moved: str, reason: str) -> None:
    """Tell that a picture lies at `moved` below the failed ones, for this reason."""
    warn(
        "failed",
        "{picture} failed: {reason}; it lies at {failed_path} now",
        picture=display(picture.path),
        reason=reason,
        failed_path=Location(workshop.config.folders.failed, moved),
    )
