"""Progress of a batch: a bar on a terminal, nothing otherwise (the log has one line per event)."""

import contextlib
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from rich.console import Console


class Progress(Protocol):
    """What a batch tells while it runs."""

    def begin(self, pictures: int) -> None:
        """A batch begins."""

    def work(self, name: str, done: int, total: int) -> None:
        """A picture has `done` of `total` tiles."""

    def advance(self) -> None:
        """One picture more has come to its end."""

    def end(self) -> None:
        """The batch is over."""


class NoProgress:
    """For logs, pipes and tests."""

    def begin(self, pictures: int) -> None:
        """Nothing."""

    def work(self, name: str, done: int, total: int) -> None:
        """Nothing."""

    def advance(self) -> None:
        """Nothing."""

    def end(self) -> None:
        """Nothing."""


class BarProgress:
    """A bar over the pictures of the batch, with the tiles of the one in work."""

    def __init__(self, console: "Console") -> None:
        # here, because rich takes 3 MB that a watcher without a terminal does not need
        from rich.markup import escape  # noqa: PLC0415
        from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn  # noqa: PLC0415
        from rich.progress import Progress as Bars  # noqa: PLC0415

        self._escape = escape
        columns: list[Any] = [
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeRemainingColumn(),
        ]
        self._make: Callable[[], Any] = lambda: Bars(*columns, console=console, transient=True)
        self._bars: Any = None

    def begin(self, pictures: int) -> None:
        """Show the bars."""
        self._bars = self._make()
        self._batch = self._bars.add_task("pictures", total=pictures)
        self._picture = self._bars.add_task("starting the engine", total=None)
        with contextlib.suppress(OSError, ValueError):  # the terminal was closed: the work goes on
            self._bars.start()

    def work(self, name: str, done: int, total: int) -> None:
        """Move the bar of the picture."""
        if self._bars:
            self._bars.update(self._picture, description=self._escape(name), completed=done, total=total)

    def advance(self) -> None:
        """Move the bar of the batch."""
        if self._bars:
            self._bars.advance(self._batch)

    def end(self) -> None:
        """Take the bars away."""
        if self._bars:
            with contextlib.suppress(OSError, ValueError):
                self._bars.stop()
            self._bars = None
