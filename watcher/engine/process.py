"""One engine process: start it, feed it, time it, stop it, and tell how it ended.

The engine has its own session, so that Ctrl-C in a terminal reaches the watcher only, which then decides. Its stdin
stays open until it said `bye`: when the watcher dies, the engine sees it close and exits. One that stays is not told
that no more will come before it is let go: it takes the requests of the next batch, too.
"""

import contextlib
import os
import queue
import signal
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import msgspec

from sr_engine import protocol
from watcher.accounting.meter import Meter
from watcher.engine.ends import EngineGaveUp, EngineStopped, EngineTrouble, told_exit
from watcher.engine.patience import Patience
from watcher.journal import logger
from watcher.sections import Engine

_EXIT_SECONDS = 10.0  # from `bye`, or from the end of its output, to the end of the process
_POLL_SECONDS = 0.5  # how often a stop is noticed while the engine is silent
_STDERR_LINES = 30
_LONGEST_LINE = 1 << 16
_MOST_EVENTS = 10_000
_OWN_SESSION: Mapping[str, Any] = {"start_new_session": True}


class EngineProcess:
    """A child process that speaks the engine protocol.

    Attributes:
        pid: of the process.
        meter: of its time.
        ready: what it said when its model was loaded; None before.
        ready_at: when that was, Unix time.
        done, failed: pictures that it answered.
        peak_memory_bytes: of the process, as far as it told.
        stays: whether `upscale` leaves it at rest when all is answered; else it ends then.
        is_fit: whether it is at rest, and nothing that it told speaks against asking it again.
        rested: whether it was without work once since its start: it may have died of what happened then.
    """

    def __init__(
        self,
        settings: Engine,
        models_folder: str,
        limits: protocol.Limits,
        cache_folder: str = "",
        sha256: str = "",
        admission: str = "",
        on_news: Callable[[], None] = lambda: None,
        spawn: Mapping[str, Any] = _OWN_SESSION,
    ) -> None:
        """Start the process.

        Args:
            settings: which program, and how it is to work.
            models_folder: where models.yaml is.
            limits: what it is to refuse.
            cache_folder: where it remembers what helps the next process, made if need be; empty: nowhere.
            sha256: of the weights that it must find; empty: those of the manifest.
            admission: what to do where others hold its device, see `sr_engine.admission`; empty: as it likes.
            on_news: called from another thread when it told something, or ended.
            spawn: how, in arguments of Popen.

        Raises:
            OSError: the program cannot be started.
        """
        self._settings = settings
        self._on_news = on_news
        self.meter = Meter(time.time(), time.monotonic())
        self._process = subprocess.Popen(
            _command(settings, models_folder, limits, _made(cache_folder), sha256, admission),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            **spawn,
        )
        self.pid = self._process.pid
        self.ready: protocol.Ready | None = None
        self.ready_at: float | None = None  # Unix time, as spawned_at
        self.refused = False  # it never had its device, as others hold it
        self.done = self.failed = self.peak_memory_bytes = 0
        self.stays = False
        self.is_fit = False
        self.rested = False
        self._spoilt = False
        # with the time of their arrival: the caller may be away for long, delivering
        self._events: queue.Queue[tuple[float, protocol.AnyEvent | protocol.ProtocolError | None]]
        self._events = queue.Queue(_MOST_EVENTS)
        self._closed = False
        self._silent_at: float | None = None  # monotonic: the end of its output
        self._stderr: deque[str] = deque(maxlen=_STDERR_LINES)
        self._sender: threading.Thread | None = None
        self._readers = [self._thread(self._read_events), self._thread(self._read_stderr)]

    @property
    def returncode(self) -> int | None:
        """Exit code, negative for a signal; None while it runs."""
        return self._process.returncode

    def upscale(
        self, requests: Sequence[protocol.Upscale], stopping: Callable[[], float | None]
    ) -> Iterator[protocol.AnyEvent]:
        """Send all requests and yield what the engine tells, up to `bye`, or to the last answer if it stays.

        Args:
            requests: the pictures.
            stopping: None, or the monotonic time by which the picture in work has to be finished.

        Raises:
            EngineTrouble: it died, hung or talked nonsense.
            EngineGaveUp: it said that it cannot go on.
            EngineStopped: `stopping` said so.
        """
        stays = self.stays
        self.is_fit = False
        self._sender = self._thread(lambda: self._send(requests, end=not stays))
        patience = self._patience(request.id for request in requests)
        unanswered = len(requests)
        while True:
            self._check_stop(stopping(), patience)
            wait_seconds = min(max(patience.until - time.monotonic(), 0), _POLL_SECONDS)
            try:
                arrived, told = self._events.get(timeout=wait_seconds)
            except queue.Empty:
                # only now: the caller may have been away for long, with the answers waiting here
                if time.monotonic() >= patience.until:
                    raise self._hung(patience) from None
                continue
            event = self._heard(told, arrived, patience)
            if isinstance(event, protocol.Done | protocol.Failed):
                unanswered -= 1
                self._count(event)
            begins = isinstance(event, protocol.Started) and event.id not in patience.in_work
            if begins and stopping() is not None:
                continue  # a picture begun after the stop is not waited for
            if not patience.heard(event, arrived) and arrived > patience.until:
                raise self._hung(patience)  # chatter is no answer
            yield event
            if isinstance(event, protocol.Bye):
                if unanswered:
                    raise self._trouble(f"the engine left {unanswered} pictures unanswered", patience.in_work)
                return
            if stays and not unanswered:
                self.is_fit = not self._spoilt
                return

    @property
    def wants_attention(self) -> bool:
        """Whether there is something for `attend`."""
        late = self.ready is None and time.monotonic() >= self._patience(()).until
        return late or not self._events.empty()

    def attend(self) -> None:
        """Take in what it told while nothing was asked of it.

        Raises:
            EngineTrouble: it died, was not ready in its time or talked nonsense.
            EngineGaveUp: it said that it cannot go on.
        """
        patience = self._patience(())
        with contextlib.suppress(queue.Empty):
            while True:
                arrived, event = self._events.get_nowait()
                if not isinstance(self._heard(event, arrived, patience), protocol.Ready):
                    raise self._trouble("the engine talked without being asked", set())
        if self.ready is None and time.monotonic() >= patience.until:
            raise self._hung(patience)

    def bid_goodbye(self, *, kindly: bool = True) -> None:
        """Let a process at rest end, without waiting for that: from any thread. One that is not ready is killed."""
        if kindly and self.ready is not None:
            self._send((), end=True)
        else:
            self._kill_group()

    def dismiss(self) -> None:
        """Let a process at rest go: it says goodbye and ends. One that is not ready yet is ended at once."""
        self.is_fit = False
        if self.ready is not None:
            self._send((), end=True)
        if self.ready is None or not self._says_goodbye(time.monotonic() + _EXIT_SECONDS):
            self.kill()
        self.close()

    def close(self) -> None:
        """Let the process go: wait for its exit, kill it if it does not come. Afterwards it is reaped."""
        process = self._process
        if self._closed:
            return
        self._closed = True
        if self._sender is not None:
            self._sender.join(timeout=1.0)
            if self._sender.is_alive():
                self.kill()  # it does not read; and closing a pipe in which a thread is writing waits for that thread
        with contextlib.suppress(OSError):
            if process.stdin:
                process.stdin.close()
        was_gone = process.poll() is not None
        try:
            process.wait(_EXIT_SECONDS)
        except subprocess.TimeoutExpired:
            self.kill()
        # nobody may have had time for it for long, as a share did not answer
        self.meter.ended(self._silent_at if was_gone and self._silent_at is not None else time.monotonic())
        self._kill_group()  # what a wrapper of the engine left behind
        for reader, pipe in zip(self._readers, (process.stdout, process.stderr), strict=True):
            reader.join(timeout=1.0)
            if pipe and not reader.is_alive():
                pipe.close()

    def kill(self) -> None:
        """End the process, and whatever it started, at once."""
        if self._process.poll() is None:
            self._kill_group()
            self._process.kill()
        self._process.wait()

    def _kill_group(self) -> None:
        # its number is not given to another group as long as a member lives
        if hasattr(os, "killpg"):
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(self.pid, signal.SIGKILL)

    def _patience(self, pictures: Iterable[int]) -> Patience:
        return Patience(self._settings, pictures, time.monotonic() if self.ready else self.meter.started, self.ready)

    def _heard(
        self, event: protocol.AnyEvent | protocol.ProtocolError | None, arrived: float, patience: Patience
    ) -> protocol.AnyEvent:
        if event is None:
            raise self._ended(patience)
        if isinstance(event, protocol.ProtocolError):
            raise self._trouble(f"the engine talked nonsense: {event}", patience.in_work)
        self.meter.heard(event, arrived)
        if isinstance(event, protocol.Failed) and event.id is None:
            raise self._gave_up(event, patience)
        if isinstance(event, protocol.Ready):
            self.ready, self.ready_at = event, time.time()
        return event

    def _says_goodbye(self, until: float) -> bool:
        with contextlib.suppress(queue.Empty):
            while True:
                arrived, event = self._events.get(timeout=max(until - time.monotonic(), 0))
                if event is None or isinstance(event, protocol.ProtocolError):
                    return False
                self.meter.heard(event, arrived)
                if isinstance(event, protocol.Bye):
                    return True
        return False

    def _check_stop(self, grace_until: float | None, patience: Patience) -> None:
        if grace_until is not None and (not patience.in_work or time.monotonic() >= grace_until):
            self.kill()
            raise EngineStopped(patience.in_work)

    def _count(self, event: protocol.Done | protocol.Failed) -> None:
        if isinstance(event, protocol.Done):
            self.done += 1
            self.peak_memory_bytes = max(self.peak_memory_bytes, event.peak_memory_bytes)
        else:
            self.failed += 1
            # a device that broke down, or memory in pieces: only with the process it all comes back
            self._spoilt |= event.fault is protocol.Fault.ENVIRONMENT or event.code is protocol.Code.OUT_OF_MEMORY

    def _hung(self, patience: Patience) -> EngineTrouble:
        late = patience.in_work
        if self.ready is None:
            return self._trouble(f"the engine was not ready after {self._settings.start_seconds:g} s", set())
        if patience.is_reading:
            return self._trouble("a picture could not be read in its time", late, blames=False)
        return self._trouble("a picture was not done in its time" if late else "the engine fell silent", late)

    def _gave_up(self, event: protocol.Failed, patience: Patience) -> EngineTrouble | EngineGaveUp:
        if event.fault is protocol.Fault.PICTURE:  # of one of those in work; which of them, only solitude shows
            return self._trouble(event.message, patience.in_work, is_told=True)
        busy = event.code is protocol.Code.DEVICE_BUSY
        self.refused = busy and not event.was_on_device
        return EngineGaveUp(event.message, retryable=event.retryable, busy=busy)

    def _ended(self, patience: Patience) -> EngineTrouble:
        in_work = patience.in_work
        try:
            code = self._process.wait(_EXIT_SECONDS)
        except subprocess.TimeoutExpired:
            return self._trouble("the engine closed its output and did not exit", in_work)
        message, blames = told_exit(code)
        return self._trouble(message, in_work, blames=blames)

    def _trouble(self, message: str, in_work: set[int], *, blames: bool = True, is_told: bool = False) -> EngineTrouble:
        self.kill()
        self._readers[1].join(timeout=1.0)  # its last words are the reason
        return EngineTrouble(message, in_work, blames=blames, stderr="\n".join(self._stderr), is_told=is_told)

    def _thread(self, target: Callable[[], None]) -> threading.Thread:
        thread = threading.Thread(target=target, daemon=True)
        thread.start()
        return thread

    def _send(self, requests: Sequence[protocol.Upscale], *, end: bool) -> None:
        # A thread, because the pipe holds 64 KiB and the engine may be busy for minutes.
        stdin = self._process.stdin
        with contextlib.suppress(OSError, ValueError):  # the engine died, or was closed: its end tells
            assert stdin is not None
            for request in requests:
                stdin.write(protocol.encode(request))
            if end:
                stdin.write(protocol.encode(protocol.End()))
            stdin.flush()

    def _read_events(self) -> None:
        stdout = self._process.stdout
        assert stdout is not None
        try:
            while line := stdout.readline(_LONGEST_LINE):
                self._put(protocol.decode_event(line))
        except protocol.ProtocolError as error:
            self._put(error)
        except (OSError, ValueError):
            pass
        else:
            self._silent_at = time.monotonic()
        self._put(None)

    def _put(self, event: protocol.AnyEvent | protocol.ProtocolError | None) -> None:
        arrived = time.monotonic()
        while not self._closed:
            with contextlib.suppress(queue.Full):  # let the engine wait, it talks faster than anyone listens
                self._events.put((arrived, event), timeout=_POLL_SECONDS)
                self._on_news()
                return

    def _read_stderr(self) -> None:
        stderr = self._process.stderr
        assert stderr is not None
        with contextlib.suppress(OSError, ValueError):
            while line := stderr.readline(_LONGEST_LINE):
                text = line.decode("utf-8", "backslashreplace").rstrip()
                self._stderr.append(text)
                logger.debug("engine: %s", text)


def _command(
    settings: Engine, models_folder: str, limits: protocol.Limits, cache_folder: str, sha256: str, admission: str
) -> list[str]:
    # -P: a folder called numpy in the user's current folder must not become part of the engine
    command = list(settings.command) or [sys.executable, "-P", "-m", "sr_engine"]
    command += ["--model", settings.model, "--models-folder", models_folder, "--runtime", settings.runtime]
    command += ["--device", settings.device, "--precision", settings.precision]
    command += ["--sha256", sha256] if sha256 else []
    command += ["--admission", admission] if admission else []
    command += ["--ensemble"] if settings.ensemble else []
    command += ["--threads", str(settings.threads)] if settings.threads else []
    command += ["--cache-folder", cache_folder] if cache_folder else []
    return [*command, "--limits", msgspec.json.encode(limits).decode()]


def _made(folder: str) -> str:
    """The folder, made if need be; empty if it cannot be made, for work goes on without it."""
    try:
        if folder:
            os.makedirs(folder, exist_ok=True)
    except OSError as error:
        logger.debug("no cache for the engine in %s: %s", folder, error)
        return ""
    return folder
