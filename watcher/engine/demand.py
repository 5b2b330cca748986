"""Whether an engine is to be warm now, why, and until when: by command, by schedule, or after a batch, in this order.

What refuses it refuses it for all three. The keeper of the engine asks, and acts on it.
"""

import time

from watcher.accounting.warm_ups import Wanted
from watcher.engine.terms import Terms
from watcher.engine.wishes import Wish, Wishes
from watcher.journal import tell, warn
from watcher.ledger import Ledger
from watcher.wording import clock

REFUSAL_NOTE = "warm_refused"


class Demand:
    """What is wanted of a keeper's engine while no batch has it. Without `Terms` nothing is.

    Attributes:
        refused: why what is wanted is not granted; empty: it is, or nothing is wanted. As of the last `now`.
    """

    def __init__(self, ledger: Ledger) -> None:
        """Nothing is wanted yet.

        Args:
            ledger: has the wishes, and takes the answers; stays open.
        """
        self.refused = ""
        self._noted_refusal = ""
        self._ledger = ledger
        self._terms: Terms | None = None
        self._wishes: Wishes | None = None
        self._command: Wanted | None = None
        self._kept: Wanted | None = None
        self._off_until = 0.0  # Unix time: the schedule's present time was called off
        self._off_at = 0.0  # monotonic: when somebody asked for that

    def agree(self, terms: Terms, keep_seconds: float) -> None:
        """From now on these terms count; what was granted after a batch holds for `keep_seconds` from now at most."""
        if self._wishes is None:
            self._wishes = Wishes(self._ledger)
            self._ledger.note(**{REFUSAL_NOTE: ""})
        self._terms = terms
        if self._kept is not None:  # the config may grant less now
            self._kept = self._kept._replace(until=min(self._kept.until, time.monotonic() + keep_seconds))

    def end(self) -> None:
        """Nothing is wanted any more."""
        self._terms = None

    def keep_after_batch(self, seconds: float, taken_at: float) -> None:
        """The next batch may come soon.

        Args:
            seconds: from now.
            taken_at: when this one took its engine, monotonic: if it was called off since then, it is not kept.
        """
        if self._off_at < taken_at:
            self._kept = Wanted("keep_warm", time.time(), time.monotonic() + seconds)

    def forget_batch(self) -> None:
        """The engine that was kept after a batch is gone."""
        self._kept = None

    def now(self, held: Wanted | None) -> Wanted | None:
        """What is wanted and granted now.

        Args:
            held: what the engine is held for, if it is.
        """
        self.refused = ""
        if self._terms is None:
            return None
        now = time.monotonic()
        command = self._command if self._command is not None and self._command.until > now else None
        kept = self._kept if self._kept is not None and self._kept.until > now else None
        wanted = command or self._by_schedule(now, held) or kept
        if wanted is not None:
            self.refused = self._terms.refusal()
        return None if self.refused else wanted

    def refusal(self) -> str:
        """Why no engine may be kept now; empty: it may."""
        return "it keeps no engine" if self._terms is None else self._terms.refusal()

    def next_start(self) -> float | None:
        """When the schedule wants the engine next, Unix time."""
        if self._terms is None or self._terms.schedule is None:
            return None
        return self._terms.schedule.next_start(time.time())

    def note_refusal(self) -> None:
        """Tell log and `status` when the reason changed.

        Raises:
            LedgerError: it cannot be written.
        """
        if self._terms is None or self.refused == self._noted_refusal:
            return
        self._noted_refusal = self.refused
        self._ledger.note(**{REFUSAL_NOTE: self.refused})
        if self.refused:
            warn("not_warm", "no engine is kept warm: {reason}", reason=self.refused)

    def hear_wishes(self) -> bool:
        """See what `dropscale warm` asked for, and answer it; whether an engine was granted.

        Raises:
            LedgerError: it cannot be read or answered.
        """
        if self._terms is None or self._wishes is None:
            return False
        granted = False
        for wish in self._wishes.new():
            if wish.for_seconds:
                granted |= self._grant(wish, self._wishes, self._terms.refusal())
                continue
            self._wishes.answer(wish, "no engine is kept from now on; one at work ends with its batch")
            self._call_off()
            tell("warm_off", "asked to release the engine")
        return granted

    def _grant(self, wish: Wish, wishes: Wishes, reason: str) -> bool:
        command = Wanted("command", wish.asked_at, time.monotonic() + wish.for_seconds)
        until = clock(command.until_at)
        if reason:
            wishes.answer(wish, reason, refused=True)
            text = "asked to keep the engine warm until {until}: no, {reason}"
            warn("warm_refused", text, until=until, reason=reason)
            return False
        wishes.answer(wish, f"the engine is kept warm until {until}")
        self._command = command
        tell("warm_asked", "asked to keep the engine warm until {until}", until=until)
        return True

    def _by_schedule(self, now: float, held: Wanted | None) -> Wanted | None:
        unix = time.time()
        if self._terms is None or self._terms.schedule is None:
            return None
        span = self._terms.schedule.current(unix)
        if span is None or span.until <= self._off_until:
            return None
        # to the second, as both clocks were not read at the same instant
        until = now + span.until - unix
        if held is not None and held.why == "schedule" and abs(held.until - until) < 1:
            until = held.until
        return Wanted("schedule", span.since, until)

    def _call_off(self) -> None:
        self._command = self._kept = None
        self._off_at = time.monotonic()
        schedule = self._terms.schedule if self._terms else None
        span = schedule.current(time.time()) if schedule else None
        self._off_until = span.until if span else 0.0
