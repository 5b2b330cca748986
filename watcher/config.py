"""One typed `Config`, read from config.yaml and the environment, refused as a whole when anything in it is wrong."""

import os
import re
import types
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, BinaryIO, TypeVar, get_args, get_origin

import msgspec
import yaml

from sr_engine import models
from watcher.engine.governor import contradiction
from watcher.errors import ConfigError, EnvironmentFault
from watcher.files.ignore import IgnoreRules
from watcher.files.mounts import is_read_only
from watcher.sections import Config, Folders, WarmTime

ENV_PREFIX = "DROPSCALE_"
ENV_CONFIG = "DROPSCALE_CONFIG"
DEFAULT_NAME = "config.yaml"

_SECRET = {"url", "headers", "token"}  # of hooks and the page: what is written there is not repeated
_SECRET_VARIABLES = {ENV_PREFIX + "ON_EVENT", ENV_PREFIX + "WEB__TOKEN"}

_PACKAGE = os.path.dirname(os.path.abspath(__file__))


def default_path() -> str:
    """Where the default config.yaml lies: in an installed package, or at the top of a checkout."""
    packaged = os.path.join(_PACKAGE, "data", DEFAULT_NAME)
    return packaged if os.path.exists(packaged) else os.path.join(os.path.dirname(_PACKAGE), DEFAULT_NAME)


def default_text(values: Mapping[str, str] = types.MappingProxyType({})) -> str:
    """The text of the default config.yaml, with its comments: what `dropscale init` writes.

    Args:
        values: YAML that stands there in the place of defaults, by key, as `folders.state`.

    Raises:
        ConfigError: there is no such key.
    """
    with open(default_path(), encoding="utf-8") as file:
        text = file.read()
    for key, value in values.items():
        section, _, name = key.rpartition(".")
        above = rf"^{re.escape(section)}:.*\n(?:[ #].*\n|\n)*?  " if section else "^"
        line = re.search(rf"{above}(?P<name>{re.escape(name)}:)(?P<value>.*?)(?P<comment>#.*)?$", text, re.MULTILINE)
        if line is None:
            raise ConfigError(f"{key} is no key of the config", "name it as `folders.state`; config.yaml has them all")
        begin, end = line.span("value")
        comment = line["comment"] or ""
        text = text[:begin] + (f" {value} ".ljust(end - begin) if comment else f" {value}") + text[end:]
    return text


def edits_of_default() -> list[str]:
    """The sections in which `default_text` is not what dropscale came with: in a checkout users edit that very file."""
    here = _build(Config, models.read_yaml(default_text()) or {}, "", [])
    return [name for name in Config.__struct_fields__ if getattr(here, name) != getattr(Config(), name)]


def load(path: str, environ: Mapping[str, str]) -> Config:
    """Read `path`, lay the environment's overrides over it and make the folders absolute.

    Raises:
        ConfigError: the file is missing, is no YAML, or holds something that is not allowed. The message names the
            path of every wrong key, its value and what is allowed.
    """
    return _convert(_read_yaml(path), path, environ)


def check_text(text: str, path: str) -> None:
    """See that a text would be a config at `path`.

    Raises:
        ConfigError: as `load`.
    """
    _convert(_parsed(text, path), path, {})


def without_file(environ: Mapping[str, str]) -> Config:
    """The defaults with the environment's overrides, for what works without a config.yaml.

    Raises:
        ConfigError: as `load`.
    """
    return _convert({}, DEFAULT_NAME, environ)


def leaves_model_to_machine(path: str, environ: Mapping[str, str]) -> bool:
    """Whether it says `engine.model: auto`, or nothing of it, so that `load` chose one by what this machine has.

    Raises:
        ConfigError: the file is missing, or is no YAML.
    """
    tree = _read_yaml(path)
    _override(tree, environ)
    engine = tree.get("engine")
    return not isinstance(engine, dict) or engine.get("model", models.AUTO) == models.AUTO


