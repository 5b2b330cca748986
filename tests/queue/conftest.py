"""Fixtures: a Redis server, and sites that use it."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from harness import HASTY_STUB, Site
from machines import QueueSite, RedisServer

pytest.importorskip("rq")


@pytest.fixture
def server() -> Iterator[RedisServer]:
    server = RedisServer()
    server.start()
    yield server
    server.close()


@pytest.fixture
def make_queue_site(tmp_path: Path, server: RedisServer) -> Iterator[Callable[..., QueueSite]]:
    sites: list[QueueSite] = []

    def make(name: str = "site", **overrides: dict[str, Any]) -> QueueSite:
        sites.append(QueueSite(tmp_path / name, server, **overrides))
        return sites[-1]

    yield make
    for site in sites:
        site.close()


@pytest.fixture
def queue_site(make_queue_site: Callable[..., QueueSite]) -> QueueSite:
    """A site with the stub engine and short times, without workers."""
    return make_queue_site()


@pytest.fixture(params=["local", "rq"])
def any_site(request: pytest.FixtureRequest) -> Iterator[Callable[..., Site]]:
    """Makes sites that upscale here, or by two workers: what is promised is the same."""
    if request.param == "local":
        root = request.getfixturevalue("tmp_path")
        sites: list[Site] = []

        def make(**overrides: dict[str, Any]) -> Site:
            sites.append(Site(root / "site", **{**HASTY_STUB, **overrides}))
            return sites[-1]

        yield make
        for site in sites:
            site.close()
        return
    make_queue = request.getfixturevalue("make_queue_site")

    def make_with_workers(**overrides: dict[str, Any]) -> Site:
        site: QueueSite = make_queue(**overrides)
        site.worker()
        site.worker()
        return site

    yield make_with_workers
