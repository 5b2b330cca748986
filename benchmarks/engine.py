"""What the engine is worth: against bare inference, a process per picture and PyTorch; its memory, start and precision.

    python benchmarks/engine.py [--photos DIR] [--set5 DIR] [--only PART,...] [--update docs/benchmarks.md]

Parts: machine, throughput, processes, eager, memory, start, precision. Prints Markdown tables; --update also puts them
between the marks of a page. Both sides of a ratio are measured in turns, and a ratio is the median of those of all
rounds, with the smallest and the largest.
"""

import argparse
import itertools
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import bare
import cv2
import figures
import networks
import numpy as np
import quality
from conversation import MODEL, Engine
from figures import in_turns, ratio, speed
from photographs import Photographs, pixels_of

from sr_engine import models, tiles
from sr_engine.network import Network

REDUCED = (("openvino", "fp32"), ("openvino", "bf16"), ("openvino", "fp16"), ("onnx", "fp32"), ("onnx", "fp16"))
TILES = ((256, 256), (512, 512), (768, 1024))
BARE_SECONDS = 4
MEGAPIXELS = (1, 6, 12, 24, 48)
BATCHES = (20, 200)
STARTS = 5


class Setting:
    """What all parts have in common.

    Attributes:
        photographs: where pictures come from.
        set5: folder with HR/ and LRx3/, or None.
        runtimes: those of the engine that are measured.
        rounds: how often each side of a ratio is measured.
        folder: for pictures and results.
        pictures: the batch.
        weights: the model's file.
    """

    def __init__(self, options: argparse.Namespace, folder: Path) -> None:
        self.photographs = Photographs(options.photos)
        self.set5 = Path(options.set5) if options.set5 else None
        self.runtimes = [name for name in networks.installed() if name in options.runtimes]
        self.rounds = options.rounds
        self.folder = folder
        (folder / "batch").mkdir()
        self.pictures = self.photographs.batch(options.pictures, folder / "batch")
        found = models.find(MODEL)
        self.model, self.weights = found.model, models.verify(found)

    def some(self) -> list[Path]:
        """A third of the batch, for sides that take long."""
        return sorted(self.pictures)[2::3]

    def results(self) -> Path:
        """A fresh folder."""
        return Path(tempfile.mkdtemp(dir=self.folder))

    def engine_speed(self, pictures: Sequence[Path], runtime: str, precision: str = "auto") -> float:
        """Pixels per second of a fresh engine that is ready: from the requests to the last result on the disk."""
        results = self.results()
        engine = Engine(runtime, precision)
        begun = time.perf_counter()
        engine.upscale(pictures, results)
        seconds = time.perf_counter() - begun
        engine.finish()
        shutil.rmtree(results)
        return pixels_of(pictures) / seconds


def machine(setting: Setting) -> Iterator[str]:
    """Where, with what and of what."""
    yield f"Machine: {figures.machine()}; {figures.versions()}"
    size = pixels_of(setting.pictures) / 1e6
    yield f"\nBatch: {len(setting.pictures)} JPEG files, {size:.1f} MP together, made from {setting.photographs.origin}"


def throughput(setting: Setting) -> Iterator[str]:
    """The whole batch, from file to file, against the bare runtime on a tile that is in memory."""
    yield "| engine, file to file | kpx/s | bare runtime, tile in memory | kpx/s | engine : bare |"
    yield "|---|---|---|---|---|"
    settings = [(runtime, precision_of(runtime)) for runtime in setting.runtimes]
    # fp32, too, where a processor with matrix units in bf16 hides what others may expect
    settings += [(runtime, "fp32") for runtime, precision in settings if precision != "fp32"]
    for runtime, precision in settings:
        sides = [
            lambda runtime=runtime, precision=precision: setting.engine_speed(setting.pictures, runtime, precision)
        ]
        for shape in TILES:
            infer = bare.runtime(runtime, precision, setting.weights, shape)
            sides.append(lambda infer=infer, shape=shape: loop_speed(infer, shape))
        ours, *others = in_turns(setting.rounds, sides)
        for (height, width), theirs in zip(TILES, others, strict=True):
            tile = f"{height} x {width}"
            yield f"| {runtime} {precision} | {speed(ours)} | {tile} | {speed(theirs)} | {ratio(ours, theirs)} |"


