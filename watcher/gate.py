"""Whether an engine may start now: asks the governor, and tells once when the answer changes."""

import time
from datetime import datetime

from watcher.accounts import Accounts
from watcher.bill import Period, Price, bill
from watcher.governor import WARN_SHARE, Governor, Hold
from watcher.journal import tell, warn
from watcher.ledger import Ledger
from watcher.sections import Config

_LOOK_SECONDS = 10.0  # what was spent changes with each batch, of which the gate is told; else only with the date
_LONGEST_SECONDS = 60.0  # the clock may be set while it waits


def governor_of(config: Config, ledger: Ledger) -> Governor:
    """The governor that goes by this ledger."""
    accounts = Accounts(ledger)
    price = Price(config.cost.per_hour, config.cost.currency)

    def spent(since: float, until: float) -> float:
        return bill(Period(since, until, until), price, accounts.engine_runs(since, until, until)).gpu_seconds

    return Governor(config.budget, config.cost, spent)


class Gate:
    """One service's. Times are Unix time unless they say otherwise."""

    def __init__(self, config: Config, ledger: Ledger) -> None:
        self._governor = governor_of(config, ledger)
        self._verdict: Hold | None = None  # whether anything waits for it or not
        self._hold: Hold | None = None
        self._looked = -_LOOK_SECONDS  # monotonic
        self._warned: set[tuple[str, float]] = set()

    def refresh(self) -> None:
        """An engine has worked: what was spent is another sum."""
        self._looked = -_LOOK_SECONDS

    def hold(self, now: float, *, wanted: bool) -> Hold | None:
        """Why no engine may start at `now`; None: it may, or none is wanted.

        Raises:
            LedgerError: it cannot be told what was spent.
        """
        is_over = self._verdict is not None and now >= self._verdict.until
        if is_over or time.monotonic() - self._looked >= _LOOK_SECONDS:
            self._verdict = self._governor.hold(now)
            self._warn(now)
            self._looked = time.monotonic()
        self._tell(self._verdict if wanted else None)
        return self._hold

    def refusal(self) -> str:
        """Why no engine may start, as of the last look, whether anything waits or not; empty: it may."""
        verdict = self._verdict
        return "" if verdict is None else f"{verdict.reason}, until {when_told(verdict.until)}"

    def asks_again(self) -> list[float]:
        """When to ask again, monotonic seconds; empty while nothing is held."""
        if self._hold is None:
            return []
        return [time.monotonic() + min(max(self._hold.until - time.time(), 0.0), _LONGEST_SECONDS)]

    def _tell(self, hold: Hold | None) -> None:
        before, self._hold = self._hold, hold
        if hold is not None and (before is None or hold.reason != before.reason):
            when = when_told(hold.until)
            warn("held", "pictures wait until {when}: {reason}", when=when, reason=hold.reason)
        elif before is not None and self._verdict is None:
            tell("released", "engines may start again")

    def _warn(self, now: float) -> None:
        for use in self._governor.uses(now):
            if use.share >= WARN_SHARE and (use.name, use.until) not in self._warned:
                self._warned.add((use.name, use.until))
                text = "{share:.0f} % of a budget are used: {use}"
                warn("budget", text, share=100 * use.share, use=str(use), period=use.name, used=use.used)


def when_told(at: float) -> str:
    """A time as a person reads it: with the date if that is another day."""
    moment = datetime.fromtimestamp(at)
    return f"{moment:%H:%M}" if moment.date() == datetime.now().date() else f"{moment:%Y-%m-%d %H:%M}"
