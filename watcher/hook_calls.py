"""One call of a hook: a command with the event on its stdin. Its twin for addresses is `webhook`."""

import contextlib
import os
import re
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Sequence
from typing import IO

_MOST_OUTPUT_BYTES = 2000  # of a command, for the log; the rest is read and forgotten
_BLOCK_BYTES = 1 << 16
_LOOK_SECONDS = 0.25  # how often a running command is looked at
_OUTPUT_SECONDS = 1.0  # for the rest of its output to come, once it has ended
MOST_REASON = 300


class CallFailed(Exception):
    """A call did not succeed; the message says why, and holds neither address nor headers."""


def run_command(words: Sequence[str], payload: bytes, deadline: Callable[[], float]) -> None:
    """Run a command, without a shell and in a group of its own, and see that it succeeds.

    Args:
        words: the program and its arguments.
        payload: what it finds on its stdin.
        deadline: monotonic time at which it is killed with its children; asked again while it runs.

    Raises:
        CallFailed: it could not be started, ended with another code than 0, or had to be killed.
    """
    try:
        process = subprocess.Popen(
            words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, start_new_session=True
        )
    except (OSError, ValueError) as error:
        raise CallFailed(f"cannot be started: {getattr(error, 'strerror', None) or error}") from error
    assert process.stdin is not None and process.stdout is not None
    output = bytearray()
    threads = [
        threading.Thread(target=_feed, args=(process.stdin, payload), daemon=True),
        threading.Thread(target=_keep_head, args=(process.stdout, output), daemon=True),
    ]
    for thread in threads:
        thread.start()
    timed_out = not _ends(process, deadline)
    if timed_out:
        _kill_group(process)
        process.wait()
    threads[1].join(_OUTPUT_SECONDS)
    if threads[1].is_alive():  # something that it left behind holds its output open
        _kill_group(process)
    if timed_out:
        raise CallFailed("took too long and was killed")
    if process.returncode != 0:
        how = f"was ended by signal {-process.returncode}" if process.returncode < 0 else "ended"
        code = f" with code {process.returncode}" if process.returncode > 0 else ""
        last = bytes(output).decode("utf-8", "replace").strip().splitlines()[-1:]
        raise CallFailed(": ".join([how + code, *last])[:MOST_REASON])


def place_of(url: str) -> str:
    """An address as it may be shown: paths and queries of webhooks are often their password."""
    return re.split(r"(?<=[^/:])[/?#]", url, maxsplit=1)[0]


def _ends(process: "subprocess.Popen[bytes]", deadline: Callable[[], float]) -> bool:
    """Whether the command ended by itself in time."""
    while (left := deadline() - time.monotonic()) > 0:
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(min(left, _LOOK_SECONDS))
            return True
    return process.poll() is not None


def _kill_group(process: "subprocess.Popen[bytes]") -> None:
    with contextlib.suppress(OSError):
        if hasattr(os, "killpg"):
            os.killpg(process.pid, signal.SIGKILL)
        else:
            process.kill()


def _feed(stdin: IO[bytes], payload: bytes) -> None:
    with contextlib.suppress(OSError):  # it does not want to know
        stdin.write(payload)
    with contextlib.suppress(OSError):
        stdin.close()


def _keep_head(stdout: IO[bytes], output: bytearray) -> None:
    with stdout:
        while block := os.read(stdout.fileno(), _BLOCK_BYTES):
            output += block[: max(_MOST_OUTPUT_BYTES - len(output), 0)]
