"""The tables of the ledger, version by version."""

import os
import re
import sqlite3
import time
import urllib.parse

from watcher.errors import LedgerError, LedgerLost

# One script a version, applied in order; `PRAGMA user_version` counts those that were. Never edit one that was
# released: add the next.
MIGRATIONS = (
    """
    CREATE TABLE batches (
        id            INTEGER PRIMARY KEY,
        started_at    REAL NOT NULL,        -- Unix time, as all *_at
        finished_at   REAL,
        closed_by     TEXT NOT NULL,        -- why the window closed
        pictures      INTEGER NOT NULL
    );
    CREATE TABLE pictures (
        id            INTEGER PRIMARY KEY,
        batch         INTEGER REFERENCES batches,
        path          BLOB NOT NULL,        -- below the inbox, the bytes of the file system
        device        TEXT NOT NULL,        -- text, because SQLite's integers end at 63 bits
        inode         TEXT NOT NULL,
        size          INTEGER NOT NULL,
        mtime_ns      TEXT NOT NULL,        -- a file's time may lie beyond the year 2262, too
        ctime_ns      TEXT NOT NULL,
        sha256        TEXT NOT NULL,
        recipe        TEXT NOT NULL,        -- model and settings; the same content and recipe give the same result
        state         TEXT NOT NULL,
        attempts      INTEGER NOT NULL DEFAULT 0,   -- engines that it took down, alone
        waits         INTEGER NOT NULL DEFAULT 0,   -- times in a row that the surroundings failed
        not_before    REAL NOT NULL DEFAULT 0,
        reason        TEXT NOT NULL DEFAULT '',     -- what is wrong with the picture
        trouble       TEXT NOT NULL DEFAULT '',     -- what is wrong with the surroundings
        suspected_at  REAL,                 -- first time that this content could not be decoded
        staged_path   BLOB,                 -- absolute
        result_path   BLOB,                 -- below the outbox
        result_sha256 TEXT,
        result_bytes  INTEGER,
        moved_path    BLOB,                 -- below the archive, or below `failed`
        reused        INTEGER NOT NULL DEFAULT 0,
        created_at    REAL NOT NULL,
        changed_at    REAL NOT NULL
    );
    CREATE UNIQUE INDEX one_open_row ON pictures (path) WHERE state NOT IN ('done', 'failed', 'withdrawn');
    CREATE INDEX by_content ON pictures (sha256, recipe) WHERE state IN ('done', 'archiving');
    CREATE INDEX by_state ON pictures (state, changed_at);
    CREATE TABLE engine_runs (
        id            INTEGER PRIMARY KEY,
        batch         INTEGER REFERENCES batches,
        pid           INTEGER NOT NULL,
        spawned_at    REAL NOT NULL,
        ready_at      REAL,
        exited_at     REAL,                 -- reaped: its memory is returned
        exit_code     INTEGER,              -- negative: the signal that ended it
        runtime       TEXT,
        device        TEXT,
        precision     TEXT,
        model         TEXT NOT NULL,
        done          INTEGER NOT NULL DEFAULT 0,
        failed        INTEGER NOT NULL DEFAULT 0,
        peak_memory_bytes INTEGER
    );
    CREATE TABLE notes (
        key           TEXT PRIMARY KEY,     -- what the running watcher tells `status`
        value         TEXT NOT NULL
    ) WITHOUT ROWID;
    """,
    """
    ALTER TABLE engine_runs ADD COLUMN host TEXT NOT NULL DEFAULT '';
    ALTER TABLE engine_runs ADD COLUMN held_from REAL;          -- when it first could hold its device
    ALTER TABLE engine_runs ADD COLUMN spawn_seconds REAL;      -- the parts of its time, see accounting.meter
    ALTER TABLE engine_runs ADD COLUMN load_seconds REAL;
    ALTER TABLE engine_runs ADD COLUMN compute_seconds REAL;
    ALTER TABLE engine_runs ADD COLUMN idle_seconds REAL;
    ALTER TABLE engine_runs ADD COLUMN exit_seconds REAL;
    ALTER TABLE engine_runs ADD COLUMN energy_joules REAL;      -- of its device meanwhile, where that can be measured
    ALTER TABLE pictures ADD COLUMN arrived_at REAL;            -- when it was seen to be whole
    DROP INDEX by_state;
    CREATE INDEX by_end ON pictures (state, changed_at, reused);
    CREATE INDEX by_arrival ON pictures (arrived_at, reused) WHERE arrived_at IS NOT NULL;
    CREATE INDEX by_spawn ON engine_runs (spawned_at);
    CREATE INDEX by_start ON batches (started_at);
    """,
    """
    ALTER TABLE engine_runs ADD COLUMN held_by TEXT NOT NULL DEFAULT 'wall';    -- who timed held_from: nvml or wall
    ALTER TABLE engine_runs ADD COLUMN device_peak_bytes INTEGER;   -- most of its device's memory, where that is told
    ALTER TABLE engine_runs ADD COLUMN release_seconds REAL;        -- from its end until that memory was back
    ALTER TABLE engine_runs ADD COLUMN unreleased_bytes INTEGER;    -- what was not, when nobody waited any more
    """,
    """
    CREATE TABLE warm_ups (     -- an engine that is held without work: until a batch takes it, or it is let go
        id            INTEGER PRIMARY KEY,
        run           INTEGER NOT NULL REFERENCES engine_runs,
        why           TEXT NOT NULL,        -- keep_warm, schedule, command
        wanted_at     REAL NOT NULL,        -- when that began: of one warm-up, in which several batches find an engine
        wanted_until  REAL NOT NULL,
        starts_engine INTEGER NOT NULL,     -- the engine was started for it, ahead of any batch
        began_at      REAL NOT NULL,
        ended_at      REAL,
        idle_seconds  REAL,                 -- of that, with the model loaded
        batch         INTEGER REFERENCES batches,   -- that took it
        spared_seconds REAL,                -- of a cold start, which each picture of that batch did not wait for
        pictures      INTEGER NOT NULL DEFAULT 0    -- of that batch, which the engine answered
    );
    CREATE INDEX by_begin ON warm_ups (began_at);
    """,
    """
    ALTER TABLE engine_runs ADD COLUMN remote TEXT;             -- a worker's own id of the run, see queue.remote_runs
    CREATE UNIQUE INDEX by_remote ON engine_runs (remote) WHERE remote IS NOT NULL;
    """,
)


