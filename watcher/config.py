"""One typed `Config`, read from config.yaml and the environment, refused as a whole when anything in it is wrong."""

import os
from collections.abc import Mapping
from typing import Annotated, Any, Literal, TypeVar

import msgspec
import yaml
from msgspec import Meta

from sr_engine import models, protocol
from watcher.errors import ConfigError, EnvironmentFault
from watcher.ignore import IgnoreRules
from watcher.mounts import is_read_only

ENV_PREFIX = "DROPSCALE_"
ENV_CONFIG = "DROPSCALE_CONFIG"
DEFAULT_NAME = "config.yaml"

_PACKAGE = os.path.dirname(os.path.abspath(__file__))

_LONGEST = 1e9  # 30 years; infinity is more than the system's waits can take

Seconds = Annotated[float, Meta(ge=0, le=_LONGEST, description="a number of seconds, 0 or more")]
PositiveSeconds = Annotated[float, Meta(gt=0, le=_LONGEST, description="a number of seconds greater than 0")]
Quality = Annotated[int, Meta(ge=1, le=100, description="a whole number from 1 to 100")]
Count = Annotated[int, Meta(ge=1, description="a whole number, 1 or more")]
Name = Annotated[str, Meta(min_length=1, pattern=r"^[^\0]*$", description="a text that is not empty")]
Text = Annotated[str, Meta(pattern=r"^[^\0]*$")]  # no path or argument can hold a zero byte
Device = Annotated[
    str,
    Meta(
        pattern=r"^(auto|cpu|gpu|npu|cuda|tensorrt|directml|coreml)(:[0-9]{1,3})?\Z",
        description="one of auto, cpu, gpu, npu, cuda, tensorrt, directml, coreml, perhaps with a number: cuda:1",
    ),
]


class Folders(msgspec.Struct, frozen=True):
    """Absolute paths once the config is read; see config.yaml for what each is for."""

    inbox: Name = "inbox"
    outbox: Name = "outbox"
    archive: Name = "archive"
    failed: Name = "failed"
    state: Name = ".dropscale"

    @property
    def engines(self) -> str:
        """What engines remember from one process to the next: compiled models, sizes of tiles."""
        return os.path.join(self.state, "engines")


class Watch(msgspec.Struct, frozen=True):
    """How the inbox is watched; see config.yaml."""

    backend: Annotated[Literal["auto", "native", "polling"], Meta(description="one of auto, native, polling")] = "auto"
    recursive: Annotated[bool, Meta(description="true or false")] = True
    settle_seconds: PositiveSeconds = 2
    rescan_seconds: PositiveSeconds = 300
    poll_seconds: PositiveSeconds = 5
    incomplete_seconds: Seconds = 30
    ignore: Annotated[tuple[str, ...], Meta(description="a list of patterns")] = ()


class WindowLimits(msgspec.Struct, frozen=True):
    """When a window closes; see config.yaml."""

    quiet_seconds: Seconds = 5
    max_seconds: Seconds = 60
    max_files: Annotated[int, Meta(ge=1, le=100_000, description="a whole number from 1 to 100000")] = 200
    max_pixels: Count = 400_000_000


class Engine(msgspec.Struct, frozen=True):
    """The engine process; see config.yaml."""

    model: Name = models.AUTO
    models_folder: Annotated[Text, Meta(description="a folder, or empty")] = ""
    model_mirrors: Annotated[tuple[Text, ...], Meta(description="a list of http or https addresses")] = ()
    ensemble: Annotated[bool, Meta(description="true or false")] = False
    runtime: Annotated[
        Literal["auto", "opencv", "openvino", "onnx"], Meta(description="one of auto, opencv, openvino, onnx")
    ] = "auto"
    device: Device = "auto"
    precision: Annotated[Literal["auto", "fp32", "fp16", "bf16"], Meta(description="one of auto, fp32, fp16, bf16")] = (
        "auto"
    )
    threads: Annotated[int, Meta(ge=0, le=1024, description="a whole number from 0 to 1024")] = 0
    attempts: Count = 2
    start_seconds: PositiveSeconds = 120
    deadline_seconds: PositiveSeconds = 60
    deadline_seconds_per_megapixel: Seconds = 120
    grace_seconds: Seconds = 30
    command: Annotated[tuple[Text, ...], Meta(description="a list: the program and its arguments")] = ()


