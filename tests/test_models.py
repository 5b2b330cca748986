"""`dropscale models`: what is listed, verified, added from disk and fetched, through the installed command."""

import hashlib
import http.server
import json
import os
import shutil
import signal
import threading
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import onnx
import pytest
import yaml
from foreign_networks import network
from harness import ROOT, Site, complaint, dropscale, photo, wait_until
from onnx import TensorProto, helper, numpy_helper

SHARED_MODELS = ROOT.parent / "shared" / "models"
BUNDLED = ROOT / "models" / "edsr-lite-x3.onnx"


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """A folder with a config that keeps models in `own`, and reaches no network but loopback."""
    (tmp_path / "config.yaml").write_text("engine:\n  models_folder: own\n")
    return tmp_path


def models(place: Path, *arguments: str) -> Any:
    """The command, the network shut but for loopback."""
    shut = {"https_proxy": "http://127.0.0.1:9", "no_proxy": "127.0.0.1"}
    return dropscale(place, "models", *arguments, **shut)


def listed(place: Path) -> dict[str, dict[str, Any]]:
    done = models(place, "list", "--json")
    assert done.returncode == 0, done.stderr
    return {row["name"]: row for row in json.loads(done.stdout)}


# list and verify


def test_the_list_names_all_that_is_here_and_all_that_can_be_fetched(place: Path) -> None:
    rows = listed(place)
    lite = rows["edsr-lite-x3"]
    assert lite["installed"]
    assert lite["used"]
    assert lite["bytes"] == BUNDLED.stat().st_size
    assert lite["licence"] == "Apache-2.0"
    assert rows["opencv-edsr-x3"] | {"source": ""} == {
        "name": "opencv-edsr-x3",
        "scale": 3,
        "bytes": 38524784,
        "mflop_per_pixel": rows["opencv-edsr-x3"]["mflop_per_pixel"],
        "set5_psnr": None,
        "installed": False,
        "used": False,
        "licence": "Apache-2.0",
        "source": "",
        "folder": None,
    }
    shown = models(place, "list").stdout
    for name, row in rows.items():
        line = next(line for line in shown.splitlines() if f" {name} " in line)
        assert (" yes " in line, " fetch " in line) == (row["installed"], not row["installed"])
        assert f" x{row['scale']} " in line
        assert row["source"] in line


def test_the_list_needs_no_config(tmp_path: Path) -> None:
    assert "edsr-lite-x3" in models(tmp_path, "list").stdout


def test_verify_tells_good_from_bad(place: Path) -> None:
    assert models(place, "verify").returncode == 0
    assert models(place, "add", str(network(place / "others.onnx"))).returncode == 0
    done = models(place, "verify")
    assert done.returncode == 0
    assert sum(line.startswith("ok ") for line in done.stdout.splitlines()) == len(done.stdout.splitlines()) >= 2
    (weights,) = (place / "own").glob("others-*.onnx")
    weights.write_bytes(weights.read_bytes()[:-1])
    done = models(place, "verify")
    assert done.returncode == 3
    (bad,) = (line for line in done.stdout.splitlines() if line.startswith("BAD"))
    assert str(weights) in bad
    assert hashlib.sha256(weights.read_bytes()).hexdigest() in bad
    weights.unlink()
    assert "No such file" in models(place, "verify").stdout
    assert " MISSING " in models(place, "list").stdout


# add