def processes(setting: Setting) -> Iterator[str]:
    """One engine for the batch, start and exit included, against a process per picture."""
    size = pixels_of(setting.pictures)

    def batch(runtime: str) -> float:
        results, begun = setting.results(), time.perf_counter()
        engine = Engine(runtime)
        engine.upscale(setting.pictures, results)
        engine.finish()
        return size / (time.perf_counter() - begun)

    def singly() -> float:
        script = str(Path(__file__).with_name("original.py"))
        results, begun = setting.results(), time.perf_counter()
        for picture in setting.pictures:
            command = [sys.executable, script, setting.weights, str(picture), str(results / picture.name)]
            subprocess.run(command, check=True)
        return size / (time.perf_counter() - begun)

    names = [name for name in setting.runtimes if name != "onnx"]
    theirs, *ours = in_turns(setting.rounds, [singly, *(lambda name=name: batch(name) for name in names)])
    yield f"| {len(setting.pictures)} pictures, cold start to exit | kpx/s | against a process per picture |"
    yield "|---|---|---|"
    yield f"| a process per picture, cv2.dnn fp32 | {speed(theirs)} | 1 |"
    for name, values in zip(names, ours, strict=True):
        yield f"| one engine, {name} {precision_of(name)} | {speed(values)} | {ratio(values, theirs)} |"


def eager(setting: Setting) -> Iterator[str]:
    """The engine, from file to file, against PyTorch on decoded pictures."""
    if reason := bare.torch_missing():
        yield f"Not measured: {reason}"
        return
    pictures = setting.some()
    wholes = [blob(cv2.imread(str(path))) for path in pictures]
    cutting = tiles.Cutting(setting.model.halo, TILES[-1][0] * TILES[-1][1])
    cut = [piece for whole in wholes for piece in cut_up(whole, cutting)]
    kinds = list(itertools.product(("fp32", "bf16"), ("whole", "tiles")))
    sides: list[figures.Side] = []
    for precision, kind in kinds:
        infer = bare.torch_eager(precision, setting.weights)
        infer(wholes[0])
        inputs = wholes if kind == "whole" else cut
        sides.append(lambda infer=infer, inputs=inputs: pixels_of(pictures) / seconds_of(infer, inputs))
    engines = [
        (runtime, precision)
        for runtime, precision in (*REDUCED[:2], ("opencv", "fp32"))
        if networks.usable(runtime, precision)
    ]
    sides += [lambda each=each: setting.engine_speed(pictures, *each) for each in engines]
    speeds = in_turns(setting.rounds, sides)
    theirs, ours = speeds[: len(kinds)], speeds[len(kinds) :]
    yield f"| engine, {len(pictures)} pictures, file to file | kpx/s | PyTorch, from array to array | kpx/s | ratio |"
    yield "|---|---|---|---|---|"
    for (runtime, precision), values in zip(engines, ours, strict=True):
        for (other, kind), against in zip(kinds, theirs, strict=True):
            if precision == other:
                engine = f"{runtime} {precision} | {speed(values)}"
                yield f"| {engine} | {other}, {kind} | {speed(against)} | {ratio(values, against)} |"


