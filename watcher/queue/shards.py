"""What watcher and workers say to each other through the queue: jobs and their reports. Pure, and all of it data.

A window is cut into shards; a shard is one job: a manifest of paths below the share, sizes and hashes. The worker
writes results onto the shelf (`watcher.queue.shelf`) and reports what became of each picture, by its place in the
manifest.
"""

import hashlib
import math
from collections.abc import Iterable, Sequence
from typing import Annotated, Any

import msgspec
from msgspec import Meta

from sr_engine import protocol
from sr_engine.models import Model
from watcher.sections import Engine, Limits

VERSION = 1
FUNCTION = "dropscale.shard"  # what a job is called; a worker does nothing that is called otherwise
RUNS_KEY = "dropscale:runs:{}"  # a hash for each job: engine runs by their id, as far as they have come

# Of the networks that come along the heaviest: see `watcher.engine.patience`.
_USUAL_MFLOP = 2.5
_ENSEMBLE = 8  # turned copies
UNKNOWN_PIXELS = 1_000_000

# What the ledger can hold and a calendar can show: whoever can write to Redis can claim anything.
_Moment = Annotated[float, Meta(ge=0, le=32_503_680_000)]  # Unix time; to the year 3000
_Amount = Annotated[float, Meta(ge=-1e12, le=1e12)]
_Whole = Annotated[int, Meta(ge=-(2**63), le=2**63 - 1)]


def named(host: str, worker: int) -> str:
    """A worker for a person: there may be several on one machine."""
    return f"{host}, worker process {worker}" if worker else host


