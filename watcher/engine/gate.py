"""Whether an engine may start now: asks the governor, and tells once when the answer changes."""

import time
from collections.abc import Sequence

from watcher.accounting.accounts import Accounts
from watcher.engine.governor import WARN_SHARE, Governor, Hold, Use
from watcher.journal import tell, warn
from watcher.ledger import Ledger
from watcher.sections import Config
from watcher.wording import clock

_LOOK_SECONDS = 10.0  # what was spent changes with each batch, of which the gate is told; else only with the date
_LONGEST_SECONDS = 60.0  # the clock may be set while it waits


def governor_of(config: Config, accounts: Accounts) -> Governor:
    """The governor that goes by these accounts."""
    return Governor(config.budget, config.cost, accounts.gpu_seconds)


class Gate:
    """One service's. Times are Unix time unless they say otherwise."""

    def __init__(self, config: Config, ledger: Ledger) -> None:
        self._governor = governor_of(config, Accounts(ledger))
        self._urgent_folder = config.window.urgent_folder
        self._uses: list[Use] = []
        self._verdict: Hold | None = None  # whether anything waits for it or not
        self._hold: Hold | None = None
        self._looked = 0.0  # monotonic
        self._stale = True
        self._warned: set[tuple[str, float]] = set()

    def refresh(self) -> None:
        """An engine has worked: what was spent is another sum."""
        self._stale = True

    def hold(self, now: float, *, wanted: bool, spending: bool = False) -> Hold | None:
        """Why no engine may start at `now`; None: it may, or none is wanted.

        At rest nothing is asked: the ledger may be long.

        Args:
            now: Unix time.
            wanted: whether pictures wait for one.
            spending: whether one is kept without work, which costs as much.

        Raises:
            LedgerError: it cannot be told what was spent.
        """
        is_over = self._verdict is not None and now >= self._verdict.until
        is_old = time.monotonic() - self._looked >= _LOOK_SECONDS
        if self._stale or is_over or ((wanted or spending) and is_old):
            self._uses = self._governor.uses(now)
            self._verdict = self._governor.hold(now, self._uses)
            self._warn(self._uses)
            self._looked, self._stale = time.monotonic(), False
        self._tell(self._verdict if wanted else None)
        return self._hold

    @property
    def is_closed(self) -> bool:
        """Whether something was held at the last look."""
        return self._hold is not None

    def refusal(self) -> str:
        """Why no engine may start now, by what was spent at the last look; empty: it may. Asked by any thread."""
        hold = self._governor.hold(time.time(), self._uses)
        return "" if hold is None else f"{hold.reason}, until {clock(hold.until, 'minutes')}"

    def asks_again(self) -> list[float]:
        """When to ask again, monotonic seconds; empty while nothing is held."""
        if self._hold is None:
            return []
        return [time.monotonic() + min(max(self._hold.until - time.time(), 0.0), _LONGEST_SECONDS)]

    def _tell(self, hold: Hold | None) -> None:
        before, self._hold = self._hold, hold
        if hold is not None and (before is None or (hold.kind, hold.until) != (before.kind, before.until)):
            when = clock(hold.until, "minutes")
            passing = f"; those in {self._urgent_folder}/ do not" if self._urgent_folder else ""
            warn(
                "held", "pictures wait until {when}: {reason}{passing}", when=when, reason=hold.reason, passing=passing
            )
        elif before is not None and self._verdict is None:
            tell("released", "engines may start again")

    def _warn(self, uses: Sequence[Use]) -> None:
        for use in uses:
            if use.share >= WARN_SHARE and (use.name, use.until) not in self._warned:
                self._warned.add((use.name, use.until))
                text = "{share:.0f} % of a budget are used: {use}"
                warn("budget", text, share=100 * use.share, use=str(use), period=use.name, used=use.used)
