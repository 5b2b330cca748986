"""Hidden files of ours of which no ledger speaks any more: a kill in the middle of a move, and then the ledger lost.

Beneath `delivery`, and used by it alone. Such a file is a copy, whole or not, of a file that has its name; or it is an
original that was on its way, and then it may be all that is left of a picture.
"""

import os
import re
from collections.abc import Iterable, Iterator

from sr_engine.headers import HeaderError, read_header
from watcher.files import provenance
from watcher.files.filesystem import digest, fsync_folder, look_at, make_folders, open_regular, publish_across
from watcher.files.names import candidate_names, display, hidden_name, longest_name, told
from watcher.journal import warn
from watcher.sections import Folders

_PART = re.compile(r"\.dropscale-([0-9]+)-([0-9a-z]+)\.part")
_FIRST_BYTES = 1 << 12  # most files differ here, and there may be many
_CHUNK_BYTES = 1 << 20
_EXTENSIONS = {"jpeg": ".jpg", "jpeg2000": ".jp2"}


def sweep(folders: Folders) -> None:
    """Remove what is a copy of something else; bring back into the inbox what is not. What cannot be moved is told."""
    roots = (folders.outbox, folders.inbox, folders.archive, folders.failed)
    parts = [(path, root) for root in roots for path in _parts_below(root)]
    for path, root in parts:
        try:
            _settle(path, root, folders)
        except OSError as error:
            text = "{path} is left from a move that was broken off, and stays: {why}"
            warn("leftover", text, path=display(path), why=told(error))


def _settle(path: str, root: str, folders: Folders) -> None:
    subfolder = os.path.relpath(os.path.dirname(path), root)
    size = os.path.getsize(path)
    if size == 0 or _is_never_alone(path, root, folders) or _is_copy(path, size, subfolder, folders):
        os.unlink(path)
    else:
        _bring_back(path, folders, subfolder)


def _is_never_alone(path: str, root: str, folders: Folders) -> bool:
    """A result can be made again, a reason is written again, and what comes back into the inbox is copied first."""
    owner, tag = _owner_and_tag(path)
    return root == folders.outbox or tag == "reason" or (root == folders.inbox and (owner == 0 or tag == "aside"))


def _is_copy(path: str, size: int, subfolder: str, folders: Folders) -> bool:
    """Whether a file in sight begins with all that this one holds; originals keep their subfolder wherever they go."""
    roots = (folders.inbox, folders.archive, folders.failed)
    others = _files_in(os.path.join(root, subfolder) for root in roots)
    whole = digest(path).sha256.startswith(_owner_and_tag(path)[1])
    return any(_holds_all(other, path, size, whole=whole) for other in others)


def _holds_all(other: str, path: str, size: int, *, whole: bool) -> bool:
    try:
        there = os.path.getsize(other)
        return (there == size if whole else there >= size) and _begins_with(other, path)
    except OSError:
        return False  # what cannot be read is no reason to remove anything


def _parts_below(root: str) -> Iterator[str]:
    for parent, _, names in os.walk(root, onerror=_tell_unread):
        for name in names:
            if _PART.fullmatch(name):
                yield os.path.join(parent, name)


def _owner_and_tag(path: str) -> tuple[int, str]:
    found = _PART.fullmatch(os.path.basename(path))
    assert found is not None
    return int(found[1]), found[2]


def _files_in(folders: Iterable[str]) -> Iterator[str]:
    """Files in sight."""
    for folder in folders:
        try:
            names = os.listdir(folder)
        except (FileNotFoundError, NotADirectoryError):
            continue
        for name in names:
            path = os.path.join(folder, name)
            if not name.startswith(".") and look_at(path) is not None:
                yield path


def _begins_with(path: str, part: str) -> bool:
    """Whether all that `part` holds stands at the beginning of `path`, too."""
    with open_regular(path) as whole, open_regular(part) as copy:
        size = _FIRST_BYTES
        while chunk := copy.read(size):
            if whole.read(len(chunk)) != chunk:
                return False
            size = _CHUNK_BYTES
    return True


def _tell_unread(error: OSError) -> None:
    warn("leftover", "what is left in a folder that cannot be read stays: {why}", why=told(error))


def _bring_back(path: str, folders: Folders, subfolder: str) -> None:
    sha256 = digest(path).sha256
    result = _name_of_result(os.path.join(folders.outbox, subfolder), sha256) or "recovered"
    name = os.path.splitext(result)[0] + _extension(path)
    folder = os.path.join(folders.inbox, make_folders(folders.inbox, "" if subfolder == os.curdir else subfolder))
    for candidate in candidate_names(name, sha256[:8], longest_name(folder)):
        target = os.path.join(folder, candidate)
        try:
            publish_across(path, target, hidden_name(target, 0, "aside"))
        except FileExistsError:
            continue
        fsync_folder(os.path.dirname(path))
        warn(
            "recovered",
            "{path} was on its way when the ledger was lost: it is back in the inbox as {name}",
            path=display(path),
            name=display(candidate),
        )
        return


def _name_of_result(folder: str, sha256: str) -> str:
    """Results are called as their originals are, but for the extension; empty if there is none of this one."""
    for path in _files_in([folder]):
        said = provenance.read(path)
        if said is not None and said.source_sha256 == sha256:
            return os.path.basename(path)
    return ""


def _extension(path: str) -> str:
    """What its header says; without one, it lies in the inbox for a person to look at."""
    try:
        with open_regular(path) as file:
            kind = read_header(file).kind
    except (HeaderError, OSError):
        return ""
    return _EXTENSIONS.get(kind, f".{kind}")
