"""Where a user's own models are: as platformdirs has it, which the watcher does not load for that."""

from pathlib import Path

import platformdirs
import pytest

from sr_engine.models import own_folder


@pytest.mark.parametrize(
    "environ",
    [
        {"HOME": "/home/a"},
        {"HOME": "/home/a/"},
        {"HOME": "/home/a", "XDG_DATA_HOME": "/data"},
        {"HOME": "/home/a", "XDG_DATA_HOME": "data"},
        {"HOME": "home/a"},
    ],
    ids=str,
)
def test_it_is_where_platformdirs_says(environ: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("XDG_DATA_HOME", raising=False)
    for name, value in environ.items():
        monkeypatch.setenv(name, value)
    assert Path(own_folder()) == Path(platformdirs.user_data_dir("dropscale", appauthor=False)) / "models"