def _convert(tree: dict[str, Any], path: str, environ: Mapping[str, str]) -> Config:
    variables = _override(tree, environ)
    problems: list[tuple[str, str]] = []
    config = _build(Config, tree, "", problems)
    try:
        IgnoreRules(config.watch.ignore)
        urgent = config.window.urgent_folder
        if urgent and (reason := IgnoreRules(()).reason(os.path.join(urgent, "a.jpg"))):
            problems.append(("window.urgent_folder", f"nothing is taken from a folder of this name: {reason}"))
    except ValueError as error:
        problems.append(("watch.ignore", str(error)))
    if not problems and (keys := contradiction(config.budget)):
        problems.append((keys, "no time of the day is left in which engines may start"))
    for number, hook in enumerate(config.on_event):
        if not problems and (fault := hook.fault()):
            problems.append((f"on_event.{number}", fault))
    if config.warm and not problems:
        problems += _faults_of_warm(config.warm)
    if problems:
        told = [f"{_origin(key, path, variables)}: {key}: {problem}" for key, problem in problems]
        raise ConfigError(
            "\n".join(told),
            "see the comments in config.yaml; `dropscale init DIR` writes a fresh one into another folder",
        )
    base = os.path.dirname(os.path.abspath(path))
    engine = config.engine
    if engine.models_folder:
        models_folder = os.path.join(base, os.path.expanduser(engine.models_folder))
        engine = msgspec.structs.replace(engine, models_folder=models_folder)
    metrics = config.metrics
    if metrics.textfile:
        textfile = os.path.join(base, os.path.expanduser(metrics.textfile))
        metrics = msgspec.structs.replace(metrics, textfile=textfile)
    if engine.model == models.AUTO:
        engine = msgspec.structs.replace(engine, model=models.default_name(engine.runtime, engine.device))
    queue = config.queue
    if queue.share:
        share = os.path.realpath(os.path.join(base, os.path.expanduser(queue.share)))
        queue = msgspec.structs.replace(queue, share=share)
    folders = _absolute(config.folders, base)
    config = msgspec.structs.replace(config, folders=folders, engine=engine, metrics=metrics, queue=queue)
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
                "mount the share if it is on one, or create the folders with `dropscale init` (and the same --config)",
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
            return _parsed(file, path)
    except FileNotFoundError:
        raise ConfigError(
            f"there is no {path}", "write one with `dropscale init`, or name yours with --config FILE"
        ) from None
    except OSError as error:
        raise ConfigError(f"cannot read {path}: {error.strerror}") from error


def _parsed(text: str | BinaryIO, path: str) -> dict[str, Any]:
    try:
        tree = models.read_yaml(text)
    except (yaml.YAMLError, ValueError) as error:  # ValueError: a date that does not exist, bytes that are no text
        raise ConfigError(
            f"{path} is not YAML: {error}",
            "correct it there: keys are indented by spaces alone, and what holds `: ` or ` #` is quoted",
        ) from error
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
            value = models.read_yaml(environ[variable]) if environ[variable] else ""
        except (yaml.YAMLError, ValueError) as error:
            shown = "" if variable in _SECRET_VARIABLES else f"={environ[variable]!r}"
            raise ConfigError(f"environment variable {variable}{shown} is not YAML") from error
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
        if (element := _element(wanted)) is not None:
            values[key] = _build_list(element, value, where, problems)
            continue
        try:
            values[key] = msgspec.convert(value, wanted)
        except msgspec.ValidationError:
            shown = "what is there" if key in _SECRET else _shown(value)
            problems.append((where, f"{shown} is not allowed; expected {_allowed(wanted)}"))
    return kind(**values)


def _element(wanted: Any) -> type[msgspec.Struct] | None:
    """The section that a list is made of, or None."""
    element = next(iter(get_args(wanted)), None) if get_origin(wanted) is tuple else None
    return element if isinstance(element, type) and issubclass(element, msgspec.Struct) else None


def _build_list(kind: type[T], value: Any, path: str, problems: list[tuple[str, str]]) -> tuple[T, ...]:
    if not isinstance(value, list):
        problems.append((path, "what is there is not allowed; expected a list of sections"))
        return ()
    built = []
    for number, item in enumerate(value):
        if isinstance(item, dict):
            built.append(_build(kind, item, f"{path}.{number}", problems))
        else:
            problems.append((f"{path}.{number}", "what is there is not allowed; expected a section with keys"))
    return tuple(built)


def _faults_of_warm(times: Sequence[WarmTime]) -> Iterator[tuple[str, str]]:
    from watcher.engine.schedule import problem  # noqa: PLC0415 - keep the watcher itself small

    for number, time in enumerate(times):
        if fault := problem(time.at):
            yield f"warm.{number}.at", f"{_shown(time.at)} is not allowed; expected a cron expression ({fault})"
        if not time.for_seconds:
            yield f"warm.{number}.for_seconds", "is missing; expected a number of seconds greater than 0"


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