class Output(msgspec.Struct, frozen=True):
    """How results are written; see config.yaml."""

    format: Annotated[
        Literal["same", "jpeg", "png", "webp", "tiff", "bmp", "avif", "heic", "jpeg2000", "gif"],
        Meta(description="one of same, jpeg, png, webp, tiff, bmp, avif, heic, jpeg2000, gif"),
    ] = "same"
    jpeg_quality: Quality = 95
    webp_quality: Annotated[int, Meta(ge=1, le=101, description="a whole number from 1 to 101")] = 95
    avif_quality: Quality = 90
    png_compression: Annotated[int, Meta(ge=0, le=9, description="a whole number from 0 to 9")] = 1

    def wire(self) -> protocol.Output:
        """The same settings as the engine protocol carries them."""
        return protocol.Output(**msgspec.structs.asdict(self))


class Limits(msgspec.Struct, frozen=True):
    """What is refused from its header alone; see config.yaml."""

    megapixels: Annotated[float, Meta(gt=0, le=_LONGEST, description="a number greater than 0")] = 200
    side: Count = 60_000
    file_megabytes: Annotated[int, Meta(ge=1, le=2047, description="a whole number from 1 to 2047")] = 2047
    memory_megabytes: Annotated[int, Meta(ge=0, description="a whole number, 0 or more")] = 0
    engine_megabytes: Annotated[int, Meta(ge=0, description="a whole number, 0 or more")] = 0

    def wire(self) -> protocol.Limits:
        """The same limits as the engine protocol carries them."""
        return protocol.Limits(
            pixels=max(round(self.megapixels * 1e6), 1),
            side=self.side,
            file_bytes=self.file_megabytes << 20,
            memory_bytes=self.memory_megabytes << 20,
            engine_bytes=self.engine_megabytes << 20,
        )


class Retry(msgspec.Struct, frozen=True):
    """Waiting for the surroundings to recover; see config.yaml."""

    first_seconds: PositiveSeconds = 10
    max_seconds: PositiveSeconds = 600

    def delay_seconds(self, earlier_waits: int) -> float:
        """How long to wait after `earlier_waits` waits in a row."""
        return float(min(self.first_seconds * 2.0 ** min(earlier_waits, 30), self.max_seconds))


class Cost(msgspec.Struct, frozen=True):
    """What an hour of the device costs; see config.yaml."""

    per_hour: Annotated[float, Meta(ge=0, le=_LONGEST, description="a number, 0 or more")] = 0.6
    currency: Annotated[
        str, Meta(pattern=r"^[A-Z]{3}\Z", description="three capital letters, such as CNY, EUR, USD")
    ] = "CNY"
    wait_seconds: PositiveSeconds = 60


class Config(msgspec.Struct, frozen=True):
    """Everything a user can set."""

    folders: Folders = Folders()
    watch: Watch = Watch()
    window: WindowLimits = WindowLimits()
    engine: Engine = Engine()
    output: Output = Output()
    limits: Limits = Limits()
    retry: Retry = Retry()
    cost: Cost = Cost()


def default_text() -> str:
    """The text of the default config.yaml, with its comments: what `dropscale init` writes."""
    packaged = os.path.join(_PACKAGE, "data", DEFAULT_NAME)
    path = packaged if os.path.exists(packaged) else os.path.join(os.path.dirname(_PACKAGE), DEFAULT_NAME)
    with open(path, encoding="utf-8") as file:
        return file.read()


