"""What a result says of itself: from which original, by which recipe, with which content.

It is an extended attribute of the file, which moves with it and changes none of its bytes. The ledger knows all this,
too; the attribute is for the day on which the ledger is lost. File systems without attributes simply forget it.
"""

import contextlib
import os
import re
from typing import NamedTuple

_ATTRIBUTE = "user.dropscale.result"
_FORMAT = re.compile(rb"1 ([0-9a-f]{64}) ([0-9a-f]{32}) ([0-9a-f]{64})\Z")


class Provenance(NamedTuple):
    """Where a result comes from.

    Attributes:
        source_sha256: of the original.
        recipe: `Workshop.recipe` that it was made by.
        result_sha256: of the result, when it was delivered.
    """

    source_sha256: str
    recipe: str
    result_sha256: str


def mark(path: str, provenance: Provenance) -> None:
    """Let a result say where it comes from; nothing happens where the file system has no attributes."""
    if hasattr(os, "setxattr"):  # Linux alone
        with contextlib.suppress(OSError):
            os.setxattr(path, _ATTRIBUTE, b"1 " + " ".join(provenance).encode(), follow_symlinks=False)


def mark_anew(path: str, provenance: Provenance) -> None:
    """`mark` what does not say where it comes from."""
    if read(path) is None:
        mark(path, provenance)


def read(path: str) -> Provenance | None:
    """What a file says of itself; None where it says nothing that we understand."""
    if not hasattr(os, "getxattr"):
        return None
    try:
        found = _FORMAT.match(os.getxattr(path, _ATTRIBUTE, follow_symlinks=False))
    except OSError:
        return None
    return Provenance(*(part.decode() for part in found.groups())) if found else None
