"""A ledger that was lost or is damaged is made anew from what the folders hold.

The pictures are in the folders and the folders are the truth, so nothing of them depends on the ledger. What would be
lost with it is the memory of what was done already, and of the time that engines took: results say themselves where
they come from (`provenance`), and engine runs are read from a damaged ledger as far as that goes.
"""

import contextlib
import os
import signal
import sqlite3
import sys
import time
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, NoReturn

from watcher.delivery import Delivery
from watcher.errors import EnvironmentFault, LedgerError, LedgerLost
from watcher.files import provenance
from watcher.files.filesystem import look_at
from watcher.files.names import display, told
from watcher.files.provenance import Provenance
from watcher.journal import tell, warn
from watcher.ledger import FILE_NAME, LOST_NAME, Ledger
from watcher.schema import lost
from watcher.sections import Folders
from watcher.signals import BLOCKED

_READ_NOTE = "folders_read"  # when this ledger learned what the folders held before it

# What is kept of a damaged ledger, in the order of references: what was paid for, and which folders were shares.
_KEPT = {"batches": "TRUE", "engine_runs": "TRUE", "warm_ups": "TRUE", "notes": "key LIKE 'mounted %'"}
_PYTHON_TYPES = {"INTEGER": int, "REAL": (int, float), "TEXT": str, "BLOB": bytes}


def open_ledger(state_folder: str) -> Ledger:
    """The ledger, sound as a whole; a damaged one is set aside and a new one made. Only for who holds the lock.

    Raises:
        LedgerError: it cannot be read or written.
        EnvironmentFault: a damaged one cannot be set aside.
    """
    try:
        return _sound_ledger(state_folder)
    except LedgerLost as error:
        aside = _set_aside(state_folder)
        warn("ledger", "{problem}: set aside as {aside}, a new one is made", problem=error.message, aside=aside)
    ledger = Ledger(state_folder)
    _keep_what_can_be_read(ledger, os.path.join(state_folder, aside))
    return ledger


def _sound_ledger(state_folder: str) -> Ledger:
    path, mark = (os.path.join(state_folder, name) for name in (FILE_NAME, LOST_NAME))
    if os.path.exists(mark):
        if os.path.exists(path):
            raise lost(f"the ledger {path} was found damaged at work")
        os.unlink(mark)
    ledger = Ledger(state_folder)
    try:
        ledger.check_whole()
        ledger.check_values()
        ledger.counts(), ledger.notes(), ledger.open_rows()  # values that are none are not SQLite's concern
    except BaseException:
        ledger.close()
        raise
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
        found = _remember(ledger, folders.outbox)
    ledger.note(**{_READ_NOTE: f"{time.time():.3f}"})
    if found:
        tell("ledger", "the ledger is new: {found} results in the outbox say where they come from", found=found)


def begin_anew(loss: LedgerLost) -> NoReturn:
    """Become a new process of the same command, which makes a new ledger.

    Raises:
        LedgerLost: a process cannot become another one here.
    """
    if os.name == "nt":  # exec starts a child there, and ends
        raise loss
    warn("ledger", "{problem}: beginning anew", problem=loss.message)
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError):  # a terminal that was closed
            stream.flush()
    # Blocked across exec, they stay pending for the handlers of the new process; unhandled they would end it.
    signal.pthread_sigmask(signal.SIG_BLOCK, BLOCKED)
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
    with contextlib.suppress(FileNotFoundError):
        os.unlink(os.path.join(state_folder, LOST_NAME))
    return aside


def _keep_what_can_be_read(ledger: Ledger, damaged: str) -> None:
    for table, condition in _KEPT.items():
        # table by table: one that is gone or torn takes no other with it
        with contextlib.suppress(sqlite3.Error, LedgerError), contextlib.closing(sqlite3.connect(damaged)) as source:
            rows = source.execute(f"SELECT * FROM {table} WHERE {condition}")  # noqa: S608 - the names are ours
            columns = [column[0] for column in rows.description]
            kinds = [_PYTHON_TYPES.get(ledger.types_of(table).get(column, ""), object) for column in columns]
            _take_over(ledger, table, columns, _readable(rows, kinds))


def _take_over(ledger: Ledger, table: str, columns: Sequence[str], rows: Iterable[tuple[object, ...]]) -> None:
    """Enter rows of another ledger's table; what refers to a batch that is not here refers to none."""
    places = ", ".join("?" * len(columns))
    with ledger.transaction() as connection:
        connection.execute("PRAGMA defer_foreign_keys = ON")
        connection.executemany(
            f"INSERT OR REPLACE INTO {table} ({', '.join(columns)}) VALUES ({places})",  # noqa: S608 - our own
            rows,
        )
        for refers in ("engine_runs", "warm_ups"):
            connection.execute(f"UPDATE {refers} SET batch = NULL WHERE batch NOT IN (SELECT id FROM batches)")  # noqa: S608
        connection.execute("DELETE FROM warm_ups WHERE run NOT IN (SELECT id FROM engine_runs)")


def _readable(rows: sqlite3.Cursor, kinds: Sequence[Any]) -> Iterator[tuple[object, ...]]:
    """Rows up to where reading them fails, without those that hold what their columns cannot."""
    with contextlib.suppress(sqlite3.Error):
        for row in rows:
            if all(value is None or isinstance(value, kind) for value, kind in zip(row, kinds, strict=True)):
                yield row


def _remember(ledger: Ledger, outbox: str) -> int:
    """Note the results that an earlier ledger knew of, all or none; returns how many."""
    count = 0
    with ledger.transaction() as connection:
        for found, size, said in _results_below(outbox):
            path, now = os.fsencode(found), time.time()
            connection.execute(
                "INSERT INTO pictures (path, device, inode, size, mtime_ns, ctime_ns, sha256, recipe, state,"
                " reason, result_path, result_sha256, result_bytes, created_at, changed_at)"
                " VALUES (?, '0', '0', 0, '0', '0', ?, ?, 'done', 'found in the outbox', ?, ?, ?, ?, ?)",
                (path, said.source_sha256, said.recipe, path, said.result_sha256, size, now, now),
            )
            count += 1
    return count


def _results_below(outbox: str) -> Iterator[tuple[str, int, Provenance]]:
    """Results that say where they come from: path below the outbox, bytes, and what they say."""
    for parent, folders, names in os.walk(outbox, onerror=_tell_unread):
        folders[:] = [name for name in folders if not name.startswith(".")]
        for name in names:
            path = os.path.join(parent, name)
            said = None if name.startswith(".") else provenance.read(path)
            if said is not None and (there := look_at(path)) is not None:
                yield os.path.relpath(path, outbox), there.size, said


def _tell_unread(error: OSError) -> None:
    warn("ledger", "results in a folder that cannot be read are not known: {why}", why=told(error))
