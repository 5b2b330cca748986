"""The pictures that a batch has claimed and not yet brought to an end, and which are twins: alike in content."""

from collections.abc import Iterable, Iterator, Sequence

from watcher.rows import Picture


class Claims:
    """Of one batch, in one thread."""

    def __init__(self) -> None:
        self._open: dict[int, Picture] = {}
        self._twins: dict[int, list[Picture]] = {}  # by the picture that stands for its content

    def __contains__(self, picture: Picture) -> bool:
        return picture.id in self._open

    def __iter__(self) -> Iterator[int]:
        """Their ids."""
        return iter(self._open)

    def __len__(self) -> int:
        return len(self._open)

    def add(self, pictures: Iterable[Picture]) -> None:
        """They are claimed."""
        self._open |= {picture.id: picture for picture in pictures}

    def group(self) -> list[Picture]:
        """Find the twins among those that are open; returns one picture for each different content."""
        first_of: dict[str, Picture] = {}
        for picture in self._open.values():
            first = first_of.setdefault(picture.sha256, picture)
            self._twins.setdefault(first.id, []).append(picture)
        return list(first_of.values())

    def end(self, picture: Picture) -> None:
        """It came to its end, or has to wait."""
        self._open.pop(picture.id, None)

    def with_twins(self, pictures: Sequence[Picture]) -> list[Picture]:
        """These and all others of the same content, as far as they are open.

        Args:
            pictures: of those that `group` gave.
        """
        twins = [twin for picture in pictures for twin in self._twins[picture.id]]
        return [twin for twin in twins if twin in self]

    def named(self, ids: Iterable[int]) -> list[Picture]:
        """Those of these ids that are open."""
        return [self._open[id] for id in ids if id in self._open]
