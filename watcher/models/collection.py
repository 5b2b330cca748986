"""A user's own models: a folder with models.yaml and ONNX files, filled from the network or from disk."""

import contextlib
import glob
import hashlib
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import NamedTuple

import filelock
import msgspec
import yaml

from sr_engine import models
from sr_engine.errors import ModelError
from sr_engine.models import Adopted, Installed, Model
from watcher.errors import EnvironmentFault, NoModelError, UsageError
from watcher.models.download import Pin, download

_HEADER = "# Your own models. `dropscale models` writes this file; every weight is checked against its sha256.\n"
_STAGING = ".dropscale-staging-"
_ADOPTION_SECONDS = 900.0  # the largest of the known takes one minute on a small machine


class _Refused(msgspec.Struct):
    problem: str


class Wanted(NamedTuple):
    """What the user says of a model; None where it is to be found out.

    Attributes:
        algorithm, scale, color, value_range: as in `sr_engine.models.Model`.
    """

    algorithm: str | None = None
    scale: int | None = None
    color: str | None = None
    value_range: float | None = None

    def arguments(self) -> list[str]:
        """For `sr_engine.adoption`."""
        return [
            argument
            for name, value in self._asdict().items()
            if value is not None
            for argument in (f"--{name.replace('_', '-')}", str(value))
        ]


class Collection:
    """The folder.

    Attributes:
        folder: its path; it is made when the first model comes.
        mirrors: addresses of folders to fetch files from, before where they were published.
    """

    def __init__(self, folder: str, mirrors: Sequence[str] = ()) -> None:
        self.folder = folder
        self.mirrors = tuple(mirrors)

    def add(self, source: str, name: str, wanted: Wanted, facts: Mapping[str, object]) -> tuple[Installed, list[str]]:
        """Take a model file in: an ONNX network or a frozen graph of OpenCV's dnn_superres.

        Args:
            source: path of the file; it stays as it is.
            name: what the model is to be called; empty: after the file.
            wanted: what is known of it.
            facts: of `Model`'s fields `licence`, `source` and `set5_psnr` those that are known.

        Returns:
            The model, and sentences about what was found out.

        Raises:
            UsageError: the name is that of a model that came along, or is not one. One of the user's own is replaced.
            NoModelError: the file is no model that dropscale can use.
        """
        if not os.path.isfile(source):
            raise UsageError(f"there is no file {source}")
        facts = {**_published(source), **{key: value for key, value in facts.items() if value is not None}}
        name = name or _name_of(source)
        if not re.fullmatch(r"[a-z0-9][a-z0-9._-]{0,63}", name):
            raise UsageError(
                f"{name!r} cannot be a model's name", "use small letters, digits, dots and dashes, 64 at most"
            )
        with self._changing():
            if name in models.read_manifest(models.bundled_folder()) or name == models.AUTO:
                raise UsageError(f"{name} is the name of what came with dropscale", "choose one with --name")
            staging = self._staging()
        try:
            staged = os.path.join(staging, "network.onnx")
            adopted = _adopt(source, staged, wanted)
            with self._changing():
                return self._keep(name, staged, adopted, facts), adopted.notes
        finally:
            shutil.rmtree(staging, ignore_errors=True)

    def fetch(self, name: str, told: Callable[[int], None] = lambda _bytes: None) -> tuple[Installed, list[str]]:
        """Download a model of the catalogue, check that it is the one, and take it in.

        Args:
            name: in `sr_engine.models.read_catalogue()`.
            told: how many bytes are there, again and again.

        Raises:
            UsageError: the catalogue has no such model.
            EnvironmentFault: it could not be fetched; what arrived is kept for the next try.
            NoModelError: it could not be taken in.
        """
        catalogue = models.read_catalogue()
        if name not in catalogue:
            raise UsageError(
                f"the catalogue has no model {name!r}",
                f"it has {', '.join(sorted(catalogue))}; see `dropscale models list`",
            )
        upstream = catalogue[name]
        with self._changing():
            path = os.path.join(self.folder, f".{name}.{upstream.file}")
        urls = [f"{mirror.rstrip('/')}/{upstream.file}" for mirror in self.mirrors] + [upstream.url]
        try:
            with filelock.FileLock(os.path.join(self.folder, f".{name}.lock"), blocking=False):
                download(urls, path, Pin(upstream.bytes, upstream.sha256, upstream.git_blob), told)
                wanted = Wanted(upstream.algorithm, upstream.scale)
                facts = {"licence": upstream.licence, "source": upstream.url, "set5_psnr": upstream.set5_psnr}
                try:
                    return self.add(path, name, wanted, facts)
                finally:
                    os.unlink(path)
        except filelock.Timeout as error:
            raise EnvironmentFault(f"{name} is being fetched by another process", "wait for it") from error
        except EnvironmentFault as error:
            if isinstance(error, NoModelError):
                raise
            raise EnvironmentFault(f"{name} {error.message}", error.remedy) from error

    def _staging(self) -> str:
        """A folder for one addition. Those that were killed an hour ago and more are cleared away."""
        for left in glob.glob(os.path.join(glob.escape(self.folder), _STAGING + "*")):
            with contextlib.suppress(OSError):
                if time.time() - os.stat(left).st_mtime > _ADOPTION_SECONDS * 4:
                    shutil.rmtree(left, ignore_errors=True)
        return tempfile.mkdtemp(dir=self.folder, prefix=_STAGING)

    def _keep(self, name: str, staged: str, adopted: Adopted, facts: Mapping[str, object]) -> Installed:
        """Put the weights in place, then the manifest that names them: a kill between leaves an unnamed file."""
        with open(staged, "r+b") as file:  # Windows syncs only what may be written
            digest = hashlib.file_digest(file, "sha256").hexdigest()
            os.fsync(file.fileno())
        fields = msgspec.structs.asdict(adopted)
        del fields["notes"]
        known = {"licence": "not known", **facts}
        # The digest is in the name: an engine that has just read the manifest finds the file that this one meant.
        file_name = f"{name}-{digest[:12]}.onnx"
        model = msgspec.convert({**fields, **known, "file": file_name, "sha256": digest}, Model)
        manifest = os.path.join(self.folder, models.MANIFEST)
        own = models.read_manifest(self.folder) if os.path.exists(manifest) else {}
        before = own.get(name)
        os.chmod(staged, 0o666 & ~_umask())
        os.replace(staged, os.path.join(self.folder, file_name))
        own[name] = model
        _write_whole(manifest, _HEADER + yaml.safe_dump(msgspec.to_builtins({"models": own}), sort_keys=False))
        # Only what was made here, and nothing that another entry names.
        old = before.file if before else ""
        made_here = re.fullmatch(re.escape(name) + r"-[0-9a-f]{12}\.onnx", old)
        if made_here and old not in {each.file for each in own.values()}:
            with contextlib.suppress(OSError):
                os.unlink(os.path.join(self.folder, old))
        return Installed(name, model, self.folder)

    @contextlib.contextmanager
    def _changing(self) -> Iterator[None]:
        try:
            os.makedirs(self.folder, exist_ok=True)
            with filelock.FileLock(os.path.join(self.folder, ".lock"), timeout=_ADOPTION_SECONDS):
                yield
        except filelock.Timeout as error:
            raise EnvironmentFault(f"another process changes the models in {self.folder}", "try again later") from error
        except OSError as error:
            raise EnvironmentFault(
                f"the models' folder {self.folder} cannot be written: {error.strerror or error}",
                "set engine.models_folder to a folder of yours",
            ) from error
        except ModelError as error:
            raise NoModelError(error.message, "see `dropscale models verify`") from error


