"""`python -P -m sr_engine.adoption SOURCE TARGET`: make a foreign model one of ours, in a process of its own.

Its own, because it loads libraries that the watcher must not hold, and a hostile file can take it down without harm.
Nothing in a model file is run but the network itself: only ONNX and frozen TensorFlow graphs are read, never pickles.
Writes the ONNX file TARGET and, on stdout, one JSON object: `Adopted`, or {"problem": a sentence}.
"""

import argparse
import os
import sys
import traceback

import msgspec

from sr_engine import machine
from sr_engine.errors import EngineError, ModelError
from sr_engine.models import Adopted, Color

_MOST_BYTES = 2 << 30
"""Of a model file: protobuf has no larger ones."""

_LEAST_RANGE, _LARGEST_RANGE = 1e-3, 65_535.0
_NONSENSE = 14.0
"""dB below bicubic interpolation."""

_UNMAPPED_BYTES = 128 << 20
"""What the libraries that are loaded later map for each core and do not touch: stacks and buffers, rather too much."""

# How protobuf begins: with the version of an ONNX model, or with the first node of a frozen graph.
_ONNX, _FROZEN_GRAPH = b"\x08", b"\x0a"


def adopt(
    source: str,
    target: str,
    *,
    algorithm: str | None = None,
    scale: int | None = None,
    color: Color | None = None,
    value_range: float | None = None,
) -> Adopted:
    """Convert or check the model file `source`, write it to `target` and say what it is.

    Raises:
        ModelError: it is no model that dropscale can use, or not what the arguments say of it.
    """
    if value_range is not None and not _LEAST_RANGE <= value_range <= _LARGEST_RANGE:
        raise ModelError(f"no network works on values 0 .. {value_range}")
    data = _read(source)
    name = os.path.basename(source)
    if data.startswith(_FROZEN_GRAPH):
        adopted, network = _frozen(source, algorithm, scale)
    elif data.startswith(_ONNX):
        adopted, network = _onnx(data, name, target, algorithm, color, value_range)
    else:
        raise ModelError(
            f"{name} is neither an ONNX model nor a frozen TensorFlow graph (.pb); others, .pth for one, may hold "
            "programs and are not read: export the network to ONNX"
        )
    if scale and scale != adopted.scale:
        raise ModelError(f"{name} enlarges {adopted.scale} times, not {scale} times as --scale says")
    _write(target, network)
    return adopted


def _frozen(source: str, algorithm: str | None, scale: int | None) -> tuple[Adopted, bytes]:
    from sr_engine import conversion, graphs  # noqa: PLC0415

    converted = conversion.convert(source, algorithm, scale)
    facts = graphs.described(converted.onnx)
    adopted = Adopted(
        algorithm=converted.algorithm,
        scale=converted.scale,
        color=converted.color,
        value_range=converted.value_range,
        halo=converted.halo,
        features=facts.features,
        mflop=round(facts.flop_per_pixel / 1e6, 3),
        notes=["converted from a frozen TensorFlow graph; the same pixels as OpenCV's dnn_superres within one level"],
    )
    return adopted, converted.onnx


def _onnx(
    data: bytes, name: str, target: str, algorithm: str | None, color: Color | None, value_range: float | None
) -> tuple[Adopted, bytes]:
    from sr_engine import graphs, probe  # noqa: PLC0415

    network, channels = probe.normalised(data, name)
    _write(target, network)
    try:
        found = probe.probe(target, channels, color=color, value_range=value_range)
    except ModelError as error:
        raise ModelError(f"{name}: {error.message}") from error
    facts = graphs.described(network)
    halo = f"halo {found.halo} pixels" if found.exact else f"halo {found.halo} pixels, twice what was felt"
    notes = [
        f"found by trying: x{found.scale}, values 0 .. {found.value_range:g}, {halo}",
        f"a drawn picture comes out with {found.psnr:.2f} dB, by bicubic interpolation with {found.bicubic_psnr:.2f}",
    ]
    if found.psnr < found.bicubic_psnr - _NONSENSE and not (color or value_range):
        raise ModelError(
            f"{name} makes nonsense of a drawn picture ({found.psnr:.1f} dB, bicubic interpolation "
            f"{found.bicubic_psnr:.1f}): it works on other values than 0 .. 1 or 0 .. 255, or does not enlarge "
            "pictures; --range says what it works on"
        )
    if found.psnr < found.bicubic_psnr:
        notes.append(
            "that is worse than bicubic: look at a result before you trust it; --color and --range may be wrong"
        )
    adopted = Adopted(
        algorithm=algorithm or "custom",
        scale=found.scale,
        color=found.color,
        value_range=found.value_range,
        halo=found.halo,
        features=facts.features,
        mflop=round(facts.flop_per_pixel / 1e6, 3),
        notes=notes,
    )
    return adopted, network


def _read(source: str) -> bytes:
    try:
        with open(source, "rb") as file:
            if os.fstat(file.fileno()).st_size > _MOST_BYTES:
                raise ModelError(f"{source} is larger than any model: 2 GB at most")
            data = file.read()
    except OSError as error:
        raise ModelError(f"cannot read {source}: {error.strerror}") from error
    if not data:
        raise ModelError(f"{source} is empty")
    return data


def _write(target: str, network: bytes) -> None:
    try:
        with open(target, "wb") as file:
            file.write(network)
    except OSError as error:
        raise ModelError(f"cannot write {target}: {error.strerror}") from error


def _problem(sentence: str) -> bytes:
    # A path may hold bytes that are no text.
    return msgspec.json.encode({"problem": sentence.encode(errors="backslashreplace").decode()})


def main() -> None:
    """Serve the command line; the answer goes to the original stdout, whatever libraries print elsewhere."""
    parser = argparse.ArgumentParser(prog="python -m sr_engine.adoption", description=__doc__)
    parser.add_argument("source")
    parser.add_argument("target")
    parser.add_argument("--algorithm")
    parser.add_argument("--scale", type=int)
    parser.add_argument("--color", choices=("rgb", "bgr", "y"))
    parser.add_argument("--value-range", type=float)
    given = vars(parser.parse_args())
    answer = os.dup(1)
    os.dup2(2, 1)
    machine.limit_own_memory(unmapped_bytes=machine.processors() * _UNMAPPED_BYTES)
    try:
        said = msgspec.json.encode(adopt(given.pop("source"), given.pop("target"), **given))
    except EngineError as error:
        said = _problem(error.message)
    except MemoryError:
        said = _problem(f"{sys.argv[1]} needs more memory than there is to examine it")
    except Exception as error:  # libraries meet strange files in strange ways
        traceback.print_exc()
        said = _problem(f"{sys.argv[1]} cannot be examined ({type(error).__name__}: {error}): it may be damaged")
    with open(answer, "wb") as stream:
        stream.write(said)
    sys.exit(0)


if __name__ == "__main__":
    main()
