"""How the work of an engine ends otherwise than well, and which pictures that counts against."""

import re
import signal

# Engines in a row that end with nothing done, each because a fresh one will do better. With tiles of half the size
# each time, ten are enough to get from the largest to the smallest.
MOST_RESTARTS = 10

# Last words of libraries that end the process where the memory ends.
_NO_MEMORY = re.compile(r"(?i)bad_alloc|out of memory|(cannot|can't|could not|failed to) allocate|MemoryError")

# Ends that come from outside: an administrator, a shutdown, the kernel's out-of-memory killer.
_OUTSIDE_SIGNALS = {
    getattr(signal, name) for name in ("SIGKILL", "SIGTERM", "SIGINT", "SIGHUP", "SIGQUIT") if hasattr(signal, name)
}


class EngineTrouble(Exception):
    """The engine ended before it had answered everything.

    Attributes:
        in_work: ids of the pictures that were started and not finished.
        blames: whether this kind of end counts against the picture in work.
        stderr: the last lines that the engine wrote there.
        is_told: whether the message is the engine's own, which says what to do.
    """

    def __init__(self, message: str, in_work: set[int], *, blames: bool, stderr: str, is_told: bool = False) -> None:
        super().__init__(message)
        self.message = message
        self.in_work = in_work
        self.blames = blames
        self.stderr = stderr
        self.is_told = is_told

    def verdict(self, attempts: int) -> str:
        """Why a picture fails that was alone in the engine so many times, each with this end."""
        if self.is_told:
            return self.message
        told = f"{self.message} while it worked on this picture, {attempts} times"
        if _NO_MEMORY.search(self.stderr):
            return f"{told}, for want of memory: cut the picture in parts, or raise limits.engine_megabytes"
        return "; ".join([told, *self.stderr.strip().splitlines()[-1:]])


class EngineGaveUp(Exception):
    """The engine said that it cannot go on. No picture is to blame.

    Attributes:
        retryable: whether a fresh engine will do better; else no picture can be upscaled.
        busy: whether others hold its device.
    """

    def __init__(self, message: str, *, retryable: bool, busy: bool = False) -> None:
        super().__init__(message)
        self.message = message
        self.retryable = retryable
        self.busy = busy


class EngineStopped(Exception):
    """The watcher was asked to stop; what the engine had not finished is left.

    Attributes:
        in_work: ids of the pictures that were given up half-way.
    """

    def __init__(self, in_work: set[int]) -> None:
        super().__init__("stopped")
        self.in_work = in_work


def told_exit(code: int) -> tuple[str, bool]:
    """What an exit code says, negative for a signal; and whether such an end counts against the picture in work."""
    if code >= 0:
        return f"the engine exited with code {code}", True
    names = {member.value: member.name for member in signal.Signals}
    return f"the engine was ended by {names.get(-code, f'signal {-code}')}", -code not in _OUTSIDE_SIGNALS
