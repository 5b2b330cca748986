"""Clocks that lie: the machine's is set back and forward while pictures wait, and files come from other times."""

import os
import re
import subprocess
import time
from collections.abc import Callable

import pytest
from harness import HASTY_STUB, Site, wait_until
from outcomes import wait_done
from promise import Promise

DAY, YEAR = 86_400, 365 * 86_400
STUCK, LATE = b"DISKFULL ", b"UNDECODABLE "


# Not libfaketime: it shifts the sleeps that Python asks of the monotonic clock, too.
LIBRARY = r"""
#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

int clock_gettime(clockid_t clock, struct timespec *now)
{
    static int (*kernels)(clockid_t, struct timespec *);
    if (!kernels)
        *(void **)&kernels = dlsym(RTLD_NEXT, "clock_gettime");
    int refused = kernels(clock, now);
    if (!refused && clock == CLOCK_REALTIME) {
        long offset = 0;
        FILE *file = fopen(getenv("CLOCK_OFFSET"), "r");
        if (file) {
            if (fscanf(file, "%ld", &offset) == 1)
                now->tv_sec += offset;
            fclose(file);
        }
    }
    return refused;
}
"""


class Clock:
    """The wall clock of a watcher and its engines, which can be set; the monotonic one and the disk's times go on."""

    def __init__(self, site: Site) -> None:
        library = site.root / "clock.so"
        compile_it = ["cc", "-shared", "-fPIC", "-x", "c", "-", "-o", str(library), "-ldl"]
        try:
            subprocess.run(compile_it, input=LIBRARY, text=True, check=True, capture_output=True)
        except (OSError, subprocess.CalledProcessError):
            pytest.skip("there is no C compiler, with which to give a process a clock of its own")
        self._file = site.root / "offset"
        self.set(0)
        site.environment |= {"LD_PRELOAD": str(library), "CLOCK_OFFSET": str(self._file)}

    def set(self, offset: int) -> None:
        """So many seconds ahead of the right time."""
        fresh = self._file.with_suffix(".new")
        fresh.write_text(f"{offset}")
        fresh.replace(self._file)


@pytest.fixture
def hasty(make_site: Callable[..., Site]) -> Site:
    return make_site(**{**HASTY_STUB, "watch": {**HASTY_STUB["watch"], "incomplete_seconds": 3}})


def tries(site: Site, name: str) -> int:
    found = site.query("SELECT path, waits FROM pictures WHERE state NOT IN ('done', 'failed', 'withdrawn')")
    return int(dict(found).get(name.encode(), 0))


@pytest.mark.parametrize("jumps", [(-DAY, YEAR, -DAY), pytest.param((YEAR, -DAY, 0), marks=pytest.mark.slow)])
def test_a_clock_that_jumps_while_pictures_wait_neither_keeps_nor_fails_them(
    hasty: Site, jumps: tuple[int, ...]
) -> None:
    site = hasty
    clock = Clock(site)
    promise = Promise(site)
    running = site.start()
    site.drop("stuck.png", STUCK)
    for number, offset in enumerate(jumps):
        wait_until(lambda: tries(site, "stuck.png") >= 1, "it to wait")
        before = tries(site, "stuck.png")
        clock.set(offset)
        promise.drop(f"{number}.png", b"picture %d" % number)
        wait_until(lambda name=f"{number}.png": name in site.names(site.archive), "a new picture", 20)
        # its longest pause is 0.2 s, and the longest of all is incomplete_seconds
        wait_until(lambda before=before: tries(site, "stuck.png") >= before + 2, "it to be tried again", 20)
    (site.inbox / "stuck.png").unlink()
    promise.drop("stuck.png", b"there is space again")
    wait_done(site)
    promise.check_end()
    assert site.status()["watcher"]["watching"] == "yes"
    assert running.stop() == 0


@pytest.mark.parametrize("jump", [pytest.param(-DAY, marks=pytest.mark.slow), DAY])
def test_an_unfinished_upload_is_given_its_time_though_the_clock_jumps(hasty: Site, jump: int) -> None:
    """No more and no less: incomplete_seconds is 3 here."""
    site = hasty
    clock = Clock(site)
    promise = Promise(site)
    running = site.start()
    site.drop("upload.png", LATE)
    promise.originals["hopeless.png"] = LATE + b"for ever"
    site.drop("hopeless.png", promise.originals["hopeless.png"])
    wait_until(lambda: running.log().count("cannot be decoded") == 2, "the engine to meet them")
    doubted = time.monotonic()
    clock.set(jump)
    promise.drop("other.png", b"another picture")
    wait_until(lambda: "other.png" in site.names(site.archive), "another picture")
    assert site.names(site.failed) == set(), "a clock that jumps is not the picture's fault"
    (site.inbox / "upload.png").unlink()
    promise.drop("upload.png", b"whole by now")
    wait_until(lambda: site.names(site.failed), "the hopeless one to fail", 20)
    assert time.monotonic() - doubted > 2.5
    wait_done(site)
    promise.check_end({"hopeless.png"})
    assert running.stop() == 0


def test_rows_of_another_time_are_taken_up_by_the_next_watcher(hasty: Site) -> None:
    """A year ahead when they were written, as a board without a battery is, and right again afterwards."""
    site = hasty
    clock = Clock(site)
    clock.set(YEAR)
    site.drop("stuck.png", STUCK)
    assert site.once().returncode == 3
    clock.set(0)
    (site.inbox / "stuck.png").unlink()
    promise = Promise(site)
    promise.drop("stuck.png", b"there is space again")
    promise.drop("other.png", b"another picture")
    running = site.start()
    wait_done(site)
    promise.check_end()
    assert running.stop() == 0


TIMES = {
    "in 1970": 0,
    "before 1970": -DAY,
    "a second before the end of 32 bits": 2**31 - 1,
    "beyond 2038": 2**31 + DAY,
    "beyond 2106": 2**32 + DAY,
    "in an hour": None,
}


def test_pictures_from_any_time_are_taken_and_keep_it(hasty: Site) -> None:
    """A file is whole when it stays as it is, not when it is old enough."""
    site = hasty
    promise = Promise(site)
    running = site.start()
    stamps = {}
    for name, seconds in TIMES.items():
        promise.drop(f"sub/{name}.png", name.encode())
        path = site.inbox / "sub" / f"{name}.png"
        os.utime(path, (0, time.time() + 3600 if seconds is None else seconds))
        stamps[path.name] = path.stat().st_mtime_ns
    wait_done(site)
    promise.check_end()
    assert {path.name: path.stat().st_mtime_ns for path in (site.archive / "sub").iterdir()} == stamps
    assert site.status()["waiting"] == []
    assert not re.search("error|warning", running.log())
    assert running.stop() == 0
