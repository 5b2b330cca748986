"""Fixtures of the engine's tests: the embedded model, loaded once, and conversations with the engine's process."""

import contextlib
import os
import subprocess
import sys
import time

import pytest
from networks import load_network

from sr_engine import models, protocol, runtimes


@pytest.fixture(scope="session")
def model():
    return models.find("edsr-lite-x3").model


@pytest.fixture(scope="session")
def network():
    return load_network("opencv")


@pytest.fixture(scope="session", params=[name for name in runtimes.NAMES if name != "auto"])
def exact_network(request):
    """Each runtime, in fp32."""
    return load_network(request.param, "fp32")


class Conversation:
    """A running engine: the watcher's side of the pipe."""

    def __init__(self, process, log):
        self.process = process
        self._log = log

    def say(self, *messages):
        for message in messages:
            self.process.stdin.write(message if isinstance(message, bytes) else protocol.encode(message))
        self.process.stdin.flush()

    def hear(self):
        """The next event; None at the end of the stream."""
        line = self.process.stdout.readline()
        return protocol.decode_event(line) if line else None

    def hear_until(self, *kinds):
        """All events up to and with the first of these kinds."""
        heard = []
        while not heard or not isinstance(heard[-1], kinds):
            event = self.hear()
            assert event is not None, f"the engine ended after {heard}: {self.log()}"
            heard.append(event)
        return heard

    def finish(self):
        """Say that nothing more comes; all events to the end of the stream, and the exit code."""
        self.say(protocol.End())
        heard = self.hear_until(protocol.Bye)
        self.process.stdin.close()
        assert self.hear() is None
        return heard, self.process.wait(30)

    def log(self):
        return self._log.read_text(errors="replace")


@pytest.fixture
def converse(tmp_path):
    """Start an engine: converse(*arguments, environment={...}, before=[...]) -> Conversation."""
    with contextlib.ExitStack() as stack:

        def start(*arguments, environment=None, before=()):
            log = tmp_path / f"engine-{time.monotonic_ns()}.log"
            command = [sys.executable, "-P", "-m", "sr_engine", "--model", "edsr-lite-x3", *arguments]
            with log.open("wb") as stderr:
                process = subprocess.Popen(
                    [*before, *command],
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    stderr=stderr,
                    env={**os.environ, **(environment or {})},
                )
            stack.callback(_stop, process)
            return Conversation(process, log)

        yield start


def _stop(process):
    process.kill()
    process.wait(30)
    with contextlib.suppress(BrokenPipeError):
        process.stdin.close()
    process.stdout.close()
