"""From names to a network that runs: the model is found and verified, a runtime loads it, tiles get their size."""

from collections.abc import Callable
from typing import TYPE_CHECKING, NamedTuple

import msgspec

from sr_engine import machine, models, runtimes
from sr_engine.errors import UnusableEngine
from sr_engine.runtimes import opencv

# Not at run time, as numpy and OpenCV may be what does not load: `load` finds out, and says so in a sentence.
if TYPE_CHECKING:
    from sr_engine.network import Network
    from sr_engine.tile_budget import TileBudget
    from sr_engine.tiles import Cutting


class Choice(NamedTuple):
    """What is to enlarge.

    Attributes:
        model: a name from a manifest, or "auto".
        models_folder: where the user's own models are; empty: where `models.own_folder` says.
        runtime: one of `runtimes.NAMES`.
        options: for the runtime.
        ensemble: as `Network` has it.
        sha256: of the weights, if they have to be certain ones.
        engine_bytes: what this process may use from now on, as `protocol.Limits` has it; None: it is not ours to limit.
    """

    model: str
    models_folder: str
    runtime: str
    options: runtimes.Options
    ensemble: bool = False
    sha256: str = ""
    engine_bytes: int | None = None


class Loaded(NamedTuple):
    """What enlarges.

    Attributes:
        network: the model in its runtime.
        cutting: how pictures have to be cut for it.
        budget: where the size of tiles comes from.
        reason: why this runtime; empty where it was asked for.
    """

    network: "Network"
    cutting: "Cutting"
    budget: "TileBudget"
    reason: str


def load(choice: Choice, over: Callable[[str], None] = lambda _phase: None) -> Loaded:
    """Load what was chosen.

    Args:
        choice: see there.
        over: told the name of each phase at its end.

    Raises:
        UnusableEngine: no picture can be upscaled here.
    """
    automatic = choice.model == models.AUTO
    name = models.default_name(choice.runtime, choice.options.device) if automatic else choice.model
    found = models.find(name, choice.models_folder)
    model, weights = found.model, models.verify(found, choice.sha256)
    if model.color == "y":  # colours are enlarged bilinearly, and look one pixel beyond theirs
        model = msgspec.structs.replace(model, halo=max(model.halo, 1))
    over("verify")
    if reason := opencv.missing():  # whatever runs the network, pictures are decoded by OpenCV
        raise UnusableEngine(reason)
    over("opencv")
    runtime, reason = runtimes.load(choice.runtime, weights, model, choice.options)
    over("runtime")
    if choice.engine_bytes is not None:  # here, because how large tiles may be depends on it
        machine.limit_own_memory(choice.engine_bytes)

    from sr_engine.network import Network  # noqa: PLC0415
    from sr_engine.tile_budget import TileBudget  # noqa: PLC0415
    from sr_engine.tiles import Cutting  # noqa: PLC0415

    def load_exact() -> runtimes.Runtime:
        exact = choice.options._replace(device=runtime.device, precision="fp32")
        return runtimes.load(runtime.name, weights, model, exact)[0]

    budget = TileBudget(runtime, model, choice.options.cache_folder)
    cutting = Cutting(model.halo, budget.pixels, runtime.fixed_shapes, even_widths=runtime.even_widths)
    return Loaded(Network(runtime, model, load_exact, ensemble=choice.ensemble), cutting, budget, reason)
