"""Fixtures for tests of single modules."""

import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from house import House


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
