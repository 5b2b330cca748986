"""Fixtures: a site of its own for each test. What they are made of is in harness.py, which every test can import."""

import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from harness import QUICK, STUB_ENGINE, Site

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    # Started in the background of a shell: children would inherit that Ctrl-C means nothing.
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture
def make_site(tmp_path: Path) -> Iterator[Callable[..., Site]]:
    """Make sites in the test's own folder; whatever they run is ended afterwards."""
    sites: list[Site] = []

    def make(name: str = "site", **overrides: dict[str, Any]) -> Site:
        sites.append(Site(tmp_path / name, **overrides))
        return sites[-1]

    yield make
    for site in sites:
        site.close()


@pytest.fixture
def site(make_site: Callable[..., Site]) -> Site:
    """A site with the real engine."""
    return make_site()


@pytest.fixture
def stub_site(make_site: Callable[..., Site]) -> Site:
    """A site with the stub engine, which is quick and does as its pictures say."""
    return make_site(engine={"command": STUB_ENGINE, **QUICK["engine"]})
