"""The address of Redis as it may be shown."""

from urllib.parse import urlsplit


def shown(url: str) -> str:
    """An address without user, password and options."""
    parts = urlsplit(url)
    place = parts.netloc.rpartition("@")[2]
    return f"{parts.scheme}://{place}{parts.path}"
