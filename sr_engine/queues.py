"""What stands between the steps of the pipeline: the bounded room for pictures in work, and the queue of tiles."""

import threading
from collections import deque
from collections.abc import Hashable, Sequence
from typing import Generic, Protocol, TypeVar


class Room:
    """Bounds what is in memory at a time: the number of pictures, and the bytes that they are expected to need.

    A picture that needs more than there is gets in when it is alone: whether it may at all, `limits` has decided.
    """

    def __init__(self, size_bytes: int, *, pictures: int) -> None:
        self._changed = threading.Condition()
        self._size = size_bytes
        self._taken = 0
        self._waiting: deque[object] = deque()
        self._places = pictures

    def enter(self) -> None:
        """Wait for a place, for a picture that takes no bytes yet."""
        with self._changed:
            self._changed.wait_for(lambda: self._places > 0)
            self._places -= 1

    def take(self, needed_bytes: int) -> None:
        """Wait until so many bytes are free, or all are."""
        with self._changed:
            # in turn, or one that needs much would wait until all others are done
            self._waiting.append(turn := object())
            self._changed.wait_for(
                lambda: self._waiting[0] is turn and (self._taken == 0 or self._taken + needed_bytes <= self._size)
            )
            self._waiting.popleft()
            self._taken += needed_bytes
            self._changed.notify_all()

    def leave(self, taken_bytes: int) -> None:
        """Give the place and its bytes back."""
        with self._changed:
            self._places += 1
            self._taken -= taken_bytes
            self._changed.notify_all()


class HasKind(Protocol):
    """A job that can share a batch with others of equal kind."""

    @property
    def kind(self) -> Hashable:
        """Equal for jobs that can share a batch."""
        ...


Owner = TypeVar("Owner")
SomeJob = TypeVar("SomeJob", bound=HasKind)


class TileQueue(Generic[Owner, SomeJob]):
    """Jobs of all pictures that wait for the network, in order; batches take equal ones of any picture."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._jobs: deque[tuple[Owner, SomeJob]] = deque()
        self._single: set[int] = set()  # ids of jobs that have to run alone
        self._ending = self._abandoned = False

    def add(self, owner: Owner, jobs: Sequence[SomeJob]) -> None:
        """Append a picture's jobs."""
        with self._changed:
            self._jobs.extend((owner, job) for job in jobs)
            self._changed.notify_all()

    def take(self, most: int) -> list[tuple[Owner, SomeJob]]:
        """Wait for jobs: the first one and up to `most` in all of its kind. Empty when there will be none."""
        with self._changed:
            self._changed.wait_for(lambda: self._jobs or self._ending or self._abandoned)
            if self._abandoned or not self._jobs:
                return []
            first = self._jobs.popleft()
            if most == 1 or id(first[1]) in self._single:
                self._single.discard(id(first[1]))
                return [first]
            batch = [first]
            passed: list[tuple[Owner, SomeJob]] = []
            while self._jobs and len(batch) < most:
                other = self._jobs.popleft()
                fits = other[1].kind == first[1].kind and id(other[1]) not in self._single
                (batch if fits else passed).append(other)
            self._jobs.extendleft(reversed(passed))
            return batch

    def return_singly(self, batch: Sequence[tuple[Owner, SomeJob]]) -> None:
        """Put jobs back, each to run alone: one of them spoils the batch."""
        with self._changed:
            self._single.update(id(job) for _, job in batch)
            self._jobs.extendleft(reversed(batch))
            self._changed.notify_all()

    def drop(self, owner: Owner) -> None:
        """Forget a picture's jobs."""
        with self._changed:
            self._jobs = deque(entry for entry in self._jobs if entry[0] is not owner)

    def close(self) -> None:
        """No more jobs will come."""
        with self._changed:
            self._ending = True
            self._changed.notify_all()

    def abandon(self) -> bool:
        """Forget all jobs for good; False if that was done already."""
        with self._changed:
            first = not self._abandoned
            self._abandoned = True
            self._jobs.clear()
            self._changed.notify_all()
            return first
