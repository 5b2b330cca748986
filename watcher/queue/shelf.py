"""The shelf: where workers put results for the watcher, in a hidden folder of the outbox that all of them mount.

Whatever is finished can be found by its content key, whoever made it, when, and whatever became of the queue since:

    KEY.EXECUTION.EXT    a result in the making, of one execution of a job
    KEY-SHA256.EXT       a finished result; the first digits of its own hash, for two devices may differ in a bit
    KEY.json             which of these it is, with all that the engine told: written last, whole or not at all

Only the watcher makes the folder and removes it. A worker that comes late, when the pictures have long been delivered,
finds it gone and can leave nothing behind.
"""

import contextlib
import errno
import os
import re
from collections.abc import Collection
from typing import NamedTuple

import msgspec

from sr_engine import protocol
from watcher.files.filesystem import fsync_folder, holds, make_folders, open_regular

FOLDER = "queue"
_SUFFIX = ".json"
_LONGEST_NOTE = 1 << 16  # bytes
_KEY_END = re.compile("[-.]")


class Finished(NamedTuple):
    """A finished result: its path, and what the engine said of it."""

    path: str
    done: protocol.Done


def open_shelf(outbox: str, staging: str) -> str:
    """The folder, made if need be.

    Raises:
        OSError: the outbox is gone or full, or a file is in the way.
    """
    wanted = os.path.join(staging, FOLDER)
    if make_folders(outbox, wanted) != wanted:
        raise FileExistsError(errno.EEXIST, "a file is in the way of the staging folder", os.path.join(outbox, wanted))
    return os.path.join(outbox, wanted)


def put(shelf: str, key: str, execution: str, done: protocol.Done) -> protocol.Done:
    """Give a result in the making its name.

    Args:
        shelf: the folder.
        key: of the content.
        execution: that made it.
        done: what the engine said; its target is where the result lies now.

    Returns:
        The same, with the result's name on the shelf as its target.

    Raises:
        OSError: the share is gone or full, or the shelf was removed: nobody waits any more.
    """
    made = protocol.decode_path(done.target)
    name = f"{key}-{done.result_sha256[:16]}{os.path.splitext(made)[1]}"
    os.replace(made, os.path.join(shelf, name))
    told = msgspec.structs.replace(done, target=protocol.encode_path(name))
    note = os.path.join(shelf, f"{key}.{execution}{_SUFFIX}")
    with open(note, "wb") as file:
        file.write(msgspec.json.encode(told))
        file.flush()
        os.fsync(file.fileno())
    os.replace(note, os.path.join(shelf, key + _SUFFIX))
    fsync_folder(shelf)
    return told


def find(shelf: str, key: str, sha256: str) -> Finished | None:
    """The finished result of this key; None if there is none that is whole.

    Args:
        shelf: the folder.
        key: of the content.
        sha256: of the original.

    Raises:
        OSError: the share does not answer.
    """
    try:
        with open_regular(os.path.join(shelf, key + _SUFFIX)) as file:
            done = msgspec.json.decode(file.read(_LONGEST_NOTE), type=protocol.Done)
    except (FileNotFoundError, NotADirectoryError, msgspec.DecodeError):
        return None
    finished = located(shelf, key, done)
    if finished is None or done.source_sha256 != sha256 or not holds(finished.path, done.result_sha256):
        return None
    return finished


def located(shelf: str, key: str, done: protocol.Done) -> Finished | None:
    """The result that somebody says to have put there; None if that cannot be one of this key."""
    name = protocol.decode_path(done.target)
    belongs = name.startswith(f"{key}-") and os.path.basename(name) == name and "\0" not in name
    return Finished(os.path.join(shelf, name), done) if belongs else None


def take(shelf: str, key: str, finished: Finished, target: str) -> str:
    """Move a result off the shelf; returns its path, which is `target` with the result's extension.

    Raises:
        OSError: it is not there (yet, where a share's client remembers what was not there), or the share is gone.
    """
    path = target + os.path.splitext(finished.path)[1]
    os.rename(finished.path, path)
    with contextlib.suppress(OSError):
        os.unlink(os.path.join(shelf, key + _SUFFIX))
    return path


def sweep(shelf: str, wanted: Collection[str]) -> None:
    """Remove what belongs to no wanted key; and the folder, once nothing is wanted any more.

    What cannot be removed now, a later sweep removes.
    """
    with contextlib.suppress(OSError):
        for name in os.listdir(shelf):
            if _KEY_END.split(name, maxsplit=1)[0] not in wanted:
                with contextlib.suppress(OSError):
                    os.unlink(os.path.join(shelf, name))
        if not wanted:
            os.rmdir(shelf)
