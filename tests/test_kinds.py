"""Every kind of picture through the inbox: what the engine reads the watcher must not leave alone."""

import io
from collections.abc import Callable
from typing import Any

import cv2
import numpy as np
import pytest
from harness import Site, photo
from PIL import Image

from sr_engine.formats.encoding import EXTENSIONS
from watcher.files.ignore import DEFAULT_EXTENSIONS


def decoded_photo(height: int, width: int) -> np.ndarray:
    picture = cv2.imdecode(np.frombuffer(photo(1, width, height), np.uint8), cv2.IMREAD_COLOR)
    assert picture is not None
    return picture


def written(kind: str, **options: Any) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(decoded_photo(40, 50)[:, :, ::-1]).save(buffer, kind, **options)
    return buffer.getvalue()


def test_what_the_engine_writes_the_watcher_takes() -> None:
    assert set(EXTENSIONS.values()) <= DEFAULT_EXTENSIONS


def test_every_kind_goes_through_the_inbox(make_site: Callable[..., Site]) -> None:
    site = make_site("kinds", engine={"runtime": "opencv"})
    deep = cv2.imencode(".png", decoded_photo(40, 50).astype(np.uint16) * 257)[1].tobytes()
    good = {
        "a.jpg": written("JPEG"),
        "b.webp": written("WEBP"),
        "c.tif": written("TIFF", save_all=True, append_images=[Image.new("RGB", (30, 20), (200, 90, 40))]),
        "d.bmp": written("BMP"),
        "e.avif": written("AVIF"),
        "f.jp2": written("JPEG2000"),
        "g.gif": written("GIF"),
        "h.png": deep,
        "i.PNG": written("JPEG"),  # judged by content
    }
    bad = {
        "moving.gif": written("GIF", save_all=True, append_images=[Image.new("RGB", (50, 40))]),
        "moving.png": written("PNG", save_all=True, append_images=[Image.new("RGB", (50, 40))]),
    }
    for name, data in {**good, **bad}.items():
        site.drop(name, data)
    assert site.once().returncode == 1
    assert site.files(site.archive) == good
    assert not site.names(site.inbox)
    assert {name for name in site.names(site.failed) if not name.endswith(".txt")} == set(bad)
    assert b"animated" in site.files(site.failed)["moving.gif.reason.txt"].lower()
    results = site.files(site.outbox)
    wanted = {"a.jpg", "b.webp", "c.tif", "d.bmp", "e.avif", "f.jp2", "h.png", "i.jpg"}
    assert set(results) - wanted in ({"g.gif"}, {"g.png"})
    for name, data in results.items():
        pixels = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)
        assert pixels.shape[:2] == (120, 150), name
        assert (pixels.dtype == np.uint16) == (name == "h.png"), name
    assert Image.open(io.BytesIO(results["c.tif"])).n_frames == 2  # type: ignore[attr-defined]


def test_a_heic_is_taken_with_its_library_and_refused_with_a_reason_without(make_site: Callable[..., Site]) -> None:
    heif = pytest.importorskip("pillow_heif", reason="pillow-heif is not installed")
    buffer = io.BytesIO()
    heif.from_pillow(Image.fromarray(decoded_photo(70, 80)[:, :, ::-1])).save(buffer)
    site = make_site("heic", engine={"runtime": "opencv"})
    site.drop("phone.HEIC", buffer.getvalue())
    assert site.once().returncode == 0
    (name,) = site.names(site.outbox)
    assert heif.open_heif(io.BytesIO(site.files(site.outbox)[name])).size == (240, 210)

    (site.root / "pillow_heif.py").write_text("raise ImportError('gone')")
    site.environment["PYTHONPATH"] = str(site.root)
    site.drop("again.heic", buffer.getvalue()[:-1] + b"\0")
    site.once()
    assert b"pip install pillow-heif" in site.files(site.failed)["again.heic.reason.txt"]
