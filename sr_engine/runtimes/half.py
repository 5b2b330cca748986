"""A model in half precision: made from the fp32 file once, then kept in the cache folder."""

import os
import sys
import tempfile
from typing import Any

from sr_engine.errors import UnusableEngine
from sr_engine.models import Model


def missing() -> str:
    """Why no model can be converted here and what to do, in one sentence; empty if it can."""
    try:
        import onnx  # noqa: F401, PLC0415
        from onnxruntime.transformers import float16  # noqa: F401, PLC0415
    except ImportError as error:
        return f"fp16 needs the package onnx, which does not load ({error}): pip install onnx"
    return ""


def convert(weights: bytes, model: Model, cache_folder: str) -> bytes:
    """The model with weights and arithmetic in fp16; input and output stay fp32.

    Args:
        weights: the verified ONNX file.
        model: its facts.
        cache_folder: where the result is kept; empty: nowhere.

    Raises:
        UnusableEngine: the package onnx is not there, or cannot convert this model.
    """
    import onnxruntime  # noqa: PLC0415

    # Another version may convert otherwise.
    path = os.path.join(cache_folder, "fp16", f"{model.sha256}-{onnxruntime.__version__}.onnx")
    if cache_folder and os.path.exists(path):
        try:
            with open(path, "rb") as file:
                return file.read()
        except OSError as error:
            sys.stderr.write(f"cannot read {path}, it is made again: {error.strerror}\n")
    reason = missing()
    if reason:
        raise UnusableEngine(reason)
    try:
        converted = _converted(weights)
    except Exception as error:  # whatever the converter meets in a strange model
        raise UnusableEngine(
            f"the model {model.file} cannot be converted to fp16 ({type(error).__name__}: {error}): "
            "set engine.precision to fp32"
        ) from error
    if cache_folder:
        _keep(converted, path)
    return converted


def _converted(weights: bytes) -> bytes:
    import onnx  # noqa: PLC0415
    from onnxruntime.transformers.float16 import convert_float_to_float16  # noqa: PLC0415

    graph: Any = convert_float_to_float16(onnx.load_model_from_string(weights), keep_io_types=True)
    result: bytes = graph.SerializeToString()
    return result


def _keep(data: bytes, path: str) -> None:
    """Write a file whole or not at all: engines of several watchers may share the folder."""
    try:
        os.makedirs(os.path.dirname(path), exist_ok=True)
        descriptor, temporary = tempfile.mkstemp(dir=os.path.dirname(path))
        try:
            with open(descriptor, "wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            os.replace(temporary, path)
        except OSError:
            os.unlink(temporary)
            raise
    except OSError as error:
        sys.stderr.write(f"the fp16 model is not kept for the next time: cannot write {path}: {error.strerror}\n")
