"""Folders, a ledger and a delivery over them: what the tests of delivery work on. The fixtures are in conftest.py."""

import hashlib
import os
from pathlib import Path

from watcher.delivery import Delivery, Staged
from watcher.files.filesystem import digest
from watcher.files.names import hidden_name
from watcher.ledger import Ledger
from watcher.rows import Picture, State
from watcher.sections import Folders

ORIGINAL = b"an original"
RESULT = b"its result, three times larger"


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def tree(folder: Path) -> dict[str, bytes]:
    """Every file below a folder, hidden ones, too."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


class House:
    """Folders, a ledger and a delivery."""

    def __init__(self, root: Path, **elsewhere: Path) -> None:
        self.inbox, self.outbox = root / "inbox", elsewhere.get("outbox", root / "outbox")
        self.archive = elsewhere.get("archive", root / "archive")
        self.failed = elsewhere.get("failed", root / "failed")
        self.state = root / "state"
        for folder in (self.inbox, self.outbox, self.archive, self.failed, self.state):
            folder.mkdir(parents=True, exist_ok=True)
        self.ledger = Ledger(str(self.state))
        paths = (self.inbox, self.outbox, self.archive, self.failed, self.state)
        self.delivery = Delivery(Folders(*map(str, paths)), self.ledger)

    def claim(self, name: str = "a.png", data: bytes = ORIGINAL) -> Picture:
        path = self.inbox / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
        (picture,) = self.ledger.claim(self.ledger.open_batch("quiet", 1), [(name, digest(str(path)))], "recipe")
        return picture

    def stage(self, picture: Picture, data: bytes = RESULT, extension: str = ".png") -> Staged:
        path = Path(self.delivery.open_staging(picture.batch or 0), f"{picture.id}-1{extension}")
        path.write_bytes(data)
        return Staged(str(path), sha256(data), len(data))

    def publishing(self, picture: Picture, result: str = "a.png") -> Staged:
        """As after the intent to publish."""
        staged = self.stage(picture)
        self.ledger.intend_publish(picture.id, staged.path, result, staged.sha256, staged.size, reused=False)
        return staged

    def archiving(self, picture: Picture, target: str = "a.png") -> None:
        """As after the intent to archive: the result is in the outbox."""
        staged = self.publishing(picture)
        os.rename(staged.path, self.outbox / "a.png")
        self.ledger.intend_archive(picture.id, target)

    def resume(self, picture: Picture) -> State:
        state = self.delivery.resume(self.ledger.picture(picture.id))
        self.delivery.sweep_staging()
        return state

    def hidden(self, folder: Path, picture: Picture, name: str = "a.png") -> Path:
        return Path(hidden_name(str(folder / name), picture.id, picture.sha256))

    def delivered(self, result: str = "a.png", archived: str = "a.png") -> bool:
        return (
            tree(self.inbox) == {}
            and tree(self.outbox) == {result: RESULT}
            and tree(self.archive) == {archived: ORIGINAL}
            and tree(self.failed) == {}
        )


def quarantining(house: House, picture: Picture) -> None:
    house.ledger.intend_quarantine(picture.id, picture.path, "it is a poem")


def is_failed(house: House, name: str = "a.png") -> bool:
    files = tree(house.failed)
    reason = files.pop(f"{name}.reason.txt", b"")
    return files == {name: ORIGINAL} and b"it is a poem" in reason and tree(house.inbox) == {}
