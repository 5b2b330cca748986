"""Moments by the local clock."""

from datetime import datetime


def at(text: str) -> float:
    """Unix time of a local time, as ISO 8601 without a zone."""
    return datetime.fromisoformat(text).timestamp()
