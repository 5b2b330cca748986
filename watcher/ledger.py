"""The ledger: what became of every picture, in SQLite. Every change of state is one transaction.

A row is *open* from the claim until its picture is in the archive or in `failed`; a path has one open row at most.
The states, and what the folders hold in each, are at the top of `rows`.
"""

import contextlib
import os
import sqlite3
import threading
import time
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from watcher.errors import LedgerError, LedgerLost
from watcher.files.filesystem import Digest
from watcher.rows import COLUMNS, MOVING, Picture, State, columns_of, from_row
from watcher.schema import connect, damage, fault, lost

FILE_NAME = "ledger.sqlite3"
LOST_NAME = "ledger.lost"  # an empty file beside a ledger that was found damaged at work


_NUMBERS = {"pid", "events_missed", "started_at", "last_reconcile", "folders_read", "engine_since"}  # of the notes

# By the declared type of a column: what SQLite may say of its values.
_ALLOWED = {"INTEGER": "'integer', 'null'", "REAL": "'real', 'integer', 'null'", "TEXT": "'text', 'null'"}


class Ledger:
    """One connection, shared by the threads of a process; other processes may read at the same time."""

    def __init__(self, state_folder: str) -> None:
        """Open or create the ledger.

        Raises:
            LedgerError: it is from a newer version, or cannot be written.
            LedgerLost: it is damaged.
        """
        self.path = os.path.join(state_folder, FILE_NAME)
        self._lock = threading.RLock()
        try:
            self._connection = connect(self.path)
        except sqlite3.Error as error:
            raise fault(error, f"cannot open the ledger {self.path}") from error
        self._file = self._file_now()
        self.check()

    def close(self) -> None:
        """Close the connection."""
        # SQLite removes the log of writes by its name when it closes: by now that may be another ledger's
        with self._lock, contextlib.suppress(LedgerError, sqlite3.Error):
            if self._file_now() == self._file:
                self._connection.close()

    def check(self) -> None:
        """See that the file which was opened is still there: SQLite would go on writing to one that was removed.

        Raises:
            LedgerLost: it is not.
            LedgerError: its disk does not answer.
        """
        if self._file is None or self._file_now() != self._file:
            raise lost(f"the ledger {self.path} was removed")

    def check_whole(self) -> None:
        """Look through the whole file.

        Raises:
            LedgerLost: it is damaged.
            LedgerError: it cannot be read.
        """
        with self._lock:
            try:
                problem = damage(self._connection)
            except sqlite3.Error as error:
                raise fault(error, f"cannot read the ledger {self.path}") from error
        if problem:
            raise lost(f"the ledger {self.path} is damaged: {problem}")

    def check_values(self) -> None:
        """See that the rows which are summed up hold what their columns can, of which SQLite does not take care.

        Raises:
            LedgerLost: they do not.
            LedgerError: they cannot be read.
        """
        for table in ("batches", "engine_runs", "warm_ups"):
            wrong = " OR ".join(
                f"typeof({column}) NOT IN ({_ALLOWED[kind]})"
                for column, kind in self.types_of(table).items()
                if kind in _ALLOWED
            )
            if self.select(f"SELECT 1 FROM {table} WHERE {wrong} LIMIT 1", ()):  # noqa: S608 - the names are ours
                raise self._fault(ValueError(f"a value in {table} is of another kind"), f"{self.path} is damaged")

    def _file_now(self) -> tuple[int, int] | None:
        try:
            status = os.stat(self.path)
        except (FileNotFoundError, NotADirectoryError):
            return None
        except OSError as error:
            raise LedgerError(f"the ledger {self.path} does not answer: {error.strerror}") from error
        return status.st_dev, status.st_ino

    @contextlib.contextmanager
    def transaction(self) -> Iterator[sqlite3.Connection]:
        """All or nothing, durable when it returns.

        Raises:
            LedgerError: SQLite refused, for example because the disk is full. Nothing was changed.
            LedgerLost: it is damaged, or was removed.
        """
        with self._lock:
            self.check()
            try:
                self._connection.execute("BEGIN IMMEDIATE")
                try:
                    yield self._connection
                except BaseException:
                    self._roll_back()
                    raise
                self._connection.commit()
            except sqlite3.Error as error:
                self._roll_back()
                raise self._fault(error, f"cannot write the ledger {self.path}") from error

    # Claiming

    def open_batch(self, closed_by: str, pictures: int) -> int:
        """A new batch; returns its id."""
        with self.transaction() as connection:
            cursor = connection.execute(
                "INSERT INTO batches (started_at, closed_by, pictures) VALUES (?, ?, ?)",
                (time.time(), closed_by, pictures),
            )
            return int(cursor.lastrowid or 0)

    def close_batch(self, batch: int) -> None:
        """The batch is over, whatever became of its pictures."""
        with self.transaction() as connection:
            connection.execute("UPDATE batches SET finished_at = ? WHERE id = ?", (time.time(), batch))

    def claim(
        self, batch: int, found: Iterable[tuple[str, Digest]], recipe: str, arrived: Mapping[str, float] | None = None
    ) -> list[Picture]:
        """Claim pictures for a batch in one transaction.

        A waiting row of the same path is taken over; it keeps its history only if the content is the same. A path
        whose row is being moved is left out: that row comes first.

        Args:
            batch: its id.
            found: path below the inbox and content of each picture.
            recipe: `Workshop.recipe`.
            arrived: when each was seen to be whole, Unix time; by default now.
        """
        claimed = []
        with self.transaction() as connection:
            for path, digest in found:
                row = self._one("path = ? AND state NOT IN ('done', 'failed', 'withdrawn')", (os.fsencode(path),))
                if row is not None and row.state in MOVING:
                    continue
                now = time.time()
                identity = columns_of(digest.identity)
                if row is not None:
                    same = row.sha256 == digest.sha256
                    connection.execute(
                        "UPDATE pictures SET batch = ?, device = ?, inode = ?, size = ?, mtime_ns = ?, ctime_ns = ?,"
                        " sha256 = ?, recipe = ?, state = 'claimed', attempts = ?, waits = ?, suspected_at = ?,"
                        " not_before = 0, trouble = '', changed_at = ? WHERE id = ?",
                        (
                            batch,
                            *identity,
                            digest.sha256,
                            recipe,
                            row.attempts if same else 0,
                            row.waits if same else 0,
                            row.suspected_at if same else None,
                            now,
                            row.id,
                        ),
                    )
                    identifier = row.id
                else:
                    cursor = connection.execute(
                        "INSERT INTO pictures (batch, path, device, inode, size, mtime_ns, ctime_ns, sha256, recipe,"
                        " state, arrived_at, created_at, changed_at)"
                        " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, 'claimed', ?, ?, ?)",
                        (
                            batch,
                            os.fsencode(path),
                            *identity,
                            digest.sha256,
                            recipe,
                            (arrived or {}).get(path, now),
                            now,
                            now,
                        ),
                    )
                    identifier = int(cursor.lastrowid or 0)
                claimed.append(self.picture(identifier))
        return claimed

    def earlier_results(self, sha256: str, recipe: str) -> list[Picture]:
        """Rows whose result is the one that this content and recipe would give, newest first."""
        return self._all(
            "sha256 = ? AND recipe = ? AND state IN ('done', 'archiving') ORDER BY id DESC LIMIT 8",
            (sha256, recipe),
        )

    # Changes of state

    def count_attempt(self, picture: int) -> int:
        """Note that the picture, alone, took an engine down; returns how often by now."""
        with self.transaction() as connection:
            connection.execute("UPDATE pictures SET attempts = attempts + 1 WHERE id = ?", (picture,))
        return self.picture(picture).attempts

    def suspect(self, picture: int, reason: str) -> None:
        """Note that its content could not be decoded."""
        self.change(picture, suspected_at=time.time(), reason=reason)

    def intend_publish(self, picture: int, staged: str, target: str, sha256: str, size: int, *, reused: bool) -> None:
        """A result is staged and about to be renamed to `target` (below the outbox)."""
        self.change(
            picture,
            state=State.PUBLISHING,
            staged_path=os.fsencode(staged),
            result_path=os.fsencode(target),
            result_sha256=sha256,
            result_bytes=size,
            reused=int(reused),
        )

    def intend_archive(self, picture: int, target: str) -> None:
        """The result is published; the original is about to move to `target` (below the archive)."""
        self.change(picture, state=State.ARCHIVING, moved_path=os.fsencode(target), waits=0, trouble="")

    def intend_quarantine(self, picture: int, target: str, reason: str) -> None:
        """The original is about to move to `target` (below `failed`)."""
        self.change(picture, state=State.QUARANTINING, moved_path=os.fsencode(target), reason=reason)

    def wait(self, picture: int, trouble: str, not_before: float, *, counts: bool = True) -> None:
        """The surroundings failed: try again at `not_before` (Unix time). A row that is being moved stays so."""
        with self.transaction() as connection:
            connection.execute(
                "UPDATE pictures SET trouble = ?, not_before = ?, waits = waits + ?, changed_at = ?,"
                " state = CASE state WHEN 'claimed' THEN 'waiting' ELSE state END WHERE id = ?",
                (trouble, not_before, int(counts), time.time(), picture),
            )

    def bring_forward(self) -> None:
        """Nothing waits for its time any more but what may be an unfinished upload."""
        with self.transaction() as connection:
            connection.execute(
                "UPDATE pictures SET not_before = 0, waits = 0 WHERE not_before > 0 AND suspected_at IS NULL"
                " AND state NOT IN ('done', 'failed', 'withdrawn')"
            )

    def release(self, pictures: Iterable[int]) -> None:
        """Give claimed pictures back to the inbox, to be taken again at once."""
        with self.transaction() as connection:
            connection.executemany(
                "UPDATE pictures SET state = 'waiting', not_before = 0, changed_at = ?"
                " WHERE id = ? AND state = 'claimed'",
                [(time.time(), picture) for picture in pictures],
            )

    def finish(self, picture: int, state: State, reason: str = "") -> None:
        """Close a row."""
        self.change(picture, state=state, reason=reason, trouble="", staged_path=None, not_before=0.0)

    def forget_waiting(self, path: str) -> None:
        """The file of a waiting row left the inbox. Nothing is lost: if it comes back it is admitted as new."""
        with self.transaction() as connection:
            connection.execute(
                "UPDATE pictures SET state = 'withdrawn', reason = 'it left the inbox', changed_at = ?"
                " WHERE path = ? AND state = 'waiting'",
                (time.time(), os.fsencode(path)),
            )

    def reopen_failed(self, moved_path: str) -> Picture | None:
        """The failed row whose original lies at `moved_path` (below `failed`), closed as withdrawn, for a retry."""
        row = self._one("moved_path = ? AND state = 'failed' ORDER BY id DESC", (os.fsencode(moved_path),))
        if row is not None:
            self.change(row.id, state=State.WITHDRAWN, reason="put back by retry")
        return row

    def change(self, identifier: int, table: str = "pictures", **columns: Any) -> None:
        """Set columns of one row.

        Raises:
            LedgerError: it cannot be written.
        """
        if table == "pictures":
            columns["changed_at"] = time.time()
        assignments = ", ".join(f"{column} = ?" for column in columns)
        with self.transaction() as connection:
            connection.execute(
                f"UPDATE {table} SET {assignments} WHERE id = ?",  # noqa: S608 - names are ours, values are bound
                (*columns.values(), identifier),
            )

    # Reading

    def picture(self, picture: int) -> Picture:
        """The row with this id."""
        row = self._one("id = ?", (picture,))
        if row is None:
            raise LedgerError(f"the ledger {self.path} has no picture {picture}")
        return row

    def open_rows(self) -> list[Picture]:
        """All rows that are not closed, oldest first."""
        return self._all("state NOT IN ('done', 'failed', 'withdrawn') ORDER BY id", ())

    def counts(self) -> dict[State, int]:
        """How many rows are in each state."""
        rows = self.select("SELECT state, COUNT(*) FROM pictures GROUP BY state", ())
        try:
            return {State(state): count for state, count in rows}
        except ValueError as error:
            raise self._fault(error, f"the ledger {self.path} is damaged") from error

    def reused(self) -> int:
        """How many pictures were delivered from an earlier result."""
        return int(self.select("SELECT COUNT(*) FROM pictures WHERE state = 'done' AND reused", ())[0][0])

    def select(self, sql: str, parameters: tuple[Any, ...]) -> list[Any]:
        """All rows of a query.

        Raises:
            LedgerError: it cannot be read.
        """
        with self._lock:
            self.check()
            try:
                return self._connection.execute(sql, parameters).fetchall()
            except sqlite3.Error as error:
                raise self._fault(error, f"cannot read the ledger {self.path}") from error

    def types_of(self, table: str) -> dict[str, str]:
        """The declared type of each column."""
        return {name: kind for _, name, kind, *_ in self.select(f"PRAGMA table_info({table})", ())}

    # Notes

    def note(self, **values: str) -> None:
        """Leave notes for `status`."""
        with self.transaction() as connection:
            connection.executemany("INSERT OR REPLACE INTO notes VALUES (?, ?)", values.items())

    def notes(self) -> dict[str, str]:
        """What the watcher noted last."""
        notes: dict[str, str] = dict(self.select("SELECT key, value FROM notes", ()))
        try:
            for key in _NUMBERS & notes.keys():
                float(notes[key])
        except (TypeError, ValueError) as error:
            raise self._fault(error, f"a note in the ledger {self.path} is damaged") from error
        return notes

    # Private

    def _roll_back(self) -> None:
        with contextlib.suppress(sqlite3.Error):  # the error that led here is the one to tell
            if self._connection.in_transaction:
                self._connection.rollback()

    def _fault(self, error: Exception, doing: str) -> LedgerError:
        """As ours; damage is remembered for the next start, for a look at the whole file need not see it."""
        found = fault(error, doing) if isinstance(error, sqlite3.Error) else lost(f"{doing}: {error}")
        if isinstance(found, LedgerLost):
            with contextlib.suppress(OSError), open(os.path.join(os.path.dirname(self.path), LOST_NAME), "wb"):
                pass
        return found

    def _all(self, condition: str, parameters: tuple[Any, ...]) -> list[Picture]:
        rows = self.select(f"SELECT {COLUMNS} FROM pictures WHERE {condition}", parameters)  # noqa: S608
        try:
            return [from_row(row) for row in rows]
        except (TypeError, ValueError) as error:
            raise self._fault(error, f"the ledger {self.path} is damaged") from error

    def _one(self, condition: str, parameters: tuple[Any, ...]) -> Picture | None:
        rows = self._all(f"{condition} LIMIT 1", parameters)
        return rows[0] if rows else None
