"""Debian packages: getting them, and reading files out of them and out of archives in them."""

import os
import struct
import subprocess
import zlib
from collections.abc import Iterator

_KEYRING = "/usr/share/keyrings/debian-archive-keyring.gpg"


class PackageError(Exception):
    """A package, or a file of one, can't be had; the message says which, and what to do where something can be done."""


class Release:
    """A release of Debian as the mirror serves it that this machine uses, whichever release the machine itself runs.

    apt keeps the lists of it in a folder of their own: the machine's stay as they are, and nothing needs root.

    Args:
        name: of the release, as in `bookworm`.
        folder: for the lists; is created.

    Raises:
        PackageError: this isn't Debian, or the mirror can't be reached or doesn't serve the release.
    """

    def __init__(self, name: str, folder: str) -> None:
        self.name = name
        sources = os.path.join(folder, "sources.list")
        lists = os.path.join(folder, "lists")
        self._options = [
            *("-o", f"Dir::Etc::SourceList={sources}", "-o", "Dir::Etc::SourceParts=-"),
            *("-o", f"Dir::State::Lists={lists}", "-o", f"Dir::Cache={folder}"),
            # Without this apt takes a mirror that it can't reach for an empty one.
            *("-o", "APT::Update::Error-Mode=any"),
            # As root it would become a user who can't write into our folders.
            *("-o", "APT::Sandbox::User=root"),
        ]
        mirror = _mirror()
        os.makedirs(os.path.join(lists, "partial"))
        with open(sources, "w", encoding="utf-8") as file:
            file.write(f"deb [signed-by={_KEYRING}] {mirror} {name} main\n")
        try:
            _run("apt-get", *self._options, "update")
        except PackageError as error:
            raise PackageError(
                f"Debian {name} can't be had from {mirror}: {error}. Is there a network? If the release is no longer "
                "served there, let apt on this machine use a mirror of Debian's archive of old releases."
            ) from error

    def download(self, package: str, folder: str) -> str:
        """Get a package, in the version that is served now; the path of its .deb in `folder`, which is empty before."""
        try:
            _run("apt-get", *self._options, "download", f"{package}/{self.name}", folder=folder)
        except PackageError as error:
            raise PackageError(
                f"{package} can't be had from Debian {self.name}: {error}. If it is no longer served, delete its rows "
                "from photographs.tsv to train without it; otherwise try again."
            ) from error
        (name,) = os.listdir(folder)
        return os.path.join(folder, name)


class Package:
    """A .deb, unpacked beside itself.

    Attributes:
        name: of the package.
        version: of the package.
    """

    def __init__(self, deb: str) -> None:
        self.name, self.version = _run("dpkg-deb", "--show", "--showformat=${Package} ${Version}", deb).split()
        self._root = deb + ".unpacked"
        _run("dpkg-deb", "--extract", deb, self._root)

    def read(self, path: str) -> bytes:
        """A file of the package, or `file.edj:entry` or `file.rcc:/entry`: what such an archive in it holds.

        Raises:
            PackageError: there is no such file or entry.
        """
        name, _, entry = path.partition(":")
        try:
            with open(os.path.join(self._root, name), "rb") as file:
                content = file.read()
            return dict(_READERS[os.path.splitext(name)[1]](content))[entry] if entry else content
        except (FileNotFoundError, KeyError, struct.error) as error:
            raise PackageError(f"{self.name} {self.version} doesn't hold {path}") from error


def edje_entries(archive: bytes) -> Iterator[tuple[str, bytes]]:
    """What an Enlightenment theme (.edj) holds, as it is stored: JPEG files as such, other things perhaps compressed.

    The directory is at the beginning of the file, so libeet isn't needed for it.
    """
    count = struct.unpack_from(">I", archive, 4)[0]
    for number in range(count):
        start, size, _, name, name_size, _ = struct.unpack_from(">6I", archive, 12 + 24 * number)
        yield archive[name : name + name_size].rstrip(b"\0").decode(), archive[start : start + size]


def resource_entries(archive: bytes) -> Iterator[tuple[str, bytes]]:
    """The files of a Qt resource archive (.rcc), stored as they are or with zlib; their names begin with a slash."""
    version, tree, contents, names = struct.unpack_from(">4I", archive, 4)
    node_size = 14 if version < 2 else 22  # since version 2 with the time of the last change
    nodes = [(tree, "")]
    while nodes:
        node, path = nodes.pop()
        # Of a folder: how many nodes are in it, and the first one's number. Of a file: its language, and where it is.
        flags, count, first = struct.unpack_from(">H2I", archive, node + 4)
        if flags & 2:
            for number in range(first, first + count):
                child = tree + number * node_size
                nodes.append((child, f"{path}/{_resource_name(archive, names, child)}"))
        else:
            start = contents + first
            size = struct.unpack_from(">I", archive, start)[0]
            content = archive[start + 4 : start + 4 + size]
            # Qt writes the size of the unpacked content before what zlib made.
            yield path, zlib.decompress(content[4:]) if flags & 1 else content


def _resource_name(archive: bytes, names: int, node: int) -> str:
    start = names + struct.unpack_from(">I", archive, node)[0]
    length = struct.unpack_from(">H", archive, start)[0]
    return archive[start + 6 : start + 6 + 2 * length].decode("utf-16-be")


_READERS = {".edj": edje_entries, ".rcc": resource_entries}


def _mirror() -> str:
    """Where this machine gets Debian itself from; updates for security have another label."""
    query = ("--format", "$(REPO_URI)", "Label: Debian", "Created-By: Packages")
    found = _run("apt-get", "indextargets", *query).split()
    if not found:
        raise PackageError(
            "apt on this machine knows no mirror of Debian. On Debian, run `apt-get update` as root first; elsewhere, "
            "run this in a container of Debian."
        )
    return found[0]


def _run(*command: str, folder: str | None = None) -> str:
    """What a command prints; a failure in its own words."""
    try:
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True, errors="replace", check=False)
    except FileNotFoundError as error:
        raise PackageError(
            f"There is no {command[0]} here: the photographs come out of packages of Debian. Run this on Debian, "
            "for example in a container."
        ) from error
    if done.returncode:
        words = [line.removeprefix("E: ") for line in done.stderr.splitlines() if not line.startswith("W:")]
        raise PackageError("; ".join(words).rstrip(".") or f"{command[0]} ended with {done.returncode}")
    return done.stdout
