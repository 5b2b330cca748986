"""Which of the failed pictures a user means, and how they are tried again."""

import contextlib
import os
from collections.abc import Iterable, Iterator, Sequence

from watcher import config, instance
from watcher.delivery import REASON_SUFFIX, Delivery
from watcher.errors import UsageError
from watcher.files.mounted import check_mounts
from watcher.files.names import display
from watcher.ledger import Ledger
from watcher.sections import Config


def put_back(settings: Config, paths: Iterable[str]) -> Iterator[tuple[str, str | None]]:
    """Put failed pictures back into the inbox.

    Args:
        settings: which folders.
        paths: below the failed folder.

    Yields:
        Each path, and the picture's path below the inbox; None if it is not there any more.

    Raises:
        ConfigError, EnvironmentFault: a folder is missing, or cannot be written.
        LedgerError: the ledger cannot be written.
        OSError: a picture cannot be moved.
    """
    config.check_folders(settings.folders)
    instance.prepare_state_folder(settings.folders.state)
    with contextlib.closing(Ledger(settings.folders.state)) as ledger:
        check_mounts(settings.folders, ledger)
        delivery = Delivery(settings.folders, ledger)
        for path in paths:
            try:
                yield path, delivery.put_back(path)
            except FileNotFoundError:
                yield path, None


def named(paths: Sequence[str], failed_folder: str) -> list[str]:
    """Paths below the failed folder: all, or those named; a folder stands for what is below it.

    Raises:
        UsageError: one of them is somewhere else.
    """
    below = []
    for path in paths or [failed_folder]:
        full = os.path.abspath(path) if os.path.lexists(path) else os.path.join(failed_folder, path)
        parent, name = os.path.split(full)
        full = os.path.normpath(os.path.join(os.path.realpath(parent), name.removesuffix(REASON_SUFFIX)))
        relative = os.path.relpath(full, failed_folder)
        if relative == os.pardir or relative.startswith(os.pardir + os.sep):
            raise UsageError(
                f"{display(path)} is not in {failed_folder}", "name failed pictures; see `dropscale status`"
            )
        if os.path.isdir(full) and not os.path.islink(full):
            below += [os.path.relpath(found, failed_folder) for found in _pictures_below(full)]
        else:
            below.append(relative)
    return below


def _pictures_below(folder: str) -> list[str]:
    found = [os.path.join(current, name) for current, _, names in os.walk(folder) for name in names]
    # what lies there without a reason is not ours
    return sorted(path for path in found if os.path.lexists(path + REASON_SUFFIX))
