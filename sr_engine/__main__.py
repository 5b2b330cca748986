"""`python -P -m sr_engine`: requests on stdin, events on stdout; when the process ends, all its memory is free.

Exit codes: 0 all requests answered, 2 wrong arguments or requests, 3 no picture can be upscaled here, 4 the
watcher is gone.
"""

import time

# First of all, to count the imports too.
_STARTED = time.perf_counter()
_STARTED_AT = time.time()

import argparse  # noqa: E402
import os  # noqa: E402
import queue  # noqa: E402
import signal  # noqa: E402
import sys  # noqa: E402
import threading  # noqa: E402
import traceback  # noqa: E402
from typing import TYPE_CHECKING, NoReturn  # noqa: E402

import msgspec  # noqa: E402

from sr_engine import admission, loading, machine, protocol, runtimes  # noqa: E402
from sr_engine.errors import DeviceBusy, EngineError, UnusableEngine  # noqa: E402

if TYPE_CHECKING:
    from sr_engine.pipeline import Pipeline
    from sr_engine.tile_budget import TileBudget

EXIT_DONE = 0
EXIT_USAGE = 2
EXIT_UNUSABLE = 3
EXIT_ABANDONED = 4

# stdin is always read to its end, or its closing would go unnoticed; so what waits is bounded by refusing more.
_LONGEST_LINE = 1 << 20
_MOST_WAITING = 100_000


class Events:
    """The stream of events: a private copy of the original stdout."""

    def __init__(self) -> None:
        """Take stdout over; from now on whatever else is written there comes out on stderr."""
        sys.stdout.flush()
        self._descriptor = os.dup(1)
        self._lock = threading.Lock()
        if sys.platform == "win32":
            import msvcrt  # noqa: PLC0415

            msvcrt.setmode(self._descriptor, os.O_BINARY)
        try:
            os.dup2(2, 1)
        except OSError:  # started without a stderr
            os.dup2(os.open(os.devnull, os.O_WRONLY), 1)

    def emit(self, event: protocol.Event) -> None:
        """Write one event whole. If nobody reads any more the process ends here."""
        if isinstance(event, protocol.Failed):
            event = _speakable(event)
        view = memoryview(protocol.encode(event))
        with self._lock:
            try:
                while view:
                    view = view[os.write(self._descriptor, view) :]
            except OSError:
                _leave(EXIT_ABANDONED)


class Requests:
    """What the watcher asks for, read by a thread of its own because the main one is busy upscaling."""

    def __init__(self) -> None:
        self.bye_said = threading.Event()
        self._waiting: queue.SimpleQueue[protocol.AnyRequest] = queue.SimpleQueue()
        threading.Thread(target=self._read, name="requests", daemon=True).start()

    def next(self) -> protocol.AnyRequest:
        """Wait for the next request."""
        return self._waiting.get()

    def _read(self) -> None:
        try:
            # Not sys.stdin: its lock, held by this thread, would make the interpreter's shutdown abort.
            with open(0, "rb", closefd=False) as stdin:
                while line := stdin.readline(_LONGEST_LINE):
                    if not line.endswith(b"\n") and len(line) < _LONGEST_LINE:
                        break  # the watcher died while it wrote this line
                    self._accept(line)
        except OSError as error:
            sys.stderr.write(f"the engine cannot read its requests: {error.strerror}\n")
        if not self.bye_said.is_set():
            _leave(EXIT_ABANDONED)

    def _accept(self, line: bytes) -> None:
        try:
            request = protocol.decode_request(line)
        except protocol.ProtocolError as error:
            _refuse(str(error))
        if self._waiting.qsize() >= _MOST_WAITING:
            _refuse(f"more than {_MOST_WAITING} requests at a time")
        self._waiting.put(request)


def main(arguments: list[str] | None = None) -> NoReturn:
    """Serve one conversation, then end the process."""
    if sys.stderr is None:  # started without one
        sys.stderr = open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115 - until the end of the process
    options = _parse(arguments)
    if os.isatty(0):
        sys.stderr.write("the engine waits for requests, one JSON object a line; --help says more\n")
    events = Events()
    # Ctrl-C reaches the whole group of processes; what it means is for the watcher to decide.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    requests = Requests()
    try:
        pipeline = _prepare(options, events)
    except Exception as error:
        _give_up(_why_not_started(error, options.limits), events)
    while isinstance(request := requests.next(), protocol.Upscale):
        pipeline.submit(request)
    try:
        pipeline.finish()
    except UnusableEngine as error:
        _give_up(error, events)
    requests.bye_said.set()
    seconds = time.perf_counter() - _STARTED
    events.emit(protocol.Bye(pictures=pipeline.pictures, failed=pipeline.failed, seconds=seconds))
    _leave(EXIT_DONE)


def _why_not_started(error: Exception, limits: protocol.Limits) -> EngineError:
    if not isinstance(error, EngineError):
        traceback.print_exception(error)
    if limits.engine_bytes and machine.own_limit_bytes():  # which is set when all but ourselves is loaded
        megabytes = limits.engine_bytes >> 20
        return UnusableEngine(f"the engine cannot start with {megabytes} MB: raise limits.engine_megabytes")
    if isinstance(error, EngineError):
        return error
    return UnusableEngine(f"the engine cannot start ({type(error).__name__}: {error})")


