"""A ledger that was lost or is damaged is made anew from what the folders hold.

The pictures are in the folders and the folders are the truth, so nothing of them depends on the ledger. What would be
lost with it is the memory of what was done already, and of the time that engines took: results say themselves where
they come from (`provenance`), and engine runs are read from a damaged ledger as far as that goes.
"""

import contextlib
import os
import sqlite3
import sys
import time
from collections.abc import Iterator
from typing import NoReturn

from watcher import provenance
from watcher.delivery import Delivery
from watcher.errors import EnvironmentFault, LedgerLost
from watcher.filesystem import look_at
from watcher.journal import tell, warn
from watcher.ledger import FILE_NAME, FoundResult, Ledger
from watcher.names import display
from watcher.sections import Folders

_READ_NOTE = "folders_read"  # when this ledger learned what the folders held before it
_KEPT = ("batches", "engine_runs")  # in the order of their references


def open_ledger(state_folder: str) -> Ledger:
    """The ledger, sound as a whole; a damaged one is set aside and a new one made. Only for who holds the lock.

    Raises:
        LedgerError: it cannot be read or written.
        EnvironmentFault: a damaged one cannot be set aside.
    """
    try:
        ledger = Ledger(state_folder)
        try:
            ledger.check_whole()
        except BaseException:
            ledger.close()
            raise
        return ledger
    except LedgerLost as error:
        aside = _set_aside(state_folder)
        warn("ledger", "{problem}: set aside as {aside}, a new one is made", problem=error.message, aside=aside)
    ledger = Ledger(state_folder)
    _keep_engine_runs(ledger, os.path.join(state_folder, aside))
    return ledger


def read_folders(ledger: Ledger, folders: Folders) -> None:
    """Let a new ledger know what was done before its time.

    Raises:
        LedgerError: it cannot be written.
        OSError: a folder cannot be read.
    """
    if _READ_NOTE in ledger.notes():
        return
    found = 0
    if not ledger.counts():  # else it was begun by a dropscale that did not read folders, and knows them
        Delivery(folders, ledger).sweep_leftovers()
        found = ledger.remember(_results_below(folders.outbox))
    ledger.note(**{_READ_NOTE: f"{time.time():.3f}"})
    if found:
        tell("ledger", "the ledger is new: {found} results in the outbox say where they come from", found=found)


def begin_anew(lost: LedgerLost) -> NoReturn:
    """Become a new process of the same command, which makes a new ledger.

    Raises:
        LedgerLost: a process cannot become another one here.
    """
    if os.name == "nt":  # exec starts a child there, and ends
        raise lost
    warn("ledger", "{problem}: beginning anew", problem=lost.message)
    for stream in (sys.stdout, sys.stderr):
        stream.flush()
    # Not a second round in this process: closing a connection whose file was removed removes the log of another one.
    os.execv(sys.executable, [sys.executable, *sys.orig_argv[1:]])  # noqa: S606 - it is this very command


def _set_aside(state_folder: str) -> str:
    aside = f"ledger.damaged-{time.strftime('%Y%m%d-%H%M%S')}-{os.getpid()}.sqlite3"
    for suffix in ("", "-wal", "-shm"):
        try:
            with contextlib.suppress(FileNotFoundError):
                os.rename(os.path.join(state_folder, FILE_NAME + suffix), os.path.join(state_folder, aside + suffix))
        except OSError as error:
            raise EnvironmentFault(
                f"the ledger in {display(state_folder)} is damaged and cannot be set aside ({error.strerror})",
                "move the state folder away and start again: the pictures are in the other folders",
            ) from error
    return aside


def _keep_engine_runs(ledger: Ledger, damaged: str) -> None:
    """Take over what can still be read of the time that engines took, for it was paid for."""
    with contextlib.suppress(sqlite3.Error), contextlib.closing(sqlite3.connect(damaged)) as source:
        for table in _KEPT:
            rows = source.execute(f"SELECT * FROM {table}")  # noqa: S608 - the names are ours
            ledger.take_over(table, [column[0] for column in rows.description], _readable(rows))


def _readable(rows: sqlite3.Cursor) -> Iterator[tuple[object, ...]]:
    with contextlib.suppress(sqlite3.Error):
        yield from rows


def _results_below(outbox: str) -> Iterator[FoundResult]:
    for parent, folders, names in os.walk(outbox):
        folders[:] = [name for name in folders if not name.startswith(".")]
        for name in names:
            path = os.path.join(parent, name)
            said = None if name.startswith(".") else provenance.read(path)
            if said is not None and (there := look_at(path)) is not None:
                yield FoundResult(os.path.relpath(path, outbox), there.size, said)
