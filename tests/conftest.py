"""Fixtures: a site of its own for each test. What they are made of is in harness.py, which every test can import."""

import compileall
import os
import shutil
import signal
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from harness import QUICK, ROOT, STUB_ENGINE, Site

# As if installed, where modules are compiled once: tests start the command thousands of times. Where nothing may write
# bytecode, a third of each start would go into that; and no fault is to be spent on its files.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
if "PYTEST_XDIST_WORKER" not in os.environ:
    for package in ("watcher", "sr_engine", "webpage"):
        compileall.compile_dir(ROOT / package, quiet=1)

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    # Started in the background of a shell: children would inherit that Ctrl-C means nothing.
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session", autouse=True)
def no_models_of_the_users(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """What this user has added is not for tests."""
    with pytest.MonkeyPatch.context() as environment:
        environment.setenv("XDG_DATA_HOME", str(tmp_path_factory.mktemp("data")))
        yield


@pytest.fixture
def make_site(tmp_path: Path) -> Iterator[Callable[..., Site]]:
    """Make sites in the test's own folder; whatever they run is ended afterwards."""
    sites: list[Site] = []

    def make(name: str = "site", **overrides: Any) -> Site:
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


@pytest.fixture
def users_cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    """`dropscale upscale` without a watcher remembers things in the user's cache, which is not for tests."""
    folder = tmp_path_factory.mktemp("cache")
    monkeypatch.setenv("XDG_CACHE_HOME", str(folder))
    return folder


@pytest.fixture
def other_filesystem(tmp_path: Path) -> Iterator[Path]:
    """An empty folder on another file system than the test's."""
    shared = Path("/dev/shm")
    if not shared.is_dir() or shared.stat().st_dev == tmp_path.stat().st_dev:
        pytest.skip("/dev/shm is not another file system here")
    folder = Path(tempfile.mkdtemp(prefix="dropscale-test-", dir=shared))
    yield folder
    shutil.rmtree(folder)
