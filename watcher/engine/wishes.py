"""What `dropscale warm` asks of a running watcher, and what that answers: two notes in the ledger, each a list.

Nothing has to be sent: the watcher sees at each turn of its loop whether another process wrote into the ledger. A wish
dies with the watcher that it was meant for, and with the command that asked.
"""

import sqlite3
from typing import TypeVar

import msgspec

from watcher.ledger import Ledger

WISH_NOTE, ANSWER_NOTE = "warm_wish", "warm_answer"
_MOST = 50  # who asks waits for the answer, so they are few


class Wish(msgspec.Struct, frozen=True):
    """To have the engine loaded for so many seconds from now; 0: to have it released.

    Attributes:
        id: to tell it from others.
        asked_at: Unix time.
    """

    id: str
    asked_at: float
    for_seconds: float


class Answer(msgspec.Struct, frozen=True):
    """To the wish of that id: a sentence without its full stop, and whether it means no."""

    id: str
    text: str
    refused: bool = False


T = TypeVar("T", Wish, Answer)


def ask(ledger: Ledger, wish: Wish) -> None:
    """Leave a wish for the watcher, beside those of others.

    Raises:
        LedgerError: it cannot be written.
    """
    with ledger.transaction() as connection:
        _store(connection, WISH_NOTE, [*_noted(ledger, WISH_NOTE, Wish), wish])


def withdraw(ledger: Ledger, wish: Wish) -> None:
    """Nobody waits for an answer any more: a watcher that was busy is not to spend money on it later.

    Raises:
        LedgerError: it cannot be written.
    """
    with ledger.transaction() as connection:
        _store(connection, WISH_NOTE, _without(wish, _noted(ledger, WISH_NOTE, Wish)))


def answer_to(ledger: Ledger, wish: Wish) -> Answer | None:
    """What the watcher said to this very wish, if it did."""
    return next((answer for answer in _noted(ledger, ANSWER_NOTE, Answer) if answer.id == wish.id), None)


class Wishes:
    """The watcher's side."""

    def __init__(self, ledger: Ledger) -> None:
        """What is there already was meant for an earlier watcher."""
        self._ledger = ledger
        self._version = self._version_now()
        self._heard = {wish.id for wish in _noted(ledger, WISH_NOTE, Wish)}

    def new(self) -> list[Wish]:
        """Those that were not answered yet, in the order in which they were left."""
        version = self._version_now()
        if version == self._version:
            return []
        wishes = _noted(self._ledger, WISH_NOTE, Wish)
        self._heard &= {wish.id for wish in wishes}
        new = [wish for wish in wishes if wish.id not in self._heard]
        if not new:
            self._version = version
        return new

    def answer(self, wish: Wish, text: str, *, refused: bool = False) -> None:
        """Say what becomes of it.

        Raises:
            LedgerError: it cannot be written; the wish is new still.
        """
        with self._ledger.transaction() as connection:
            _store(connection, WISH_NOTE, _without(wish, _noted(self._ledger, WISH_NOTE, Wish)))
            answers = _noted(self._ledger, ANSWER_NOTE, Answer)
            _store(connection, ANSWER_NOTE, [*answers, Answer(wish.id, text, refused)])

    def _version_now(self) -> int:
        """Another number after each change that another process made."""
        return int(self._ledger.select("PRAGMA data_version", ())[0][0])


def _noted(ledger: Ledger, key: str, kind: type[T]) -> list[T]:
    """None where it is of another version, or rubbish: at the worst somebody has to ask again."""
    try:
        return msgspec.json.decode(ledger.notes().get(key, "[]"), type=list[kind])  # type: ignore[valid-type]
    except (msgspec.DecodeError, TypeError, ValueError):
        return []


def _store(connection: sqlite3.Connection, key: str, told: list[T]) -> None:
    connection.execute("INSERT OR REPLACE INTO notes VALUES (?, ?)", (key, msgspec.json.encode(told[-_MOST:]).decode()))


def _without(wish: Wish, wishes: list[Wish]) -> list[Wish]:
    return [other for other in wishes if other.id != wish.id]
