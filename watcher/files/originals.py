"""Move originals out of the inbox, so that a kill at any instruction leaves each whole in one known place.

Beneath `delivery`, and used by it alone. Between file systems a move is: copy to a hidden name, sync, read back,
publish, take the source to a hidden name, look again, remove it.
"""

import contextlib
import errno
import os
from collections.abc import Callable

from watcher.files.filesystem import (
    copy_file,
    fsync_folder,
    holds,
    is_taken,
    look_at,
    make_folders,
    publish,
    publish_across,
    rename_noreplace,
    writer_present,
)
from watcher.files.names import candidate_names, hidden_name, longest_name
from watcher.rows import Picture


class OriginalChanged(Exception):
    """The file in the inbox is not, or no longer, the one that was read: it is left alone, as a new picture."""


class Originals:
    """The originals of one inbox."""

    def __init__(self, inbox: str) -> None:
        self._inbox = inbox

    def source(self, picture: Picture) -> str:
        """Where the original was dropped."""
        return os.path.join(self._inbox, picture.path)

    def is_unchanged(self, picture: Picture) -> bool:
        """Whether the original still lies where it was dropped, as it was read.

        Here ctime counts: some editors rewrite a file in place and set its mtime back.
        """
        source = self.source(picture)
        there = look_at(source)
        if there is None or writer_present(source):
            return False
        return there == picture.identity or holds(source, picture.sha256)

    def move(self, picture: Picture, root: str, intend: Callable[[str], None], beside: str | None = None) -> str:
        """Move the original below `root`, to a name that is free (and free with `beside` added); returns it."""
        subfolder, name = os.path.split(picture.path)
        subfolder = make_folders(root, subfolder)
        folder = os.path.join(root, subfolder)
        longest = longest_name(folder) - len(beside or "")
        for candidate in candidate_names(name, picture.sha256[:8], longest):
            target = os.path.join(folder, candidate)
            if is_taken(target) or (beside and is_taken(target + beside)):
                continue
            intend(os.path.join(subfolder, candidate))
            try:
                self._move_to(picture, target)
            except FileExistsError:
                continue
            return os.path.join(subfolder, candidate)
        raise AssertionError("candidate_names never ends")

    def _move_to(self, picture: Picture, target: str) -> None:
        source = self.source(picture)
        hidden = hidden_name(target, picture.id, picture.sha256)
        if not self.is_unchanged(picture):
            raise OriginalChanged(picture.path)
        try:
            try:
                rename_noreplace(source, target)
                arrived = target
            except OSError as error:
                if error.errno != errno.ENOTSUP:
                    raise
                # No exclusive rename here. Never link and unlink: the name unlinked may be a new file by then.
                os.rename(source, hidden)
                arrived = hidden
        except FileNotFoundError:
            if is_taken(source):
                raise  # it is the target's folder that is gone
            raise OriginalChanged(picture.path) from None
        except OSError as error:
            if error.errno != errno.EXDEV:
                raise
            self._copy_across(picture, source, hidden, target)
            return
        if not self._is_original(arrived, picture):
            self._put_aside(arrived, picture)
            raise OriginalChanged(picture.path)
        if arrived == hidden:
            try:
                publish(hidden, target)
            except FileExistsError:
                self._put_aside(hidden, picture)
                raise
        fsync_folder(os.path.dirname(target))
        fsync_folder(os.path.dirname(source))

    def _copy_across(self, picture: Picture, source: str, hidden: str, target: str) -> None:
        """Between file systems: copy, sync, read back, publish; only then remove the source."""
        copied = copy_file(source, hidden)
        if copied != picture.sha256:
            os.unlink(hidden)
            raise OriginalChanged(picture.path)
        if not holds(hidden, picture.sha256):
            os.unlink(hidden)
            raise OSError(errno.EIO, "the copy is not what was written", target)
        try:
            publish(hidden, target)
        except FileExistsError:
            os.unlink(hidden)
            raise
        self._remove_original(picture, source)

    def _remove_original(self, picture: Picture, source: str) -> None:
        """Remove a file whose copy is archived; take it out of everybody's reach first, and look again."""
        taken = hidden_name(source, picture.id, picture.sha256)
        os.rename(source, taken)
        self._remove_taken(picture, taken)
        fsync_folder(os.path.dirname(source))

    def _remove_taken(self, picture: Picture, taken: str) -> None:
        # The only place that removes an original for good: here nothing but the content counts.
        if not writer_present(taken) and holds(taken, picture.sha256):
            os.unlink(taken)
        else:
            self._put_aside(taken, picture)

    def _put_aside(self, path: str, picture: Picture) -> None:
        """Give a file that was not ours to move its name in the inbox back, or the nearest free one."""
        subfolder, name = os.path.split(picture.path)
        subfolder = make_folders(self._inbox, subfolder)  # people tidy up folders that became empty
        folder = os.path.join(self._inbox, subfolder)
        for candidate in candidate_names(name, picture.sha256[:8], longest_name(folder)):
            target = os.path.join(folder, candidate)
            try:
                publish_across(path, target, hidden_name(target, picture.id, "aside"))
            except FileExistsError:
                continue
            return

    def resume(self, picture: Picture, root: str) -> bool:
        """Finish a move whose intent is in the ledger; False when the original still lies in the inbox.

        Raises:
            OriginalChanged: it is nowhere: somebody took it out of the inbox, or replaced it.
        """
        source = self.source(picture)
        target = os.path.join(root, picture.moved_path or "")
        arrived = holds(target, picture.sha256)
        self._resume_removal(picture, source, arrived=arrived)
        if arrived:
            moved = look_at(target)
            by_copy = moved is None or not moved.same_after_rename(picture.identity)
            if by_copy and self._is_still(picture, source):
                self._remove_original(picture, source)
            self._drop_second_name(picture, target)
            return True
        if self._resume_hidden(picture, source, target):
            return True
        if self.is_unchanged(picture):
            return False
        there = look_at(target) if picture.moved_path else None
        if there is not None and there.device == self._device_of(source):
            # The rename took a file that had just replaced the original, and was killed before it looked again.
            self._put_aside(target, picture)
        raise OriginalChanged(picture.path)

    def _resume_removal(self, picture: Picture, source: str, *, arrived: bool) -> None:
        taken = hidden_name(source, picture.id, picture.sha256)
        if look_at(taken) is not None:
            if arrived:
                self._remove_taken(picture, taken)
            else:
                self._put_aside(taken, picture)

    def _resume_hidden(self, picture: Picture, source: str, target: str) -> bool:
        """Publish what lies hidden beside the target, if it is the original; else put it back, or drop our copy."""
        hidden = hidden_name(target, picture.id, picture.sha256)
        there = look_at(hidden)
        if there is None:
            return False
        if self.is_unchanged(picture):
            os.unlink(hidden)  # a copy: an original that was renamed would not be in the inbox any more
            return False
        if holds(hidden, picture.sha256):
            with contextlib.suppress(FileExistsError):
                _publish_over_placeholder(hidden, target)
                return True
        elif there.device != self._device_of(source):
            os.unlink(hidden)  # an unfinished copy
            return False
        self._put_aside(hidden, picture)
        return False

    def _drop_second_name(self, picture: Picture, target: str) -> None:
        """Remove what a kill between the two halves of `filesystem.publish` by link left: the target is there."""
        hidden = hidden_name(target, picture.id, picture.sha256)
        if holds(hidden, picture.sha256):
            os.unlink(hidden)

    def _device_of(self, source: str) -> int:
        try:
            return os.stat(os.path.dirname(source)).st_dev
        except (FileNotFoundError, NotADirectoryError):
            return os.stat(self._inbox).st_dev  # its subfolder was tidied up

    def _is_still(self, picture: Picture, source: str) -> bool:
        """Whether the very file that was read, not another of the same content, still lies in the inbox."""
        there = look_at(source)
        return there is not None and there.same_after_rename(picture.identity) and self.is_unchanged(picture)

    def _is_original(self, path: str, picture: Picture) -> bool:
        """Whether `path` still is what was read, and nobody is writing to it."""
        there = look_at(path)
        if there is None or writer_present(path):
            return False
        # Some FUSE and SMB servers make up inode numbers as they go: then the content decides.
        return there.same_after_rename(picture.identity) or holds(path, picture.sha256)


def _publish_over_placeholder(hidden: str, target: str) -> None:
    """Publish, also over the empty file that a killed `filesystem.publish` left where there are no links.

    Raises:
        FileExistsError: another file has that name.
    """
    try:
        publish(hidden, target)
    except FileExistsError:
        there = look_at(target)
        if there is None or there.size > 0:
            raise
        os.replace(hidden, target)
        fsync_folder(os.path.dirname(target))
