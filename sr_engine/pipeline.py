"""From requests to results: decode, enlarge, encode and store, for several pictures at a time.

Each step has threads of its own, so that the device never waits for a file: while tiles of some pictures run, the
next ones are decoded and finished ones encoded. What is in memory at a time is bounded by `Room`, whatever the length
of the batch. Whatever a picture does, it becomes that picture's `failed` event and never stops the batch.
"""

import hashlib
import os
import sys
import threading
import time
import traceback
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

import cv2

from sr_engine.errors import EngineError, EnvironmentFault, PictureError, UnusableEngine
from sr_engine.files import Source, store
from sr_engine.formats.decoding import decode
from sr_engine.formats.encoding import encode
from sr_engine.limits import check, expected_memory_bytes
from sr_engine.machine import (
    beyond_own_limit,
    own_limit_bytes,
    own_limit_is_to_blame,
    own_room_bytes,
    peak_memory_bytes,
    processors,
    total_bytes,
)
from sr_engine.network import Network
from sr_engine.protocol import (
    Code,
    Done,
    Event,
    Failed,
    Fault,
    Limits,
    Progress,
    Started,
    Upscale,
    decode_path,
    encode_path,
)
from sr_engine.queues import Room, TileQueue
from sr_engine.runtimes import OutOfDeviceMemory
from sr_engine.tiles import Cutting, Enlargement, Job

_DECODERS = 2
# What pictures beyond the first may take together: enough for the device never to wait, and no more.
_ROOM_BYTES = 1 << 31


@dataclass(eq=False)
class Work:
    """One picture on its way.

    Attributes:
        request: what was asked for.
        source_sha256: of the bytes that were read; empty before.
        reserved_bytes: what it was given of the room.
        pages: its pictures, being enlarged.
        total: tiles that go through the network.
        done: those that went.
        answered: `done` or `failed` was told.
        begun: when its first tile was, on the clock of `time.perf_counter`.
        decode_seconds: from reading to the first tile.
        upscale_seconds: from the first tile to the last.
    """

    request: Upscale
    source_sha256: str = ""
    reserved_bytes: int = 0
    pages: list[Enlargement] = field(default_factory=list)
    total: int = 0
    done: int = 0
    answered: bool = False
    begun: float = 0.0
    decode_seconds: float = 0.0
    upscale_seconds: float = 0.0


