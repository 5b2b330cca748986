"""What the thread of the jobs does: a window that was closed, or moves that were left half-way."""

import errno
import os
import time
from collections.abc import Iterable, Sequence

from watcher.batch import run_batch
from watcher.filesystem import look_at
from watcher.intake import Taken
from watcher.journal import tell, warn
from watcher.names import display, told
from watcher.rows import Picture, State
from watcher.workshop import Outcome, Workshop


def process_window(workshop: Workshop, found: Sequence[Taken], closed_by: str, unread: set[str]) -> Outcome:
    """Run a batch with those pictures of a window that are still what they were.

    Args:
        workshop: to work in.
        found: the pictures, with their contents to come.
        closed_by: what ended the window.
        unread: gets the paths of those that could not be read.

    Raises:
        LedgerError: the ledger cannot be read or written.
    """
    whole = []
    outcome = Outcome()
    for path, identity, _, hashed in found:
        try:
            content = hashed.result()
        except FileNotFoundError:
            continue  # withdrawn
        except OSError as error:
            if error.errno == errno.EAGAIN:
                continue  # it changed while it was read: a new picture
            outcome += Outcome(waiting=1, trouble=f"cannot read {display(path)}: {error.strerror}")
            unread.add(path)
            warn("unreadable", "cannot read {path}: {why}; trying again", path=display(path), why=error.strerror)
            continue
        # held for hours, perhaps: an engine is not started for what was taken away meanwhile
        there = look_at(os.path.join(workshop.config.folders.inbox, path))
        if content.identity.same_state(identity) and there is not None and there.same_state(identity):
            whole.append((path, content))
    arrived = {taken.path: taken.arrived_at for taken in found}
    if whole:
        outcome += run_batch(workshop, whole, closed_by, arrived)
    return outcome


def resume_moves(workshop: Workshop, rows: Iterable[Picture]) -> Outcome:
    """Carry on what a kill or a failure of the surroundings left in the middle of a move.

    Raises:
        LedgerError: the ledger cannot be read or written.
    """
    outcome = Outcome()
    for row in rows:
        shown = display(row.path)
        try:
            state = workshop.delivery.resume(row)
        except OSError as error:
            why = told(error)
            until = time.time() + workshop.config.retry.delay_seconds(row.waits)
            workshop.ledger.wait(row.id, why, until)
            outcome.waiting += 1
            outcome.trouble = why
            when = time.strftime("%H:%M:%S", time.localtime(until))
            text = "{pictures} is delivered half-way: {reason}; trying again"
            warn("waiting", text, pictures=shown, reason=why, when=when)
            continue
        outcome.delivered += state is State.DONE
        outcome.failed += state is State.FAILED
        _tell_resumed(workshop, workshop.ledger.picture(row.id))
    workshop.delivery.sweep_staging()
    return outcome


def _tell_resumed(workshop: Workshop, row: Picture) -> None:
    """As of those that nothing broke off: who listens must not miss them."""
    shown, how = display(row.path), "carried on after an interruption"
    if row.state is State.DONE and row.result_path is not None:
        tell(
            "delivered",
            "{picture} -> {result} ({how})",
            picture=shown,
            result=display(row.result_path),
            how=how,
            reused=row.reused,
            seconds=0.0,
        )
    elif row.state is State.FAILED and row.moved_path is not None:
        folder = display(os.path.join(workshop.config.folders.failed, row.moved_path))
        text = "{picture} failed: {reason}; it lies at {folder} now"
        warn("failed", text, picture=shown, reason=row.reason, folder=folder)
    else:
        tell("resumed", "{path}: {how}, {state}", path=shown, how=how, state=row.state.value)
