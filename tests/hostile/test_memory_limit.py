"""The engine's own limit: one picture cannot take the machine, and is blamed only when it was alone."""

import hashlib
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml
from foreign_networks import network
from harness import Site, photo

from sr_engine import machine
from sr_engine.headers import Header, Kind
from sr_engine.limits import expected_memory_bytes
from sr_engine.protocol import Limits, Upscale
from watcher.engine.ends import EngineTrouble
from watcher.engine.process import EngineProcess
from watcher.sections import Engine

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="other systems have no such limit")

MEGABYTE = 1 << 20
ROOM = 250  # megabytes for pictures and network together
ASK = """
import mmap, sys
from sr_engine import machine
untouched = mmap.mmap(-1, int(sys.argv[3]), mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
limit = machine.limit_own_memory(int(sys.argv[1]))
try:
    data = bytearray(int(sys.argv[2]))
    print(limit, len(data))
except MemoryError:
    print(limit, "refused")
"""
# An engine that has less room than a picture needs by its header: enough for its pixels, not for its decoder.
FULL = """
import sys
from sr_engine import loading, machine, pipeline, protocol, runtimes
choice = loading.Choice("edsr-lite-x3", "", "opencv", runtimes.Options(), engine_bytes=800 << 20)
loaded = loading.load(choice)
def tell(event):
    if isinstance(event, protocol.Failed):
        print(event.code, event.fault, event.message, flush=True)
line = pipeline.Pipeline(loaded.network, tell, protocol.Limits(), loaded.cutting, lambda: print("shortage"))
taken = bytearray(machine.own_room_bytes() - (16 << 20))
line.submit(protocol.Upscale(1, protocol.encode_path(sys.argv[1]), protocol.encode_path(sys.argv[1] + "-out")))
line.finish()
"""


def ask(limit: int, wanted: int, untouched: int = 4096, **options: object) -> list[str]:
    command = [sys.executable, "-c", ASK, str(limit), str(wanted), str(untouched)]
    done = subprocess.run(command, capture_output=True, text=True, check=True, **options)  # type: ignore[call-overload]
    return str(done.stdout).split()


def used_at_rest(site: Site, runtime: str, model: str) -> int:
    """Megabytes of its own that an engine has touched before it has any picture."""
    command = [sys.executable, "-P", "-m", "sr_engine", "--model", model, "--runtime", runtime]
    command += ["--models-folder", str(site.root / "own"), "--precision", "fp32"]
    engine = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd=site.root)
    assert engine.stdin and engine.stdout
    with engine:
        assert b'"ready"' in engine.stdout.readline()
        status = Path(f"/proc/{engine.pid}/status").read_text()
        engine.stdin.close()
    return int(status.partition("RssAnon:")[2].split()[0]) // 1024


@pytest.fixture
def make_small(make_site: Callable[..., Site]) -> Callable[..., Site]:
    """A site whose engine may use so many megabytes beside what it has at rest."""

    def make(megabytes: int, runtime: str = "opencv", features: int = 0) -> Site:
        """With `features`, the network is one that holds so many for each pixel."""
        site = make_site()
        model = add_wide_model(site.root / "own", features) if features else "edsr-lite-x3"
        engine = {
            "runtime": runtime,
            "deadline_seconds": 60,
            "threads": 1,
            "precision": "fp32",
            "models_folder": "own",
            "model": model,
        }
        site.configure(engine=engine, limits={"engine_megabytes": used_at_rest(site, runtime, model) + megabytes})
        return site

    return make


def add_wide_model(folder: Path, features: int) -> str:
    """Its manifest asks for a halo, so that tiles cannot shrink to almost nothing."""
    folder.mkdir()
    data = network(folder / "wide.onnx", scale=3, features=features).read_bytes()
    entry = {"file": "wide.onnx", "sha256": hashlib.sha256(data).hexdigest(), "algorithm": "edsr", "scale": 3}
    entry |= {"color": "rgb", "value_range": 1.0, "halo": 35, "features": features, "licence": "none"}
    (folder / "models.yaml").write_text(yaml.safe_dump({"models": {"wide": entry}}))
    return "wide"


def sides_that_need(size_bytes: int) -> tuple[int, int]:
    """Of the largest JPEG that is expected to need no more, by its header."""
    side = 100
    while expected_memory_bytes(Header(kind=Kind.JPEG, width=side + 10, height=side), 10**6, scale=3) <= size_bytes:
        side += 10
    return side, side


def why(site: Site, name: str) -> str:
    text = (site.failed / f"{name}.reason.txt").read_text()
    return text.partition("Why:")[2].partition("When:")[0].strip()


def test_what_is_beyond_the_limit_is_refused_by_the_system() -> None:
    assert ask(600 * MEGABYTE, 100 * MEGABYTE) == [str(600 * MEGABYTE), str(100 * MEGABYTE)]
    assert ask(600 * MEGABYTE, 700 * MEGABYTE) == [str(600 * MEGABYTE), "refused"]


def test_what_libraries_have_mapped_and_not_touched_does_not_count() -> None:
    """Stacks of threads, and buffers for each core: on a large machine more than a small limit."""
    assert ask(600 * MEGABYTE, 400 * MEGABYTE, 2000 * MEGABYTE) == [str(600 * MEGABYTE), str(400 * MEGABYTE)]
    assert ask(600 * MEGABYTE, 700 * MEGABYTE, 2000 * MEGABYTE) == [str(600 * MEGABYTE), "refused"]


