"""What an unknown network does, found by running it: how much it enlarges, which values it takes, how far it looks."""

import tempfile
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import cv2
import numpy as np
import numpy.typing as npt

from sr_engine import reach, runtimes
from sr_engine.colours import colours_of
from sr_engine.errors import ModelError, UnusableEngine
from sr_engine.models import Color, Model

_FARTHEST = 192
"""Input pixels. A network that looks farther cannot be cut into tiles of a bearable size."""

_INFLUENCE = 0.01
"""Levels of 255: what changes an output by less is of no consequence."""

_MOST_SEAM = 0.5
"""Levels of 255 by which a tile may differ from the whole: sums in another order differ by hundredths."""

_SIDES = (48, 37)
_RANGES = (1.0, 255.0)
_SCALES = range(2, 9)

Values = npt.NDArray[np.float32]


class Probed(NamedTuple):
    """What was found.

    Attributes:
        scale: output pixels per input pixel, along each side.
        color: "y" where there is one channel, else as it was given.
        value_range: the network works on 0 .. value_range.
        halo: input pixels around a pixel on which it depends.
        exact: whether that was read off its layers; else it is how far a change was felt, and as much again.
        psnr: of a drawn picture, reduced and enlarged by the network, in dB.
        bicubic_psnr: the same by bicubic interpolation.
    """

    scale: int
    color: Color
    value_range: float
    halo: int
    exact: bool
    psnr: float
    bicubic_psnr: float


def normalised(data: bytes, name: str) -> tuple[bytes, int]:
    """The network with free sizes, and its number of channels.

    Raises:
        ModelError: it is no ONNX model, or none that takes pictures and gives pictures.
    """
    import onnx  # noqa: PLC0415 - a quarter of a second, for this one command

    try:
        model = onnx.load_model_from_string(data)
        if any(tensor.data_location == tensor.EXTERNAL for tensor in _tensors(model)):
            raise ModelError(f"{name} keeps its weights in other files: save the model as one file and add that")
        onnx.checker.check_model(model)
    except ModelError:
        raise
    except Exception as error:  # of protobuf, onnx.checker and others, with no base in common
        reason = str(error).strip().partition("\n")[0]
        raise ModelError(f"{name} is not a sound ONNX model ({reason}): export it again") from error
    graph = model.graph
    weights = {tensor.name for tensor in graph.initializer}
    inputs = [value for value in graph.input if value.name not in weights]
    if len(inputs) != 1 or len(graph.output) != 1:
        raise ModelError(f"{name} has {len(inputs)} inputs and {len(graph.output)} outputs; one of each is needed")
    shape = inputs[0].type.tensor_type.shape.dim
    channels = shape[1].dim_value if len(shape) == 4 else 0
    if inputs[0].type.tensor_type.elem_type != onnx.TensorProto.FLOAT or channels not in (1, 3):
        raise ModelError(
            f"{name} takes {_described(inputs[0])}; what is needed is a float32 picture NCHW of 1 or 3 channels"
        )
    for value in (inputs[0], graph.output[0]):
        for axis, length in zip((0, 2, 3), "nhw", strict=True):
            dimension = value.type.tensor_type.shape.dim
            if len(dimension) == 4:
                dimension[axis].dim_param = length if value is inputs[0] else f"{length}_out"
    del graph.value_info[:]
    return model.SerializeToString(), channels


