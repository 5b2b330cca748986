"""Fixtures for tests of single modules."""

import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest


@pytest.fixture
def other_filesystem(tmp_path: Path) -> Iterator[Path]:
    """An empty folder on another file system than the test's."""
    shared = Path("/dev/shm")
    if not shared.is_dir() or shared.stat().st_dev == tmp_path.stat().st_dev:
        pytest.skip("/dev/shm is not another file system here")
    folder = Path(tempfile.mkdtemp(prefix="dropscale-test-", dir=shared))
    yield folder
    shutil.rmtree(folder)