def memory(setting: Setting) -> Iterator[str]:
    """The largest resident set by the size of a picture, and by the length of the batch."""
    yield "| one picture, JPEG to JPEG | peak | of its decoded result | against the first row |\n|---|---|---|---|"
    first = 0.0
    for megapixels in MEGAPIXELS:
        picture = setting.photographs.write(megapixels, megapixels * 1e6, setting.folder)
        peak = peak_bytes([picture], setting.results())
        first = first or peak
        share = peak / (pixels_of([picture]) * quality.SCALE**2 * 3)
        yield f"| {megapixels} MP | {peak / 1e6:,.0f} MB | {share:.1f} x | {peak / first:.2f} |"
    yield "\n| pictures in a batch | peak | against the first row |\n|---|---|---|"
    first = 0.0
    for count in BATCHES:
        chosen = list(itertools.islice(itertools.cycle(setting.pictures[: BATCHES[0]]), count))
        peak = peak_bytes(chosen, setting.results())
        first = first or peak
        yield f"| {count} | {peak / 1e6:,.0f} MB | {peak / first:.2f} |"


def start(setting: Setting) -> Iterator[str]:
    """From nothing to the first tile, by phase, and from the last picture to the process's end."""
    picture = setting.photographs.write(0, 256 * 256, setting.folder)
    names = setting.runtimes
    columns = []
    for name in names:
        starts = [one_start(name, picture, setting.results()) for _ in range(STARTS)]
        columns.append({phase: statistics.median(each[phase] for each in starts) for phase in starts[0]})
    plain = statistics.median(seconds_of_command([sys.executable, "-P", "-c", "import cv2"]) for _ in range(STARTS))
    yield f"| ms, median of {STARTS} | {' | '.join(names)} |\n|---|{'---|' * len(names)}"
    for phase in columns[0]:
        yield f"| {phase} | {' | '.join(f'{column[phase] * 1e3:.0f}' for column in columns)} |"
    totals = [column["spawned to first tile"] / plain for column in columns]
    against = " | ".join(f"{each:.1f} x" for each in totals)
    yield f"| against `python -c 'import cv2'`, {plain * 1e3:.0f} ms | {against} |"


def precision(setting: Setting) -> Iterator[str]:
    """Each runtime and precision against OpenCV in fp32: the results, and how fast."""
    kinds = [("opencv", "fp32"), *(each for each in REDUCED if networks.usable(*each))]
    pictures = setting.some()
    loaded = [networks.network(*kind) for kind in kinds]
    photographs = [cv2.imread(str(path)) for path in pictures if pixels_of([path]) < 0.5e6]
    exact = [loaded[0]([photograph])[0].astype(int) for photograph in photographs]
    decibels = [set5_psnr(each, setting.set5) for each in loaded]
    differences = [
        [np.abs(each([photograph])[0] - result) for photograph, result in zip(photographs, exact, strict=True)]
        for each in loaded
    ]
    for each in loaded:
        each.close()
    sides = [lambda kind=kind: setting.engine_speed(pictures, *kind) for kind in kinds]
    speeds = in_turns(setting.rounds, sides)
    yield f"| | Set5 | against fp32 | largest difference | mean | kpx/s of {len(pictures)} pictures | ratio |"
    yield "|---|---|---|---|---|---|---|"
    for kind, value, levels, speeds_here in zip(kinds, decibels, differences, speeds, strict=True):
        psnr = f"{value:.3f} dB | {value - decibels[0]:+.3f} dB" if setting.set5 else "not given |"
        most, mean = max(each.max() for each in levels), np.mean([each.mean() for each in levels])
        against = ratio(speeds_here, speeds[0])
        yield f"| {' '.join(kind)} | {psnr} | {most} | {mean:.3f} | {speed(speeds_here)} | {against} |"


# Sides of a comparison


def loop_speed(infer: bare.Inference, shape: tuple[int, int]) -> float:
    """Pixels per second of one tile again and again."""
    tile = np.random.default_rng(0).random((1, 3, *shape), np.float32)
    infer(tile)
    done, begun = 0, time.perf_counter()
    while (seconds := time.perf_counter() - begun) < BARE_SECONDS:
        infer(tile)
        done += 1
    return done * shape[0] * shape[1] / seconds


