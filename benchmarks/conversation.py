"""The watcher's side of a conversation with the real engine."""

import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from sr_engine import protocol

MODEL = "edsr-lite-x3"


class Engine:
    """A running engine process that said `ready`.

    Attributes:
        spawned_at: Unix time just before the process was started.
        ready: what it said.
    """

    def __init__(self, runtime: str = "auto", precision: str = "auto") -> None:
        command = [sys.executable, "-P", "-m", "sr_engine", "--model", MODEL]
        self.spawned_at = time.time()
        self._process = subprocess.Popen(
            [*command, "--runtime", runtime, "--precision", precision], stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )
        self.ready = self._hear(protocol.Ready)

    def upscale(self, sources: Sequence[Path], folder: Path) -> list[protocol.Done]:
        """Enlarge a batch into a folder; returns with the last `done`."""
        self.send(sources, folder)
        return [self._hear(protocol.Done) for _ in sources]

    def send(self, sources: Sequence[Path], folder: Path) -> None:
        """Ask for pictures, all at once."""
        for number, source in enumerate(sources):
            target = folder / f"{time.monotonic_ns()}-{number}"
            self._say(protocol.Upscale(id=number, source=str(source), target=str(target)))

    def first_tile(self) -> None:
        """Wait until a tile is through the network."""
        self._hear(protocol.Progress)

    def last_picture(self) -> None:
        """Wait until a picture is done."""
        self._hear(protocol.Done)

    def finish(self) -> None:
        """No more pictures: returns when the process is gone."""
        self._say(protocol.End())
        self._hear(protocol.Bye)
        self._process.stdin.close()
        self._process.wait(60)

    def _say(self, message: protocol.Request) -> None:
        self._process.stdin.write(protocol.encode(message))
        self._process.stdin.flush()

    def _hear(self, kind: type[protocol.Event]) -> Any:
        """The next event of a kind; what comes before it doesn't matter, unless it is a failure."""
        for line in self._process.stdout:
            event = protocol.decode_event(line)
            if isinstance(event, protocol.Failed):
                sys.exit(f"the engine failed: {event.message}")
            if isinstance(event, kind):
                return event
        sys.exit("the engine ended")
