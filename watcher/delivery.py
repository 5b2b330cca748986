"""Publish results, archive and quarantine originals: the only module that moves or removes a user's file.

Every move is announced in the ledger first and can be carried on from what the folders hold (`Delivery.resume`).
Three things are never done: overwriting, removing a name that may meanwhile belong to another file, and trusting a
file to be the one that was read without looking again after it was moved out of everybody's reach.
"""

import contextlib
import errno
import os
import time
from typing import NamedTuple

from watcher import __version__
from watcher.files import leftovers, provenance
from watcher.files.filesystem import (
    copy_file,
    digest,
    fsync_folder,
    holds,
    is_taken,
    look_at,
    make_folders,
    publish,
    publish_across,
    write_file,
)
from watcher.files.mounted import MountPoint
from watcher.files.names import candidate_names, display, hidden_name, longest_name
from watcher.files.originals import OriginalChanged, Originals
from watcher.files.provenance import Provenance
from watcher.ledger import Ledger
from watcher.queue import shelf
from watcher.queue.shards import content_key
from watcher.rows import Picture, State
from watcher.sections import Folders

STAGING = ".dropscale-staging"
REASON_SUFFIX = ".reason.txt"


class Staged(NamedTuple):
    """A whole result in the staging folder."""

    path: str
    sha256: str
    size: int

    @property
    def extension(self) -> str:
        """Of the kind that was written."""
        return _canonical_extension(self.path)