def probe(path: str, channels: int, *, color: Color | None = None, value_range: float | None = None) -> Probed:
    """Find out about the network in a file of `normalised`.

    Args:
        path: of the ONNX file.
        channels: of its input.
        color: the order of three channels, if it is known; else "rgb".
        value_range: if it is known.

    Raises:
        ModelError: it does not run, does not enlarge, takes one size only, or looks at the whole picture.
    """
    seen: Color = "y" if channels == 1 else color or "rgb"
    model = Model(file=path, sha256="0" * 64, algorithm="", scale=2, color=seen, value_range=1.0, halo=0, licence="")
    with tempfile.TemporaryDirectory() as cache:
        try:
            options = runtimes.Options(device="cpu", precision="fp32", cache_folder=cache)
            runtime, _ = runtimes.load("auto", path, model, options)
        except UnusableEngine as error:
            raise ModelError(f"no runtime here can run it ({error.message})") from error
        scale = _scale(runtime, channels)
        by_range = {
            candidate: _psnr(runtime, _facts(model, scale, candidate))
            for candidate in ((value_range,) if value_range else _RANGES)
        }
        best = max(by_range, key=lambda candidate: by_range[candidate])
        felt = _felt_at_most(runtime, channels, scale, best)
        with open(path, "rb") as file:
            looks = reach.halo_of(file.read())
        # Of very deep networks the outermost pixels of what they could see do not matter, and tiles would be huge.
        exact = looks is not None and looks <= _FARTHEST
        halo = max(looks or 0, felt) if exact else 2 * felt + 1
        _check_tiles(runtime, channels, scale, best, halo)
        runtime.close()
    picture = _drawn(96 * scale)
    reduced = cv2.resize(picture, None, fx=1 / scale, fy=1 / scale, interpolation=cv2.INTER_AREA)
    bicubic = cv2.resize(reduced, None, fx=scale, fy=scale, interpolation=cv2.INTER_CUBIC)
    return Probed(scale, seen, best, halo, exact, by_range[best], float(cv2.PSNR(picture, bicubic)))


def _tensors(message: Any) -> Iterator[Any]:
    """Every tensor in a protobuf message, however deep: weights, constants, those of branches and functions."""
    for field, value in message.ListFields():
        if field.message_type is None:
            continue
        for part in value if isinstance(value, Sequence) else [value]:
            if field.message_type.name == "TensorProto":
                yield part
            else:
                yield from _tensors(part)


def _described(value: Any) -> str:
    import onnx  # noqa: PLC0415

    kind = onnx.TensorProto.DataType.Name(value.type.tensor_type.elem_type).lower()
    return (
        f"{kind} {'x'.join(str(side.dim_value or side.dim_param or '?') for side in value.type.tensor_type.shape.dim)}"
    )


def _facts(model: Model, scale: int, value_range: float) -> Model:
    import msgspec  # noqa: PLC0415

    return msgspec.structs.replace(model, scale=scale, value_range=value_range)


def _run(runtime: runtimes.Runtime, values: Values) -> Values:
    try:
        return runtime.run(np.ascontiguousarray(values, np.float32))
    except Exception as error:  # whatever the runtime has against it
        size = "x".join(map(str, values.shape))
        reason = str(error).strip().rpartition("\n")[2][:200]
        raise ModelError(
            f"it does not run on an input of {size} ({reason}): a fully convolutional network takes any size; "
            "export it with dynamic axes"
        ) from error


def _scale(runtime: runtimes.Runtime, channels: int) -> int:
    """How much larger the output is, the same for two sizes and for a batch of two."""
    found: set[int] = set()
    for number, height, width in ((1, *_SIDES), (2, *reversed(_SIDES))):
        shape = _run(runtime, np.full((number, channels, height, width), 0.5, np.float32)).shape
        scale = shape[-1] // width if len(shape) == 4 else 0
        if shape != (number, channels, height * scale, width * scale) or scale not in _SCALES:
            raise ModelError(
                f"it makes {'x'.join(map(str, shape))} of {number}x{channels}x{height}x{width}; "
                f"what is needed is {number}x{channels}, each side 2 to 8 times as long"
            )
        found.add(scale)
    if len(found) > 1:
        raise ModelError(f"it enlarges by {' or '.join(map(str, sorted(found)))}, depending on the size")
    return found.pop()


def _psnr(runtime: runtimes.Runtime, model: Model) -> float:
    """Of the drawn picture after reduction and the network, in dB; 0 if the result is nonsense."""
    picture = _drawn(96 * model.scale)
    reduced = cv2.resize(picture, None, fx=1 / model.scale, fy=1 / model.scale, interpolation=cv2.INTER_AREA)
    colours = colours_of(model)
    values = _run(runtime, colours.values([reduced]))
    if not np.isfinite(values).all():
        return 0.0
    return float(cv2.PSNR(picture, colours.pixels(values[0], reduced)))


