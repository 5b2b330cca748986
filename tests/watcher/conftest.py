"""Fixtures for tests of single modules."""

import signal
import sys
import textwrap
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from harness import STUB_ENGINE
from house import House
from talks import Make, Requests, is_gone

from sr_engine import protocol
from sr_engine.protocol import Limits
from watcher.engine.process import EngineProcess
from watcher.sections import Engine


@pytest.fixture
def no_sigio() -> Iterator[None]:
    """As the command does: the default of the kernel's word to a lease holder would end the tests.

    See `filesystem.writer_present`.
    """
    before = signal.signal(signal.SIGIO, signal.SIG_IGN)
    yield
    signal.signal(signal.SIGIO, before)


@pytest.fixture
def house(tmp_path: Path, no_sigio: None) -> Iterator[House]:
    house = House(tmp_path)
    yield house
    house.ledger.close()


@pytest.fixture
def apart(tmp_path: Path, other_filesystem: Path, no_sigio: None) -> Iterator[House]:
    """Archive and failed are on another file system."""
    house = House(tmp_path, archive=other_filesystem / "archive", failed=other_filesystem / "failed")
    yield house
    house.ledger.close()


@pytest.fixture(params=["one file system", "two file systems"])
def either(request: pytest.FixtureRequest) -> House:
    house: House = request.getfixturevalue("house" if request.param == "one file system" else "apart")
    return house


@pytest.fixture
def make(tmp_path: Path) -> Iterator[Make]:
    """Start engines: the stub, or a script; each is reaped at the end."""
    engines: list[EngineProcess] = []

    cache = str(tmp_path / "state" / "engines")

    def start(script: str = "", **settings: Any) -> EngineProcess:
        command = list(STUB_ENGINE)
        if script:
            (tmp_path / "engine.py").write_text(textwrap.dedent(script))
            command = [sys.executable, str(tmp_path / "engine.py")]
        seconds = {"start_seconds": 20.0, "deadline_seconds": 20.0, "deadline_seconds_per_megapixel": 0.0, **settings}
        engines.append(EngineProcess(Engine(command=tuple(command), **seconds), str(tmp_path), Limits(), cache))
        return engines[-1]

    yield start
    for engine in engines:
        engine.close()
        assert is_gone(engine.pid), "every engine is reaped"


@pytest.fixture
def requests(tmp_path: Path) -> Requests:
    """Write files, and ask for them."""

    def write(*pictures: bytes) -> list[protocol.Upscale]:
        made = []
        for number, data in enumerate(pictures, 1):
            source = tmp_path / f"{number}.png"
            source.write_bytes(data)
            made.append(protocol.Upscale(id=number, source=str(source), target=str(tmp_path / f"result-{number}")))
        return made

    return write


@pytest.fixture
def berlin() -> Iterator[None]:
    """A time zone whose clocks are changed."""
    with pytest.MonkeyPatch.context() as environment:
        environment.setenv("TZ", "Europe/Berlin")
        time.tzset()
        yield
    time.tzset()
