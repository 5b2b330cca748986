"""Results and failed pictures as the ledger has them, a page at a time, and their files.

Pages follow an index of the ledger, newest first, so that the ten thousandth result is found as fast as the first. No
path ever comes from a request: ids do, and the ledger knows what is where.
"""

import os
import re
import unicodedata
from dataclasses import dataclass
from typing import Any, BinaryIO

from sr_engine.headers import Header, HeaderError, read_header
from watcher.files.filesystem import open_regular
from watcher.files.names import display
from watcher.sections import Folders
from webpage.reading import Reading

PAGE = 48
_MOST_SEARCHED = 20_000
SHOWN_STATES = ("done", "failed")

_COLUMNS = "id, path, state, size, sha256, reason, result_path, result_bytes, moved_path, reused, changed_at"
# The order is that of the index by_end, to the last column.
_ORDER = "ORDER BY changed_at DESC, reused DESC, id DESC LIMIT ?"
_SELECT = f"SELECT {_COLUMNS} FROM pictures"  # noqa: S608 - names are ours, values are bound
_NEWEST = f"{_SELECT} WHERE state = ? {_ORDER}"
_FURTHER = f"{_SELECT} WHERE state = ? AND (changed_at, reused, id) < (?, ?, ?) {_ORDER}"
_CURSOR = re.compile(r"([0-9]{1,12}(?:\.[0-9]{1,9})?)_([01])_([0-9]{1,15})\Z")
_MOST_ID = (1 << 63) - 1


@dataclass(frozen=True)
class Card:
    """One picture that came to its end.

    Attributes:
        path: below the inbox, where it was dropped.
        state: "done" or "failed".
        reason: why it failed.
        result: below the outbox; None: it has none.
        moved: where the original is, below the archive or `failed`; None: nobody knows.
        at: when it came to its end, Unix time.
    """

    id: int
    path: str
    state: str
    bytes: int
    sha256: str
    reason: str
    result: str | None
    result_bytes: int | None
    moved: str | None
    reused: bool
    at: float

    @property
    def name(self) -> str:
        """Its path as a person can read it."""
        return display(self.path)

    @property
    def mark(self) -> str:
        """Tells its content from others, in an address."""
        return self.sha256[:16]

    @property
    def cursor(self) -> str:
        """Where the page behind this card begins."""
        return f"{self.at!r}_{int(self.reused)}_{self.id}"


@dataclass(frozen=True)
class Leaf:
    """A page of cards, and where the next one begins; empty: there is none."""

    cards: list[Card]
    following: str


class BadCursor(ValueError):
    """It was not made here."""


class Gallery:
    """What lies in outbox, archive and `failed`, by the ledger."""

    def __init__(self, reading: Reading, folders: Folders, most_searched: int = _MOST_SEARCHED) -> None:
        """Nothing is read yet.

        Args:
            reading: of the ledger.
            folders: where the pictures are.
            most_searched: rows that one request looks through for a name; the next one goes on behind them.
        """
        self._most_searched = most_searched
        self._reading = reading
        self._folders = folders

    def leaf(self, state: str, search: str = "", cursor: str = "", count: int = PAGE) -> Leaf:
        """Cards, newest first.

        Args:
            state: one of SHOWN_STATES.
            search: only those with this in their path, in any case; empty: all.
            cursor: where to begin; empty: with the newest.
            count: how many at most. A search may give fewer, or none, and still have a next page.

        Raises:
            BadCursor: it is none.
            LedgerError: the ledger cannot be read.
        """
        if search:
            return self._search(state, _searchable(search), cursor, count)
        cards = [_card(row) for row in self._reading.select(*_query(state, cursor, count + 1))]
        return Leaf(cards[:count], cards[count - 1].cursor if len(cards) > count else "")

    def _search(self, state: str, search: str, cursor: str, count: int) -> Leaf:
        found: list[Card] = []
        looked_at = 0
        with self._reading.open() as connection:
            rows: Any = () if connection is None else connection.execute(*_query(state, cursor, self._most_searched))
            for row in rows:
                looked_at += 1
                if search in _searchable(os.fsdecode(row[1])):
                    found.append(_card(row))
                    if len(found) == count:
                        return Leaf(found, found[-1].cursor)
            return Leaf(found, _card(row).cursor if looked_at == self._most_searched else "")

    def card(self, picture: int) -> Card | None:
        """The picture with this id, if it came to its end."""
        if picture > _MOST_ID:
            return None
        rows = self._reading.select(f"{_SELECT} WHERE id = ? AND state IN ('done', 'failed')", (picture,))
        return _card(rows[0]) if rows else None

    def result_path(self, card: Card) -> str | None:
        """Its result, absolute, if it is still there."""
        return _inside(self._folders.outbox, card.result) if card.state == "done" else None

    def original_path(self, card: Card) -> str | None:
        """Its original, absolute, if it is still there."""
        return _inside(self._folders.archive if card.state == "done" else self._folders.failed, card.moved)


def look_into(path: str) -> tuple[BinaryIO, Header | None]:
    """A picture's file, open for reading, and what its header says; None: it is no picture.

    Raises:
        OSError: it cannot be read, or is a link.
    """
    file = open_regular(path)
    try:
        header = read_header(file)
    except HeaderError:
        header = None
    except BaseException:
        file.close()
        raise
    file.seek(0)
    return file, header


def _query(state: str, cursor: str, count: int) -> tuple[str, tuple[Any, ...]]:
    if not cursor:
        return _NEWEST, (state, count)
    if not (found := _CURSOR.match(cursor)) or int(found[3]) > _MOST_ID:
        raise BadCursor(cursor)
    return _FURTHER, (state, float(found[1]), int(found[2]), int(found[3]), count)


def _searchable(path: str) -> str:
    """As it is read, in any case; a Mac writes é as two characters, keyboards as one."""
    shown = path if path.isprintable() else display(path)
    return shown.casefold() if shown.isascii() else unicodedata.normalize("NFC", shown).casefold()


def _inside(folder: str, relative: str | None) -> str | None:
    """A file below a folder, not led out of it by a link; None if it is not there."""
    if relative is None:
        return None
    path = os.path.join(folder, relative)
    parent = os.path.realpath(os.path.dirname(path))
    if os.path.commonpath([parent, folder]) != folder or os.path.islink(path) or not os.path.isfile(path):
        return None
    return path


def _card(row: tuple[Any, ...]) -> Card:
    identifier, path, state, size, sha256, reason, result, result_bytes, moved, reused, changed_at = row
    return Card(
        identifier,
        os.fsdecode(path),
        state,
        size,
        sha256,
        reason,
        None if result is None else os.fsdecode(result),
        result_bytes,
        None if moved is None else os.fsdecode(moved),
        bool(reused),
        changed_at,
    )