class Delivery:
    """Moves the files of one set of folders, as the ledger says."""

    def __init__(self, folders: Folders, ledger: Ledger) -> None:
        self._folders = folders
        self._ledger = ledger
        self._originals = Originals(folders.inbox)
        self._mounts = [MountPoint(folder) for folder in (folders.outbox, folders.archive, folders.failed)]

    # Staging

    def open_staging(self, batch: int) -> str:
        """The hidden folder, on the outbox's file system, in which the engine stages the results of a batch.

        Raises:
            OSError: the outbox is gone or full.
        """
        self._check_mounts()
        wanted = os.path.join(STAGING, str(batch))
        if make_folders(self._folders.outbox, wanted) != wanted:
            path = os.path.join(self._folders.outbox, STAGING)
            raise FileExistsError(errno.EEXIST, "a file is in the way of the staging folder", path)
        return os.path.join(self._folders.outbox, wanted)

    def close_staging(self, batch: int) -> None:
        """Remove what a batch left, unless a result in it still has to be published."""
        if not any(row.batch == batch and row.state is State.PUBLISHING for row in self._ledger.open_rows()):
            folder = os.path.join(self._folders.outbox, STAGING, str(batch))
            with contextlib.suppress(OSError):  # what cannot be removed now, the next start sweeps
                for name in os.listdir(folder):
                    os.unlink(os.path.join(folder, name))
                os.rmdir(folder)
            self._sweep_shelf()
            with contextlib.suppress(OSError):
                os.rmdir(os.path.dirname(folder))  # unless another batch still needs it

    def sweep_staging(self) -> None:
        """Remove what killed batches left; only while no batch runs."""
        root = os.path.join(self._folders.outbox, STAGING)
        with contextlib.suppress(OSError):  # mostly there is none
            for name in os.listdir(root):
                self.close_staging(int(name)) if name.isdigit() else None
        self._sweep_shelf()
        with contextlib.suppress(OSError):  # gone already, or something in it is still needed
            os.rmdir(root)

    def stage_copy(self, picture: Picture, source: str, sha256: str) -> Staged | None:
        """Stage a copy of an earlier result; None when it is no longer the file that was delivered.

        Raises:
            OSError: the outbox is gone or full.
        """
        target = os.path.join(self.open_staging(picture.batch or 0), f"{picture.id}{_canonical_extension(source)}")
        try:
            copied = copy_file(source, target)
        except OSError as error:
            if error.errno in {errno.ENOENT, errno.ENOTDIR, errno.EINVAL, errno.ELOOP, errno.EACCES}:
                return None
            raise
        if copied != sha256:
            os.unlink(target)
            return None
        return Staged(target, sha256, os.path.getsize(target))

    def sweep_leftovers(self) -> None:
        """Remove, or bring back into the inbox, hidden files of ours that the ledger does not know, for it is new."""
        leftovers.sweep(self._folders)

    # The three ends of a picture

    def deliver(self, picture: Picture, staged: Staged, *, reused: bool = False) -> str:
        """Publish a result, then archive its original.

        Returns:
            The result's path below the outbox.

        Raises:
            OriginalChanged: the original is another file by now, or gone; the result was dropped.
            OSError: a folder is gone or full; `resume` carries on.
        """
        self._check_mounts()
        if not self._originals.is_unchanged(picture):
            self.withdraw(picture)
            with contextlib.suppress(FileNotFoundError):
                os.unlink(staged.path)
            raise OriginalChanged(picture.path)
        result = self._publish(picture, staged, reused=reused)
        self._archive(picture)
        return result

    def quarantine(self, picture: Picture, reason: str) -> str:
        """Move a picture to `failed`, with its reason beside it.

        Returns:
            Its path below `failed`.

        Raises:
            OriginalChanged: the original is another file by now, or gone.
            OSError: a folder is gone or full; `resume` carries on.
        """

        def intend(target: str) -> None:
            self._remove_reason(self._ledger.picture(picture.id))  # of a name that was taken a moment before
            self._ledger.intend_quarantine(picture.id, target, reason)
            self._write_reason(picture, target, reason)

        self._check_mounts()
        try:
            if not self._originals.is_unchanged(picture):
                raise OriginalChanged(picture.path)
            moved = self._originals.move(picture, self._folders.failed, intend, beside=REASON_SUFFIX)
        except OriginalChanged:
            self.withdraw(picture)
            raise
        self._ledger.finish(picture.id, State.FAILED, reason)
        return moved

    def resume(self, picture: Picture) -> State:
        """Carry a row forward from what the folders really hold, after a kill or a failure of the surroundings.

        Returns:
            The state that the row has now.

        Raises:
            OSError: a folder is gone or full, still.
        """
        self._check_mounts()
        try:
            if picture.state is State.PUBLISHING and not self._resume_publishing(picture):
                self._ledger.finish(picture.id, State.WITHDRAWN, "the result was lost before it was delivered")
            elif picture.state is State.QUARANTINING:
                self._resume_quarantining(picture)
            elif picture.state in {State.PUBLISHING, State.ARCHIVING}:
                self._resume_archiving(self._ledger.picture(picture.id))
        except OriginalChanged:
            self.withdraw(picture)
        return self._ledger.picture(picture.id).state

    def put_back(self, failed: str) -> str:
        """Move a picture from `failed` back to where it was dropped.

        Args:
            failed: its path below `failed`.

        Returns:
            Its path below the inbox.

        Raises:
            OSError: it is not there, or a folder is gone or full.
        """
        source = os.path.join(self._folders.failed, failed)
        content = digest(source)
        row = self._ledger.reopen_failed(failed)
        subfolder, name = os.path.split(row.path if row else failed)
        subfolder = make_folders(self._folders.inbox, subfolder)
        folder = os.path.join(self._folders.inbox, subfolder)
        for candidate in candidate_names(name, content.sha256[:8], longest_name(folder)):
            target = os.path.join(folder, candidate)
            try:
                publish_across(source, target, hidden_name(target, 0, content.sha256))
            except FileExistsError:
                continue
            break
        fsync_folder(folder)
        with contextlib.suppress(FileNotFoundError):
            os.unlink(source + REASON_SUFFIX)
        return os.path.join(subfolder, candidate)

    def is_unchanged(self, picture: Picture) -> bool:
        """Whether the original still lies where it was dropped, as it was read."""
        return self._originals.is_unchanged(picture)

    def _check_mounts(self) -> None:
        for mount in self._mounts:
            mount.check()

    def _sweep_shelf(self) -> None:
        """Remove what workers left for pictures that are done or gone; a late one then finds no place to leave more."""
        folder = os.path.join(self._folders.outbox, STAGING, shelf.FOLDER)
        if os.path.isdir(folder):
            shelf.sweep(folder, {content_key(row.sha256, row.recipe) for row in self._ledger.open_rows()})

    # Publishing

    def _publish(self, picture: Picture, staged: Staged, *, reused: bool) -> str:
        subfolder, name = os.path.split(picture.path)
        if _canonical_extension(name) != staged.extension:
            name = os.path.splitext(name)[0] + staged.extension
        subfolder = make_folders(self._folders.outbox, subfolder)
        folder = os.path.join(self._folders.outbox, subfolder)
        for candidate in candidate_names(name, picture.sha256[:8], longest_name(folder)):
            relative = os.path.join(subfolder, candidate)
            target = os.path.join(folder, candidate)
            # The same picture dropped again under the same name: its result is already there.
            present = is_taken(target)
            if present and not _is_same(target, staged.sha256):
                continue
            self._ledger.intend_publish(
                picture.id, staged.path, relative, staged.sha256, staged.size, reused=reused or present
            )
            made_from = Provenance(picture.sha256, picture.recipe, staged.sha256)
            if present:
                provenance.mark_anew(target, made_from)
                os.unlink(staged.path)
                return relative
            provenance.mark(staged.path, made_from)
            try:
                # across: a subfolder of the outbox may be a mount of its own
                publish_across(staged.path, target, hidden_name(target, picture.id, picture.sha256))
            except FileExistsError:
                continue
            provenance.mark_anew(target, made_from)  # a copy to another file system left it behind
            return relative
        raise AssertionError("candidate_names never ends")

    def _resume_publishing(self, picture: Picture) -> bool:
        """Whether the result is published now; False when it is lost and must be made again."""
        staged, sha256 = picture.staged_path or "", picture.result_sha256 or ""
        target = os.path.join(self._folders.outbox, picture.result_path or "")
        if holds(target, sha256):
            with contextlib.suppress(FileNotFoundError):
                os.unlink(staged)
            return True
        if holds(staged, sha256):
            if not self._originals.is_unchanged(picture):
                raise OriginalChanged(picture.path)
            there = look_at(target)
            if there is not None and there.size == 0:
                os.replace(staged, target)  # the placeholder of a file system without links: see filesystem.publish
                fsync_folder(os.path.dirname(target))
            else:
                size = picture.result_bytes or 0
                self._publish(picture, Staged(staged, sha256, size), reused=picture.reused)
            return True
        # The staged file leaves its folder by the rename only: it was published, and somebody took the result.
        return not is_taken(staged) and os.path.isdir(os.path.dirname(staged))

    # Moving originals

    def _archive(self, picture: Picture) -> None:
        def intend(target: str) -> None:
            self._ledger.intend_archive(picture.id, target)

        with contextlib.suppress(OriginalChanged):  # replaced since its result was published: a new picture
            if self._originals.is_unchanged(picture):  # a look, so that a new picture is not moved to and fro
                self._originals.move(picture, self._folders.archive, intend)
        self._ledger.finish(picture.id, State.DONE)

    def _resume_archiving(self, picture: Picture) -> None:
        if picture.state is State.PUBLISHING or not self._originals.resume(picture, self._folders.archive):
            self._archive(picture)
        else:
            self._ledger.finish(picture.id, State.DONE)

    def _resume_quarantining(self, picture: Picture) -> None:
        if self._originals.resume(picture, self._folders.failed):
            self._write_reason(picture, picture.moved_path or "", picture.reason)
            self._ledger.finish(picture.id, State.FAILED, picture.reason)
            return
        self._remove_reason(picture)
        self.quarantine(picture, picture.reason)

    # Helpers

    def withdraw(self, picture: Picture) -> None:
        """Close the row of a picture whose original changed or left the inbox, and remove what we made of it.

        Raises:
            OSError: the folders do not answer.
        """
        row = self._ledger.picture(picture.id)
        if row.state is State.ARCHIVING:
            self._ledger.finish(row.id, State.DONE, "the original left the inbox by another hand")
            return
        self._remove_reason(row)
        # Before the staged result goes: an open row without it means that it was published, see _resume_publishing.
        self._ledger.finish(row.id, State.WITHDRAWN, "the original changed or left the inbox")
        with contextlib.suppress(FileNotFoundError):
            if row.staged_path:
                os.unlink(row.staged_path)

    def _remove_reason(self, row: Picture) -> None:
        """Remove a reason that was written after the intent, before a move that did not happen."""
        if row.state is State.QUARANTINING and row.moved_path:
            reason_file = os.path.join(self._folders.failed, row.moved_path + REASON_SUFFIX)
            for path in (reason_file, _unfinished_reason(reason_file, row)):
                with contextlib.suppress(FileNotFoundError):
                    os.unlink(path)

    def _write_reason(self, picture: Picture, target: str, reason: str) -> None:
        path = os.path.join(self._folders.failed, target + REASON_SUFFIX)
        hidden = _unfinished_reason(path, picture)
        there = look_at(path)
        if there is not None and there.size > 0:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(hidden)  # its second name, where a killed `publish` linked it
            return
        write_file(hidden, _reason_text(picture, reason))
        if there is None:
            publish(hidden, path)
        else:
            os.replace(hidden, path)  # the placeholder of a file system without links: see filesystem.publish