_PATIENCE_SECONDS = 30.0
_MOST_VERSIONS = 1000  # what claims more was not written by a newer dropscale


def connect(path: str) -> sqlite3.Connection:
    """Open or create a ledger with the tables of this version; several processes may do so at the same moment.

    Raises:
        LedgerError: a newer dropscale wrote the ledger.
        sqlite3.Error: it is damaged, or cannot be written.
    """
    connection = sqlite3.connect(path, timeout=_PATIENCE_SECONDS, isolation_level=None, check_same_thread=False)
    try:
        _prepare(connection, path)
    except BaseException:
        connection.close()
        raise
    return connection


def connect_to_read(path: str, patience_seconds: float) -> sqlite3.Connection:
    """Open a ledger as it is, for one look: nothing is created, changed or waited for longer than that.

    Raises:
        sqlite3.Error: it is not there, or cannot be opened.
    """
    address = f"file:{urllib.parse.quote(os.fsencode(path))}?mode=ro"
    return sqlite3.connect(address, uri=True, timeout=patience_seconds, isolation_level=None)


def _prepare(connection: sqlite3.Connection, path: str) -> None:
    deadline = time.monotonic() + _PATIENCE_SECONDS
    while True:
        try:
            connection.execute("PRAGMA journal_mode=WAL")
            break
        except sqlite3.OperationalError as error:
            # SQLite does not wait for another process that does this very step
            if error.sqlite_errorcode & 0xFF != sqlite3.SQLITE_BUSY or time.monotonic() > deadline:
                raise
            time.sleep(0.01)
    # FULL: an intent must be on the disk before the rename that it announces.
    connection.execute("PRAGMA synchronous=FULL")
    connection.execute("PRAGMA foreign_keys=ON")
    _migrate(connection, path)


def _migrate(connection: sqlite3.Connection, path: str) -> None:
    if not 0 <= _version(connection) <= _MOST_VERSIONS:
        raise lost(f"the ledger {path} is damaged: it claims version {_version(connection)} of its tables")
    if _version(connection) > len(MIGRATIONS):
        raise LedgerError(
            f"the ledger {path} was written by a newer dropscale (version {_version(connection)} of its tables)",
            "install that version, or use another state folder",
        )
    for number in range(_version(connection), len(MIGRATIONS)):
        try:
            connection.executescript(
                f"BEGIN IMMEDIATE; {MIGRATIONS[number]} PRAGMA user_version = {number + 1}; COMMIT;"
            )
        except sqlite3.OperationalError:
            if connection.in_transaction:
                connection.rollback()
            if _version(connection) <= number:
                raise
            # another process was quicker


def _version(connection: sqlite3.Connection) -> int:
    return int(connection.execute("PRAGMA user_version").fetchone()[0])


def damage(connection: sqlite3.Connection) -> str:
    """What is wrong with the file as a whole; empty if it is sound.

    Raises:
        sqlite3.Error: it is too badly damaged to tell, or cannot be read.
    """
    tables = {name for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
    if missing := sorted({"batches", "pictures", "engine_runs", "notes", "warm_ups"} - tables):
        return f"the table {missing[0]} is missing"
    found: str = connection.execute("PRAGMA quick_check(1)").fetchone()[0]
    code = int(told[1]) if (told := re.search(r"error code[= ](\d+)", found)) else sqlite3.SQLITE_CORRUPT
    if code & 0xFF not in {sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB} and code != sqlite3.SQLITE_IOERR_SHORT_READ:
        raise sqlite3.OperationalError(found)  # it looked at a disk that stumbles: the file may be sound
    return "" if found == "ok" else found


# What SQLite says of damage under the general code SQLITE_ERROR.
_SAID_OF_DAMAGE = re.compile(
    "Could not decode to UTF-8|unsupported file format|already exists|duplicate column|no such (table|column)"
)


def fault(error: sqlite3.Error, doing: str) -> LedgerError:
    """An error of SQLite as ours; one that says that the file is no ledger any more is a LedgerLost."""
    name = getattr(error, "sqlite_errorname", None) or ""
    if name.startswith(("SQLITE_CORRUPT", "SQLITE_NOTADB")) or _SAID_OF_DAMAGE.search(str(error)):
        return lost(f"{doing}: {error}")
    return LedgerError(
        f"{doing}: {error}", "free space on its disk, and see that this user may write to the state folder"
    )


def lost(problem: str) -> LedgerLost:
    """The ledger is of no use any more."""
    return LedgerLost(problem, "start dropscale: it makes the ledger anew from the folders, and keeps a damaged one")
