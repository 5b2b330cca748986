"""Engines that crash, hang, lie or never start: real child processes, see engines/stub.py.

Only a picture's own fault sends it to `failed`; the good pictures beside it are delivered whatever happens.
"""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any

import pytest
from harness import QUICK, ROOT, STUB_ENGINE, Running, Site, photo, stub_result, wait_until
from strace import needs_strace

GOOD = {f"good {number}.png": photo(number, 8, 8) for number in range(3)}


def engine(**settings: Any) -> dict[str, Any]:
    """Settings of a stub engine that is soon out of patience."""
    return {
        "command": STUB_ENGINE,
        "start_seconds": 5,
        "deadline_seconds": 0.5,
        "deadline_seconds_per_megapixel": 0,
        **settings,
    }


def drop_with_good_ones(site: Site, *bad: bytes) -> None:
    """Bad pictures, before, between and after good ones."""
    for number, data in enumerate(bad):
        site.drop(f"bad {number}.png", data)
    for name, data in GOOD.items():
        site.drop(name, data)


def assert_good_ones_delivered(site: Site) -> None:
    results, archived = site.files(site.outbox), site.files(site.archive)
    for name, data in GOOD.items():
        assert results[name] == stub_result(data)
        assert archived[name] == data
    assert len(results) == len(archived) == len(GOOD)
    assert site.engines() == []


def why_waiting(site: Site, name: str) -> str:
    """Empty while it is tried again."""
    why = "".join(entry["why"] for entry in site.status()["waiting"] if entry["path"] == name)
    return str(why)


# The picture's own fault


REASONS = {
    b"CRASH": "the engine was ended by SIGABRT while it worked on this picture, 2 times",
    b"EXIT": "the engine exited with code 7 while it worked on this picture, 2 times; I was told to exit",
    b"HANG": "a picture was not done in its time while it worked on this picture, 2 times",
    b"GARBAGE": "the engine talked nonsense: ",
    b"UNSUPPORTED": "such pictures are not handled",
}


def test_a_picture_that_takes_the_engine_down_fails_after_its_attempts_and_alone(
    make_site: Callable[..., Site],
) -> None:
    sites = {words: make_site(words.decode(), engine=engine()) for words in REASONS}
    for words, site in sites.items():
        drop_with_good_ones(site, words)
    starts = [site.start("once", ready=False) for site in sites.values()]
    for running, (words, site) in zip(starts, sites.items(), strict=True):
        assert running.process.wait(60) == 1, running.log()
        assert_good_ones_delivered(site)
        failed = site.files(site.failed)
        assert set(failed) == {"bad 0.png", "bad 0.png.reason.txt"}
        assert failed["bad 0.png"] == words
        assert REASONS[words] in failed["bad 0.png.reason.txt"].decode()
        assert not site.names(site.inbox)


def test_several_guilty_pictures_in_one_batch_fail_each_for_its_own_reason(make_site: Callable[..., Site]) -> None:
    site = make_site(engine=engine(attempts=1))
    drop_with_good_ones(site, b"CRASH 0", b"EXIT 1", b"UNSUPPORTED 2", b"CRASH 3")
    assert site.once().returncode == 1
    assert_good_ones_delivered(site)
    reasons = {name: data.decode() for name, data in site.files(site.failed).items() if name.endswith(".txt")}
    assert "SIGABRT" in reasons["bad 0.png.reason.txt"]
    assert "code 7" in reasons["bad 1.png.reason.txt"]
    assert "not handled" in reasons["bad 2.png.reason.txt"]
    assert "SIGABRT" in reasons["bad 3.png.reason.txt"]
    assert not site.names(site.inbox)


def test_a_suspect_gets_as_many_engines_of_its_own_as_the_config_says(make_site: Callable[..., Site]) -> None:
    site = make_site(engine=engine(attempts=3))
    drop_with_good_ones(site, b"CRASH")
    assert site.once().returncode == 1
    tested = 1  # with a sound picture, before it is blamed
    assert 1 <= len(site.upscaled()) - 3 - tested <= 2, "one with all, at most one with the rest, then it alone"
    assert "3 times" in site.files(site.failed)["bad 0.png.reason.txt"].decode()