def test_a_network_of_others_enlarges_pictures(make_site: Callable[..., Site], tmp_path: Path) -> None:
    source = network(tmp_path / "My Network.v2.onnx", scale=2)
    site = make_site(engine={"models_folder": str(tmp_path / "own"), "model": "my-network.v2"})
    done = site.run("models", "add", str(source), "--licence", "MIT")
    assert done.returncode == 0, done.stderr
    assert "found by trying: x2, values 0 .. " in done.stdout
    assert "halo 1 pixels" in done.stdout
    entry = yaml.safe_load((tmp_path / "own" / "models.yaml").read_text())["models"]["my-network.v2"]
    assert entry["scale"] == 2
    assert entry["halo"] == 1
    assert entry["licence"] == "MIT"
    assert entry["source"] == str(source)
    site.drop("a.png", photo(1, 30, 20))
    assert site.once().returncode == 0
    result = cv2.imread(str(site.outbox / "a.png"))
    original = cv2.imdecode(np.frombuffer(photo(1, 30, 20), np.uint8), cv2.IMREAD_COLOR)
    expected = cv2.blur(original.astype(np.float32), (3, 3), borderType=cv2.BORDER_CONSTANT).repeat(2, 0).repeat(2, 1)
    assert result.shape == expected.shape
    assert np.abs(result - expected).max() <= 1


def test_what_is_found_out_of_the_model_that_came_along_is_what_its_manifest_says(place: Path) -> None:
    done = models(place, "add", str(BUNDLED), "--name", "again", "--algorithm", "edsr")
    assert done.returncode == 0, done.stderr
    bundled = yaml.safe_load((ROOT / "models" / "models.yaml").read_text())["models"]["edsr-lite-x3"]
    again = yaml.safe_load((place / "own" / "models.yaml").read_text())["models"]["again"]
    for key in ("scale", "color", "value_range", "halo", "features", "algorithm"):
        assert again[key] == bundled[key], key


def test_a_layer_of_an_unknown_kind_is_felt_on_all_sides(place: Path) -> None:
    done = models(place, "add", str(network(place / "right.onnx", tail="right", side=9)))
    assert done.returncode == 0, done.stderr
    assert "halo 17 pixels, twice what was felt" in done.stdout


@pytest.mark.parametrize("largest", [1.0, 255.0])
def test_the_range_of_values_is_found(place: Path, largest: float) -> None:
    """Each of them is nonsense for the other: nothing above its range comes through, and everything gets a pedestal."""
    model = onnx.load(network(place / "plain.onnx"))
    model.graph.node[-1].output[0] = "large"
    model.graph.initializer.append(numpy_helper.from_array(np.array(largest, np.float32), "most"))
    model.graph.initializer.append(numpy_helper.from_array(np.array(largest / 50, np.float32), "least"))
    model.graph.node.append(helper.make_node("Clip", ["large", "least", "most"], ["out"]))
    onnx.save(model, place / "ranged.onnx")
    done = models(place, "add", "ranged.onnx")
    assert done.returncode == 0, done.stderr
    assert f"values 0 .. {largest:g}, halo 1 pixels" in done.stdout


def test_nonsense_is_refused(place: Path) -> None:
    model = onnx.load(network(place / "plain.onnx"))
    model.graph.node[-1].output[0] = "large"
    model.graph.node.append(helper.make_node("Neg", ["large"], ["out"]))
    onnx.save(model, place / "negative.onnx")
    assert "makes nonsense of a drawn picture" in complaint(models(place, "add", "negative.onnx"), 3)
    assert "no network works on values 0 .. nan" in complaint(models(place, "add", "plain.onnx", "--range", "nan"), 3)


def test_brightness_alone(place: Path) -> None:
    done = models(place, "add", str(network(place / "luma.onnx", channels=1, scale=3, side=5)))
    assert done.returncode == 0, done.stderr
    entry = yaml.safe_load((place / "own" / "models.yaml").read_text())["models"]["luma"]
    assert (entry["color"], entry["scale"], entry["halo"]) == ("y", 3, 2)


