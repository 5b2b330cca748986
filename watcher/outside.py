"""What tells the outside how a watcher is getting on: the note of its engine for `status`, hooks, metrics.

The libraries of the last two are loaded only where the config asks for them.
"""

import contextlib
import os
import time
from collections.abc import Iterator, Mapping
from typing import Any

from watcher.errors import LedgerError
from watcher.journal import listening
from watcher.ledger import Ledger
from watcher.sections import Config
from watcher.vitals import Vitals


def check(config: Config) -> None:
    """See that all that the config asks for can be had.

    Raises:
        ConfigError: a library or a variable of the environment is missing.
    """
    if config.on_event:
        from watcher.hooks import headers_of  # noqa: PLC0415 - keep the watcher itself small

        for hook in config.on_event:
            headers_of(hook, os.environ)
    if config.metrics.port or config.metrics.textfile:
        from watcher.metrics import require  # noqa: PLC0415

        require()


@contextlib.contextmanager
def attended(config: Config, ledger: Ledger, vitals: Vitals) -> Iterator[None]:
    """While a watcher works.

    Raises:
        ConfigError: as `check`.
        EnvironmentFault: the port of the metrics is taken.
    """
    with contextlib.ExitStack() as stack:
        stack.enter_context(listening(_EngineNote(ledger, vitals).hear))
        if config.on_event:
            from watcher.hooks import Hooks  # noqa: PLC0415 - keep the watcher itself small

            hooks = Hooks(config.on_event, config.folders, os.environ)
            stack.callback(hooks.close)
            stack.enter_context(listening(hooks.hear))
        if config.metrics.port or config.metrics.textfile:
            from watcher.metrics import serving  # noqa: PLC0415

            stack.enter_context(serving(config, ledger.path, vitals))
        yield


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
