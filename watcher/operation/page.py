"""The page beside the watcher: a child process of its own, so that nothing of it can hold up or bring down the watcher.

It lives as long as the watcher does: its stdin is a pipe from here, and when that closes, by a stop or by a kill, it
ends. Should it end by itself, it is started again, each time after a longer pause.
"""

import importlib.util
import subprocess
import sys
import threading
from collections.abc import Sequence

from watcher.errors import ConfigError
from watcher.journal import tell, warn
from watcher.sections import Retry, Web

_STOP_SECONDS = 10.0


def check_wall(web: Web) -> None:
    """Refuse a page that everybody could reach.

    Raises:
        ConfigError: its address is not of this machine alone, and there is no token.
    """
    if not web.is_local and not web.token:
        raise ConfigError(
            f"web.host: {web.host} can be reached from outside, and web.token is empty",
            "set DROPSCALE_WEB__TOKEN to 16 characters or more that nobody guesses, or web.host to 127.0.0.1",
        )


def check(web: Web) -> None:
    """See that the page can be had, if the config asks for it: a child that fails again and again tells it too often.

    Raises:
        ConfigError: it cannot, or everybody could reach it.
    """
    if not web.enabled:
        return
    check_wall(web)
    for library in ("flask", "waitress"):
        if importlib.util.find_spec(library) is None:  # only looked for: they take 20 MB
            raise ConfigError(
                f"web.enabled: the library {library} is not installed",
                "install it (`pip install flask waitress`), or set web.enabled to false",
            )


class Page:
    """The child process, from `with` to the end of its block; nothing at all where the page is not enabled."""

    def __init__(self, web: Web, retry: Retry, config_path: str, log_options: Sequence[str]) -> None:
        """Prepare it.

        Args:
            web: its settings.
            retry: how long to wait before it is started again.
            config_path: what the child is to read.
            log_options: --log-format and the like.
        """
        self._enabled = web.enabled
        self._retry = retry
        self._command = [sys.executable, "-P", "-m", "webpage", "--until-stdin-closes", "--config", config_path]
        self._command += log_options
        self._stopping = threading.Event()
        self._process: subprocess.Popen[bytes] | None = None
        self._keeper = threading.Thread(target=self._keep, name="page", daemon=True)

    def __enter__(self) -> "Page":
        if self._enabled:
            self._keeper.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._enabled:
            self._stopping.set()
            self._close()
            self._keeper.join(_STOP_SECONDS)

    def _keep(self) -> None:
        starts = 0
        while not self._stopping.is_set():
            try:
                self._process = subprocess.Popen(self._command, stdin=subprocess.PIPE, start_new_session=True)
                tell("page_started", "the page is a process of its own ({pid})", pid=self._process.pid)
                if self._stopping.is_set():  # since it was asked
                    self._close()
                code = self._process.wait()
                self._close()
            except OSError as error:
                code = error.errno or 1
            if self._stopping.is_set():
                return
            pause = self._retry.delay_seconds(starts)
            text = "the page ended with code {code}; the watching goes on, the page is started again in {pause:g} s"
            warn("page_ended", text, code=code, pause=pause)
            starts += 1
            self._stopping.wait(pause)

    def _close(self) -> None:
        process = self._process
        if process is None or process.stdin is None:
            return
        process.stdin.close()
        try:
            process.wait(_STOP_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
