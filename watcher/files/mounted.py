"""An unmounted share looks like an empty folder: remember which of our folders were mount points."""

import errno
import os
from collections.abc import Mapping

import msgspec

from watcher.errors import EnvironmentFault
from watcher.ledger import Ledger
from watcher.sections import Folders

_KEYS = ("inbox", "outbox", "archive", "failed")


class MountPoint:
    """A folder that stays a mount point once it was seen to be one: a share may come later than the watcher."""

    def __init__(self, folder: str) -> None:
        self.folder = folder
        self._mounted = os.path.ismount(folder)

    def check(self) -> None:
        """See that the share is still mounted.

        Raises:
            FileNotFoundError: it was, and is not.
        """
        mounted = os.path.ismount(self.folder)
        if self._mounted and not mounted:
            raise FileNotFoundError(errno.ENOENT, "its share is not mounted", self.folder)
        self._mounted = mounted


def check_mounts(folders: Folders, ledger: Ledger) -> None:
    """Refuse to start on the bare mount point of a share; note what is mounted now.

    Raises:
        EnvironmentFault: a folder was a mount point the last time, and is none now.
        LedgerError: the ledger cannot be written.
    """
    notes = ledger.notes()
    for key, folder in msgspec.structs.asdict(folders).items():
        if key not in _KEYS:
            continue
        if has_lost_its_share(key, folder, notes):
            raise EnvironmentFault(
                f"folders.{key}: {folder} was a mount point, and its share is not mounted",
                "mount it; if it is a plain folder from now on, `dropscale init`, with the same --config, notes that",
            )
    note_mounts(folders, ledger)


def note_mounts(folders: Folders, ledger: Ledger) -> None:
    """Note which of the folders are mount points now.

    Raises:
        LedgerError: the ledger cannot be written.
    """
    ledger.note(**{**{_note(key): "" for key in _KEYS}, **mounted_now(folders, {})})


def mounted_now(folders: Folders, known: dict[str, str]) -> dict[str, str]:
    """The notes that `check_mounts` will look for: those that are known, and of folders that became mount points.

    Those that are known are not looked at again: a share that died would keep who asks waiting.
    """
    found = msgspec.structs.asdict(folders)
    new = {_note(key): found[key] for key in _KEYS if _note(key) not in known and os.path.ismount(found[key])}
    return {**known, **new}


def has_lost_its_share(key: str, folder: str, notes: Mapping[str, str]) -> bool:
    """Whether a folder was noted to be a mount point and is none now."""
    return notes.get(_note(key)) == folder and not os.path.ismount(folder)


def _note(key: str) -> str:
    return f"mounted {key}"
