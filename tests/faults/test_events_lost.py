"""Events that never come: the kernel's queue overflows, no watches are left, the thread that reads them dies."""

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
from harness import HASTY_STUB, ROOT, Running, Site, command, wait_until
from outcomes import wait_done
from promise import Promise
from strace import needs_strace

_QUEUE_LIMIT = Path("/proc/sys/fs/inotify/max_queued_events")
_MOST_EVENTS = 70_000


def freeze(running: Running) -> None:
    running.process.send_signal(signal.SIGSTOP)
    stat = Path(f"/proc/{running.pid}/stat")
    wait_until(lambda: stat.read_text().rsplit(")", 1)[1].split()[0] == "T", "the watcher to be frozen", 5)


def test_pictures_whose_events_were_lost_in_an_overflow_are_delivered(make_site: Callable[..., Site]) -> None:
    """The kernel keeps max_queued_events for a reader that is too slow, and drops the rest."""
    if not _QUEUE_LIMIT.exists() or int(_QUEUE_LIMIT.read_text()) > _MOST_EVENTS:
        pytest.skip("no inotify here, or its queue is too long to be filled")
    site = make_site(**HASTY_STUB)
    promise = Promise(site)
    running = site.start()
    freeze(running)
    for number in range(12):
        promise.drop(f"early {number}.png", b"early %d" % number)
    noise = [site.inbox / "a.txt", site.inbox / "b.txt"]  # two in turn: the kernel merges equal events
    for number in range(int(_QUEUE_LIMIT.read_text()) + 100):
        os.close(os.open(noise[number % 2], os.O_WRONLY | os.O_CREAT))
    for number in range(12):
        promise.drop(f"late {number % 4}/deep/{number}.png", b"late %d" % number)
    running.process.send_signal(signal.SIGCONT)
    wait_until(lambda: "events were lost" in running.log(), "the overflow to be noticed")
    wait_done(site, but={"a.txt", "b.txt"})
    promise.drop("late 1/deep/after.png", b"after")
    wait_done(site, but={"a.txt", "b.txt"})
    for path in noise:
        path.unlink()
    promise.check_end()
    assert site.status()["watcher"]["backend"].startswith("native events")


READER_DIES = """
import os, sys, time
from watchdog.observers.inotify_c import InotifyFD
from watcher.files.observer import Observer
observer = Observer(sys.argv[1], recursive=True, hint=print, lost=print)
observer.start()
assert observer.is_alive()
InotifyFD.get_instance().stop()
deadline = time.monotonic() + 10
while observer.is_alive():
    assert time.monotonic() < deadline, "nobody noticed"
    time.sleep(0.01)
observer.stop()
"""


def test_the_death_of_the_thread_that_reads_events_is_noticed(tmp_path: Path) -> None:
    """watchdog shares one such thread among its observers, and none of them notices when it ends."""
    if not _QUEUE_LIMIT.exists():
        pytest.skip("no inotify here")
    done = subprocess.run(
        [sys.executable, "-c", READER_DIES, str(tmp_path)], check=False, cwd=ROOT, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr


def injected(site: Site, calls: str, error: str, *paths: Path) -> list[str]:
    """The command beneath strace, which answers such calls with an error; on these paths alone, where there are any."""
    needs_strace()
    only = [option for path in paths for option in ("-P", str(path))]
    inject = ["-e", f"trace={calls}", "-e", f"inject={calls}:error={error}"]
    # -D: the process that the test knows is the watcher, not strace
    return ["strace", "-D", "-f", "-qq", "-o", os.devnull, *only, *inject, command()]


def test_a_rescan_finds_what_no_event_announced_and_polls_from_then_on(make_site: Callable[..., Site]) -> None:
    """A subfolder that cannot be watched, for a reason that nobody knows of."""
    site = make_site(**{**HASTY_STUB, "watch": {**HASTY_STUB["watch"], "rescan_seconds": 0.7}})
    site.command = injected(site, "inotify_add_watch", "EIO", site.inbox / "below")
    promise = Promise(site)
    running = site.start()
    promise.drop("heard.png", b"heard")
    promise.drop("below/silent.png", b"silent")
    wait_done(site)
    promise.drop("below/found.png", b"found")
    wait_done(site)
    assert "warning: native events do not work here" in running.log()
    report = site.status()["watcher"]
    assert report["events_missed"] > 0
    assert report["backend"].startswith("polling (")
    promise.drop("below/later.png", b"later")
    wait_done(site)
    promise.check_end()


def limited(count: int) -> list[str]:
    """The command as a user who is allowed so many watches."""
    limit = f"echo {count} > /proc/sys/user/max_inotify_watches"
    enter = ["unshare", "--user", "--map-root-user", "sh", "-c"]
    if shutil.which("unshare") is None or subprocess.run([*enter, limit], check=False, capture_output=True).returncode:
        pytest.skip("user namespaces are not allowed here")
    return [*enter, f'{limit} && exec "$0" "$@"', command()]


def no_watch(site: Site) -> Sequence[str]:
    return limited(0)


def one_watch_and_subfolders(site: Site) -> Sequence[str]:
    (site.inbox / "there before").mkdir()
    return limited(1)


def no_instance(site: Site) -> Sequence[str]:
    return injected(site, "inotify_init,inotify_init1", "EMFILE")


@pytest.mark.parametrize(
    ("scene", "why"),
    [
        (no_watch, "inotify watch limit reached"),
        (one_watch_and_subfolders, "no watches are left for subfolders"),
        (no_instance, "inotify instance limit reached"),
    ],
)
def test_without_watches_at_the_start_the_inbox_is_polled_and_that_is_said(
    make_site: Callable[..., Site], scene: Callable[[Site], Sequence[str]], why: str
) -> None:
    """rescan_seconds is 300 here."""
    site = make_site(**HASTY_STUB)
    site.command = list(scene(site))
    promise = Promise(site)
    running = site.start()
    assert "polling (no native events" in running.log() and why in running.log()
    promise.drop("there before/a.png", b"a")
    promise.drop("new/deep/b.png", b"b")
    wait_done(site)
    promise.drop("new/deep/c.png", b"c")
    wait_done(site)
    promise.check_end()
    report = site.status()["watcher"]
    assert report["backend"].startswith("polling (no native events") and why in report["backend"]
    assert report["events_missed"] == 0
    assert running.stop() == 0


def test_watches_that_run_out_later_make_the_inbox_polled_at_once(make_site: Callable[..., Site]) -> None:
    """A subfolder that watchdog cannot watch it passes over in silence; the next rescan would be in 300 seconds."""
    site = make_site(**HASTY_STUB)
    site.command = limited(3)  # the inbox, a subfolder, and one to see that there is one left
    promise = Promise(site)
    running = site.start()
    promise.drop("first/a.png", b"a")
    wait_done(site)
    assert "native events" in site.status()["watcher"]["backend"]
    for number in range(3):
        promise.drop(f"later {number}/deep/b.png", b"b %d" % number)
    wait_done(site)
    assert "warning: native events do not work here (no watches are left" in running.log()
    for number in range(3):
        promise.drop(f"later {number}/deep/c.png", b"c %d" % number)
    wait_done(site)
    promise.check_end()
    report = site.status()["watcher"]
    assert report["backend"].startswith("polling (no watches are left")
    assert report["events_missed"] == 0
    assert running.stop() == 0
