"""One watcher for a state folder, and for an inbox: locks of the kernel, which no crash can leave behind."""

import contextlib
import hashlib
import os
import platform
import socket
import sys
import time

from filelock import FileLock, Timeout

from watcher.errors import AlreadyRunning, EnvironmentFault, LedgerError
from watcher.files.mounts import how_to_watch, is_read_only, read_mounts
from watcher.files.names import display
from watcher.ledger import FILE_NAME as LEDGER_NAME
from watcher.ledger import Ledger

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

LOCK_NAME = "watcher.lock"
_PATIENCE_SECONDS = 1.0  # `status` holds the lock for an instant to see whether it is free


class InstanceLock:
    """Held by the watcher as long as it lives."""

    def __init__(self, state_folder: str) -> None:
        """Prepare the lock; creates the state folder.

        Raises:
            EnvironmentFault: the state folder cannot be created, or lies on a network file system.
        """
        self._state_folder = state_folder
        prepare_state_folder(state_folder)
        self._lock = FileLock(os.path.join(state_folder, LOCK_NAME))

    def acquire(self) -> None:
        """Take the lock.

        Raises:
            AlreadyRunning: another watcher holds it; the message says which.
        """
        try:
            self._lock.acquire(timeout=_PATIENCE_SECONDS)
        except Timeout:
            raise AlreadyRunning(f"another watcher is at work: {describe_holder(self._state_folder)}") from None

    def release(self) -> None:
        """Let it go."""
        self._lock.release()


class InboxClaim:
    """That no other watcher of this machine has the inbox, whatever its state folder: two would do each picture twice.

    A name in Linux's abstract namespace of sockets. A file in the inbox would be carried off by sync clients, and one
    that is held open there would keep its share from being unmounted. Containers with a network of their own, other
    machines and other systems don't see it.
    """

    def __init__(self) -> None:
        self._name = b""
        self._socket: socket.socket | None = None

    def take(self, inbox: str) -> None:
        """Claim this inbox, and let go of the one that was claimed before.

        Raises:
            EnvironmentFault: another watcher has it.
        """
        name = _claim_name(inbox)
        if sys.platform != "linux" or name == self._name:
            return
        claim = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        try:
            claim.bind(b"\0" + name)
        except OSError as error:
            claim.close()
            raise EnvironmentFault(
                f"another watcher has {display(inbox)}, with a state folder of its own",
                "stop one of the two, or give this command the same folders.state as that one has",
            ) from error
        self.release()
        self._name, self._socket = name, claim

    def release(self) -> None:
        """Let it go."""
        if self._socket is not None:
            self._socket.close()
        self._name, self._socket = b"", None


def stranger(inbox: str) -> str:
    """What to say of the watcher that has the inbox where none has the state folder; empty if there is none."""
    try:
        with open("/proc/net/unix", "rb") as file:
            is_claimed = b"@" + _claim_name(inbox) + b"\n" in file.read()
    except OSError:
        return ""
    return "the watcher of this inbox has another state folder: give folders.state as it has it" if is_claimed else ""


def _claim_name(inbox: str) -> bytes:
    return b"dropscale-inbox-" + hashlib.sha256(os.fsencode(os.path.realpath(inbox))).hexdigest().encode()


def prepare_state_folder(folder: str) -> None:
    """Create the state folder where that is safe.

    Raises:
        EnvironmentFault: it cannot be created, or lies on a network file system.
    """
    watching = how_to_watch(folder, read_mounts())
    if watching.polling:
        raise EnvironmentFault(
            f"folders.state: {folder} lies on a network file system ({watching.why.split(':')[0]}), where the locks of "
            "the ledger (SQLite) do not hold",
            "set folders.state to a folder on a local disk, for example /var/lib/dropscale",
        )
    try:
        os.makedirs(folder, exist_ok=True)
    except OSError as error:
        raise EnvironmentFault(
            f"folders.state: {folder} cannot be created ({error.strerror})", "set folders.state to a folder of yours"
        ) from error
    if not os.access(folder, os.R_OK | os.W_OK | os.X_OK):
        if is_read_only(folder):
            raise EnvironmentFault(
                f"folders.state: {folder} cannot be written, its file system is read-only",
                "remount it writable, or set folders.state",
            )
        raise EnvironmentFault(
            f"folders.state: {folder} cannot be written by this user", "change its owner, or set folders.state"
        )


def is_running(state_folder: str) -> bool:
    """Whether some watcher holds the lock.

    Raises:
        EnvironmentFault: this user may not look; then there is nothing to be said of it.
    """
    path = os.path.join(state_folder, LOCK_NAME)
    for place, mode in ((state_folder, os.X_OK), (path, os.R_OK)):
        if os.path.exists(place) and not os.access(place, mode):
            raise EnvironmentFault(
                f"folders.state: {place} cannot be read by this user, so nothing can be said of the watcher",
                "ask as the user whose watcher it is",
            )
    if not os.path.exists(path):
        return False
    lock = FileLock(path)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        return True
    except OSError:  # the file system became read-only
        return fcntl is not None and _is_held(path)
    lock.release()
    return False


def _is_held(path: str) -> bool:
    """Whether somebody holds a lock on a file that may not be written, in the way of filelock."""
    with open(path, "rb") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
    return False


def introduce(ledger: Ledger) -> None:
    """Note who holds the lock, for the next one that asks."""
    ledger.note(pid=str(os.getpid()), host=platform.node(), started_at=f"{time.time():.3f}")


def describe_holder(state_folder: str) -> str:
    """Who noted to hold the lock: `process 12 on host, since 2026-11-22 14:20:01`."""
    if not os.path.exists(os.path.join(state_folder, LEDGER_NAME)):
        return "it is just starting"
    try:
        with contextlib.closing(Ledger(state_folder)) as ledger:
            notes = ledger.notes()
    except LedgerError:
        notes = {}
    if "pid" not in notes:
        return "it is just starting"
    since = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(float(notes["started_at"])))
    return f"process {notes['pid']} on {notes['host']}, since {since}"
