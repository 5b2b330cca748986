"""The embedded model for the engine's tests: loaded in a runtime, and applied to a picture."""

import importlib

import pytest


def enlarge(picture, network, pixels=768 * 1024, *, fixed=False):
    """The picture, enlarged in tiles of at most so many pixels."""
    from sr_engine.tiles import Cutting, Enlargement

    work = Enlargement(picture, network.model.scale, Cutting(network.model.halo, pixels, fixed))
    for job in work.jobs:
        job.finish(network([job.piece()])[0])
    return work.finish()


def load_network(name, precision="auto"):
    """A network in the runtime called `name`; skips where that is not installed."""
    from sr_engine import runtimes
    from sr_engine.loading import Choice, load

    options = runtimes.Options(precision=precision)
    if reason := importlib.import_module(f"sr_engine.runtimes.{name}").missing():
        pytest.skip(reason)
    return load(Choice("edsr-lite-x3", "", name, options)).network
