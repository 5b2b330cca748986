"""The photographs that the models are trained on, out of packages of Debian.

    python models/training/photographs.py FOLDER

needs Debian, downloads about 750 MB, and takes 1 GB in FOLDER meanwhile, of which 200 MB stay. It goes on where it was
stopped; once all are there it needs neither Debian nor a network.

`photographs.tsv` says where each is from, under which licence, and whom to credit: only such are in it as ask for no
more than credit, so that the weights carry no question of share-alike.
"""

import argparse
import csv
import hashlib
import itertools
import operator
import os
import sys
import tempfile
from collections.abc import Iterable, Iterator
from typing import NamedTuple

from packages import Package, PackageError, Release

MANIFEST = os.path.join(os.path.dirname(os.path.abspath(__file__)), "photographs.tsv")


class Photograph(NamedTuple):
    """A row of the manifest.

    Attributes:
        file: name in the folder of photographs.
        package: which holds it.
        version: of the package when the manifest was made; a later one will do if it holds the same picture.
        release: of Debian that serves the package.
        path: in the package; `archive:entry` in an archive therein.
        licence: of this picture, by its SPDX name or as `public-domain`.
        credit: as its licence may ask for; empty for the public domain.
        sha256: of the file.
        downscale: by how much to divide its sides for pixels that are sharp, 1..8.
        width: in pixels, as it is.
        height: in pixels, as it is.
    """

    file: str
    package: str
    version: str
    release: str
    path: str
    licence: str
    credit: str
    sha256: str
    downscale: int
    width: int
    height: int


def load_manifest(path: str = MANIFEST) -> list[Photograph]:
    """All photographs, by name."""
    with open(path, encoding="utf-8", newline="") as file:
        _, *rows = csv.reader(file, "excel-tab", quoting=csv.QUOTE_NONE)
    return [Photograph._make([*row[:8], *map(int, row[8:])]) for row in rows]


def fetch(folder: str, manifest: str = MANIFEST) -> None:
    """Put the photographs that are not there into `folder`, one package after the other.

    Raises:
        PackageError: some can't be had; those that could are there nevertheless.
    """
    missing = [photograph for photograph in load_manifest(manifest) if not _is_there(photograph, folder)]
    if not missing:
        return
    os.makedirs(folder, exist_ok=True)
    complaints: list[str] = []
    # Not in /tmp, which may be memory: one package takes 1 GB.
    with tempfile.TemporaryDirectory(prefix=".packages-", dir=folder) as room:
        for name, of_release in _grouped(missing, "release"):
            release = Release(name, os.path.join(room, name))
            for package, wanted in _grouped(of_release, "package"):
                complaints += _fetch_from(release, package, wanted, folder, room)
    if complaints:
        raise PackageError("\n".join(complaints))


def take_out(package: Package, photographs: Iterable[Photograph], folder: str) -> Iterator[str]:
    """Write photographs of a package into `folder`; a complaint about each that isn't what the manifest promises."""
    for photograph in photographs:
        try:
            content = package.read(photograph.path)
            found = hashlib.sha256(content).hexdigest()
            if found != photograph.sha256:
                raise PackageError(f"its sha256 is {found}, expected {photograph.sha256}")
        except PackageError as error:
            yield (
                f"{photograph.file} is refused: {error}. It was in {package.name} {photograph.version}, this is "
                f"{package.version}. Delete its row from photographs.tsv to train without it."
            )
        else:
            _write(os.path.join(folder, photograph.file), content)


def _fetch_from(release: Release, name: str, wanted: list[Photograph], folder: str, room: str) -> list[str]:
    sys.stdout.write(f"{len(wanted)} from {name}\n")
    sys.stdout.flush()
    with tempfile.TemporaryDirectory(dir=room) as own:
        try:
            return list(take_out(Package(release.download(name, own)), wanted, folder))
        except PackageError as error:
            return [str(error)]


def _is_there(photograph: Photograph, folder: str) -> bool:
    try:
        with open(os.path.join(folder, photograph.file), "rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest() == photograph.sha256
    except FileNotFoundError:
        return False


def _write(path: str, content: bytes) -> None:
    """A file, whole or not at all."""
    with open(path + ".part", "wb") as file:
        file.write(content)
    os.replace(path + ".part", path)


def _grouped(photographs: Iterable[Photograph], attribute: str) -> Iterator[tuple[str, list[Photograph]]]:
    key = operator.attrgetter(attribute)
    for value, group in itertools.groupby(sorted(photographs, key=key), key):
        yield value, list(group)


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", metavar="FOLDER")
    try:
        fetch(parser.parse_args().folder)
    except (PackageError, OSError) as error:
        sys.exit(str(error))


if __name__ == "__main__":
    main()
