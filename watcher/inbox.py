"""What lies in the inbox. Events are hints, a scan is the truth, and both go through one admission path.

Paths are relative to the inbox, as `str` with surrogate escapes. An empty listing never means that the pictures are
gone: nothing is concluded from a file that a scan did not find.
"""

import errno
import os
import threading
import time
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

from watcher.files import filesystem
from watcher.files.filesystem import Identity
from watcher.files.ignore import IgnoreRules
from watcher.files.mounted import MountPoint
from watcher.files.mounts import how_to_watch, mounts_below, read_mounts
from watcher.files.names import display
from watcher.files.settling import Settled, Settling
from watcher.journal import tell, warn
from watcher.sections import Watch

if TYPE_CHECKING:
    from watcher.files.observer import Observer

ROOT_CHECK_SECONDS = 2.0
_MOST_TOLD = 1000
_NO_WATCHES = "no watches are left for subfolders, see fs.inotify.max_user_watches"


class Inbox:
    """The inbox of a running watcher. All methods but `hint` belong to one thread; times are monotonic seconds."""

    def __init__(
        self,
        root: str,
        watch: Watch,
        engaged: Callable[[str, Identity], bool],
        wake: Callable[[], None],
    ) -> None:
        """Describe the inbox; nothing is watched before `arm`.

        Args:
            root: absolute path.
            watch: how to watch.
            engaged: whether a file of that path and identity is in work, or has to wait.
            wake: called from other threads when there is something to do.
        """
        self.root = root
        self.events_missed = 0
        self.last_reconcile = 0.0  # Unix time
        self.backend = "none"
        self._watch = watch
        self._rules = IgnoreRules(watch.ignore)
        self._engaged = engaged
        self._wake = wake
        self._settling = Settling(watch.settle_seconds, self._look_at, self._writer_present)
        self._observer: Observer | None = None
        self._armed_root: tuple[int, int] | None = None
        self._polled: list[str] = []  # folders below the root where events do not work; "" is all of it
        self._next_rescan = self._next_poll = self._next_root_check = 0.0
        self._by_rescan: set[str] = set()
        self._lock = threading.Lock()
        self._hints: set[str] = set()
        self._lost: str | None = None
        self._ignored: set[str] = set()
        self._unlisted: set[str] = set()
        self._mount = MountPoint(root)

    # Arming

    @property
    def armed(self) -> bool:
        """Whether the inbox is there and watched."""
        return self._armed_root is not None

    def arm(self, now: float, *, observe: bool = True) -> None:
        """Begin to watch, and look through the whole inbox; without `observe`, only look.

        Raises:
            OSError: the inbox is not there.
        """
        self.disarm()
        identity = self._root_identity()
        if observe:
            self._choose_backend()
        self._armed_root = identity
        self._next_root_check = now + ROOT_CHECK_SECONDS
        self.reconcile(now, first=True)

    def disarm(self) -> None:
        """Stop watching and forget what was being watched; `arm` finds it again."""
        if self._observer is not None:
            self._observer.stop()
            self._observer = None
        self._armed_root = None
        self._settling.clear()
        self._by_rescan.clear()
        with self._lock:
            self._hints.clear()
            self._lost = None

    def check_root(self, now: float) -> bool:
        """Whether the inbox is there; arms, pauses or arms anew when it came, went, or is another folder now."""
        if now < self._next_root_check:
            return self.armed
        self._next_root_check = now + ROOT_CHECK_SECONDS
        try:
            identity = self._root_identity()
        except OSError as error:
            if self.armed:
                reason = error.strerror or str(error)
                text = "the inbox {inbox} is gone ({reason}): waiting for it"
                warn("paused", text, inbox=display(self.root), reason=reason)
                self.disarm()
            return False
        if identity == self._armed_root:
            if self._observer is not None and not self._observer.is_alive():
                self._fall_back_to_polling("the observer stopped", now)
            return True
        try:
            known = self.armed
            self.arm(now)
        except OSError:
            return False
        again = "is another folder now" if known else "is there"
        text, root = "the inbox {inbox} {again}: {backend}", display(self.root)
        tell("armed", text, inbox=root, again=again, backend=self.backend)
        return True

    # Admission

    def hint(self, path: str) -> None:
        """Something happened at this absolute path (from any thread)."""
        with self._lock:
            first = not self._hints
            self._hints.add(path)
        if first:
            self._wake()

    def admit(self, path: str, now: float, *, announced: bool) -> None:
        """The one way in: begin to watch a file until it is whole, unless it is ignored or in work."""
        if (ignored := self._rules.reason(path)) is not None:
            self._tell_ignored(path, ignored)
            return
        try:
            identity = self._look_at(path)
        except OSError:
            return  # the share stumbles: the next scan looks again
        if identity is not None and not self._engaged(path, identity):
            if not announced and path not in self._settling:
                self._by_rescan.add(path)
            # not `now`, which was before a listing that may take long on a share
            self._settling.add(path, identity, max(now, time.monotonic()), announced=announced)

    def _tell_ignored(self, path: str, reason: str) -> None:
        """Say once that a file of another kind is left alone; of clients' temporary files nobody wants to hear."""
        if reason.startswith("not a picture") and path not in self._ignored and len(self._ignored) < _MOST_TOLD:
            self._ignored.add(path)
            tell("ignored", "{path} is left alone: {reason}", path=display(path), reason=reason)

    def take_hints(self, now: float) -> None:
        """Admit what events told of; scan the folders among it."""
        with self._lock:
            hints, self._hints = self._hints, set()
            lost, self._lost = self._lost, None
        folders_came = False
        for hint in hints:
            path = os.path.relpath(hint, self.root)
            if path.startswith(os.pardir):
                continue  # moved out
            if os.path.isdir(hint) and not os.path.islink(hint):
                folders_came = True
                if self._watch.recursive or path == os.curdir:
                    for found in self._files_below("" if path == os.curdir else path):
                        self.admit(found, now, announced=True)
            else:
                self.admit(path, now, announced=True)
        if folders_came and self._observer is not None and self._watch.recursive and self._observer.is_out_of_watches():
            self._fall_back_to_polling(_NO_WATCHES, now)
        if lost is not None:
            warn("events_lost", "events were lost ({reason}): looking through the inbox", reason=lost)
            self.reconcile(now, first=True)

    def reconcile(self, now: float, *, first: bool = False) -> None:
        """Look through the whole inbox; on a `first` look, files that no event announced are no surprise."""
        for path in self._files_below(""):
            self.admit(path, now, announced=first or self._is_polled(path))
        self.last_reconcile = time.time()
        now = time.monotonic()  # a share may take longer to list than its polling is apart
        self._next_rescan = now + self._watch.rescan_seconds
        self._next_poll = now + self._watch.poll_seconds

    def rescan_if_due(self, now: float) -> bool:
        """Reconcile when it is time, wholly or where events do not work; whether it was whole."""
        if now >= self._next_rescan:
            self.reconcile(now)
            return True
        if self._polled and now >= self._next_poll:
            for folder in self._polled:
                for path in self._files_below(folder):
                    self.admit(path, now, announced=True)
            self._next_poll = time.monotonic() + self._watch.poll_seconds
        return False

    def settled(self, now: float) -> Iterator[Settled]:
        """The files that are whole by now."""
        missed = 0
        for settled in self._settling.look(now):
            by_rescan = settled.path in self._by_rescan
            self._by_rescan.discard(settled.path)
            missed += by_rescan and not settled.announced
            yield settled
        if missed:
            self.events_missed += missed
            self._fall_back_to_polling(f"{missed} pictures came without an event", now)

    def identity(self, path: str) -> Identity | None:
        """What the file looks like now; None when it is gone or its share does not answer."""
        try:
            return self._look_at(path)
        except OSError:
            return None

    def is_gone(self, path: str) -> bool:
        """Whether the inbox answers that there is no such file: an error is no answer."""
        try:
            return self._look_at(path) is None
        except OSError:
            return False

    def unsettled(self) -> int:
        """How many files are being watched until they are whole."""
        return len(self._settling)

    def unsettled_since(self) -> float | None:
        """Since when the first of those is watched, monotonic seconds, or None."""
        return self._settling.oldest_since()

    def next_due(self) -> float:
        """When the next of all this has something to do."""
        times = [self._next_root_check]
        if self.armed:
            times.append(self._next_rescan)
            if self._polled:
                times.append(self._next_poll)
            if (look := self._settling.next_look()) is not None:
                times.append(look)
        return min(times)

    # Private

    def _choose_backend(self) -> None:
        mounts = read_mounts()
        below = [mount.point for mount in mounts_below(self.root, mounts)] if self._watch.recursive else []
        choices = {}
        for folder in [self.root, *below]:
            watching = how_to_watch(folder, mounts)
            polling = watching.polling if self._watch.backend == "auto" else self._watch.backend == "polling"
            why = watching.why if self._watch.backend == "auto" else f"watch.backend is {self._watch.backend}"
            choices[folder] = (polling, why)
        self._polled = [os.path.relpath(folder, self.root) for folder, (polling, _) in choices.items() if polling]
        polling, why = choices[self.root]
        if polling:
            self._polled = [""]
        else:
            recursive = self._watch.recursive
            from watcher.files.observer import Observer  # noqa: PLC0415 - a look without watching is quicker without it

            try:
                self._observer = Observer(self.root, recursive=recursive, hint=self.hint, lost=self._events_lost)
                self._observer.start()
                if recursive and self._observer.is_out_of_watches():
                    self._observer.stop()
                    raise OSError(errno.ENOSPC, _NO_WATCHES)
            except OSError as error:
                self._observer = None
                self._polled = [""]
                polling, why = True, f"no native events ({error.strerror}; see `dropscale doctor`)"
        self.backend = f"{'polling' if polling else 'native events'} ({why})"
        for folder in self._polled:
            if folder:
                self.backend += f"; polling {display(folder)} ({choices[os.path.join(self.root, folder)][1]})"

    def _fall_back_to_polling(self, reason: str, now: float) -> None:
        if self._polled == [""]:
            return
        if self._observer is not None:
            self._observer.stop()
            self._observer = None
        self._polled = [""]
        self._next_poll = now + self._watch.poll_seconds
        self.backend = f"polling ({reason})"
        warn("polling", "native events do not work here ({reason}): polling from now on", reason=reason)

    def _events_lost(self, reason: str) -> None:
        with self._lock:
            self._lost = reason
        self._wake()

    def _is_polled(self, path: str) -> bool:
        return any(not folder or path.startswith(folder + os.sep) for folder in self._polled)

    def _root_identity(self) -> tuple[int, int]:
        self._mount.check()
        status = os.stat(self.root)
        if not os.path.isdir(self.root):
            raise NotADirectoryError(errno.ENOTDIR, "not a folder", self.root)
        return status.st_dev, status.st_ino

    def _look_at(self, path: str) -> Identity | None:
        return filesystem.look_at(os.path.join(self.root, path))

    def _writer_present(self, path: str) -> bool | None:
        return filesystem.writer_present(os.path.join(self.root, path))

    def _files_below(self, folder: str) -> Iterator[str]:
        return files_below(self.root, folder, self._rules, self._tell_unlisted, recursive=self._watch.recursive)

    def _tell_unlisted(self, folder: str, error: OSError) -> None:
        """Say once that a folder cannot be read; the rest is looked through all the same."""
        if folder not in self._unlisted and len(self._unlisted) < _MOST_TOLD:
            self._unlisted.add(folder)
            shown = display(os.path.join(self.root, folder))
            warn("unreadable", "cannot look into {folder} ({why}): passing it over", folder=shown, why=error.strerror)


def files_below(
    root: str, folder: str, rules: IgnoreRules, unlisted: Callable[[str, OSError], None], *, recursive: bool
) -> Iterator[str]:
    """Paths, relative to `root`, of all that is no folder below `root/folder`; ignored folders are not entered.

    Folders that cannot be read are passed over, and told to `unlisted` with the reason.
    """
    pending = [folder]
    while pending:
        current = pending.pop()
        if current and rules.folder_reason(current) is not None:
            continue
        try:
            with os.scandir(os.path.join(root, current)) as entries:
                for entry in entries:
                    path = os.path.join(current, entry.name)
                    if not entry.is_dir(follow_symlinks=False):
                        yield path
                    elif recursive:
                        pending.append(path)
        except FileNotFoundError:
            continue  # removed since it was listed
        except OSError as error:
            unlisted(current, error)
