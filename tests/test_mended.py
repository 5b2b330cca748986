"""What stood in the way was mended: pictures that waited for a long time are taken at once."""

import signal
from collections.abc import Callable

import pytest
from harness import HASTY_STUB, QUICK, STUB_ENGINE, Running, Site, wait_until
from promise import Promise

NEVER = {"first_seconds": 500, "max_seconds": 600}


@pytest.fixture
def ill(make_site: Callable[..., Site]) -> tuple[Site, Promise, Running]:
    """A watcher whose engine is not there, and a picture that waits for minutes."""
    site = make_site("site", **{**HASTY_STUB, "engine": {"command": ["/no/such/engine"]}, "retry": NEVER})
    promise = Promise(site)
    promise.drop("a.png", b"a picture")
    running = site.start()
    wait_until(lambda: site.query("SELECT id FROM pictures WHERE not_before > 0"), "the picture to wait")
    site.configure(**{**HASTY_STUB, "engine": {**QUICK["engine"], "command": STUB_ENGINE}, "retry": NEVER})
    return site, promise, running


def test_a_start_tries_again_at_once(ill: tuple[Site, Promise, Running]) -> None:
    site, promise, running = ill
    assert running.stop() == 0
    running = site.start()
    wait_until(lambda: site.names(site.archive), "the picture to be delivered")
    assert running.stop() == 0
    promise.check_end()


def test_another_config_tries_again_at_once(ill: tuple[Site, Promise, Running]) -> None:
    site, promise, running = ill
    running.process.send_signal(signal.SIGHUP)
    wait_until(lambda: site.names(site.archive), "the picture to be delivered")
    assert running.stop() == 0
    promise.check_end()


def test_a_single_look_keeps_to_the_time(ill: tuple[Site, Promise, Running]) -> None:
    """By cron it may come every minute, and must not start an engine that cannot work each time."""
    site, _, running = ill
    assert running.stop() == 0
    assert site.once().returncode == 0
    assert site.names(site.inbox) == {"a.png"}
