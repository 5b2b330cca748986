"""Whether a watcher is at work and able to: for container checks, which want an answer soon, whatever hangs.

A share that died lets everything that touches it wait, often beyond any signal. So all of this is asked by a child
process, which is left behind if it does not answer. It looks at the state folder first: that one is local, and a
watcher that hangs on its inbox shows there.
"""

import contextlib
import os
import select
import sqlite3
import time
from collections.abc import Callable, Mapping
from typing import Never

import msgspec

from watcher.errors import DropscaleError
from watcher.files.mounted import has_lost_its_share
from watcher.files.mounts import no_room
from watcher.files.names import display
from watcher.files.names import told as told_error
from watcher.instance import is_running, stranger
from watcher.ledger import FILE_NAME
from watcher.operation.vitals import last_beat
from watcher.rows import State
from watcher.schema import connect_to_read
from watcher.sections import Config

ANSWER_SECONDS = 2.0
STALE_SECONDS = 60.0  # of a heartbeat that comes every vitals.BEAT_SECONDS
_MISSED_RESCANS = 3
_LEAST_RESCAN_SECONDS = 60.0
_LEDGER_SECONDS = 0.5  # a transaction is shorter
_MOST_BYTES = 1 << 16


class Health(msgspec.Struct, frozen=True):
    """What a check found: `why` is one line; `code` is 0 if all is well, else what the command exits with."""

    code: int
    why: str
    remedy: str = ""


class Unhealthy(Exception):
    """The watcher is not at work, or cannot work; the message says why."""


def check(load: Callable[[], Config], unhealthy: int) -> Health:
    """Look at the watcher of a config, for no longer than about ANSWER_SECONDS.

    Args:
        load: reads the config, which may lie on a share, too.
        unhealthy: the exit code for that.
    """
    if not hasattr(os, "fork"):  # Windows gives up on a dead share by itself
        return _examine(load, unhealthy, lambda _doing: None)
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(reading)
        _answer(writing, lambda told: _examine(load, unhealthy, told))
    os.close(writing)
    heard = _hear(reading, time.monotonic() + ANSWER_SECONDS)
    os.close(reading)
    *_, last = heard or ["looking"]
    if last.startswith("{"):
        os.waitpid(child, 0)
        return msgspec.json.decode(last, type=Health)
    return Health(unhealthy, f"no answer within {ANSWER_SECONDS:g} s while {last}")


def _answer(writing: int, examine: Callable[[Callable[[str], None]], Health]) -> Never:
    """The child: tells what it is doing, and in the end what it found, line by line; it never returns."""
    # who waits for the end of the command's output must not wait for this process
    nowhere = os.open(os.devnull, os.O_RDWR)
    for descriptor in (0, 1, 2):
        os.dup2(nowhere, descriptor)

    def told(line: str) -> None:
        os.write(writing, line.replace("\n", " ").encode("utf-8", "backslashreplace") + b"\n")

    try:
        told(msgspec.json.encode(examine(told)).decode())
    finally:
        os._exit(0)


def _hear(reading: int, until: float) -> list[str]:
    """The child's lines, until it has ended or the time has come."""
    heard = b""
    while (left := until - time.monotonic()) > 0 and select.select([reading], [], [], left)[0]:
        block = os.read(reading, _MOST_BYTES)
        if not block:
            break
        heard += block
    return heard.decode("utf-8", "replace").splitlines()


def _examine(load: Callable[[], Config], unhealthy: int, told: Callable[[str], None]) -> Health:
    try:
        told("reading the config")
        return Health(0, display(_look(load(), told)))
    except Unhealthy as error:
        return Health(unhealthy, display(str(error)))
    except DropscaleError as error:
        return Health(error.exit_code, error.message, error.remedy)
    except OSError as error:
        return Health(unhealthy, told_error(error))
    except Exception as error:  # the child has nobody else to tell
        return Health(unhealthy, f"{type(error).__name__}: {error}")


def _look(config: Config, told: Callable[[str], None]) -> str:
    """How the watcher is, if it is well.

    Raises:
        Unhealthy: it is not.
    """
    folders, now = config.folders, time.time()
    told(f"looking into the state folder {folders.state}")
    if not is_running(folders.state):
        raise Unhealthy(stranger(folders.inbox) or "no watcher is running: start `dropscale run`")
    notes, waiting = _ledger(os.path.join(folders.state, FILE_NAME))
    beat = last_beat(folders.state)
    if beat is None:
        raise Unhealthy("a watcher was started, and has not begun to watch yet")
    if problem := hanging(beat, notes, now):
        raise Unhealthy(problem)
    if _is_stale(beat, now):
        raise Unhealthy("a watcher was started, and has not begun to watch yet")
    if notes.get("watching", "yes") != "yes":
        raise Unhealthy(f"watching is {notes['watching']}")
    looked = now - float(notes.get("last_reconcile", 0))
    if looked > _MISSED_RESCANS * max(config.watch.rescan_seconds, _LEAST_RESCAN_SECONDS):
        raise Unhealthy(
            f"the inbox was looked through {looked:.0f} s ago: watch.rescan_seconds is {config.watch.rescan_seconds:g}"
        )
    for key in ("state", "inbox", "outbox", "archive", "failed"):
        folder = getattr(folders, key)
        told(f"looking at folders.{key}: {folder}")
        if not os.path.isdir(folder):
            raise Unhealthy(f"folders.{key}: {folder} is not there")
        if has_lost_its_share(key, folder, notes):
            raise Unhealthy(f"folders.{key}: {folder}: its share is not mounted")
        if key != "inbox" and (lack := no_room(folder)):  # nothing of ours is written there
            raise Unhealthy(f"folders.{key}: {folder}: {lack}")
    trouble = f", {waiting} waiting for the surroundings" if waiting else ""
    return f"watching {folders.inbox}, looked through it {max(looked, 0):.0f} s ago{trouble}"


def hanging(beat: float, notes: Mapping[str, str], now: float) -> str:
    """That a watcher which holds the lock hangs, by its last heartbeat (Unix time); empty if that cannot be said."""
    if not _is_stale(beat, now) or beat < float(notes.get("started_at", 0)):  # it was an earlier one's
        return ""
    return f"the watcher hangs, or a share that it looks at: no sign of life for {now - beat:.0f} s"


def _is_stale(beat: float, now: float) -> bool:
    return abs(now - beat) > STALE_SECONDS  # a clock that was set makes it young or old until the next beat


def _ledger(path: str) -> tuple[dict[str, str], int]:
    """What the watcher noted, and how many pictures wait for their surroundings."""
    try:
        with contextlib.closing(connect_to_read(path, _LEDGER_SECONDS)) as connection:
            notes = dict(connection.execute("SELECT key, value FROM notes"))
            sql = "SELECT COUNT(*) FROM pictures WHERE state = ? AND trouble <> ''"
            ((waiting,),) = connection.execute(sql, (State.WAITING,))
    except sqlite3.Error as error:
        raise Unhealthy(f"the ledger {path} cannot be read: {error}") from error
    return notes, waiting
