"""What the watcher notes of the queue for `status`: where each picture of the running batch is."""

from collections.abc import Mapping

import msgspec

NOTE = "queue"
OWNER_NOTE = "queue_owner"  # what this watcher calls its jobs


class JobState(msgspec.Struct, frozen=True):
    """A job: ids of its pictures, and where it is, in words."""

    pictures: tuple[int, ...]
    where: str


class QueueState(msgspec.Struct, frozen=True):
    """The queue as one batch sees it.

    Attributes:
        batch: its id.
        redis: the address, without a password.
        workers: how many listen.
        jobs: those that are not done.
        refusing: why each worker that refused its last job did so.
    """

    batch: int
    redis: str
    workers: int
    jobs: tuple[JobState, ...]
    refusing: tuple[str, ...] = ()

    def as_note(self) -> dict[str, str]:
        """For `Ledger.note`."""
        return {NOTE: msgspec.json.encode(self).decode()}


def read(notes: Mapping[str, str]) -> QueueState | None:
    """What was noted last; None if there is nothing, or nothing of this version."""
    try:
        return msgspec.json.decode(notes.get(NOTE, ""), type=QueueState)
    except msgspec.DecodeError:
        return None


def places(state: QueueState | None, batch: int | None) -> dict[int, str]:
    """Where each picture of a batch is, by its id."""
    if state is None or state.batch != batch:
        return {}
    return {picture: job.where for job in state.jobs for picture in job.pictures}
