"""Hidden files of ours of which no ledger speaks any more: a kill in the middle of a move, and then the ledger lost.

Beneath `delivery`, and used by it alone. Such a file is a copy, whole or not, of a file that has its name; or it is an
original that was on its way, and then it may be all that is left of a picture.
"""

import os
import re
from collections.abc import Iterable, Iterator

from sr_engine.headers import HeaderError, read_header
from watcher import provenance
from watcher.config import Folders
from watcher.filesystem import digest, fsync_folder, look_at, make_folders, open_regular, publish_across
from watcher.journal import warn
from watcher.names import candidate_names, display, hidden_name, longest_name

_PART = re.compile(r"\.dropscale-[0-9]+-([0-9a-z]+)\.part")
_CHUNK_BYTES = 1 << 20
_EXTENSIONS = {"jpeg": ".jpg", "jpeg2000": ".jp2"}


def sweep(folders: Folders) -> None:
    """Remove what is a copy of something else; bring back into the inbox what is not.

    Raises:
        OSError: a folder is gone or full. What was not swept yet stays as it is.
    """
    for path, _ in _parts_below(folders.outbox):
        os.unlink(path)  # a result on its way: it can be made again
    roots = (folders.inbox, folders.archive, folders.failed)
    for root in roots:
        for path, tag in list(_parts_below(root)):
            subfolder = os.path.relpath(os.path.dirname(path), root)
            others = _files_in(os.path.join(other, subfolder) for other in roots)
            if tag == "reason" or os.path.getsize(path) == 0 or any(_begins_with(other, path) for other in others):
                os.unlink(path)
            else:
                _bring_back(path, folders, subfolder)


def _parts_below(root: str) -> Iterator[tuple[str, str]]:
    for parent, _, names in os.walk(root):
        for name in names:
            if found := _PART.fullmatch(name):
                yield os.path.join(parent, name), found[1]


def _files_in(folders: Iterable[str]) -> Iterator[str]:
    """Files in sight; the originals of one subfolder lie in the same one of inbox, archive and failed."""
    for folder in folders:
        try:
            names = os.listdir(folder)
        except FileNotFoundError:
            continue
        for name in names:
            path = os.path.join(folder, name)
            if not name.startswith(".") and look_at(path) is not None:
                yield path


def _begins_with(path: str, part: str) -> bool:
    """Whether all that `part` holds stands at the beginning of `path`, too."""
    with open_regular(path) as whole, open_regular(part) as copy:
        while chunk := copy.read(_CHUNK_BYTES):
            if whole.read(len(chunk)) != chunk:
                return False
    return True


def _bring_back(path: str, folders: Folders, subfolder: str) -> None:
    sha256 = digest(path).sha256
    name = _name_of_result(os.path.join(folders.outbox, subfolder), sha256) or f"recovered{_extension(path)}"
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
    """Results are called as their originals are; empty if there is none of this one."""
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
