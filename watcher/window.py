"""The debounce window: gathers settled pictures until it is worth starting an engine for them.

Starting the engine is what costs, so one start should serve as many pictures as arrive together; but nobody should
wait for ever because somebody else keeps dropping. Pure: no thread, no timer, and the clock is passed in.
"""

from collections.abc import Hashable
from typing import Generic, NamedTuple, TypeVar

from watcher.wording import count_of

Item = TypeVar("Item", bound=Hashable)


class _Entry(NamedTuple):
    pixels: int
    arrived: float


class Window(Generic[Item]):
    """Opens with the first picture; closes when no other follows, after a time, or when it is full.

    Times are seconds on one monotonic clock. An item is in the window at most once.
    """

    def __init__(self, quiet_seconds: float, max_seconds: float, max_files: int, max_pixels: int) -> None:
        """Describe when the window closes.

        Args:
            quiet_seconds: after the last picture.
            max_seconds: after the first picture, however many follow.
            max_files: pictures in one batch.
            max_pixels: of all pictures of one batch together, before upscaling.

        Raises:
            ValueError: a time is negative, or a limit leaves no room for a single picture.
        """
        if quiet_seconds < 0 or max_seconds < 0:
            raise ValueError(f"a window cannot last {min(quiet_seconds, max_seconds)} s; use 0 or more")
        if max_files < 1 or max_pixels < 1:
            raise ValueError(f"a window of {max_files} files and {max_pixels} pixels holds nothing; use 1 or more")
        self._quiet_seconds = quiet_seconds
        self._max_seconds = max_seconds
        self._max_files = max_files
        self._max_pixels = max_pixels
        self._entries: dict[Item, _Entry] = {}  # in order of arrival
        self._pixels = 0
        self._opened = 0.0  # both are meaningless while the window is empty
        self._last_added = 0.0

    def __len__(self) -> int:
        return len(self._entries)

    def __contains__(self, item: Item) -> bool:
        return item in self._entries

    def add(self, item: Item, pixels: int, now: float) -> None:
        """Put a settled picture into the window; one that is in it already keeps its place, with the new size.

        Args:
            item: the picture.
            pixels: its width times its height; 0 if that is not known.
            now: seconds.
        """
        known = self._entries.get(item)
        if known is not None:
            self._pixels -= known.pixels
        elif not self._entries:
            self._opened = now
        self._entries[item] = _Entry(pixels, now if known is None else known.arrived)
        self._pixels += pixels
        self._last_added = now

    def discard(self, item: Item) -> None:
        """Forget a picture that went away or changed; no matter if it is not here.

        The window's times stay: it may now close earlier than it would have without the picture, never later.
        """
        entry = self._entries.pop(item, None)
        if entry is not None:
            self._pixels -= entry.pixels

    def closing_reason(self, now: float) -> str | None:
        """Why the window closes at `now` (seconds), in words for the log; None while it stays open or is empty."""
        if not self._entries:
            return None
        if len(self._entries) >= self._max_files:
            return count_of(self._max_files, "picture")
        if self._pixels >= self._max_pixels:
            return f"{self._max_pixels / 1e6:g} megapixels"
        quiet_until, open_until = self._deadlines()
        if now < min(quiet_until, open_until):
            return None
        if quiet_until <= open_until:
            return f"quiet for {self._quiet_seconds:g} s"
        return f"open for {self._max_seconds:g} s"

    def closes_at(self) -> float | None:
        """When (seconds) the window closes if nothing else happens; None when it is empty.

        By time alone: a window that is full closes at once, whatever this says.
        """
        return min(self._deadlines()) if self._entries else None

    def take(self) -> list[Item]:
        """Hand over one batch, in order of arrival, and start anew.

        At least one picture is taken, even if it alone exceeds `max_pixels`. What does not fit stays and opens the
        next window, which counts from when its first picture arrived: waiting for this batch was waiting enough.
        """
        taken: list[Item] = []
        pixels = 0
        for item, entry in self._entries.items():
            full = len(taken) == self._max_files or pixels + entry.pixels > self._max_pixels
            if taken and full:
                self._opened = entry.arrived
                break
            taken.append(item)
            pixels += entry.pixels
        for item in taken:
            del self._entries[item]
        self._pixels -= pixels
        return taken

    def take_all(self) -> list[Item]:
        """Hand over everything and start anew."""
        taken = list(self._entries)
        self._entries.clear()
        self._pixels = 0
        return taken

    def _deadlines(self) -> tuple[float, float]:
        return self._last_added + self._quiet_seconds, self._opened + self._max_seconds
