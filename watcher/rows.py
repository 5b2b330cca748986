"""The rows of the ledger that speak of pictures: their states and what the folders hold in each.

The states, and what the folders hold in each::

    waiting      the original is in the inbox; nothing else exists yet, or the surroundings failed (reason, not_before)
    claimed      the same, and the picture belongs to the batch that is running
    publishing   a result is staged, or already at result_path: the intent was written before the rename
    archiving    the result is at result_path; the original is in the inbox, at moved_path, or on its way
    quarantining the original is in the inbox, at moved_path (in `failed`), or on its way
    done         result delivered, original archived                                             (closed)
    failed       original and reason file in `failed`                                           (closed)
    withdrawn    the original changed or vanished before its result was published; nothing remains (closed)
"""

import os
from enum import StrEnum
from typing import Any, NamedTuple, Protocol

from watcher.files.filesystem import Identity


class State(StrEnum):
    """What became of a picture; see the module's text."""

    WAITING = "waiting"
    CLAIMED = "claimed"
    PUBLISHING = "publishing"
    ARCHIVING = "archiving"
    QUARANTINING = "quarantining"
    DONE = "done"
    FAILED = "failed"
    WITHDRAWN = "withdrawn"


MOVING = (State.PUBLISHING, State.ARCHIVING, State.QUARANTINING)


class Picture(NamedTuple):
    """A row of `pictures`; paths are `str` with surrogate escapes."""

    id: int
    batch: int | None
    path: str
    identity: Identity
    sha256: str
    recipe: str
    state: State
    attempts: int
    waits: int
    not_before: float
    reason: str
    trouble: str
    suspected_at: float | None
    staged_path: str | None
    result_path: str | None
    result_sha256: str | None
    result_bytes: int | None
    moved_path: str | None
    reused: bool
    changed_at: float


COLUMNS = (
    "id, batch, path, device, inode, size, mtime_ns, ctime_ns, sha256, recipe, state, attempts, waits, not_before,"
    " reason, trouble, suspected_at, staged_path, result_path, result_sha256, result_bytes,"
    " moved_path, reused, changed_at"
)


def columns_of(identity: Identity) -> tuple[str, str, int, str, str]:
    """An identity as the table holds it: device, inode, size, mtime_ns, ctime_ns."""
    return str(identity.device), str(identity.inode), identity.size, str(identity.mtime_ns), str(identity.ctime_ns)


def from_row(row: tuple[Any, ...]) -> Picture:
    """A row that was read with COLUMNS."""
    identifier, batch, path, device, inode, size, mtime_ns, ctime_ns = row[:8]
    sha256, recipe, state, attempts, waits, not_before, reason, trouble, suspected_at = row[8:17]
    staged_path, result_path, result_sha256, result_bytes, moved_path, reused, changed_at = row[17:]
    return Picture(
        identifier,
        batch,
        os.fsdecode(path),
        Identity(int(device), int(inode), size, int(mtime_ns), int(ctime_ns)),
        sha256,
        recipe,
        State(state),
        attempts,
        waits,
        not_before,
        reason,
        trouble,
        suspected_at,
        _path(staged_path),
        _path(result_path),
        result_sha256,
        result_bytes,
        _path(moved_path),
        bool(reused),
        changed_at,
    )


def _path(value: bytes | None) -> str | None:
    return None if value is None else os.fsdecode(value)


class Selects(Protocol):
    """What can be asked: the watcher's ledger, or one that is open for reading only."""

    def select(self, sql: str, parameters: tuple[Any, ...]) -> list[Any]:
        """All rows of a query."""
