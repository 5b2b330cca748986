"""`from sr_engine import upscale`: arrays and paths in, arrays out."""

import importlib
from concurrent.futures import ThreadPoolExecutor

import cv2
import numpy as np
import pytest
from engine_files import draw, ramp, written

from sr_engine import upscale
from sr_engine.errors import EngineError, UnusableEngine


def rgb(height=40, width=50):
    return np.ascontiguousarray(draw(height, width)[:, :, ::-1])


def smaller(result):
    height, width = result.shape[:2]
    return cv2.resize(result, (width // 3, height // 3), interpolation=cv2.INTER_AREA).astype(float)


@pytest.mark.parametrize("kind", [np.uint8, np.uint16])
@pytest.mark.parametrize("channels", [1, 3, 4])
def test_an_array_keeps_its_layout_type_and_colours(kind, channels):
    unit = 1 if kind is np.uint8 else 257
    soft = cv2.GaussianBlur(rgb(), (0, 0), 2)
    image = {1: soft[:, :, 1], 3: soft, 4: np.dstack([soft, np.maximum(ramp(40, 50), 1)])}[channels].astype(kind) * unit
    before = image.copy()
    result = upscale(image.astype(kind), runtime="opencv")
    assert result.dtype == kind
    assert result.shape == (120, 150, *image.shape[2:])
    assert np.abs(smaller(result) - image).mean() / unit < 2
    assert np.array_equal(image, before)


def test_any_strides_will_do():
    image = rgb(40, 50)
    expected = upscale(image, runtime="opencv")
    assert np.array_equal(upscale(np.asfortranarray(image), runtime="opencv"), expected)
    assert np.array_equal(upscale(image[::-1][::-1], runtime="opencv"), expected)


def test_a_path_is_read_upright_and_as_red_green_blue(tmp_path):
    path = tmp_path / "a.png"
    path.write_bytes(written(".png", draw(20, 30)))
    result = upscale(path, runtime="opencv")
    assert np.array_equal(result, upscale(rgb(20, 30), runtime="opencv"))
    assert np.array_equal(result, upscale(str(path), runtime="opencv"))


@pytest.mark.parametrize(
    "image",
    [np.zeros((4, 4, 3)), np.zeros((4, 4, 2), np.uint8), np.zeros((0, 4), np.uint8), np.zeros(4, np.uint8)],
    ids=["floats", "two channels", "empty", "one dimension"],
)
def test_other_arrays_are_refused(image):
    with pytest.raises(ValueError, match="an array"):
        upscale(image, runtime="opencv")


@pytest.mark.parametrize("runtime", ["opencv", "openvino"])
def test_threads_may_share_it(runtime):
    if importlib.import_module(f"sr_engine.runtimes.{runtime}").missing():
        pytest.skip("not installed")
    pictures = [rgb(20 + 3 * number, 60 - 2 * number) for number in range(12)]
    expected = [upscale(picture, runtime=runtime) for picture in pictures]
    with ThreadPoolExecutor(4) as pool:
        results = list(pool.map(lambda each: upscale(each, runtime=runtime), pictures))
    for result, alone in zip(results, expected, strict=True):
        assert np.array_equal(result, alone)


def test_errors_are_the_engines(tmp_path):
    with pytest.raises(EngineError, match="cannot be read"):
        upscale(tmp_path / "gone.png", runtime="opencv")
    with pytest.raises(UnusableEngine, match="no model is called"):
        upscale(rgb(), model="gone")