def load(path: str, environ: Mapping[str, str]) -> Config:
    """Read `path`, lay the environment's overrides over it and make the folders absolute.

    Raises:
        ConfigError: the file is missing, is no YAML, or holds something that is not allowed. The message names the
            path of every wrong key, its value and what is allowed.
    """
    return _convert(_read_yaml(path), path, environ)


def without_file(environ: Mapping[str, str]) -> Config:
    """The defaults with the environment's overrides, for what works without a config.yaml.

    Raises:
        ConfigError: as `load`.
    """
    return _convert({}, DEFAULT_NAME, environ)


def _convert(tree: dict[str, Any], path: str, environ: Mapping[str, str]) -> Config:
    variables = _override(tree, environ)
    problems: list[tuple[str, str]] = []
    config = _build(Config, tree, "", problems)
    try:
        IgnoreRules(config.watch.ignore)
    except ValueError as error:
        problems.append(("watch.ignore", str(error)))
    if problems:
        told = [f"{_origin(key, path, variables)}: {key}: {problem}" for key, problem in problems]
        raise ConfigError("\n".join(told), "see the comments in config.yaml; `dropscale init` writes a fresh one")
    base = os.path.dirname(os.path.abspath(path))
    engine = config.engine
    if engine.models_folder:
        models_folder = os.path.join(base, os.path.expanduser(engine.models_folder))
        engine = msgspec.structs.replace(engine, models_folder=models_folder)
    if engine.model == models.AUTO:
        engine = msgspec.structs.replace(engine, model=models.default_name(engine.runtime, engine.device))
    config = msgspec.structs.replace(config, folders=_absolute(config.folders, base), engine=engine)
    _refuse_overlap(config.folders, path)
    return config


def check_folders(folders: Folders) -> None:
    """Refuse to start on folders that are missing or cannot be written.

    Raises:
        EnvironmentFault: with the key, the folder and what to do.
    """
    for key in ("inbox", "outbox", "archive", "failed"):
        folder = getattr(folders, key)
        if not os.path.isdir(folder):
            raise EnvironmentFault(
                f"folders.{key}: {folder} is not there",
                "mount the share if it is on one, or create the folders with `dropscale init`",
            )
        if not os.access(folder, os.R_OK | os.W_OK | os.X_OK):
            if is_read_only(folder):
                raise EnvironmentFault(
                    f"folders.{key}: {folder} cannot be written, its file system is read-only",
                    "remount it writable; a disk with errors becomes read-only, and the kernel's log says so",
                )
            raise EnvironmentFault(
                f"folders.{key}: {folder} cannot be written by this user",
                "an existing folder that this user may read and write is needed; change its owner or its mode",
            )
    _refuse_same(folders)


def _read_yaml(path: str) -> dict[str, Any]:
    try:
        with open(path, "rb") as file:
            tree = yaml.safe_load(file)
    except FileNotFoundError:
        raise ConfigError(
            f"there is no {path}", "write one with `dropscale init`, or name yours with --config FILE"
        ) from None
    except OSError as error:
        raise ConfigError(f"cannot read {path}: {error.strerror}") from error
    except (yaml.YAMLError, ValueError) as error:  # ValueError: a date that does not exist, bytes that are no text
        raise ConfigError(f"{path} is not YAML: {error}") from error
    if tree is None:
        return {}
    if not isinstance(tree, dict):
        raise ConfigError(f"{path} holds {_shown(tree)}, expected keys such as `folders:` and `window:`")
    return tree


def _origin(key: str, path: str, variables: Mapping[str, str]) -> str:
    """The file, or the environment variable, that a key's value came from."""
    for overridden, variable in variables.items():
        if f"{overridden}.".startswith(f"{key}."):
            return f"environment variable {variable}"
    return path