def test_two_names_of_one_guilty_content_both_fail(make_site: Callable[..., Site]) -> None:
    site = make_site(engine=engine())
    drop_with_good_ones(site, b"CRASH", b"CRASH")
    assert site.once().returncode == 1
    assert_good_ones_delivered(site)
    assert {"bad 0.png", "bad 1.png"} < site.names(site.failed)


def test_a_slow_picture_within_its_deadline_is_no_hang(make_site: Callable[..., Site]) -> None:
    """The deadline grows with the pixels: 64 x 64 of the stub's pictures."""
    site = make_site(engine=engine(deadline_seconds=0.1, deadline_seconds_per_megapixel=600))
    site.drop("slow.png", b"SLOW 0.6")
    assert site.once().returncode == 0
    assert site.files(site.outbox) == {"slow.png": stub_result(b"SLOW 0.6")}


# The surroundings


def test_an_engine_ended_from_outside_blames_no_picture(make_site: Callable[..., Site]) -> None:
    """SIGKILL is what the kernel's out-of-memory killer sends."""
    site = make_site(engine=engine())
    drop_with_good_ones(site, b"SELFKILL")
    done = site.once()
    assert done.returncode == 3
    assert_good_ones_delivered(site)
    assert site.files(site.inbox) == {"bad 0.png": b"SELFKILL"}
    assert not site.names(site.failed)
    assert "SIGKILL" in why_waiting(site, "bad 0.png")


def test_a_full_disk_makes_its_picture_wait_with_growing_pauses_until_there_is_space(
    make_site: Callable[..., Site],
) -> None:
    site = make_site(engine=engine(), retry={"first_seconds": 0.1, "max_seconds": 0.2})
    running = site.start()
    drop_with_good_ones(site, b"DISKFULL")
    wait_until(lambda: running.log().count("no space left on the outbox") >= 3, "the picture to be tried again")
    assert_good_ones_delivered(site)
    wait_until(lambda: "no space left on the outbox" in why_waiting(site, "bad 0.png"), "status to say for what")
    assert not site.names(site.failed)
    site.drop("bad 0.png", photo(9))  # the stub's disk is full as long as the picture says so
    wait_until(lambda: "bad 0.png" in site.names(site.archive), "the picture, now that there is space")
    assert not site.names(site.inbox)


ILLS: dict[str, tuple[dict[str, float], str]] = {
    "UNUSABLE": ({}, "libGL.so.1 is missing"),
    "NEVERREADY": ({"start_seconds": 0.4}, "the engine was not ready after 0.4 s"),
    "NOSTART": ({}, "the engine exited with code 9"),
}


def test_an_engine_that_is_ill_fails_no_picture_and_delivers_all_once_it_is_well(
    make_site: Callable[..., Site],
) -> None:
    sites = {ill: make_site(ill, engine=engine(**settings)) for ill, (settings, _) in ILLS.items()}
    for site in sites.values():
        drop_with_good_ones(site)
    starts = [site.start("once", ready=False, STUB=ill) for ill, site in sites.items()]
    for running, (ill, site) in zip(starts, sites.items(), strict=True):
        reason = ILLS[ill][1]
        assert running.process.wait(60) == 3, running.log()
        assert reason in running.log()
        assert site.files(site.inbox) == GOOD
        assert not site.names(site.failed)
        assert not site.names(site.outbox)
        assert reason in why_waiting(site, "good 0.png")
    for site in sites.values():
        site.configure(engine=engine())
        wait_until(lambda site=site: site.once().returncode == 0 and not site.names(site.inbox), "the delivery", 20)
        assert_good_ones_delivered(site)


NO_ENGINES = {
    "missing": ["/nonexistent/engine"],
    "not executable": [str(ROOT / "README.md")],
    "exits at once": ["true"],
    "talks nonsense": ["sh", "-c", "echo no engine; sleep 60"],
}


def test_a_command_that_is_no_engine_fails_no_picture(make_site: Callable[..., Site]) -> None:
    sites = [make_site(name, engine=engine(command=command)) for name, command in NO_ENGINES.items()]
    for site in sites:
        drop_with_good_ones(site)
    starts = [site.start("once", ready=False) for site in sites]
    for running, site in zip(starts, sites, strict=True):
        assert running.process.wait(60) == 3, running.log()
        assert site.files(site.inbox) == GOOD
        assert not site.names(site.failed)
        assert "engine" in why_waiting(site, "good 1.png")
    doctors = [site.start("doctor", ready=False) for site in sites]
    for running in doctors:
        assert running.process.wait(60) == 3, running.log()


