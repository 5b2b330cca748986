"""The models: which files, their sha256, and what each network expects; those that came along and the user's own.

Light: the watcher imports this module to name and verify a model, so nothing here may import numpy or cv2.
"""

import hashlib
import importlib.util
import os
import sys
from typing import IO, Annotated, Any, Literal, NamedTuple, TypeVar

import msgspec
import yaml

from sr_engine.errors import ModelError

MANIFEST = "models.yaml"
AUTO = "auto"

# the one in C, where it was built, takes a tenth of the time: of every start of the watcher and of the engine
_YAML_LOADER: type[yaml.SafeLoader] | type[yaml.CSafeLoader] = getattr(yaml, "CSafeLoader", yaml.SafeLoader)

_PACKAGE = os.path.dirname(os.path.abspath(__file__))
_FOR_CPUS, _FOR_GPUS = "edsr-lite-x3", "edsr-x3"
_GPU_DEVICES = ("gpu", "cuda", "tensorrt", "directml", "coreml")
# How the drivers of NVIDIA's GPUs show themselves on Linux, in WSL and on Windows.
_GPU_DRIVERS = ("/dev/nvidiactl", "/dev/dxg", "C:\\Windows\\System32\\nvcuda.dll")
_GPU_LIBRARIES = ("libonnxruntime_providers_cuda", "onnxruntime_providers_cuda", "DirectML")

Sha256 = Annotated[str, msgspec.Meta(pattern="^[0-9a-f]{64}$")]
Color = Literal["rgb", "bgr", "y"]
FileName = Annotated[str, msgspec.Meta(pattern=r"^[^/\\\0]+$")]


class Model(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True, omit_defaults=True):
    """What the manifest says of one model.

    Attributes:
        file: weights, an ONNX file beside the manifest.
        sha256: of that file.
        algorithm: family of the network, "edsr".
        scale: output pixels per input pixel, along each side.
        color: order of the channels at input and output; "y": brightness alone, colours are enlarged bilinearly.
        value_range: the network works on values 0 .. value_range.
        halo: receptive field beyond a pixel, in input pixels.
        features: channels of the widest layer; tells how much memory a tile takes.
        mflop: work per input pixel, in millions of floating point operations (a multiply-add is two).
        set5_psnr: on luma, in dB, as docs/models.md measures it; None where nobody did.
        licence: SPDX identifier, or what the user said of it.
        source: where the weights come from.
        card: the model card beside the manifest.
    """

    file: FileName
    sha256: Sha256
    algorithm: str
    scale: Annotated[int, msgspec.Meta(ge=2, le=8)]
    color: Color
    value_range: Annotated[float, msgspec.Meta(gt=0)]
    halo: Annotated[int, msgspec.Meta(ge=0)]
    features: Annotated[int, msgspec.Meta(ge=1)] = 64
    mflop: Annotated[float, msgspec.Meta(ge=0)] = 0.0
    set5_psnr: float | None = None
    licence: str
    source: str = ""
    card: str = ""

    @property
    def channels(self) -> int:
        """Of the network's input and output."""
        return 1 if self.color == "y" else 3


