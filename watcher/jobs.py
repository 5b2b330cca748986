"""What the thread of the jobs does: a window that was closed, or moves that were left half-way."""

import errno
import os
import time
from collections.abc import Iterable, Sequence

from watcher.batch import run_batch
from watcher.endings import tell_delivered, tell_failed
from watcher.files.filesystem import look_at
from watcher.files.names import display, told
from watcher.intake import Taken
from watcher.journal import tell, warn
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
            text = "{pictures} half-way moved, waiting until {when}: {reason}"
            warn("waiting", text, pictures=shown, when=when, reason=why)
            continue
        outcome.delivered += state is State.DONE
        outcome.failed += state is State.FAILED
        now = workshop.ledger.picture(row.id)
        if state is State.DONE:
            how = "carried on after an interruption"
            tell_delivered(workshop, now, now.result_path or "", how, reused=now.reused)
        elif state is State.FAILED:
            tell_failed(workshop, now, now.moved_path or "", now.reason)
        else:
            tell("resumed", "{path}: carried on after an interruption, {state}", path=shown, state=state.value)
    workshop.delivery.sweep_staging()
    return outcome
