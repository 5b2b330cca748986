"""One call of a hook: a command with the event on its stdin. Its twin for addresses is `webhook`."""

import contextlib
import os
import re
import selectors
import shutil
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Sequence
from typing import IO
from urllib.parse import urlsplit

from watcher.files.names import display

_MOST_OUTPUT_BYTES = 2000  # of a command, its last, for the log; the rest is read and forgotten
_BLOCK_BYTES = 1 << 16
_LOOK_SECONDS = 0.25  # how often a running command is looked at
_OUTPUT_SECONDS = 1.0  # for the rest of its output to come, once it has ended
_MOST_REASON = 300
_HEAD_BYTES = 256  # of a script: the first line, which names its interpreter


class CallFailed(Exception):
    """A call did not succeed; the message says why on one line, and holds neither address nor headers.

    Attributes:
        asked_seconds: before the next attempt, as the other side asked for.
    """

    def __init__(self, message: str, asked_seconds: float = 0.0) -> None:
        super().__init__(display(message)[:_MOST_REASON])
        self.asked_seconds = asked_seconds


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
        why, remedy = program_fault(words[0]) or (getattr(error, "strerror", None) or str(error), "")
        raise CallFailed(f"cannot be started: {why}" + (f": {remedy}" if remedy else "")) from error
    assert process.stdin is not None and process.stdout is not None
    output, over = bytearray(), threading.Event()
    threads = [
        threading.Thread(target=_feed, args=(process.stdin, payload, over), daemon=True),
        threading.Thread(target=_keep_tail, args=(process.stdout, output, over), daemon=True),
    ]
    try:
        for thread in threads:
            thread.start()
    except RuntimeError as error:  # the system allows no more threads
        over.set()
        _kill_group(process)
        process.wait()
        raise CallFailed(f"cannot be attended to: {error}") from error
    timed_out = not _ends(process, deadline)
    if timed_out:
        _kill_group(process)
        process.wait()
    threads[1].join(_OUTPUT_SECONDS)
    if threads[1].is_alive():  # something that it left behind holds its output open
        _kill_group(process)
    over.set()  # what went into a session of its own is not ours to find, and keeps no thread of ours
    if timed_out:
        raise CallFailed("took too long and was killed")
    if process.returncode != 0:
        how = f"was ended by signal {-process.returncode}" if process.returncode < 0 else "ended"
        code = f" with code {process.returncode}" if process.returncode > 0 else ""
        last = os.fsdecode(bytes(output)).strip().splitlines()[-1:]
        raise CallFailed(": ".join([how + code, *last]))


def program_fault(program: str) -> tuple[str, str] | None:
    """Why a program cannot be started from here, and what to do; None if nothing of that can be seen."""
    shown, found = shown_program(program), shutil.which(program)
    if found is None and shown != program:
        return (
            f"{shown} is one word with blanks, and there is no such program",
            "write a list: [program, argument, ...]",
        )
    if found is None and not os.path.dirname(program):
        path = os.environ.get("PATH", os.defpath)
        return f"{shown} is not on the PATH ({path})", "write its whole path, or install it"
    if os.path.isdir(program):
        return f"{shown} is a folder", "write the path of the program in it"
    if found is None and os.path.exists(program):
        return f"{shown} is not executable by this user", f"chmod +x {shown}"
    if found is None:
        return f"there is no {shown}", "write its whole path, without ~, or put it there"
    return None if os.name == "nt" else _script_fault(found)


def address_fault(url: str) -> tuple[str, str] | None:
    """Why nothing can be sent to an address, and what to do; None if nothing of that can be seen."""
    try:
        parts = urlsplit(url)
        fine = parts.hostname and (parts.port is None or parts.port > 0) and url.isascii()
    except ValueError:
        fine = False
    if fine:
        return None
    return (
        "what is there for url is no address",
        "write https://HOST:PORT/PATH in ASCII: %XX in a path, xn--... in a host",
    )


def shown_program(program: str) -> str:
    """A program as it may be shown: somebody may have put a whole command line, with a password, into one word."""
    first, *rest = program.split(maxsplit=1) or [program]
    return f"{first} ..." if rest and not os.path.exists(program) else program


def _script_fault(path: str) -> tuple[str, str] | None:
    try:
        with open(path, "rb") as file:
            head = file.read(_HEAD_BYTES)
    except OSError:  # to be executed, a program need not be readable
        return None
    words = head.split(b"\n")[0].removeprefix(b"#!").split(maxsplit=1)
    if head.startswith(b"#!") and words and not os.path.exists(words[0]):
        return f"{path} names an interpreter in its first line that is not there", "correct that line"
    if head and not head.startswith(b"#!") and head.isascii() and b"\0" not in head:
        return f"{path} is a script without a first line that names its interpreter", "begin it with #!/bin/sh"
    return None


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


def _feed(stdin: IO[bytes], payload: bytes, over: threading.Event) -> None:
    with contextlib.suppress(OSError), stdin, selectors.DefaultSelector() as selector:  # it may not want to know
        if os.name == "nt":  # where pipes cannot be waited for
            stdin.write(payload)
            return
        os.set_blocking(stdin.fileno(), False)
        selector.register(stdin, selectors.EVENT_WRITE)
        left = memoryview(payload)
        while left and not over.is_set():
            if selector.select(_LOOK_SECONDS):
                left = left[os.write(stdin.fileno(), left) :]


def _keep_tail(stdout: IO[bytes], output: bytearray, over: threading.Event) -> None:
    with stdout, selectors.DefaultSelector() as selector:
        if os.name != "nt":  # where pipes cannot be waited for
            selector.register(stdout, selectors.EVENT_READ)
        while not over.is_set():
            if os.name != "nt" and not selector.select(_LOOK_SECONDS):
                continue
            if not (block := os.read(stdout.fileno(), _BLOCK_BYTES)):
                return
            output += block
            del output[:-_MOST_OUTPUT_BYTES]