class Entry(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One picture of a shard.

    Attributes:
        path: below the share (an encoded path).
        bytes, sha256: of the content that was claimed.
        key: names its result on the shelf.
        pixels: as its header says; what it says nothing of counts as a megapixel.
    """

    path: str
    bytes: int
    sha256: str
    key: str
    pixels: int = UNKNOWN_PIXELS


class Deadlines(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The watcher's patience with an engine, see `engine` in config.yaml; seconds."""

    start_seconds: float
    deadline_seconds: float
    deadline_seconds_per_megapixel: float
    grace_seconds: float


class Shard(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One job.

    Attributes:
        shelf: folder of the results, below the share (an encoded path). Where it is gone nobody waits for them.
        entries: the pictures.
        model: its name; model_digest: `digest_of` what the watcher calls so.
        ensemble, precision, output, limits: as in the watcher's config. Memory limits are each worker's own.
    """

    shelf: str
    entries: tuple[Entry, ...]
    model: str
    model_digest: str
    ensemble: bool
    precision: str
    output: protocol.Output
    limits: protocol.Limits
    deadlines: Deadlines
    v: int = VERSION

    @property
    def digest(self) -> str:
        """Names the job: the same pictures, asked for in the same way."""
        return hashlib.sha256(msgspec.json.encode(self)).hexdigest()[:24]


class Run(msgspec.Struct, frozen=True, kw_only=True):
    """One engine process on a worker, as far as it has come. Times `_at` are Unix time, of the worker's clock.

    Attributes:
        id: one of its own, for the ledger takes each run once.
        seen_at: its last sign of life.
        ended_at: None while it runs.
        alarm: what of the device's memory was not given back, in words.
        worker: process id of the worker; 0: not known.
        The others are those of `watcher.accounting.meter.Meter` and of `engine_runs`.
    """

    id: str
    host: str
    pid: _Whole
    model: str
    spawned_at: _Moment
    seen_at: _Moment
    ready_at: _Moment | None = None
    ended_at: _Moment | None = None
    held_from_at: _Moment | None = None
    exit_code: _Whole | None = None
    runtime: str | None = None
    device: str | None = None
    precision: str | None = None
    done: _Whole = 0
    failed: _Whole = 0
    peak_memory_bytes: _Whole = 0
    spawn_seconds: _Amount | None = None
    load_seconds: _Amount | None = None
    compute_seconds: _Amount | None = None
    idle_seconds: _Amount | None = None
    exit_seconds: _Amount | None = None
    held_by: str = "wall"
    energy_joules: _Amount | None = None
    device_peak_bytes: _Whole | None = None
    release_seconds: _Amount | None = None
    unreleased_bytes: _Whole | None = None
    alarm: str = ""
    worker: int = 0


class Trouble(msgspec.Struct, frozen=True):
    """An engine ended before it had answered everything: `watcher.engine.ends.EngineTrouble`, ids are places."""

    message: str
    in_work: tuple[int, ...]
    blames: bool
    stderr: str = ""
    is_told: bool = False


class Report(msgspec.Struct, frozen=True, kw_only=True):
    """What became of a shard.

    Attributes:
        host, worker: of the worker, its process id; 0: not known.
        answers: ids are places in the manifest. The target of a `Done` is a name on the shelf. Pictures without an
            answer were not done.
        runs: of engines.
        trouble: how the last engine ended, if not well.
        refused: why this worker cannot do such jobs at all; empty: it can.
        busy: it can, once others let go of its device.
        absent: it found no shelf: it came late, or has another share, which only who waits can tell.
    """

    host: str
    answers: tuple[protocol.Done | protocol.Failed, ...] = ()
    runs: tuple[Run, ...] = ()
    trouble: Trouble | None = None
    refused: str = ""
    busy: bool = False
    absent: bool = False
    worker: int = 0

    @property
    def worker_name(self) -> str:
        """Whose it is, for a person."""
        return named(self.host, self.worker)


def read_shard(value: Any) -> Shard:
    """A job, from what JSON has of it.

    Raises:
        ValueError: it is none, or holds half of a character or a number that is none, as JSON of others may.
    """
    return msgspec.json.decode(_strict(value), type=Shard)


def read_report(value: Any) -> Report:
    """A report, likewise.

    Raises:
        ValueError: as `read_shard`.
    """
    return msgspec.json.decode(_strict(value), type=Report)


def _strict(value: Any) -> bytes:
    try:
        return msgspec.json.encode(value)
    except (OverflowError, RecursionError) as error:
        raise ValueError(str(error)) from None


def content_key(sha256: str, recipe: str) -> str:
    """The name of a result: what it is made from, and how."""
    return hashlib.sha256(f"{sha256} {recipe}".encode()).hexdigest()[:40]


def digest_of(model: Model) -> str:
    """Of the weights, and of all that the manifest says of how to use them."""
    facts = [model.sha256, model.color, model.value_range, model.scale, model.halo]
    return hashlib.sha256(msgspec.json.encode(facts)).hexdigest()


def deadlines_of(settings: Engine) -> Deadlines:
    """Those of the config."""
    return Deadlines(**{name: getattr(settings, name) for name in Deadlines.__struct_fields__})


def limits_of(limits: Limits) -> protocol.Limits:
    """What a picture is judged by wherever it is done: not by the memory of one machine."""
    return msgspec.structs.replace(limits.wire(), memory_bytes=0, engine_bytes=0)


def cut(entries: Iterable[Entry], shard_pixels: int) -> list[list[Entry]]:
    """Cut a window, in its order; no part is empty, and one with several pictures has at most `shard_pixels`."""
    parts: list[list[Entry]] = []
    pixels = 0
    for entry in entries:
        if not parts or pixels + entry.pixels > shard_pixels:
            parts.append([])
            pixels = 0
        parts[-1].append(entry)
        pixels += entry.pixels
    return parts


def timeout_seconds(deadlines: Deadlines, entries: Sequence[Entry], model: Model, *, ensemble: bool) -> int:
    """What a job may take at the very most: each of its pictures all the time that it may take alone."""
    heaviness = max(model.mflop / _USUAL_MFLOP, 1.0) * (_ENSEMBLE if ensemble else 1)
    each = deadlines.deadline_seconds_per_megapixel * heaviness
    work = sum(deadlines.deadline_seconds + each * entry.pixels / 1e6 for entry in entries)
    return min(math.ceil(deadlines.start_seconds + work + deadlines.grace_seconds), 7 * 86_400)
