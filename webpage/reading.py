"""The ledger, read only: whatever the page does, it cannot change what became of a picture."""

import contextlib
import os
import sqlite3
from collections.abc import Callable, Iterator
from typing import Any
from urllib.parse import quote

from watcher.errors import LedgerError, LedgerLost
from watcher.ledger import FILE_NAME, Ledger
from watcher.schema import fault, lost

_PATIENCE_SECONDS = 5.0

# By the declared type of a column: what SQLite may say of its values. Paths are bytes, but for old ones.
_ANYTHING = "'integer', 'real', 'text', 'blob', 'null'"
_ALLOWED = {
    "INTEGER": "'integer', 'null'",
    "REAL": "'real', 'integer', 'null'",
    "TEXT": "'text', 'null'",
    "BLOB": "'blob', 'text', 'null'",
}
_END_OF_TIME = 253_402_214_400  # the last day of the year 9999, as far as calendars go here
_SEEN_AT_START = {"batches", "engine_runs", "warm_ups"}  # by every watcher, which then makes a new ledger
_REMEDY = "stop dropscale, move that file away, and start it: it makes a new one from the folders"


class Reading:
    """The ledger of a state folder, opened anew for each question: a watcher may replace it at any time."""

    def __init__(self, state_folder: str) -> None:
        """Nothing is opened; before the first watcher there is no ledger."""
        self._folder = state_folder
        self.path = os.path.join(state_folder, FILE_NAME)

    @property
    def is_there(self) -> bool:
        """Whether there is a ledger yet."""
        return os.path.exists(self.path)

    def bring_up_to_date(self) -> None:
        """Let the tables be those of this version, as every command does that finds older ones.

        Raises:
            LedgerError: it cannot be read, or was written by a newer version.
        """
        if self.is_there:
            Ledger(self._folder).close()

    def select(self, sql: str, parameters: tuple[Any, ...] = ()) -> list[Any]:
        """All rows of a query; none before there is a ledger.

        Raises:
            LedgerError: it cannot be read.
        """
        with self.open() as connection:
            return [] if connection is None else connection.execute(sql, parameters).fetchall()

    def damage(self) -> LedgerError | None:
        """What is wrong with the ledger's values, for who could make nothing of them; None: they can be made sense of.

        SQLite takes care of pages and indexes, and not of what a column holds.
        """
        try:
            for (table,) in self.select(
                "SELECT name FROM sqlite_master WHERE type = 'table' AND name NOT LIKE 'sqlite%'"
            ):
                for _, column, kind, *_ in self.select(f"PRAGMA table_info({table})"):
                    wrong = f"typeof({column}) NOT IN ({_ALLOWED.get(kind, _ANYTHING)})"
                    if column.endswith("_at"):
                        wrong += f" OR {column} NOT BETWEEN 0 AND {_END_OF_TIME}"
                    if self.select(f"SELECT 1 FROM {table} WHERE {wrong} LIMIT 1"):  # noqa: S608 - its own names
                        problem = f"the ledger {self.path} is damaged: {table}.{column} holds what it cannot"
                        return lost(problem) if table in _SEEN_AT_START else LedgerLost(problem, _REMEDY)
        except LedgerError as error:
            return error
        return None

    @contextlib.contextmanager
    def open(self, **functions: Callable[..., Any]) -> Iterator[sqlite3.Connection | None]:
        """A connection that cannot write; None before there is a ledger.

        Args:
            functions: of one argument, for use in SQL under their names.

        Raises:
            LedgerError: it cannot be read.
        """
        if not self.is_there:
            yield None
            return
        try:
            address = f"file:{quote(os.fsencode(self.path))}?mode=ro"
            with contextlib.closing(sqlite3.connect(address, uri=True, timeout=_PATIENCE_SECONDS)) as connection:
                connection.execute("PRAGMA query_only = ON")
                for name, function in functions.items():
                    connection.create_function(name, 1, function, deterministic=True)
                yield connection
        except sqlite3.Error as error:
            raise fault(error, f"cannot read the ledger {self.path}") from error