def _override(tree: dict[str, Any], environ: Mapping[str, str]) -> dict[str, str]:
    """Lay the environment over the file; returns which variable set which key."""
    variables = {}
    for variable in sorted(environ):
        if not variable.startswith(ENV_PREFIX) or variable == ENV_CONFIG:
            continue
        *parents, leaf = variable.removeprefix(ENV_PREFIX).lower().split("__")
        try:
            value = yaml.safe_load(environ[variable]) if environ[variable] else ""
        except (yaml.YAMLError, ValueError) as error:
            raise ConfigError(f"environment variable {variable}={environ[variable]!r} is not YAML") from error
        branch: Any = tree
        for key in parents:
            if not isinstance(branch, dict):
                break
            if branch.get(key) is None:  # also a section whose keys are all commented out
                branch[key] = {}
            branch = branch[key]
        if not isinstance(branch, dict):
            raise ConfigError(f"environment variable {variable}: {'.'.join(parents)} is not a section")
        branch[leaf] = value
        variables[".".join([*parents, leaf])] = variable
    return variables


T = TypeVar("T", bound=msgspec.Struct)


def _build(kind: type[T], tree: Any, path: str, problems: list[tuple[str, str]]) -> T:
    """Convert one section key by key: so that each problem is told with its own path, and all of them at once."""
    if tree is None:
        return kind()
    if not isinstance(tree, dict):
        problems.append((path, f"{_shown(tree)} is not allowed; expected a section with keys"))
        return kind()
    fields = {field.name: field for field in msgspec.structs.fields(kind)}
    values: dict[str, Any] = {}
    for key, value in tree.items():
        where = f"{path}.{key}" if path else str(key)
        if key not in fields:
            problems.append((where, f"unknown key{_suggestion(str(key), list(fields))}"))
            continue
        wanted = fields[key].type
        if isinstance(wanted, type) and issubclass(wanted, msgspec.Struct):
            values[key] = _build(wanted, value, where, problems)
            continue
        try:
            values[key] = msgspec.convert(value, wanted)
        except msgspec.ValidationError:
            problems.append((where, f"{_shown(value)} is not allowed; expected {_allowed(wanted)}"))
    return kind(**values)


def _allowed(wanted: Any) -> str:
    info = msgspec.inspect.type_info(wanted)
    described = getattr(info, "extra_json_schema", None) or {}
    return str(described.get("description", wanted))


def _suggestion(key: str, known: list[str]) -> str:
    import difflib  # noqa: PLC0415 - for mistakes only

    close = difflib.get_close_matches(key, known, n=1)
    return f"; did you mean {close[0]}?" if close else f"; allowed are {', '.join(known)}"


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."


def _absolute(folders: Folders, base: str) -> Folders:
    # realpath, so that the inbox's mount and the overlap check see where a link leads
    return Folders(
        **{
            key: os.path.realpath(os.path.join(base, os.path.expanduser(value)))
            for key, value in msgspec.structs.asdict(folders).items()
        }
    )


def _refuse_overlap(folders: Folders, path: str) -> None:
    items = list(msgspec.structs.asdict(folders).items())
    for key, folder in items:
        for other_key, other in items:
            if key != other_key and _contains(other, folder):
                same = os.path.normcase(folder) == os.path.normcase(other)
                relation = "is the same folder as" if same else "lies inside"
                raise ConfigError(
                    f"{path}: folders.{key}: {folder} {relation} folders.{other_key}: {other}",
                    "five separate folders are needed: results must not be taken for new pictures",
                )


def _refuse_same(folders: Folders) -> None:
    """Two paths may be one folder: a bind mount, or other letter case where that does not matter."""
    seen: dict[tuple[int, int], str] = {}
    for key in ("inbox", "outbox", "archive", "failed"):
        status = os.stat(getattr(folders, key))
        other = seen.setdefault((status.st_dev, status.st_ino), key)
        if other != key:
            raise ConfigError(
                f"folders.{key}: {getattr(folders, key)} is the same folder as folders.{other}",
                "separate folders are needed: results must not be taken for new pictures",
            )


def _contains(outer: str, inner: str) -> bool:
    outer, inner = os.path.normcase(outer), os.path.normcase(inner)
    return inner == outer or inner.startswith(outer.rstrip(os.sep) + os.sep)