def test_a_running_watcher_delivers_by_itself_once_the_engine_is_there(make_site: Callable[..., Site]) -> None:
    """As when the share with the engine's libraries comes back."""
    script = "engines/late.py"
    site = make_site(engine=engine(command=[sys.executable, "-P", script]))
    site.start()
    drop_with_good_ones(site)
    wait_until(lambda: all("exited with code" in entry["why"] for entry in site.status()["waiting"]), "the reason")
    (site.root / "engines").mkdir()
    (site.root / script).symlink_to(ROOT / "tests" / "engines" / "stub.py")
    wait_until(lambda: site.names(site.archive) == set(GOOD) and not site.engines(), "all to be delivered", 20)
    assert_good_ones_delivered(site)


def test_a_picture_is_not_blamed_for_an_engine_that_dies_before_it(make_site: Callable[..., Site]) -> None:
    """The engine of the guilty one is gone; whoever stood behind it in the queue is innocent, however often."""
    site = make_site(engine=engine(attempts=1))
    for number in range(4):
        site.drop(f"a{number}.png", b"EXIT %d" % number)
    for name, data in GOOD.items():
        site.drop(name, data)
    assert site.once().returncode == 1
    assert_good_ones_delivered(site)


# Stopping


def drop_slow_ones(site: Site, seconds: float, count: int = 4) -> None:
    for number in range(count):
        site.drop(f"{number}.png", f"SLOW {seconds} {number}".encode())


def wait_in_work(running: Running) -> None:
    wait_until(lambda: "engine ready" in running.log(), "the engine to work")
    time.sleep(0.3)  # until the first picture is in work, which nothing shows


def start_on_slow_pictures(site: Site, seconds: float, count: int = 4, **environment: str) -> Running:
    running = site.start(**environment)
    drop_slow_ones(site, seconds, count)
    wait_in_work(running)
    return running


def test_a_stop_lets_the_picture_in_work_finish_and_leaves_the_rest_in_the_inbox(
    make_site: Callable[..., Site],
) -> None:
    """SIGTERM, as a service manager sends it, and SIGINT, as Ctrl-C does."""
    numbers = (signal.SIGTERM, signal.SIGINT)
    sites = [make_site(f"{number}", engine=engine(deadline_seconds=30, grace_seconds=20)) for number in numbers]
    starts = [site.start() for site in sites]
    for site in sites:
        drop_slow_ones(site, 1)
    for running in starts:
        wait_in_work(running)
    for running, number in zip(starts, numbers, strict=True):
        running.process.send_signal(number)
    for site, running in zip(sites, starts, strict=True):
        assert running.process.wait(20) == 0
        assert site.engines() == []
        (delivered,) = site.names(site.archive)
        assert site.files(site.outbox) == {delivered: stub_result(site.files(site.archive)[delivered])}
        assert len(site.files(site.inbox)) == 3
        assert not site.names(site.failed)
        assert not any(entry.name.startswith(".") for entry in site.outbox.iterdir())


def test_a_second_stop_abandons_the_picture_in_work_at_once(make_site: Callable[..., Site]) -> None:
    site = make_site(engine=engine(deadline_seconds=60, grace_seconds=60))
    running = start_on_slow_pictures(site, 50)
    running.process.send_signal(signal.SIGTERM)
    time.sleep(0.6)
    assert running.process.poll() is None, "the first stop has to wait for the picture in work"
    assert running.stop(patience=5) == 0
    assert site.engines() == []
    assert len(site.files(site.inbox)) == 4
    assert not site.names(site.archive) | site.names(site.outbox) | site.names(site.failed)


def test_a_picture_that_outlasts_the_grace_time_is_abandoned_and_delivered_by_the_next_start(
    make_site: Callable[..., Site],
) -> None:
    """Even if the engine ignores that its stdin closes."""
    site = make_site(engine=engine(deadline_seconds=60, grace_seconds=0.1))
    running = start_on_slow_pictures(site, 1.2, count=1, STUB="DEAF")
    assert running.stop(patience=10) == 0
    assert site.engines() == []
    assert site.files(site.inbox) == {"0.png": b"SLOW 1.2 0"}
    assert not site.names(site.outbox) | site.names(site.failed)
    assert site.once().returncode == 0
    assert site.files(site.outbox) == {"0.png": stub_result(b"SLOW 1.2 0")}
    assert not site.names(site.inbox)