def _drawn(side: int) -> Any:
    """A picture of edges, curves, letters and shades, in all colours; HxWx3, uint8."""
    ramp = np.linspace(40, 215, side)
    picture = np.stack([ramp[:, None] + 0 * ramp, ramp + 0 * ramp[:, None], ramp[::-1, None] + 0 * ramp], axis=-1)
    picture = np.ascontiguousarray(picture.astype(np.uint8))
    chance = np.random.default_rng(1)
    for _ in range(60):
        left, top, size = (int(part) for part in chance.integers(0, side, 3))
        colour = tuple(int(part) for part in chance.integers(0, 256, 3))
        cv2.circle(picture, (left, top), 2 + size // 10, colour, -1, cv2.LINE_AA)
        cv2.line(picture, (left, top), (top, size), colour[::-1], 1 + size % 4, cv2.LINE_AA)
        cv2.putText(picture, "Ag8", (size, left), cv2.FONT_HERSHEY_SIMPLEX, 0.3 + size / side, colour, 1, cv2.LINE_AA)
    return picture


def _felt_at_most(runtime: runtimes.Runtime, channels: int, scale: int, value_range: float) -> int:
    """How many input pixels away a change is felt, along both axes.

    Raises:
        ModelError: too far for tiles.
    """
    most = _FARTHEST
    felt = max(_felt(runtime, channels, scale, value_range, most, axis) for axis in (2, 3))
    if felt < most:
        return felt
    raise ModelError(
        f"each of its pixels depends on more than {most} pixels around it, perhaps on the whole picture: "
        "it cannot be run in tiles"
    )


def _felt(runtime: runtimes.Runtime, channels: int, scale: int, value_range: float, most: int, axis: int) -> int:
    """The distance in input pixels from a changed edge to the farthest output that changed; `most` if it is as far."""
    edge = 19  # no multiple of the strides and windows that networks have
    chance = np.random.default_rng(2)
    shape = [1, channels, 48, 48]
    shape[axis] = edge + 2 * _FARTHEST + 8
    plain = chance.uniform(0, value_range, shape).astype(np.float32)
    distance = 0
    for mirrored in (False, True):
        changed = np.flip(plain, axis).copy() if mirrored else plain.copy()
        before = changed.copy()
        part = [slice(None)] * 4
        part[axis] = slice(0, edge)
        changed[tuple(part)] = 0
        if mirrored:
            before, changed = (np.flip(values, axis) for values in (before, changed))
        difference = np.abs(_run(runtime, before) - _run(runtime, changed)) * (255 / value_range)
        profile = difference.max(axis=tuple(other for other in range(4) if other != axis))
        if mirrored:
            profile = profile[::-1]
        if (profile > _INFLUENCE).any():
            distance = max(distance, int(np.flatnonzero(profile > _INFLUENCE)[-1]) // scale - edge + 1)
    return min(max(distance, 0), most)


def _check_tiles(runtime: runtimes.Runtime, channels: int, scale: int, value_range: float, halo: int) -> None:
    """Refuse a network whose tiles are not what the whole is.

    Where layers reach is not all that matters: some look at the mean of the picture, at where a tile lies, or at how
    large it is.
    """
    core = 41
    side = 2 * (halo + core) + 75
    picture = _drawn(side).astype(np.float32) * (value_range / 255)
    picture[: side // 2] *= 0.2  # halves that differ: a mean over the picture is felt
    picture[side // 3 : side // 2, : side // 2] = value_range  # flat and bright: some layers wake up only there
    values = np.ascontiguousarray(picture.transpose(2, 0, 1)[None, :channels])
    whole = _run(runtime, values)
    for top, left in ((0, 0), (37, 61), (61, 0), (0, 37), (side - core, side - core), (halo + 53, halo + 29)):
        around = [slice(max(start - halo, 0), min(start + core + halo, side)) for start in (top, left)]
        tile = _run(runtime, values[:, :, around[0], around[1]])
        inner = [
            slice((start - taken.start) * scale, (min(start + core, side) - taken.start) * scale)
            for start, taken in zip((top, left), around, strict=True)
        ]
        place = [slice(start * scale, min(start + core, side) * scale) for start in (top, left)]
        difference = np.abs(tile[:, :, inner[0], inner[1]] - whole[:, :, place[0], place[1]]).max()
        if not difference * (255 / value_range) <= _MOST_SEAM:
            raise ModelError(
                f"its pixels depend on where a tile lies or on the whole picture: cut into tiles with {halo} pixels "
                f"around them they differ by {difference * 255 / value_range:.1f} levels"
            )
