"""The manifest of models: which file, its sha256, and what the network expects.

Light: the watcher imports this module to name and verify a model, so nothing here may import numpy or cv2.
"""

import hashlib
import os
from typing import Annotated, Literal

import msgspec
import yaml

from sr_engine.errors import ModelError

_PACKAGE = os.path.dirname(os.path.abspath(__file__))


class Model(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What the manifest says of one model.

    Attributes:
        file: weights, an ONNX file beside the manifest.
        sha256: of that file.
        algorithm: family of the network, "edsr".
        scale: output pixels per input pixel, along each side.
        color: order of the channels at input and output.
        value_range: the network works on values 0 .. value_range.
        halo: receptive field beyond a pixel, in input pixels.
        features: channels of the widest layer; tells how much memory a tile takes.
        licence: SPDX identifier.
        card: the model card beside the manifest.
    """

    file: str
    sha256: Annotated[str, msgspec.Meta(pattern="^[0-9a-f]{64}$")]
    algorithm: str
    scale: Annotated[int, msgspec.Meta(ge=2, le=8)]
    color: Literal["rgb", "bgr"]
    value_range: Annotated[float, msgspec.Meta(gt=0)]
    halo: Annotated[int, msgspec.Meta(ge=0)]
    features: Annotated[int, msgspec.Meta(ge=1)] = 64
    licence: str
    card: str = ""


class _Manifest(msgspec.Struct, forbid_unknown_fields=True):
    models: dict[str, Model]


def default_folder() -> str:
    """Where the embedded models are: inside the installed package, or `models/` of a checkout."""
    packaged = os.path.join(_PACKAGE, "data", "models")
    return packaged if os.path.isdir(packaged) else os.path.join(os.path.dirname(_PACKAGE), "models")


def read_manifest(folder: str) -> dict[str, Model]:
    """All models that `folder/models.yaml` names.

    Raises:
        ModelError: the manifest is missing or broken.
    """
    path = os.path.join(folder, "models.yaml")
    try:
        with open(path, "rb") as file:
            return msgspec.convert(yaml.safe_load(file), _Manifest).models
    except OSError as error:
        raise ModelError(f"cannot read the models' manifest {path}: {error.strerror}") from error
    except (yaml.YAMLError, msgspec.ValidationError) as error:
        raise ModelError(f"the models' manifest {path} is broken: {error}") from error


def find(name: str, folder: str) -> Model:
    """The model called `name`.

    Raises:
        ModelError: there is none; the message lists those that exist.
    """
    models = read_manifest(folder)
    if name not in models:
        raise ModelError(f"no model is called {name!r}; {folder} has: {', '.join(sorted(models))}")
    return models[name]


def verify(model: Model, folder: str) -> str:
    """Path of the weights, after comparing their sha256 with the manifest.

    Raises:
        ModelError: the file is missing, unreadable or another one.
    """
    path = os.path.join(folder, model.file)
    try:
        with open(path, "rb") as file:
            found = hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise ModelError(f"cannot read the model {path}: {error.strerror}; install dropscale again") from error
    if found != model.sha256:
        raise ModelError(
            f"{path} is not the file that the manifest names: sha256 {found}, expected {model.sha256}; "
            "install dropscale again, or correct models.yaml if you replaced the model on purpose"
        )
    return path
