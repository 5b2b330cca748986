"""Moments as a person reads them."""

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