def seconds_of(infer: bare.Inference, inputs: Sequence[np.ndarray]) -> float:
    """How long inference of all takes."""
    begun = time.perf_counter()
    for each in inputs:
        infer(each)
    return time.perf_counter() - begun


def seconds_of_command(command: Sequence[str]) -> float:
    """How long a process takes."""
    begun = time.perf_counter()
    subprocess.run(command, check=True)
    return time.perf_counter() - begun


def peak_bytes(pictures: Sequence[Path], results: Path) -> int:
    """The largest resident set of an engine for these."""
    engine = Engine()
    done = engine.upscale(pictures, results)
    engine.finish()
    shutil.rmtree(results)
    return max(event.peak_memory_bytes for event in done)


def one_start(runtime: str, picture: Path, results: Path) -> dict[str, float]:
    """Seconds of each phase of an engine that enlarges one small picture."""
    engine = Engine(runtime)
    ready = time.time()
    engine.send([picture], results)
    engine.first_tile()
    enlarged = time.time()
    engine.last_picture()
    finishing = time.time()
    engine.finish()
    return {
        "spawned to first line of ours": engine.ready.started_at - engine.spawned_at,
        **{f"load: {phase}": seconds for phase, seconds in engine.ready.phases.items()},
        "ready to first tile": enlarged - ready,
        "spawned to first tile": enlarged - engine.spawned_at,
        "end to exit": time.time() - finishing,
    }


def set5_psnr(network: Network, folder: Path | None) -> float:
    """Mean of the five pictures in dB; 0 where they are not here."""
    if folder is None:
        return 0.0
    # the network's pictures are blue, green, red
    return quality.judge(lambda picture: network([picture[:, :, ::-1]])[0][:, :, ::-1], quality.pairs(folder)).psnr


def precision_of(runtime: str) -> str:
    """What the engine chooses."""
    engine = Engine(runtime)
    engine.finish()
    return engine.ready.precision


def blob(picture: np.ndarray) -> np.ndarray:
    """HxWx3 bytes as the network takes them."""
    return cv2.dnn.blobFromImage(picture, 1 / 255, swapRB=True)


def cut_up(whole: np.ndarray, cutting: tiles.Cutting) -> Iterator[np.ndarray]:
    """The engine's tiles of a picture."""
    for rows, columns in tiles.split(*whole.shape[2:], cutting):
        yield np.ascontiguousarray(whole[:, :, rows.start : rows.stop, columns.start : columns.stop])


PARTS = {part.__name__: part for part in (machine, throughput, processes, eager, memory, start, precision)}


def main() -> None:
    """Measure the parts that were named, or all."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--photos", help="a folder with photographs (jpg, png); else docs/bee.jpg")
    parser.add_argument("--set5", help="a folder with HR/ and LRx3/ of Set5, for the PSNR")
    parser.add_argument("--only", type=lambda text: text.split(","), default=list(PARTS), metavar="PART,...")
    parser.add_argument("--runtimes", type=lambda text: text.split(","), default=networks.RUNTIMES, metavar="NAME,...")
    parser.add_argument("--rounds", type=int, default=3, help="of each comparison")
    parser.add_argument("--pictures", type=int, default=24, help="in the batch")
    parser.add_argument("--update", type=Path, metavar="PAGE", help="put the tables there, too")
    options = parser.parse_args()
    if unknown := set(options.only) - set(PARTS):
        parser.error(f"no part is called {', '.join(unknown)}: there are {', '.join(PARTS)}")
    with tempfile.TemporaryDirectory() as folder:
        setting = Setting(options, Path(folder))
        for part in options.only:
            lines = []
            for line in PARTS[part](setting):
                print(line, flush=True)
                lines.append(line)
            print()
            if options.update:
                figures.update(options.update, part, "\n".join(lines))


if __name__ == "__main__":
    main()
