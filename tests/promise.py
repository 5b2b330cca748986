"""The promise of dropscale, checked byte for byte over the folders of a site.

`check_now` holds at every instant, also while a watcher is at work; `check_end` when all is done. They say nothing of
how it was done: they look at the files, and at the end at the ledger.
"""

import hashlib
import os
from collections import Counter
from collections.abc import Callable
from pathlib import Path, PurePath

import cv2
import numpy as np
from harness import Site, everything_below, stub_result

REASON_SUFFIX = ".reason.txt"

# Path below the outbox, content, originals by name -> SHA-256 of the original that it is the whole result of.
OwnerOf = Callable[[str, bytes, dict[str, bytes]], str | None]


def stub_owner(path: str, result: bytes, originals: dict[str, bytes]) -> str | None:
    """Whose result it is, if the stub engine made it; None for anything else, such as a part of one."""
    head, _, data = result.partition(b"\n")
    named = head.rpartition(b" ")[2].decode("ascii", "replace")
    return named if result == stub_result(data) and data in originals.values() else None


def real_owner(path: str, result: bytes, originals: dict[str, bytes]) -> str | None:
    """Whose result it is: of the original of its name, if it can be decoded and is three times larger."""
    name = PurePath(path)
    stem = name.stem.partition("~")[0]
    for original, data in originals.items():
        dropped = PurePath(original)
        if (dropped.parent, dropped.stem, dropped.suffix) == (name.parent, stem, name.suffix):
            large, small = (_decoded(content) for content in (result, data))
            if large is not None and small is not None:
                return sha256(data) if large == (small[0] * 3, small[1] * 3) else None
    return None


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