def test_a_stop_of_once_is_clean_as_well(make_site: Callable[..., Site]) -> None:
    """Cron's `once` in the middle of its work, as at a shutdown."""
    site = make_site(engine=engine(deadline_seconds=60, grace_seconds=0.5), watch={"settle_seconds": 0.1})
    site.drop("0.png", b"SLOW 40")
    running = site.start("once", ready=False)
    wait_until(lambda: "engine ready" in running.log(), "the engine to work")
    assert running.stop(patience=5) == 0
    assert site.engines() == []
    assert site.files(site.inbox) == {"0.png": b"SLOW 40"}


def test_the_engine_dies_with_its_watcher(make_site: Callable[..., Site]) -> None:
    site = make_site(engine=engine(deadline_seconds=60))
    running = start_on_slow_pictures(site, 50, count=2)
    (pid,) = site.engines()
    running.kill()
    wait_until(lambda: pid not in site.engines(), "the engine to die", 5)
    assert site.files(site.inbox) == {f"{number}.png": f"SLOW 50 {number}".encode() for number in range(2)}
    assert not site.names(site.failed)


def test_the_real_engine_dies_with_its_watcher(site: Site) -> None:
    running = site.start()
    for number in range(6):
        site.drop(f"{number}.png", photo(number, 800, 600))  # seconds of work each
    (pid,) = wait_until(site.engines, "the engine")
    running.kill()
    wait_until(lambda: pid not in site.engines(), "the engine to die", 3)
    assert len(site.names(site.archive)) < 6


def test_ctrl_c_in_a_terminal_does_not_reach_the_engine(make_site: Callable[..., Site]) -> None:
    """It goes to the whole process group; the engine has its own, and finishes the picture in work."""
    site = make_site(engine=engine(deadline_seconds=30))
    start_on_slow_pictures(site, 30, count=1)
    (pid,) = site.engines()
    assert os.getpgid(pid) == pid
    assert os.getsid(pid) == pid


def test_a_share_that_reads_too_slowly_is_not_the_pictures_fault(make_site: Callable[..., Site]) -> None:
    site = make_site(engine={**QUICK["engine"], "command": STUB_ENGINE, "deadline_seconds": 0.5, "attempts": 1})
    site.drop("a.png", b"READS 3600")
    site.drop("b.png", b"good")
    done = site.once()
    assert done.returncode == 3, done.stderr
    assert site.names(site.archive) == {"b.png"}
    assert site.names(site.inbox) == {"a.png"} and not site.names(site.failed)
    assert "could not be read in its time" in site.status()["waiting"][0]["why"]


@pytest.mark.parametrize("end", ["called off", "stop"])
def test_a_held_engine_ends_in_its_time_though_a_share_does_not_answer(stub_site: Site, end: str) -> None:
    """The thread that has the engine hangs in a move; it has no work for it."""
    needs_strace()
    site = stub_site
    site.configure(engine={"command": STUB_ENGINE, "keep_warm_seconds": 600})
    running = site.start()
    site.drop("a.png", b"a picture")
    wait_until(lambda: "the engine is kept warm" in running.log(), "it to be warm")
    hanging = ["-e", "trace=renameat2", "-e", f"inject=renameat2:delay_enter={60 * 10**6}"]
    tracing = subprocess.Popen(
        ["strace", "-f", "-o", os.devnull, *hanging, "-p", str(running.pid)], stderr=subprocess.PIPE, text=True
    )
    try:
        assert tracing.stderr is not None and "attached" in tracing.stderr.readline()
        site.drop("b.png", b"a picture")
        wait_until(lambda: site.query("SELECT 1 FROM pictures WHERE state = 'publishing'"), "the move to hang")
        if end == "stop":
            running.process.send_signal(signal.SIGTERM)
        else:
            assert site.run("warm", "--off").returncode == 0
        wait_until(lambda: not site.engines(), "the engine to end", 30)
        assert site.names(site.inbox) == {"b.png"}
    finally:
        tracing.kill()
        tracing.communicate()
    wait_until(lambda: not site.names(site.inbox), "the move to go on")
    if end == "called off":
        running.process.send_signal(signal.SIGTERM)
    assert running.process.wait(60) == 0, running.log()
    assert site.query("SELECT exit_code, exit_seconds < 5 FROM engine_runs") == [(0, 1)]
