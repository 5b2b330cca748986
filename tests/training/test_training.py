"""What a network is trained on, and that what is exported is what was trained."""

import csv
from pathlib import Path

import numpy as np
import photographs
import pytest
from PIL import Image

from sr_engine import graphs, reach

SCALE = 3


def textured(width: int, height: int, seed: int = 1) -> np.ndarray:
    """Noise of pixels of two sizes: full of detail; HxWx3."""
    chance = np.random.default_rng(seed)
    fine = chance.integers(0, 256, (height, width, 3)).astype(float)
    coarse = chance.integers(0, 256, (-(-height // 6), -(-width // 6), 3)).repeat(6, 0).repeat(6, 1)
    return (0.3 * fine + 0.7 * coarse[:height, :width]).astype(np.uint8)


def reduced(high: np.ndarray) -> np.ndarray:
    """3xHxW, by bicubic interpolation."""
    picture = Image.fromarray(high.transpose(1, 2, 0))
    size = (picture.width // SCALE, picture.height // SCALE)
    return np.asarray(picture.resize(size, Image.Resampling.BICUBIC)).transpose(2, 0, 1)


# Degradation


def test_what_arrives_is_smaller_and_mostly_worse() -> None:
    from degradation import degraded

    high = textured(192, 192).transpose(2, 0, 1)
    clean = reduced(high).astype(float)
    errors = []
    for seed in range(150):
        low = degraded(high, SCALE, np.random.default_rng(seed))
        assert low.shape == (3, 64, 64)
        assert low.dtype == np.uint8
        errors.append(float(np.abs(low - clean).mean()))
    untouched = sum(error == 0 for error in errors)
    assert 0 < untouched < 20, "some pictures arrive as they are"
    assert np.median(errors) > 2
    assert max(errors) < 40, "what is in the picture has to be seen still"


def test_the_same_chance_gives_the_same_picture() -> None:
    from degradation import degraded

    high = textured(192, 192).transpose(2, 0, 1)
    first, second = (degraded(high, SCALE, np.random.default_rng(7)) for _ in range(2))
    assert np.array_equal(first, second)


# Crops


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Photographs, and the crops of them: one half sky and half texture, twice as large as it is sharp; one all sky."""
    import crops

    half = textured(400, 400)
    half[:, :200] = 90
    Image.fromarray(half).resize((800, 800), Image.Resampling.BICUBIC).save(tmp_path / "half.png")
    Image.new("RGB", (400, 400), (90, 120, 200)).save(tmp_path / "sky.png")
    fields = dict.fromkeys(photographs.Photograph._fields, "")
    manifest = [photographs.Photograph(**{**fields, "file": name, "downscale": factor}) for name, factor in FILES]
    crops.load(str(tmp_path), SCALE, manifest)
    return tmp_path


FILES = (("half.png", 2), ("sky.png", 1))


def test_only_what_has_detail_is_trained_on(folder: Path) -> None:
    import crops

    found = crops.load(str(folder), SCALE)
    # Of the four squares of 192 in 399 x 399, two have texture, and nothing of the sky is kept.
    assert found.high.shape == (2, 3, 192, 192)
    assert found.low.shape == (2, 3, 64, 64)
    assert ((found.detail >= 0.6) & (found.detail <= 6)).all()
    for high, low in zip(found.high, found.low, strict=True):
        inside = (slice(None), slice(3, -3), slice(3, -3))
        assert np.abs(reduced(high)[inside].astype(int) - low[inside]).max() <= 1, "a pair shows the same place"


def test_crops_are_cut_once(folder: Path) -> None:
    import crops

    first = crops.load(str(folder), SCALE)
    for name, _ in FILES:
        (folder / name).unlink()
    assert np.array_equal(crops.load(str(folder), SCALE).high, first.high)


# With PyTorch

inside_torch = pytest.mark.filterwarnings("ignore:`torch.jit:DeprecationWarning")


@inside_torch
def test_what_is_exported_is_what_was_trained() -> None:
    torch = pytest.importorskip("torch", reason="PyTorch is for training only")
    import cv2
    from export import onnx_of
    from network import Edsr

    torch.manual_seed(1)
    network = Edsr(blocks=2, features=8).eval()
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
    data = onnx_of(network)
    assert reach.halo_of(data) == network.halo == 7
    assert graphs.described(data).features == 27
    batch = np.random.default_rng(1).random((2, 3, 20, 30), np.float32)
    with torch.inference_mode():
        expected = network(torch.from_numpy(batch)).numpy()
    net = cv2.dnn.readNetFromONNX(np.frombuffer(data, np.uint8))
    net.setInput(batch)
    assert np.abs(net.forward() - expected).max() < 1e-3


@inside_torch
def test_training_makes_progress_and_goes_on_where_it_stopped(folder: Path) -> None:
    torch = pytest.importorskip("torch", reason="PyTorch is for training only")
    from recipes import Recipe
    from train import Training, train

    recipe = Recipe(blocks=1, features=8, cycles=((30, 1e-3), (10, 1e-4)), batch=2, patch=24)
    whole, _ = train("whole", recipe, str(folder), str(folder), None)
    (folder / "whole.pt").rename(folder / "half.pt")
    training = Training(recipe, torch.device("cpu"))
    training.resume(str(folder / "half.pt"))
    assert training.steps == 40
    assert torch.equal(training.averaged().tail.plain, whole.tail.plain)


def test_every_shipped_photograph_of_the_manifest_has_what_training_needs() -> None:
    with open(Path(photographs.__file__).with_name("photographs.tsv"), encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file, delimiter="\t"))
    for row in rows:
        sides = int(row["width"]) // int(row["downscale"]), int(row["height"]) // int(row["downscale"])
        assert min(sides) >= 192, f"{row['file']} gives no crop"
