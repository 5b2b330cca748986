"""What tells the outside how a watcher is getting on: the note of its engine for `status`, hooks, metrics.

The libraries of the last two are loaded only where the config asks for them.
"""

import contextlib
import os
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

from watcher.errors import LedgerError
from watcher.journal import listening, warn
from watcher.ledger import Ledger
from watcher.operation import hook_troubles
from watcher.operation.hook_troubles import Tally, Trouble
from watcher.operation.vitals import Vitals
from watcher.sections import Config, Hook

if TYPE_CHECKING:
    from watcher.operation.hooks import Hooks


def check(config: Config, old: Config | None = None) -> None:
    """See that all that the config asks for can be had; warn of commands that cannot be started now.

    Args:
        config: to be taken up.
        old: the one that is at work.

    Raises:
        ConfigError: a library or a variable of the environment is missing.
        EnvironmentFault: another port of the metrics than that of `old` is taken.
    """
    if config.on_event:
        from watcher.operation.hooks import faults, headers_of  # noqa: PLC0415 - keep the watcher itself small

        for hook in config.on_event:
            headers_of(hook, os.environ)
        for key, fault in faults(config.on_event):
            if fault is not None:  # it may still come, and the pictures don't need it
                warn("hook_missing", "{hook}: {problem}: {remedy}", hook=key, problem=fault[0], remedy=fault[1])
    if config.metrics.port or config.metrics.textfile:
        from watcher.operation.metrics import check_move, require  # noqa: PLC0415

        require()
        if old is not None:
            check_move(old.metrics, config.metrics)


class Attendance:
    """From the first watcher of a process to the last: a reload must not cost hooks the events that wait for them."""

    def __init__(self, ledger: Ledger) -> None:
        """Nothing is told before `to`.

        Args:
            ledger: stays open until `close`.
        """
        self._ledger = ledger
        self._asked: tuple[Hook, ...] = ()
        self._hooks: Hooks | None = None
        self._counts: Mapping[tuple[str, str], int] = {}
        self._stack = contextlib.ExitStack()  # of the hooks

    @contextlib.contextmanager
    def to(self, config: Config, vitals: Vitals) -> Iterator[None]:
        """While a watcher works with this config.

        Raises:
            ConfigError: as `check`.
            EnvironmentFault: the port of the metrics is taken.
        """
        with contextlib.ExitStack() as stack:
            stack.enter_context(listening(_EngineNote(self._ledger, vitals).hear))
            if config.on_event != self._asked or not config.on_event:
                self._renew_hooks(config.on_event)
            vitals.hook_events = self._counts
            if config.metrics.port or config.metrics.textfile:
                from watcher.operation.metrics import serving  # noqa: PLC0415 - keep the watcher itself small

                stack.enter_context(serving(config, self._ledger.path, vitals))
            yield

    def drain(self, stopping: Callable[[], bool]) -> None:
        """Wait until all hooks were told, within a minute, and not when `stopping` says so."""
        if self._hooks is not None:
            self._hooks.drain(stopping)

    def close(self) -> None:
        """Give what waits a few seconds."""
        self._stack.close()

    def _renew_hooks(self, asked: tuple[Hook, ...]) -> None:
        self._stack.close()
        self._asked, self._hooks, self._counts = asked, None, {}
        notes = _HookNotes(self._ledger)
        if not asked:
            notes.write([])
            return
        from watcher.operation.hooks import Hooks, names  # noqa: PLC0415 - keep the watcher itself small

        tally = Tally(names(asked), notes.read(), notes.write)
        self._counts = tally.counts
        self._stack.callback(notes.close)
        self._hooks = Hooks(asked, os.environ, tally)
        self._stack.callback(self._hooks.close)
        self._stack.enter_context(listening(self._hooks.hear))


class _EngineNote:
    """Keeps the state of the engine in the ledger, which knows engines only once they have ended."""

    def __init__(self, ledger: Ledger, vitals: Vitals) -> None:
        self._ledger = ledger
        self._vitals = vitals
        self._note()

    def hear(self, event: str, text: str, fields: Mapping[str, Any]) -> None:
        """An event of the journal."""
        before = self._vitals.engine
        self._vitals.hear(event, text, fields)
        if self._vitals.engine != before:
            self._note()

    def _note(self) -> None:
        with contextlib.suppress(LedgerError):  # it is told where it matters
            self._ledger.note(engine=self._vitals.engine, engine_since=f"{time.time():.3f}")


class _HookNotes:
    """Keeps in the ledger which hooks are in trouble, until `close`: a call that hangs may come back much later."""

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger
        self._closed = False

    def read(self) -> list[Trouble]:
        with contextlib.suppress(LedgerError):
            return hook_troubles.read(self._ledger.notes())
        return []

    def write(self, troubles: Iterable[Trouble]) -> None:
        with contextlib.suppress(LedgerError):  # the log has said it
            note = hook_troubles.as_note(troubles)
            if not self._closed and note.items() - self._ledger.notes().items():
                self._ledger.note(**note)

    def close(self) -> None:
        self._closed = True
