"""File names: what to try when one is taken, those of hidden files of ours, and how a path is shown to a person.

File names are bytes on POSIX; here they travel as `str` with surrogate escapes (os.fsdecode), which loses nothing.
"""

import contextlib
import os
import pathlib
from collections.abc import Iterator


def candidate_names(name: str, tag: str, longest: int = 255) -> Iterator[str]:
    """`name`, then `stem~tag.ext`, `stem~tag-2.ext`, ...: what to try when a name is taken.

    Args:
        name: a file name.
        tag: tells this file from others of its name: the first digits of its hash.
        longest: what the file system allows, in bytes; the stem is cut where the whole would be longer.
    """
    stem, extension = os.path.splitext(name)
    yield _fitted(stem, extension, longest)
    yield _fitted(stem, f"~{tag}{extension}", longest)
    number = 2
    while True:
        yield _fitted(stem, f"~{tag}-{number}{extension}", longest)
        number += 1


def hidden_name(path: str, owner: int, sha256: str) -> str:
    """A name of ours beside `path`: found again after a kill, and left alone by sync clients as unfinished."""
    return os.path.join(os.path.dirname(path), f".dropscale-{owner}-{sha256[:16]}.part")


def longest_name(folder: str) -> int:
    """How many bytes a file name in `folder` may have (255 nearly everywhere, 143 on eCryptfs)."""
    with contextlib.suppress(AttributeError, OSError, ValueError):
        return os.pathconf(folder, "PC_NAME_MAX")
    return 255


def display(path: str) -> str:
    """A path as a person can read it, on one line: bytes that are not UTF-8 and control characters escaped."""
    text = os.fsencode(path).decode("utf-8", "backslashreplace")
    return "".join(char if char.isprintable() else repr(char)[1:-1] for char in text)


class Location:
    """Where a file lies, as a field of the journal: `str` of it is as `display` shows it.

    Attributes:
        path: absolute, with surrogate escapes.
    """

    def __init__(self, *parts: str) -> None:
        self.path = os.path.join(*parts)

    def __str__(self) -> str:
        """For people."""
        return display(self.path)

    @property
    def text(self) -> str:
        """The path itself; as `display` shows it where its bytes are no text."""
        try:
            self.path.encode()
        except UnicodeEncodeError:
            return display(self.path)
        return self.path

    @property
    def uri(self) -> str:
        """As a file: URI, which any bytes fit into."""
        return pathlib.PurePath(self.path).as_uri()


def told(error: OSError) -> str:
    """An operating system's error as a person reads it."""
    paths = [display(os.fsdecode(path)) for path in (error.filename, error.filename2) if path]
    return ": ".join([str(error.strerror or error), *filter(None, [" -> ".join(paths)])])


def _fitted(stem: str, ending: str, longest: int) -> str:
    room = longest - len(os.fsencode(ending))
    cut = os.fsencode(stem)[: max(room, 1)]
    if len(cut) < len(os.fsencode(stem)):
        try:
            cut.decode("utf-8")
        except UnicodeDecodeError as error:
            # drop the character that was cut in two, but keep names that never were UTF-8
            cut = cut[: error.start] if error.reason == "unexpected end of data" else cut
    return os.fsdecode(cut) + ending