class Adopted(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What `sr_engine.adoption` found out about a foreign model; the fields of `Model` that a network tells itself.

    Attributes:
        notes: sentences for whoever adds it.
    """

    algorithm: str
    scale: int
    color: Color
    value_range: float
    halo: int
    features: int
    mflop: float
    notes: list[str]


class Upstream(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A model that others publish: where it is, and what tells that a file is it.

    Attributes:
        url: of the file.
        bytes: its size, if it is known.
        sha256, git_blob: of the file; the second, the SHA-1 that git names it by, where the first is not known.
        algorithm, scale, mflop, set5_psnr, licence: as in `Model`.
    """

    url: str
    bytes: Annotated[int, msgspec.Meta(ge=1)] | None = None
    sha256: Annotated[str, msgspec.Meta(pattern="^([0-9a-f]{64})?$")] = ""
    git_blob: Annotated[str, msgspec.Meta(pattern="^([0-9a-f]{40})?$")] = ""
    algorithm: str
    scale: int
    mflop: float = 0.0
    set5_psnr: float | None = None
    licence: str

    @property
    def file(self) -> str:
        """The file's name."""
        return self.url.rpartition("/")[2]


class Installed(NamedTuple):
    """A model that is named by a manifest.

    Attributes:
        name: in the manifest.
        model: what it says.
        folder: where the manifest and the weights are.
    """

    name: str
    model: Model
    folder: str

    @property
    def path(self) -> str:
        """Of the weights."""
        return os.path.join(self.folder, self.model.file)


class _Manifest(msgspec.Struct, forbid_unknown_fields=True):
    models: dict[str, Model]


class _Catalogue(msgspec.Struct, forbid_unknown_fields=True):
    models: dict[str, Upstream]


_Listing = TypeVar("_Listing", _Manifest, _Catalogue)


def read_yaml(source: IO[bytes] | str) -> Any:
    """What a file or a text says, of plain kinds only.

    Raises:
        yaml.YAMLError: it is no YAML.
        ValueError: it holds a date that does not exist, or bytes that are no text.
    """
    return yaml.load(source, Loader=_YAML_LOADER)  # noqa: S506 - either is a safe one


def bundled_folder() -> str:
    """Where the models that came along are: inside the installed package, or `models/` of a checkout."""
    packaged = os.path.join(_PACKAGE, "data", "models")
    return packaged if os.path.isdir(packaged) else os.path.join(os.path.dirname(_PACKAGE), "models")


def own_folder() -> str:
    """Where a user's own models are unless the config says otherwise: on Linux ~/.local/share/dropscale/models.

    Empty for a user who has no home.
    """
    data = os.environ.get("XDG_DATA_HOME") or os.path.join(os.environ.get("HOME", ""), ".local", "share")
    if sys.platform == "linux" and os.path.isabs(data):
        # what platformdirs says in all usual cases, without the 1 MB of it that the watcher would hold all day
        return os.path.join(data, "dropscale", "models")
    import platformdirs  # noqa: PLC0415 - see above

    try:
        return os.path.join(platformdirs.user_data_dir("dropscale", appauthor=False), "models")
    except RuntimeError:
        return ""


def read_manifest(folder: str) -> dict[str, Model]:
    """All models that `folder/models.yaml` names.

    Raises:
        ModelError: the manifest is missing or broken.
    """
    return _read(os.path.join(folder, MANIFEST), _Manifest).models


def read_catalogue() -> dict[str, Upstream]:
    """The models of others that can be fetched, by the name they get.

    Raises:
        ModelError: the list is missing or broken.
    """
    return _read(os.path.join(bundled_folder(), "upstream.yaml"), _Catalogue).models


def _read(path: str, kind: type[_Listing]) -> _Listing:
    try:
        with open(path, "rb") as file:
            return msgspec.convert(read_yaml(file), kind)
    except OSError as error:
        raise ModelError(f"cannot read the models' manifest {path}: {error.strerror}") from error
    except (yaml.YAMLError, msgspec.ValidationError, RecursionError) as error:
        raise ModelError(f"the models' manifest {path} is broken: {error}") from error


def installed(own: str = "") -> dict[str, Installed]:
    """All models by name. One of the user's own stands in for one of the same name that came along.

    Args:
        own: folder with the user's own models; empty: `own_folder()`. It may be missing.

    Raises:
        ModelError: a manifest is broken.
    """
    folders = [bundled_folder()]
    own = own or own_folder()
    if own and os.path.lexists(os.path.join(own, MANIFEST)):
        folders.append(own)
    return {name: Installed(name, model, folder) for folder in folders for name, model in read_manifest(folder).items()}


def find(name: str, own: str = "") -> Installed:
    """The model called `name`; `own` as in `installed`.

    Raises:
        ModelError: there is none; the message lists those that exist.
    """
    known = installed(own)
    if name not in known:
        raise ModelError(
            f"no model is called {name!r}; there are {', '.join(sorted(known))}, "
            "and `dropscale models list` shows what can be fetched"
        )
    return known[name]


def verify(found: Installed, expected: str = "") -> str:
    """Path of the weights, after comparing their sha256 with the manifest.

    Args:
        found: which model.
        expected: the sha256 that the manifest had when somebody read it before; empty: never mind.

    Raises:
        ModelError: the file is missing, unreadable or another one, or so is the manifest's.
    """
    if expected not in ("", found.model.sha256):
        raise ModelError(f"the model {found.name} was replaced meanwhile: start dropscale again, or send it SIGHUP")
    again = (
        "install dropscale again"
        if found.folder == bundled_folder()
        else f"add or fetch {found.name} again (`dropscale models`)"
    )
    try:
        with open(found.path, "rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise ModelError(f"cannot read the model {found.path}: {error.strerror}; {again}") from error
    if digest != found.model.sha256:
        raise ModelError(
            f"{found.path} is not the file that the manifest names: sha256 {digest}, expected {found.model.sha256}; "
            f"{again}, or correct {MANIFEST} if you replaced the model on purpose"
        )
    return found.path


def default_name(runtime: str, device: str) -> str:
    """The model that "auto" stands for: the large one where a GPU is going to run it, else the light one.

    Judged by files: the watcher asks, which must not load a runtime.

    Args:
        runtime: "auto" or the name of one.
        device: "auto" or the name of one, perhaps with a number.
    """
    return _FOR_GPUS if expects_gpu(runtime, device) else _FOR_CPUS


def expects_gpu(runtime: str, device: str) -> bool:
    """Whether an engine of these settings is going to run on a GPU, judged by files; see `default_name`."""
    kind = device.partition(":")[0]
    if kind != "auto":
        return kind in _GPU_DEVICES
    driver = sys.platform == "darwin" or any(os.path.exists(path) for path in _GPU_DRIVERS)
    return runtime in ("auto", "onnx") and driver and onnxruntime_is_for_gpus()


def onnxruntime_is_for_gpus() -> bool:
    """Whether the ONNX Runtime that is installed, if any, has more than a CPU. Importing it would cost 0.1 s."""
    found = importlib.util.find_spec("onnxruntime")
    if found is None or not found.submodule_search_locations:
        return False
    folder = os.path.join(next(iter(found.submodule_search_locations)), "capi")
    names = os.listdir(folder) if os.path.isdir(folder) else []
    return sys.platform == "darwin" or any(name.startswith(_GPU_LIBRARIES) for name in names)
