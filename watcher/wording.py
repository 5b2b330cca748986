"""Moments and counts as a person reads them."""

from datetime import datetime


def clock(moment: float, timespec: str = "seconds") -> str:
    """A local time of day, with its date unless it is today's.

    Args:
        moment: Unix time.
        timespec: as `datetime.isoformat` takes it.
    """
    local = datetime.fromtimestamp(moment)
    if local.date() == datetime.now().date():
        return local.time().isoformat(timespec)
    return local.isoformat(" ", timespec)


def count_of(number: int, noun: str) -> str:
    """So many of them: "one picture", "3 pictures", "2 batches"."""
    plural = f"{noun}es" if noun.endswith("ch") else f"{noun}s"
    return f"one {noun}" if number == 1 else f"{number:,} {plural}"