class Promise:
    """What was dropped into a site, and what has to be true of its folders therefore."""

    def __init__(self, site: Site, owner_of: OwnerOf = stub_owner, *, placeholders: bool = False) -> None:
        """Prepare; with `placeholders` a kill may leave an empty file for the next start to fill: FAT has no links."""
        self.site = site
        self.originals: dict[str, bytes] = {}
        self._owner_of = owner_of
        self._placeholders = placeholders
        self._foreign: dict[Path, bytes] = {}

    def drop(self, name: str, data: bytes) -> None:
        """Drop a picture, and remember it."""
        assert name not in self.originals, "one picture a name: the checks count"
        self.originals[name] = data
        self.site.drop(name, data)

    def place(self, path: Path, data: bytes) -> None:
        """Put a file of the user's where dropscale has to leave it alone."""
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
        self._foreign[path] = data

    def check_now(self) -> None:
        """At every instant: each original whole somewhere, each result whole, and there before its original moved."""
        site = self.site
        # In the order in which files move: what leaves a folder while we read it is found in a later one.
        inbox, archive, failed = (self._read(folder) for folder in (site.inbox, site.archive, site.failed))
        outbox = self._read(site.outbox)  # after the archive: its result was there earlier
        held = Counter(sha256(data) for files in (inbox, archive, failed) for data in files.values())
        for content, names in Counter(sha256(data) for data in self.originals.values()).items():
            assert held[content] >= names, f"lost: {self._names(content)} ({held[content]} of {names} left)"
        if self._placeholders:
            archive, outbox = ({path: data for path, data in files.items() if data} for files in (archive, outbox))
        results = self._results(outbox)
        for path, data in _visible(archive).items():
            assert sha256(data) in results, f"{path} is in the archive, and its result is not in the outbox"
        self._check_foreign()

    def check_end(self, failed: set[str] | None = None, *, ledger: bool = True) -> None:
        """When all is done: every picture in exactly one place, nothing twice, nothing left over.

        Args:
            failed: names of those that have to be in `failed`; by default none.
            ledger: it has to tell the same; not so one that was lost meanwhile.
        """
        self.check_now()
        site = self.site
        inbox, archive, in_failed, outbox = (
            self._read(folder) for folder in (site.inbox, site.archive, site.failed, site.outbox)
        )
        assert inbox == {}, f"still in the inbox: {sorted(inbox)}"
        assert self._hidden() == [], "hidden files or folders are left over"

        bad = failed or set()
        assert _contents(archive) == Counter(sha256(data) for name, data in self.originals.items() if name not in bad)
        assert self._results(outbox) == _contents(archive), "each archived picture has one result, and no other has"
        reasons = {path: data for path, data in in_failed.items() if path.endswith(REASON_SUFFIX)}
        pictures = {path: data for path, data in in_failed.items() if path not in reasons}
        assert _contents(pictures) == Counter(sha256(self.originals[name]) for name in bad)
        assert set(reasons) == {path + REASON_SUFFIX for path in pictures}, "each has its reason, and none is left"
        for path, data in pictures.items():
            text = reasons[path + REASON_SUFFIX].decode()
            assert "Why: " in text and sha256(data) in text, f"{path}: the reason is not a whole one: {text!r}"
        if ledger:
            self._check_ledger(archive, pictures, outbox)

    def _check_ledger(self, archive: dict[str, bytes], failed: dict[str, bytes], outbox: dict[str, bytes]) -> None:
        query = self.site.query
        closed = ("done", "failed", "withdrawn")
        assert query(f"SELECT path, state, trouble FROM pictures WHERE state NOT IN {closed}") == [], "rows are open"
        assert query("SELECT id FROM engine_runs WHERE exited_at IS NULL") == [], "an engine was never reaped"
        assert query("SELECT id FROM batches WHERE finished_at IS NULL") == [], "a batch was never closed"
        columns = "sha256, moved_path, result_path, result_sha256"
        done = query(f"SELECT {columns} FROM pictures WHERE state = 'done'")
        moved = {os.fsdecode(moved): content for content, moved, _, _ in done}
        assert moved == {path: sha256(data) for path, data in archive.items()}, "done rows are what was archived"
        results = {os.fsdecode(result): content for _, _, result, content in done}
        assert results == {path: sha256(data) for path, data in outbox.items()}, "done rows name their results"
        quarantined = query(f"SELECT {columns} FROM pictures WHERE state = 'failed'")
        moved = {os.fsdecode(moved): content for content, moved, _, _ in quarantined}
        assert moved == {path: sha256(data) for path, data in failed.items()}, "failed rows are what lies in `failed`"

    def _results(self, outbox: dict[str, bytes]) -> Counter[str]:
        """How many results each original has; everything in sight must be one."""
        owners: Counter[str] = Counter()
        for path, data in _visible(outbox).items():
            owner = self._owner_of(path, data, self.originals)
            assert owner is not None, f"{path} in the outbox is not a whole result: {data[:80]!r}"
            owners[owner] += 1
        return owners

    def _check_foreign(self) -> None:
        for path, data in self._foreign.items():
            assert path.read_bytes() == data, f"{path} was overwritten"

    def _hidden(self) -> list[str]:
        site = self.site
        folders = (site.inbox, site.outbox, site.archive, site.failed)
        return [
            str(folder / name)
            for folder in folders
            for name in sorted(everything_below(folder))
            if os.path.basename(name).startswith(".")
        ]

    def _names(self, content: str) -> list[str]:
        return [name for name, data in self.originals.items() if sha256(data) == content]

    def _read(self, folder: Path) -> dict[str, bytes]:
        """All files but those that the user placed; one that moves away while we read is looked for elsewhere."""
        found = {}
        for current, _, names in os.walk(folder):
            for name in names:
                path = Path(current, name)
                if path in self._foreign:
                    continue
                try:
                    found[str(path.relative_to(folder))] = path.read_bytes()
                except FileNotFoundError:
                    continue
        return found


def _visible(files: dict[str, bytes]) -> dict[str, bytes]:
    return {
        path: data for path, data in files.items() if not any(part.startswith(".") for part in PurePath(path).parts)
    }


def _contents(files: dict[str, bytes]) -> Counter[str]:
    return Counter(sha256(data) for data in files.values())


def _decoded(data: bytes) -> tuple[int, int] | None:
    picture = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)
    return None if picture is None else picture.shape[:2]
