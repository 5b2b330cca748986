"""From trained weights to what users get: the ONNX file, its line in the manifest, its card."""

import dataclasses
import hashlib
import os
import string
import textwrap
from collections.abc import Sequence
from pathlib import Path

import evaluation
import msgspec
import numpy as np
import yaml
from evaluation import quality
from network import Edsr, FoldedConvolution
from recipes import WARM_UP_STEPS, Recipe

from sr_engine import graphs, models

_FOLDER = Path(__file__).resolve().parent.parent
_HEADER = """\
# The models that came with dropscale. Every file is checked against its sha256 before it is loaded.
# models/training/train.py writes this file; what the keys mean stands in sr_engine/models.py, class Model.
"""

_FOR_DEGRADED = """\
Its inputs were blurred a little, got noise and were compressed as JPEG before it saw them: it is for pictures from
phones, messengers and the web. On a clean picture its twin without `-photo` keeps more detail."""
_FOR_CLEAN = """\
It is trained on clean, antialiased bicubic reductions: strong JPEG artefacts in a picture are enlarged with it. Its
twin `-photo` is for pictures that have them."""


def publish(name: str, recipe: Recipe, network: Edsr, history: str, set5: Path | None) -> str:
    """Put the network into `models/`, measure it through the product's own engine, and write its card.

    Args:
        name: of the model.
        recipe: how it was trained.
        network: with the weights to publish.
        history: how long it took on what, for the card.
        set5: folder of the test set; None leaves the quality open.

    Returns:
        What was done, in a line.
    """
    data = onnx_of(network)
    facts = graphs.described(data)
    (_FOLDER / f"{name}.onnx").write_bytes(data)
    model = models.Model(
        file=f"{name}.onnx",
        sha256=hashlib.sha256(data).hexdigest(),
        algorithm="edsr",
        scale=recipe.scale,
        color="rgb",
        value_range=1.0,
        halo=network.halo,
        features=facts.features,
        mflop=round(facts.flop_per_pixel / 1e6, 3),
        licence="Apache-2.0",
        source="models/training",
        card=f"{name}.md",
    )
    _enter(name, model)
    measured = "not measured", "not measured"
    if set5:
        ours = evaluation.of_model(name, set5)
        theirs = evaluation.of_enlarger(quality.bicubic, set5)
        measured = tuple(f"{_told(one)} (bicubic: {_told(other)})" for one, other in zip(ours, theirs, strict=True))
        model = msgspec.structs.replace(model, set5_psnr=round(ours[0].psnr, 2))
        _enter(name, model)
    (_FOLDER / f"{name}.md").write_text(_card(name, recipe, model, facts, measured, history), encoding="utf-8")
    return f"{name}: {len(data)} bytes, Set5 {measured[0]}"


def onnx_of(network: Edsr) -> bytes:
    """The network as a graph of plain convolutions."""
    writer = graphs.GraphWriter()

    def convolved(x: str, layer: FoldedConvolution, order: np.ndarray | None = None) -> str:
        kernel, bias = layer.kernel().detach().numpy(), layer.bias.detach().numpy()
        return writer.convolution(x, *((kernel, bias) if order is None else (kernel[order], bias[order])))

    # PyTorch's shuffle takes all positions of one colour, then those of the next. ONNX knows both orders, but OpenCV
    # 5.0 forgets that one for the rest of a process in which somebody has made a `cv2.dnn_superres` object.
    colours_together = np.arange(3 * network.scale**2).reshape(3, -1).T.reshape(-1)

    shallow = deep = convolved(graphs.INPUT, network.head)
    for first, second in network.body:
        deep = writer.add(deep, convolved(writer.relu(convolved(deep, first)), second))
    features = writer.add(convolved(deep, network.last), shallow)
    detail = writer.shuffle(convolved(features, network.tail, colours_together), network.scale, mode="DCR")
    return writer.finish(
        writer.add(detail, writer.nearest(graphs.INPUT, network.scale)), channels=3, scale=network.scale
    )


def _enter(name: str, model: models.Model) -> None:
    """Put a model into the manifest, the others as they are."""
    known = models.read_manifest(str(_FOLDER)) | {name: model}
    text = _HEADER + yaml.safe_dump({"models": msgspec.to_builtins(known)}, sort_keys=False)
    path = _FOLDER / models.MANIFEST
    temporary = path.with_suffix(".part")
    temporary.write_text(text, encoding="utf-8")
    os.replace(temporary, path)


def _told(found: quality.Quality) -> str:
    return f"{found.psnr:.2f} dB, {found.ssim:.4f}"


def _card(
    name: str, recipe: Recipe, model: models.Model, facts: graphs.Facts, measured: Sequence[str], history: str
) -> str:
    """card.md, filled in and wrapped."""
    template = string.Template((Path(__file__).parent / "card.md").read_text(encoding="utf-8"))
    text = template.substitute(
        dataclasses.asdict(recipe),
        name=name,
        outputs=3 * recipe.scale**2,
        weights=f"{facts.weights:,}",
        megabytes=f"{os.path.getsize(_FOLDER / model.file) / 1e6:.2f}",
        kmac=f"{facts.flop_per_pixel / 2e3:.0f}",
        halo=model.halo,
        clean=measured[0],
        compressed=measured[1],
        jpeg=evaluation.JPEG,
        sha256=model.sha256,
        use=_FOR_DEGRADED if recipe.degraded else _FOR_CLEAN,
        cycles=" then ".join(f"{steps:,} at {rate:g}" for steps, rate in recipe.cycles),
        warm_up=WARM_UP_STEPS,
        begins=f"the averaged weights of {recipe.begins_with}" if recipe.begins_with else "chance",
        history=history,
    )
    wrapped = [
        part if part.startswith(("#", "|")) else textwrap.fill(part, 120, break_on_hyphens=False)
        for part in text.strip().split("\n\n")
    ]
    return "\n\n".join(wrapped) + "\n"