def test_a_fixed_size_is_set_free(place: Path) -> None:
    done = models(place, "add", str(network(place / "fixed.onnx", size=[64, 64])))
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"tail": "average"}, "depends on more than 192 pixels around it, perhaps on the whole picture"),
        ({"tail": "contrast"}, "on the whole picture"),
        ({"channels": 4}, "takes float 1x4xhxw; what is needed is a float32 picture NCHW of 1 or 3 channels"),
        ({"kind": TensorProto.FLOAT16}, "takes float16 1x3xhxw; what is needed is a float32 picture NCHW"),
        ({"scale": 1}, "each side 2 to 8 times as long"),
    ],
)
def test_what_is_no_network_for_us_is_refused(place: Path, fields: dict[str, Any], reason: str) -> None:
    source = network(place / "odd.onnx", **fields)
    message = complaint(models(place, "add", str(source)), 3)
    assert "odd.onnx" in message
    assert reason in message
    assert not list((place / "own").glob("*.onnx")) + list((place / "own").glob(".odd*"))
    assert "odd" not in listed(place)


@pytest.mark.parametrize(
    ("name", "content", "reason"),
    [
        ("empty.onnx", b"", "is empty"),
        ("noise.onnx", b"\x08" + os.urandom(5000), "is not a sound ONNX model"),
        ("cut.onnx", BUNDLED.read_bytes()[:-1000], "is not a sound ONNX model"),
        ("weights.pth", b"PK\x03\x04" + bytes(100), "may hold programs and are not read: export the network to ONNX"),
        ("weights.pkl", b"\x80\x04cos\nsystem\n(S'touch hacked'\ntR.", "may hold programs and are not read"),
        ("cut.pb", b"\x0a" + bytes(100), "is not a whole frozen TensorFlow graph"),
    ],
)
def test_files_of_other_kinds_are_refused(place: Path, name: str, content: bytes, reason: str) -> None:
    (place / name).write_bytes(content)
    message = complaint(models(place, "add", name), 3)
    assert name in message
    assert reason in message
    assert not (place / "hacked").exists()


@pytest.mark.parametrize("as_constant", [False, True])
def test_weights_outside_of_the_file_are_refused(place: Path, as_constant: bool) -> None:
    """They name paths, and whoever made the file would choose what is read."""
    model = onnx.load(network(place / "inside.onnx"))
    (box,) = model.graph.initializer
    onnx.external_data_helper.set_external_data(box, "secret.bin")
    (place / "secret.bin").write_bytes(box.raw_data)
    box.ClearField("raw_data")
    if as_constant:
        model.graph.node.insert(0, helper.make_node("Constant", [], ["box"], value=box))
        del model.graph.initializer[:]
    (place / "outside.onnx").write_bytes(model.SerializeToString())
    assert "keeps its weights in other files" in complaint(models(place, "add", "outside.onnx"), 3)


@pytest.mark.skipif(os.name == "nt", reason="names are text there")
def test_a_name_that_is_no_text(place: Path) -> None:
    path = os.path.join(os.fsencode(place), b"bad\xff.onnx")
    try:
        os.rename(network(place / "plain.onnx"), path)
    except OSError:
        pytest.skip("this file system takes no such names")
    assert models(place, "add", os.fsdecode(path)).returncode == 0
    assert "bad" in listed(place)
    with open(path, "wb") as file:
        file.write(b"nothing")
    assert "may hold programs" in complaint(models(place, "add", os.fsdecode(path)), 3)


def test_names(place: Path) -> None:
    source = str(network(place / "others.onnx"))
    assert "came with dropscale" in complaint(models(place, "add", source, "--name", "edsr-lite-x3"), 2)
    assert "came with dropscale" in complaint(models(place, "add", source, "--name", "auto"), 2)
    assert "cannot be a model's name" in complaint(models(place, "add", source, "--name", "../up"), 2)
    assert "there is no file" in complaint(models(place, "add", "nothing.onnx"), 2)
    assert "not 3 times as --scale says" in complaint(models(place, "add", source, "--scale", "3"), 3)


