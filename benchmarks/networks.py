"""The model in this process: which runtimes work here, and the network in each of them."""

import importlib
import sys

from conversation import MODEL

from sr_engine.errors import UnusableEngine
from sr_engine.loading import Choice, load
from sr_engine.network import Network
from sr_engine.runtimes import Options

RUNTIMES = ("openvino", "onnx", "opencv")


def installed() -> list[str]:
    """The runtimes that are here."""
    return [name for name in RUNTIMES if not importlib.import_module(f"sr_engine.runtimes.{name}").missing()]


def network(runtime: str, precision: str) -> Network:
    """The model in a runtime."""
    choice = Choice(MODEL, "", runtime, Options(device="cpu", precision=precision))
    return load(choice).network


def usable(runtime: str, precision: str) -> bool:
    """Whether this runtime works here, and has the precision."""
    try:
        network(runtime, precision).close()
    except UnusableEngine as error:
        sys.stderr.write(f"not measured, {runtime} {precision}: {error.message}\n")
        return False
    return True