def _published(source: str) -> dict[str, object]:
    """What the catalogue knows of a file, if it is one that others publish.

    Raises:
        NoModelError: it has the name of one and another content.
    """
    for upstream in models.read_catalogue().values():
        if upstream.file == os.path.basename(source):
            problem = Pin(upstream.bytes, upstream.sha256, upstream.git_blob).problem(source)
            if problem:
                raise NoModelError(
                    f"{source} is not the file that {upstream.url} is: {problem}",
                    "bring it again; if it is another model on purpose, rename the file",
                )
            return {"licence": upstream.licence, "set5_psnr": upstream.set5_psnr}
    return {}


def _name_of(source: str) -> str:
    stem, extension = os.path.splitext(os.path.basename(source).lower())
    # EDSR_x3.pb is not the edsr-x3 that came along.
    stem = f"opencv-{stem}" if extension == ".pb" else stem
    return re.sub(r"[^a-z0-9.]+", "-", stem).strip("-.")[:64]


def _adopt(source: str, target: str, wanted: Wanted) -> Adopted:
    # "./" before a name that begins with a dash.
    command = [sys.executable, "-P", "-m", "sr_engine.adoption", os.path.abspath(source), target, *wanted.arguments()]
    try:
        # In the staging folder: what a model file names by a relative path is not there.
        done = subprocess.run(
            command,
            check=False,
            capture_output=True,
            stdin=subprocess.DEVNULL,
            timeout=_ADOPTION_SECONDS,
            cwd=os.path.dirname(target),
        )
    except subprocess.TimeoutExpired as error:
        raise NoModelError(f"{source} could not be examined within {_ADOPTION_SECONDS:.0f} s") from error
    try:
        answer = msgspec.json.decode(done.stdout)
    except msgspec.DecodeError as error:
        last = done.stderr.decode(errors="backslashreplace").strip().rpartition("\n")[2]
        raise NoModelError(
            f"{source} took the process down that examined it (exit code {done.returncode}): {last}",
            "it may be damaged: bring it again",
        ) from error
    if "problem" in answer:
        raise NoModelError(str(answer["problem"]), "nothing was added")
    return msgspec.convert(answer, Adopted)


def _write_whole(path: str, text: str) -> None:
    temporary = f"{path}.{os.getpid()}"
    with open(temporary, "w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    os.replace(temporary, path)


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