def test_a_stopped_addition_leaves_neither_its_folder_nor_its_process(make_site: Callable[..., Site]) -> None:
    site = make_site(engine={"models_folder": "own"})
    adding = site.start("models", "add", str(network(site.root / "others.onnx")), ready=False)

    def staging() -> list[Path]:
        return list((site.root / "own").glob(".dropscale-staging-*"))

    def children() -> str:
        return Path(f"/proc/{adding.pid}/task/{adding.pid}/children").read_text()

    (child,) = wait_until(lambda: children().split() if staging() else "", "its process").copy()
    assert adding.stop() == 128 + signal.SIGTERM, adding.log()
    assert not staging()
    # one that was being started at that very moment is not known yet, and ends by itself: its folder is gone
    wait_until(lambda: not Path(f"/proc/{child}").exists(), "its process to end", 20)


def test_what_a_killed_one_left_is_cleared_away_and_nothing_of_the_users(place: Path) -> None:
    left = place / "own" / ".dropscale-staging-abc"
    left.mkdir(parents=True)
    (left / "network.onnx").write_bytes(b"half")
    os.utime(left, (1, 1))
    (place / "own" / ".mine.onnx").write_bytes(b"the user's")
    assert models(place, "add", str(network(place / "others.onnx"))).returncode == 0
    names = {path.name.partition("-")[0] for path in (place / "own").iterdir()}
    assert names == {".lock", ".mine.onnx", "others", "models.yaml"}


def test_a_model_corrected_or_replaced_gives_new_results(make_site: Callable[..., Site], tmp_path: Path) -> None:
    """Other facts about the same weights are another recipe; other weights stop a watcher that knows the old ones."""
    site = make_site(engine={"models_folder": str(tmp_path / "own"), "model": "mine"})
    source = network(tmp_path / "plain.onnx")
    assert site.run("models", "add", str(source), "--name", "mine", "--color", "rgb").returncode == 0
    site.drop("a.png", photo(1, 30, 20))
    assert site.once().returncode == 0
    assert site.run("models", "add", str(source), "--name", "mine", "--color", "bgr").returncode == 0
    site.drop("b.png", photo(1, 30, 20))
    assert "no engine needed" not in site.once().stderr
    running = site.start()
    larger = network(tmp_path / "larger.onnx", scale=3)
    assert site.run("models", "add", str(larger), "--name", "mine").returncode == 0
    site.drop("c.png", photo(2, 30, 20))
    wait_until(lambda: "was replaced meanwhile" in running.log(), "the engine to refuse")
    assert not (site.outbox / "c.png").exists()
    assert not site.names(site.failed)
    running.process.send_signal(signal.SIGHUP)
    wait_until((site.archive / "c.png").exists, "the picture, with the new model")
    assert cv2.imread(str(site.outbox / "c.png")).shape == (60, 90, 3)


def test_a_file_that_two_entries_share_stays(place: Path) -> None:
    assert models(place, "add", str(network(place / "others.onnx"))).returncode == 0
    manifest = place / "own" / "models.yaml"
    entries = yaml.safe_load(manifest.read_text())
    entries["models"]["twin"] = entries["models"]["others"]
    manifest.write_text(yaml.safe_dump(entries))
    assert models(place, "add", str(network(place / "others.onnx", side=5))).returncode == 0
    assert models(place, "verify").returncode == 0


def test_adding_again_replaces(place: Path) -> None:
    for side in (3, 5):
        done = models(place, "add", str(network(place / "others.onnx", side=side)))
        assert done.returncode == 0, done.stderr
    assert len(list((place / "own").glob("*.onnx"))) == 1
    assert yaml.safe_load((place / "own" / "models.yaml").read_text())["models"]["others"]["halo"] == 2


# fetch