def _is_same(target: str, sha256: str) -> bool:
    """Whether a file that has our result's name is our result; one that we may not read is somebody else's."""
    try:
        return holds(target, sha256)
    except PermissionError:
        return False


# Other spellings of an extension: a result keeps the one of its original.
_SPELLINGS = {
    **dict.fromkeys((".jpeg", ".jpe", ".jfif"), ".jpg"),
    ".tif": ".tiff",
    ".dib": ".bmp",
    **dict.fromkeys((".heif", ".hif"), ".heic"),
}


def _canonical_extension(path: str) -> str:
    extension = os.path.splitext(path)[1].lower()
    return _SPELLINGS.get(extension, extension)


def _unfinished_reason(reason_file: str, picture: Picture) -> str:
    """Where a reason is written. Not under the name that its original has on its way: recovery would take it for it."""
    return hidden_name(reason_file, picture.id, "reason")


def _reason_text(picture: Picture, reason: str) -> str:
    return (
        f"{display(picture.path)} could not be enlarged.\n\n"
        f"Why:     {reason}\n"
        f"When:    {time.strftime('%Y-%m-%d %H:%M:%S %z')}\n"
        f"SHA-256: {picture.sha256}\n"
        f"By:      dropscale {__version__}\n\n"
        "What to do: drop a repaired picture into the inbox, or, when the cause is gone, put this one back with\n"
        "`dropscale retry`. The picture beside this note is untouched.\n"
    )