def test_without_a_figure_it_is_most_of_the_machine() -> None:
    limit = int(ask(0, 1)[0])
    assert limit == max(machine.total_bytes() // 8 * 7, 2 << 30)


def test_a_limit_that_somebody_set_outside_is_not_raised() -> None:
    import resource

    def lower() -> None:
        resource.setrlimit(resource.RLIMIT_DATA, (500 * MEGABYTE, 500 * MEGABYTE))

    limit, answer = ask(600 * MEGABYTE, 550 * MEGABYTE, preexec_fn=lower)
    assert 480 * MEGABYTE < int(limit) <= 500 * MEGABYTE
    assert answer == "refused"


def test_a_picture_that_is_too_large_for_it_by_its_header_fails_at_once(make_small: Callable[..., Site]) -> None:
    site = make_small(200)
    site.drop("large.jpg", photo(1, 6000, 4000, ".jpg"))
    site.drop("small.png", photo(2))
    assert site.once().returncode == 1
    assert site.names(site.archive) == {"small.png"}
    assert re.fullmatch(r"6000 x 4000 pixels need about .* raise limits\.engine_megabytes", why(site, "large.jpg"))
    assert site.upscaled() == [1], "no engine was lost to it"


@pytest.mark.slow
@pytest.mark.parametrize(("runtime", "features"), [("onnx", 600), ("openvino", 2000)])  # the former copies them
def test_a_picture_that_meets_the_limit_alone_fails_and_those_beside_it_are_delivered(
    make_small: Callable[..., Site], runtime: str, features: int
) -> None:
    """Its header promises just what there is; what the network needs beside it, it leaves out."""
    pytest.importorskip("onnxruntime" if runtime == "onnx" else runtime)
    site = make_small(ROOM, runtime, features=features)
    data = photo(1, *sides_that_need((ROOM - 15) * MEGABYTE), ".jpg")
    site.drop("large.jpg", data)
    for seed in range(2, 8):
        site.drop(f"{seed}.jpg", photo(seed, 36, 24, ".jpg"))
    done = site.once()
    assert done.returncode == 1, done.stderr
    assert site.names(site.archive) == {f"{seed}.jpg" for seed in range(2, 8)}
    assert site.files(site.failed)["large.jpg"] == data
    assert re.fullmatch(
        r"it needs more memory than the engine may hold \(0\.\d+ GB\): cut the picture in parts, "
        r"or raise limits\.engine_megabytes",
        why(site, "large.jpg"),
    )
    assert not site.names(site.inbox)
    assert not site.engines()


@pytest.mark.parametrize("kind", [".avif", ".jpg"])
def test_near_the_limit_no_library_is_believed_that_a_picture_is_damaged(tmp_path: Path, kind: str) -> None:
    """Many decoders say so when they get no memory: those of AVIF, WebP, JPEG 2000 and progressive JPEG."""
    path = tmp_path / f"sound{kind}"
    path.write_bytes(photo(1, 1600, 1200, kind))
    done = subprocess.run(
        [sys.executable, "-P", "-c", FULL, str(path)], capture_output=True, text=True, check=False, timeout=100
    )
    assert done.stdout.startswith("out_of_memory picture it needs more memory"), done.stdout + done.stderr


def test_an_engine_that_cannot_even_start_blames_nobody_and_names_the_limit(make_site: Callable[..., Site]) -> None:
    site = make_site(limits={"engine_megabytes": 20})
    site.drop("a.png", photo(1))
    done = site.once()
    assert done.returncode == 3
    assert "raise limits.engine_megabytes" in done.stderr
    assert site.names(site.inbox) == {"a.png"}
    assert not site.names(site.failed)


def end_of(script: str, tmp_path: Path) -> EngineTrouble:
    """How an engine ends that begins two pictures and then does as the script says."""
    begin = "\n".join(
        [
            "import os, sys",
            "from sr_engine.protocol import *",
            "def tell(event): sys.stdout.buffer.write(encode(event)); sys.stdout.flush()",
            "tell(Ready(runtime='opencv', device='cpu', precision='fp32', load_seconds=1))",
            "tell(Started(id=1, width=9, height=9)); tell(Started(id=2, width=9, height=9))",
        ]
    )
    engine = EngineProcess(Engine(command=(sys.executable, "-c", f"{begin}\n{script}")), str(tmp_path), Limits())
    try:
        with pytest.raises(EngineTrouble) as caught:
            list(engine.upscale([Upscale(id=number, source="a", target="b") for number in (1, 2)], lambda: None))
    finally:
        engine.close()
    return caught.value


def test_when_not_even_the_smallest_tiles_fit_each_picture_in_work_is_tried_alone(tmp_path: Path) -> None:
    """Nobody would ever be delivered if all had to wait: one of those in work is too large."""
    failed = "Failed(id=None, code=Code.OUT_OF_MEMORY, message='too much', fault=Fault.PICTURE, retryable=False)"
    trouble = end_of(f"tell({failed})", tmp_path)
    assert (trouble.in_work, trouble.blames, trouble.verdict(2)) == ({1, 2}, True, "too much")


def test_an_engine_that_aborts_for_want_of_memory_is_told_in_words_for_people(tmp_path: Path) -> None:
    words = "terminate called after throwing an instance of 'std::bad_alloc'"
    trouble = end_of(f"os.write(2, b{words!r}); os.abort()", tmp_path)
    assert (trouble.in_work, trouble.blames) == ({1, 2}, True)
    assert trouble.verdict(2) == (
        "the engine was ended by SIGABRT while it worked on this picture, 2 times, for want of memory: "
        "cut the picture in parts, or raise limits.engine_megabytes"
    )
