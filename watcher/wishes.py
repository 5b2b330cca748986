"""What `dropscale warm` asks of a running watcher, and what that answers: two notes in the ledger.

Nothing has to be sent: the watcher sees at each turn of its loop whether another process wrote into the ledger. A wish
dies with the watcher that it was meant for.
"""

import msgspec

from watcher.ledger import Ledger

WISH_NOTE, ANSWER_NOTE = "warm_wish", "warm_answer"


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


def ask(ledger: Ledger, wish: Wish) -> None:
    """Leave a wish for the watcher."""
    ledger.note(**{WISH_NOTE: msgspec.json.encode(wish).decode()})


def answer_to(ledger: Ledger, wish: Wish) -> Answer | None:
    """What the watcher said to this very wish, if it did."""
    told = ledger.notes().get(ANSWER_NOTE)
    answer = msgspec.json.decode(told, type=Answer) if told else None
    return answer if answer is not None and answer.id == wish.id else None


class Wishes:
    """The watcher's side."""

    def __init__(self, ledger: Ledger) -> None:
        """What is there already was meant for an earlier watcher."""
        self._ledger = ledger
        self._version = self._version_now()
        wish = self._noted()
        self._last = wish.id if wish else ""

    def next(self) -> Wish | None:
        """A wish that was not there before."""
        version = self._version_now()
        if version == self._version:
            return None
        self._version = version
        wish = self._noted()
        if wish is None or wish.id == self._last:
            return None
        self._last = wish.id
        return wish

    def answer(self, wish: Wish, text: str, *, refused: bool = False) -> None:
        """Say what becomes of it."""
        told = msgspec.json.encode(Answer(wish.id, text, refused)).decode()
        self._ledger.note(**{ANSWER_NOTE: told})

    def _version_now(self) -> int:
        """Another number after each change that another process made."""
        return int(self._ledger.select("PRAGMA data_version", ())[0][0])

    def _noted(self) -> Wish | None:
        told = self._ledger.notes().get(WISH_NOTE)
        return msgspec.json.decode(told, type=Wish) if told else None