class Pipeline:
    """Answers `upscale` requests with events, in the order in which they get done.

    Attributes:
        pictures: requests answered so far.
        failed: those answered by `failed`.
    """

    def __init__(
        self,
        network: Network,
        emit: Callable[[Event], None],
        limits: Limits,
        cutting: Cutting,
        on_shortage: Callable[[], None],
    ) -> None:
        """Start the threads.

        Args:
            network: what enlarges.
            emit: takes events, from any thread.
            limits: what is refused.
            cutting: how pictures are cut.
            on_shortage: called once, from a thread, when the device's memory does not suffice; all that could be
                finished without the device is then done.
        """
        self.pictures = 0
        self.failed = 0
        self._submitted = 0
        self._network = network
        self._emit = emit
        self._limits = limits
        self._cutting = cutting
        self._on_shortage = on_shortage
        self._lock = threading.Lock()
        streams = network.runtime.streams
        encoders = processors()
        self._room_bytes = own_room_bytes()
        room = min(_ROOM_BYTES, total_bytes() // 3, self._room_bytes // 2)
        self._room = Room(room, pictures=_DECODERS + streams * network.runtime.batch + encoders + 1)
        self._tiles: TileQueue[Work, Job] = TileQueue()
        self._decoders = _started(_DECODERS, "decoder")
        self._encoders = _started(encoders, "encoder")
        self._streams = [
            threading.Thread(target=self._enlarge, name=f"stream-{number}", daemon=True) for number in range(streams)
        ]
        for thread in self._streams:
            thread.start()
        if "OPENCV_LOG_LEVEL" not in os.environ:
            # Its complaints about a damaged picture reach the user in our own words.
            cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)

    def submit(self, request: Upscale) -> None:
        """Take a picture on: `started`, then `progress`, and at last `done` or `failed`. Waits while many are."""
        self._room.enter()
        self._submitted += 1
        self._decoders.submit(self._decode, Work(request))

    def finish(self) -> None:
        """Wait until all are answered. The network is let go as soon as its last tile is done.

        Raises:
            UnusableEngine: some were not: a thread broke down.
        """
        self._decoders.shutdown()
        self._tiles.close()
        for thread in self._streams:
            thread.join()
        self._network.close()
        self._encoders.shutdown()
        if self.pictures < self._submitted:
            raise UnusableEngine("a thread of the engine broke down; its log has the details")

    # The steps, each in threads of its own

    def _decode(self, work: Work) -> None:
        request = work.request
        # before the reading, which may take long: the watcher has to know whom it is waiting for
        self._emit(Started(id=request.id, width=0, height=0))
        try:
            with Source(decode_path(request.source)) as source:
                data = self._read(source, work)
            begun = time.perf_counter()
            pages = decode(data)
            del data
            scale = self._network.model.scale
            few = self._submitted - self.pictures <= len(self._streams)
            cutting = self._cutting._replace(at_least=len(self._streams)) if few else self._cutting
            work.pages = [Enlargement(page, scale, cutting) for page in pages]
            jobs = [job for page in work.pages for job in page.jobs]
            work.total = len(jobs)
            work.decode_seconds = time.perf_counter() - begun
            self._tiles.add(work, jobs)
        except Exception as error:
            self._fail(work, error)

    def _read(self, source: Source, work: Work) -> bytes:
        scale = self._network.model.scale
        try:
            header = source.header()
            output = work.request.output
            check(header, source.size, self._limits, output, scale=scale, room_bytes=self._room_bytes)
        except PictureError:
            work.source_sha256 = source.sha256()
            raise
        needed = expected_memory_bytes(header, source.size, scale=scale, output=work.request.output)
        self._room.take(needed)
        work.reserved_bytes = needed
        data = source.read()
        work.source_sha256 = hashlib.sha256(data).hexdigest()
        self._emit(Started(id=work.request.id, width=header.width, height=header.height))
        return data

    def _enlarge(self) -> None:
        while batch := self._tiles.take(self._network.runtime.batch):
            for work, _ in batch:
                work.begun = work.begun or time.perf_counter()
            try:
                self._run(batch)
            except OutOfDeviceMemory as error:
                sys.stderr.write(f"the device's memory does not suffice: {error}\n")
                if self._tiles.abandon():  # only the first stream to notice
                    self._give_up()
                return
            except Exception as error:
                if len(batch) > 1:
                    self._tiles.return_singly(batch)
                else:
                    self._tiles.drop(batch[0][0])
                    self._fail(batch[0][0], self._blamed(error))
            else:
                self._count(batch)
            del batch  # while this thread waits for the next one, the pictures' memory has to be free

    def _blamed(self, error: Exception) -> Exception:
        """No values of a tile make a network break down: what it raises of its own is the device's fault."""
        if isinstance(error, EngineError) or _is_memory(error):
            return error
        traceback.print_exception(error, file=sys.stderr)
        runtime = self._network.runtime
        reason = str(error).strip().rpartition("\n")[2]
        return EnvironmentFault(Code.UPSCALE_FAILED, f"{runtime.name} on {runtime.device} broke down: {reason}")

    def _give_up(self) -> None:
        for thread in self._streams:
            if thread is not threading.current_thread():
                thread.join()
        self._encoders.shutdown()
        self._on_shortage()

    def _run(self, batch: Sequence[tuple[Work, Job]]) -> None:
        results = self._network([job.piece() for _, job in batch])
        for (_, job), result in zip(batch, results, strict=True):
            job.finish(result)

    def _count(self, batch: Sequence[tuple[Work, Job]]) -> None:
        for work, _ in batch:
            with self._lock:
                work.done += 1
                work.upscale_seconds = time.perf_counter() - work.begun
                done = work.done
            self._emit(Progress(id=work.request.id, done=done, total=work.total))
            if done == work.total:
                self._encoders.submit(self._encode, work)

    def _encode(self, work: Work) -> None:
        try:
            begun = time.perf_counter()
            pages = [page.finish() for page in work.pages]
            work.pages.clear()
            width, height = pages[0].width, pages[0].height
            data, extension, note = encode(pages, work.request.output)
            pages.clear()
            target = decode_path(work.request.target) + extension
            store(data, target)
            done = Done(
                id=work.request.id,
                target=encode_path(target),
                source_sha256=work.source_sha256,
                result_sha256=hashlib.sha256(data).hexdigest(),
                result_bytes=len(data),
                width=width,
                height=height,
                decode_seconds=work.decode_seconds,
                upscale_seconds=work.upscale_seconds,
                encode_seconds=time.perf_counter() - begun,
                peak_memory_bytes=peak_memory_bytes(),
                note=note,
            )
        except Exception as error:
            self._fail(work, error)
        else:
            self._leave(work, done)

    # The ends

    def _fail(self, work: Work, error: Exception) -> None:
        if _is_verdict(error) and self._is_short(work):
            error = MemoryError()
        self._leave(work, _failure(work.request.id, error, work.source_sha256))

    @staticmethod
    def _is_short(work: Work) -> bool:
        """Whether a library may have said "damaged" where it had no memory: near the limit, nobody can tell."""
        limit = own_limit_bytes()
        return limit > 0 and (own_room_bytes() < work.reserved_bytes or peak_memory_bytes() > limit // 8 * 7)

    def _leave(self, work: Work, answer: Done | Failed) -> None:
        with self._lock:
            if work.answered:  # two of its tiles failed at the same time
                return
            work.answered = True
            self.pictures += 1
            self.failed += isinstance(answer, Failed)
        work.pages.clear()
        self._emit(answer)
        self._room.leave(work.reserved_bytes)


def _started(number: int, name: str) -> ThreadPoolExecutor:
    """A pool whose threads run already: where the system grants no more, the engine must say so before it begins."""
    pool = ThreadPoolExecutor(number, name)
    together = threading.Barrier(number + 1)
    for _ in range(number):
        pool.submit(together.wait)
    together.wait()
    return pool


def _is_memory(error: BaseException) -> bool:
    """Whether memory was refused; libraries tell it in ways of their own."""
    if isinstance(error, cv2.error):
        return error.code == cv2.Error.StsNoMem
    return isinstance(error, MemoryError) or "bad_alloc" in str(error)


def _is_verdict(error: Exception) -> bool:
    return isinstance(error, PictureError) and error.code in (Code.UNDECODABLE, Code.UPSCALE_FAILED)


def _failure(number: int, error: Exception, source_sha256: str) -> Failed:
    code, message, fault = Code.UPSCALE_FAILED, "", Fault.PICTURE
    if isinstance(error, EngineError):
        code, message = error.code, error.message
        fault = Fault.PICTURE if isinstance(error, PictureError) else Fault.ENVIRONMENT
    elif _is_memory(error):
        code, fault = Code.OUT_OF_MEMORY, Fault.ENVIRONMENT
        message = "the memory does not suffice for this picture now: free some, or cut the picture in parts"
        if own_limit_is_to_blame():
            fault, message = Fault.PICTURE, beyond_own_limit()  # if it was alone, which the watcher knows
    elif isinstance(error, OSError) and error.errno is not None:  # pictures are decoded in memory: it is not theirs
        fault, message = Fault.ENVIRONMENT, f"the system refused something that the engine needs: {error.strerror}"
    else:
        traceback.print_exception(error, file=sys.stderr)
        message = f"upscaling broke off ({type(error).__name__}: {error}); the engine's log has the details"
    return Failed(
        id=number,
        code=code,
        message=message,
        fault=fault,
        retryable=fault is Fault.ENVIRONMENT,
        source_sha256=source_sha256,
    )
