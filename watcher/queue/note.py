"""What the watcher notes of the queue for `status`: where each picture of the running batch is."""

from collections.abc import Mapping

import msgspec

NOTE = "queue"
ALARMS_NOTE = "worker_alarms"  # memory that was not given back, in words, by machine and device
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
        engines: how many run on workers, as far as they told.
    """

    batch: int
    redis: str
    workers: int
    jobs: tuple[JobState, ...]
    refusing: tuple[str, ...] = ()
    engines: int = 0

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


def alarms(notes: Mapping[str, str]) -> dict[str, str]:
    """What the last engine on each worker's device left there; empty: nothing."""
    try:
        return msgspec.json.decode(notes.get(ALARMS_NOTE, ""), type=dict[str, str])
    except msgspec.DecodeError:
        return {}


def with_alarm(notes: Mapping[str, str], host: str, device: str, alarm: str) -> dict[str, str]:
    """The note once an engine has ended there; empty: it says so already.

    Args:
        notes: of the ledger.
        host: where it ran.
        device: likewise.
        alarm: what it left, in words; empty: nothing.
    """
    told = alarms(notes)
    where = f"{host} {device}"
    if not alarm and where not in told:
        return {}
    told = {**told, where: f"{host}: {alarm}"} if alarm else {key: text for key, text in told.items() if key != where}
    return {ALARMS_NOTE: msgspec.json.encode(told).decode()}
