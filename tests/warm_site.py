"""A site whose engine is kept, and what can be seen of that."""

from collections.abc import Callable
from typing import Any

import pytest
from harness import QUICK, STUB_ENGINE, Running, Site, wait_until

PARTS = "spawn_seconds + load_seconds + compute_seconds + idle_seconds + exit_seconds"
MakeSite = Callable[..., Site]


def kept(make_site: MakeSite, seconds: float = 600, name: str = "site", **sections: Any) -> Site:
    """A site with the stub engine, which is kept so long."""
    engine = {**QUICK["engine"], "command": STUB_ENGINE, "keep_warm_seconds": seconds, **sections.pop("engine", {})}
    return make_site(name, engine=engine, **sections)


def deliver(site: Site, name: str, data: bytes) -> None:
    site.drop(name, data)
    wait_delivered(site, name)


def wait_delivered(site: Site, name: str) -> None:
    wait_until(lambda: name in site.names(site.archive), f"{name} to be delivered")


def wait_warm(site: Site, times: int = 1) -> int:
    """Until the engine is at rest for the so many-th time; returns its process id."""
    wait_until(
        lambda: len(site.query("SELECT id FROM warm_ups")) >= times and state(site)["state"] == "warm", "it to be warm"
    )
    (pid,) = site.engines()
    return pid


def wait_gone(site: Site, running: Running) -> None:
    wait_until(lambda: not site.engines(), "the engine to end")
    wait_until(lambda: not site.query("SELECT id FROM engine_runs WHERE exited_at IS NULL"), "its run to be closed")
    assert running.process.poll() is None, running.log()


def state(site: Site) -> dict[str, Any]:
    told: dict[str, Any] = site.status()["engine"]
    return told


def exits(site: Site) -> list[int | None]:
    return [code for (code,) in site.query("SELECT exit_code FROM engine_runs ORDER BY id")]


def check_books(site: Site) -> None:
    """Each run is closed and its parts are its whole; each stretch of time without work has its end."""
    assert not site.query("SELECT id FROM engine_runs WHERE exited_at IS NULL")
    assert not site.query("SELECT id FROM warm_ups WHERE ended_at IS NULL OR idle_seconds < 0")
    for parts, wall in site.query(f"SELECT {PARTS}, exited_at - spawned_at FROM engine_runs"):
        assert parts == pytest.approx(wall, abs=1e-3)