def _parse(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m sr_engine",
        description="Upscale a batch of pictures: reads requests and writes events, one JSON object a line. "
        "dropscale starts it; by hand, `dropscale upscale FILE` is what you want.",
    )
    parser.add_argument("--model", required=True, help="a name from the manifest models.yaml")
    parser.add_argument("--models-folder", default="", help="where your own models are")
    parser.add_argument("--runtime", choices=runtimes.NAMES, default="auto", help="what runs the network")
    parser.add_argument("--device", default="auto", help=f"{', '.join(runtimes.DEVICES)}; cuda:1 is the second one")
    parser.add_argument("--precision", choices=runtimes.PRECISIONS, default="auto", help="of the network's arithmetic")
    parser.add_argument("--threads", type=_count, default=0, help="of the CPU; 0 lets the runtime decide")
    parser.add_argument("--sha256", default="", help="of the model's weights, if they have to be certain ones")
    parser.add_argument("--ensemble", action="store_true", help="average eight turned copies, for eight times the work")
    parser.add_argument("--cache-folder", default="", help="where compiled models and tile sizes are remembered")
    busy = "where others hold the GPU: want all of it, or make do with smaller tiles or another device"
    parser.add_argument("--admission", choices=admission.MODES, default=admission.ANY, help=busy)
    parser.add_argument("--limits", type=_limits, default=protocol.Limits(), help="what is refused, as a JSON object")
    return parser.parse_args(arguments)


def _count(text: str) -> int:
    number = int(text)
    if not 0 <= number <= 1024:
        raise ValueError
    return number


def _limits(text: str) -> protocol.Limits:
    return msgspec.json.decode(text, type=protocol.Limits)


def _prepare(options: argparse.Namespace, events: Events) -> "Pipeline":
    """Verify and load the model, say `ready`.

    Raises:
        UnusableEngine: no picture can be upscaled here.
    """
    clock = Phases()
    # As the driver counts, so that cuda:1 is the same one for CUDA, for NVML and for nvidia-smi.
    os.environ.setdefault("CUDA_DEVICE_ORDER", "PCI_BUS_ID")
    wanted = runtimes.Options(
        options.device, options.precision, options.threads, options.cache_folder, options.admission
    )
    choice = loading.Choice(
        options.model,
        options.models_folder,
        options.runtime,
        wanted,
        options.ensemble,
        options.sha256,
        engine_bytes=options.limits.engine_bytes,
    )
    loaded = loading.load(choice, over=clock.end)
    # Only now: it imports OpenCV, and loading a runtime has made sure that it can be imported.
    from sr_engine.pipeline import Pipeline  # noqa: PLC0415

    runtime = loaded.network.runtime
    pipeline = Pipeline(
        loaded.network,
        events.emit,
        options.limits,
        loaded.cutting,
        lambda: _end_for_memory(loaded.budget, runtime.device, events),
    )
    clock.end("pipeline")
    events.emit(
        protocol.Ready(
            runtime=runtime.name,
            device=runtime.device,
            precision=runtime.precision,
            load_seconds=time.perf_counter() - _STARTED,
            reason=loaded.reason,
            started_at=_STARTED_AT,
            phases=clock.seconds,
            mflop_per_pixel=loaded.network.mflop_per_pixel,
        )
    )
    return pipeline


def _give_up(error: EngineError, events: Events) -> NoReturn:
    """No picture can be upscaled, or none any more."""
    events.emit(
        protocol.Failed(
            id=None,
            code=error.code,
            message=error.message,
            fault=protocol.Fault.ENVIRONMENT,
            retryable=False,
            was_on_device=isinstance(error, DeviceBusy) and error.was_on_it,
        )
    )
    _leave(EXIT_UNUSABLE)


class Phases:
    """A stopwatch for the parts of the start.

    Attributes:
        seconds: by part, in their order; the first is what was imported before this was made.
    """

    def __init__(self) -> None:
        self._last = time.perf_counter()
        self.seconds = {"imports": self._last - _STARTED}

    def end(self, name: str) -> None:
        """The part called `name` is over."""
        now = time.perf_counter()
        self.seconds[name] = now - self._last
        self._last = now


def _end_for_memory(budget: "TileBudget", device: str, events: Events) -> NoReturn:
    """The device's memory did not suffice: a fresh process with smaller tiles has to go on."""
    obstacle = budget.shrink()
    advice = obstacle or "a fresh engine goes on with smaller ones"
    message = f"the memory of {device} does not hold tiles of {budget.pixels} pixels: {advice}"
    fault = protocol.Fault.ENVIRONMENT
    if obstacle and device == "cpu" and machine.own_limit_is_to_blame():
        budget.forget()  # the tiles are small, and one of the pictures in work is not
        message, fault = machine.beyond_own_limit(), protocol.Fault.PICTURE
    events.emit(
        protocol.Failed(
            id=None,
            code=protocol.Code.OUT_OF_MEMORY,
            message=message,
            fault=fault,
            retryable=not obstacle,
        )
    )
    _leave(EXIT_UNUSABLE)


def _speakable(event: protocol.Failed) -> protocol.Failed:
    """A message may quote a path, whose bytes need not be text; JSON takes text only."""
    message = event.message.encode("utf-8", "replace").decode("utf-8")
    return msgspec.structs.replace(event, message=message)


def _refuse(reason: str) -> NoReturn:
    sys.stderr.write(f"the engine cannot go on: {reason}\n")
    _leave(EXIT_USAGE)


def _leave(code: int) -> NoReturn:
    """End the process at once: leaving in order would wait for threads, ours and the runtime's."""
    try:
        sys.stderr.flush()
    finally:
        os._exit(code)


if __name__ == "__main__":
    main()
