"""A site whose folders can be mounted over and unmounted: all of it runs inside a mount namespace of its own.

The test looks at the folders through /proc/PID/root of a process in there, so it sees what the watcher sees, and
nothing of it is mounted anywhere else. With the last process in there all mounts are gone.
"""

import ast
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from harness import Site, command, wait_until


def needs_mounts() -> None:
    """Skip where this user may not mount, or could not do so without disturbing the machine."""
    if shutil.which("unshare") is None or shutil.which("nsenter") is None:
        pytest.skip("unshare and nsenter are needed to mount without disturbing the machine")
    probe = ["unshare", "--mount", "mount", "-t", "tmpfs", "-o", "size=64k", "probe", "/mnt"]
    if subprocess.run(probe, capture_output=True, check=False).returncode != 0:
        pytest.skip("this user may not mount anything, not even in a namespace of its own")


class Enclosure(Site):
    """Folders are paths as the test sees them; `inner` is the path by which the watcher knows one."""

    def __init__(self, root: Path, **overrides: dict[str, Any]) -> None:
        super().__init__(root, **overrides)
        self._keeper = subprocess.Popen(["unshare", "--mount", "cat"], stdin=subprocess.PIPE)  # ends with the test
        own = os.readlink("/proc/self/ns/mnt")
        wait_until(lambda: os.readlink(f"/proc/{self._keeper.pid}/ns/mnt") != own, "the namespace", 10)
        self._enter = ["nsenter", "--mount", "--target", str(self._keeper.pid)]
        # entering a namespace leaves the current folder
        self.command = [*self._enter, "sh", "-c", 'cd "$0" && exec "$@"', str(root), command()]
        self._view = Path(f"/proc/{self._keeper.pid}/root")
        for key in ("inbox", "outbox", "archive", "failed", "state"):
            setattr(self, key, self._view / getattr(self, key).relative_to("/"))

    def run(self, *arguments: str, **options: Any) -> "subprocess.CompletedProcess[str]":
        done = subprocess.run(
            [*self.command, *arguments, "--config", str(self.config_path)],
            check=False,
            env=self.environment,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=options.pop("timeout", 120),
            **options,
        )
        assert "Traceback" not in done.stdout + done.stderr, done.stderr
        return done

    def query(self, sql: str) -> list[tuple[Any, ...]]:
        if not os.path.ismount(self.state):
            return super().query(sql)
        # SQLite follows links by itself, and would look below the mount
        ask = "import sqlite3, sys; print(sqlite3.connect(sys.argv[1]).execute(sys.argv[2]).fetchall())"
        answer = self._do(sys.executable, "-c", ask, f"{self.inner(self.state)}/ledger.sqlite3", sql)
        found: list[tuple[Any, ...]] = ast.literal_eval(answer)
        return found

    def inner(self, folder: Path) -> Path:
        return Path("/") / folder.relative_to(self._view)

    def mount(self, folder: Path, options: str = "size=64m") -> None:
        """A new disk, of which others may keep a view: the options are those of tmpfs."""
        folder.mkdir(exist_ok=True)
        self._do("mount", "-t", "tmpfs", "-o", options, "disk", str(self.inner(folder)))

    def remount(self, folder: Path, options: str) -> None:
        self._do("mount", "-o", f"remount,{options}", str(self.inner(folder)))

    def unmount(self, folder: Path) -> None:
        self._do("umount", str(self.inner(folder)))

    def close(self) -> None:
        try:
            super().close()
        finally:
            self._keeper.kill()
            self._keeper.communicate()

    def _do(self, *words: str) -> str:
        done = subprocess.run([*self._enter, *words], capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        return done.stdout
