"""Whether HEIC pictures can be read here: their library is an extra."""

import importlib.util
import sys

from watcher.sections import Config


def lack(config: Config) -> str:
    """What has to be installed first, as a sentence; empty: nothing, or only workers on other machines can tell."""
    if config.executor == "rq" or config.engine.command or importlib.util.find_spec("pillow_heif") is not None:
        return ""
    return f"HEIC pictures need one more package: {sys.executable} -m pip install pillow-heif"