@pytest.fixture
def mirror(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, Path]]:
    """A server on loopback and the folder that it serves."""
    folder = tmp_path_factory.mktemp("mirror")
    handler = partial(http.server.SimpleHTTPRequestHandler, directory=str(folder))
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}", folder
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.mark.skipif(not SHARED_MODELS.is_dir(), reason="the upstream files are not here")
@pytest.mark.parametrize(("name", "file"), [("opencv-fsrcnn-x3", "FSRCNN_x3.pb"), ("opencv-espcn-x3", "ESPCN_x3.pb")])
def test_the_real_files_are_fetched_checked_and_converted(
    place: Path, mirror: tuple[str, Path], name: str, file: str
) -> None:
    address, folder = mirror
    shutil.copy(SHARED_MODELS / file, folder)
    (place / "config.yaml").write_text(f"engine:\n  models_folder: own\n  model_mirrors: [{address}]\n")
    done = models(place, "fetch", name)
    assert done.returncode == 0, done.stderr
    assert f"{name} is installed" in done.stdout
    row = listed(place)[name]
    assert row["installed"]
    assert row["licence"] == "Apache-2.0"
    assert row["source"].endswith(file)
    assert models(place, "verify").returncode == 0
    assert {path.suffix for path in (place / "own").iterdir() if not path.name.endswith(".lock")} == {".onnx", ".yaml"}
    (place / "a.png").write_bytes(photo(1, 30, 20))
    done = dropscale(place, "upscale", "a.png", "-o", "out", "--model", name)
    assert done.returncode == 0, done.stderr
    assert cv2.imread(str(place / "out" / "a.png")).shape == (60, 90, 3)


def test_a_wrong_file_is_refused_with_what_was_expected(place: Path, mirror: tuple[str, Path]) -> None:
    address, folder = mirror
    (place / "config.yaml").write_text(f"engine:\n  models_folder: own\n  model_mirrors: [{address}/]\n")
    (folder / "EDSR_x3.pb").write_bytes(b"\x0a not it")
    message = complaint(models(place, "fetch", "opencv-edsr-x3"), 3)
    assert f"{address}/EDSR_x3.pb: 8 bytes, expected 38524784" in message
    assert "https://raw.githubusercontent.com" in message
    assert "opencv-edsr-x3" in message
    assert not listed(place)["opencv-edsr-x3"]["installed"]


@pytest.mark.skipif(not SHARED_MODELS.is_dir(), reason="the upstream files are not here")
def test_a_file_from_disk_that_others_publish_has_to_be_that_file(place: Path) -> None:
    data = (SHARED_MODELS / "ESPCN_x3.pb").read_bytes()
    (place / "ESPCN_x3.pb").write_bytes(data)
    assert models(place, "add", "ESPCN_x3.pb").returncode == 0
    assert listed(place)["opencv-espcn-x3"]["licence"] == "Apache-2.0"
    (place / "ESPCN_x3.pb").write_bytes(data[:5000] + bytes([data[5000] ^ 1]) + data[5001:])
    message = complaint(models(place, "add", "ESPCN_x3.pb"), 3)
    assert hashlib.sha256(data).hexdigest() in message
    assert "rename the file" in message


def test_only_what_is_in_the_catalogue_is_fetched(place: Path) -> None:
    message = complaint(models(place, "fetch", "nonsense"), 2)
    assert "opencv-edsr-x3" in message


# auto


def test_auto_by_name(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(photo(1, 20, 20))
    done = dropscale(tmp_path, "upscale", "a.png", "-o", "out", "--model", "auto")
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(("device", "model"), [("cpu", "edsr-lite-x3"), ("cuda", "edsr-x3"), ("gpu:1", "edsr-x3")])
def test_auto_is_the_light_one_on_a_cpu_and_the_large_one_on_a_gpu(tmp_path: Path, device: str, model: str) -> None:
    (tmp_path / "config.yaml").write_text(f"engine:\n  device: {device}\n")
    rows = listed(tmp_path)
    assert rows["edsr-x3"]["mflop_per_pixel"] > rows["edsr-lite-x3"]["mflop_per_pixel"]
    assert [name for name, row in rows.items() if row["used"]] == [model]
