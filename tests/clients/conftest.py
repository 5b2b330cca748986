"""Fixtures of the tests with real clients: photographs, the programs they run, and a watcher to send to."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from harness import Site
from servers import Programs
from uploads import SETTINGS, Album, Uploads


@pytest.hookimpl(tryfirst=True)  # before pytest leaves out what is slow
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """All of them run servers and move megabytes."""
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker("slow")


@pytest.fixture(scope="session")
def album() -> Album:
    return Album()


@pytest.fixture
def uploads(make_site: Callable[..., Site]) -> Uploads:
    """A watcher that runs, and its inbox to send to."""
    return Uploads(make_site(**SETTINGS))


@pytest.fixture
def programs(tmp_path: Path, make_site: Callable[..., Any]) -> Iterator[Programs]:
    """Clients and servers; they end before the watcher is looked at for the last time, and before it is ended."""
    folder = tmp_path / "programs"
    folder.mkdir()
    found = Programs(folder)
    yield found
    found.close()
