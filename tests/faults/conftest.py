"""Fixtures of the faults of the surroundings."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from enclosure import Enclosure, needs_mounts
from harness import HASTY_STUB


@pytest.fixture
def enclose(tmp_path: Path) -> Iterator[Callable[..., Enclosure]]:
    """Make sites, of short times and with the stub engine, whose folders can be mounted over."""
    needs_mounts()
    sites: list[Enclosure] = []

    def make(name: str = "site", **overrides: dict[str, Any]) -> Enclosure:
        sites.append(Enclosure(tmp_path / name, **{**HASTY_STUB, **overrides}))
        return sites[-1]

    yield make
    for site in sites:
        site.close()
