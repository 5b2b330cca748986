"""Delivery on real files and a real ledger: the three ends of a picture, and every state that a kill can leave."""

import errno
import hashlib
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from harness import QUICK, STUB_ENGINE, Site, command, stub_result, wait_until

from watcher.config import Folders
from watcher.delivery import Delivery, Staged
from watcher.filesystem import digest, hidden_name
from watcher.ledger import Ledger
from watcher.originals import OriginalChanged
from watcher.rows import Picture, State

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


@pytest.fixture(autouse=True)
def no_sigio() -> Iterator[None]:
    """As the command does: see `filesystem.writer_present`."""
    before = signal.signal(signal.SIGIO, signal.SIG_IGN)
    yield
    signal.signal(signal.SIGIO, before)


@pytest.fixture
def house(tmp_path: Path) -> Iterator[House]:
    house = House(tmp_path)
    yield house
    house.ledger.close()


@pytest.fixture
def apart(tmp_path: Path, other_filesystem: Path) -> Iterator[House]:
    """Archive and failed are on another file system."""
    house = House(tmp_path, archive=other_filesystem / "archive", failed=other_filesystem / "failed")
    yield house
    house.ledger.close()


@pytest.fixture(params=["one file system", "two file systems"])
def either(request: pytest.FixtureRequest) -> House:
    house: House = request.getfixturevalue("house" if request.param == "one file system" else "apart")
    return house


# Delivering


def test_a_result_is_published_and_its_original_archived(either: House) -> None:
    picture = either.claim()
    assert either.delivery.deliver(picture, either.stage(picture)) == "a.png"
    either.delivery.close_staging(picture.batch or 0)
    assert either.delivered()
    row = either.ledger.picture(picture.id)
    assert (row.state, row.result_path, row.moved_path, row.staged_path) == (State.DONE, "a.png", "a.png", None)


def test_subfolders_are_mirrored_and_times_survive_the_move(either: House) -> None:
    picture = either.claim("2024/trip/a.png")
    os.utime(either.inbox / "2024/trip/a.png", ns=(1, 1_500_000_000_000_000_007))
    path = either.inbox / "2024/trip/a.png"
    (picture,) = either.ledger.claim(picture.batch or 0, [(picture.path, digest(str(path)))], "recipe")
    either.delivery.deliver(picture, either.stage(picture))
    assert (either.outbox / "2024/trip/a.png").read_bytes() == RESULT
    assert (either.archive / "2024/trip/a.png").stat().st_mtime_ns == 1_500_000_000_000_000_007


def test_nothing_is_overwritten_whatever_lies_there(either: House) -> None:
    either.outbox.joinpath("a.png").write_bytes(b"the user's")
    either.outbox.joinpath(f"a~{sha256(ORIGINAL)[:8]}.png").symlink_to("nowhere")
    either.archive.joinpath("a.png").mkdir()
    picture = either.claim()
    result = either.delivery.deliver(picture, either.stage(picture))
    assert result == f"a~{sha256(ORIGINAL)[:8]}-2.png"
    assert (either.outbox / result).read_bytes() == RESULT
    assert (either.outbox / "a.png").read_bytes() == b"the user's"
    assert tree(either.archive) == {f"a~{sha256(ORIGINAL)[:8]}.png": ORIGINAL}
    assert either.ledger.picture(picture.id).result_path == result


def test_a_result_of_another_kind_has_the_extension_of_its_kind(house: House) -> None:
    picture = house.claim("photo.JPEG")
    assert house.delivery.deliver(picture, house.stage(picture, extension=".webp")) == "photo.webp"
    picture = house.claim("other.JPEG", b"other")
    assert house.delivery.deliver(picture, house.stage(picture, extension=".jpg")) == "other.JPEG"


def test_an_equal_result_that_is_there_already_is_the_result(house: House) -> None:
    """The same picture dropped again under the same name."""
    (house.outbox / "a.png").write_bytes(RESULT)
    picture = house.claim()
    assert house.delivery.deliver(picture, house.stage(picture)) == "a.png"
    house.delivery.close_staging(picture.batch or 0)
    assert house.delivered() and house.ledger.picture(picture.id).reused


def test_an_original_that_changed_before_its_delivery_is_a_new_picture(either: House) -> None:
    picture = either.claim()
    staged = either.stage(picture)
    (either.inbox / "a.png").write_bytes(b"the second version")
    with pytest.raises(OriginalChanged):
        either.delivery.deliver(picture, staged)
    either.delivery.close_staging(picture.batch or 0)
    assert tree(either.inbox) == {"a.png": b"the second version"}
    assert tree(either.outbox) == tree(either.archive) == {}
    assert either.ledger.picture(picture.id).state is State.WITHDRAWN


def test_an_original_that_is_gone_gets_no_result(house: House) -> None:
    picture = house.claim()
    staged = house.stage(picture)
    (house.inbox / "a.png").unlink()
    with pytest.raises(OriginalChanged):
        house.delivery.deliver(picture, staged)
    assert tree(house.outbox) == {} and house.ledger.open_rows() == []


@pytest.mark.skipif(sys.platform != "linux", reason="writers are seen by leases")
def test_an_original_that_somebody_is_writing_to_stays(either: House) -> None:
    picture = either.claim()
    staged = either.stage(picture)
    script = "import sys; f = open(sys.argv[1], 'ab'); print('open', flush=True); sys.stdin.readline()"
    with subprocess.Popen(
        [sys.executable, "-c", script, str(either.inbox / "a.png")], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as writer:
        assert writer.stdout is not None
        assert writer.stdout.readline() == b"open\n"
        with pytest.raises(OriginalChanged):
            either.delivery.deliver(picture, staged)
        with pytest.raises(OriginalChanged):
            either.delivery.quarantine(either.ledger.picture(picture.id), "why")
        writer.communicate(b"\n")
    assert tree(either.inbox) == {"a.png": ORIGINAL} and tree(either.archive) == tree(either.failed) == {}


def test_a_touched_original_with_the_same_content_is_the_same(either: House) -> None:
    picture = either.claim()
    os.utime(either.inbox / "a.png")
    either.delivery.deliver(picture, either.stage(picture))
    either.delivery.close_staging(picture.batch or 0)
    assert either.delivered()


@pytest.mark.parametrize("missing", ["outbox", "archive"])
def test_a_missing_folder_is_waited_for_and_never_made(house: House, missing: str) -> None:
    """It may be a share that is not mounted: what is written below its mount point would be hidden later."""
    picture = house.claim()
    staged = house.stage(picture)
    folder: Path = getattr(house, missing)
    folder.rename(folder.with_name("away"))
    with pytest.raises(OSError) as caught:
        house.delivery.deliver(picture, staged)
    assert caught.value.errno == errno.ENOENT and not folder.exists()
    assert tree(house.inbox) == {"a.png": ORIGINAL}
    folder.with_name("away").rename(folder)
    if missing == "archive":
        assert house.resume(picture) is State.DONE
        assert house.delivered()


def test_a_result_crosses_into_a_subfolder_that_is_another_file_system(house: House, other_filesystem: Path) -> None:
    (house.outbox / "sub").symlink_to(other_filesystem)
    picture = house.claim("sub/a.png")
    assert house.delivery.deliver(picture, house.stage(picture)) == "sub/a.png"
    house.delivery.close_staging(picture.batch or 0)
    assert tree(other_filesystem) == {"a.png": RESULT} and os.listdir(house.outbox) == ["sub"]


def test_a_file_in_the_way_of_an_archive_folder_keeps_its_name(house: House) -> None:
    (house.archive / "sub").write_bytes(b"a file, no folder")
    picture = house.claim("sub/a.png")
    house.delivery.deliver(picture, house.stage(picture))
    house.delivery.close_staging(picture.batch or 0)
    moved = house.ledger.picture(picture.id).moved_path or ""
    assert tree(house.archive) == {"sub": b"a file, no folder", moved: ORIGINAL} and moved.startswith("sub~")
    assert tree(house.inbox) == {} and tree(house.outbox) == {"sub/a.png": RESULT}


# Quarantine and back


def test_a_failed_picture_lies_beside_its_reason(either: House) -> None:
    picture = either.claim("sub/a.png")
    assert either.delivery.quarantine(picture, "it is a poem") == "sub/a.png"
    assert set(tree(either.failed)) == {"sub/a.png", "sub/a.png.reason.txt"}
    assert (either.failed / "sub/a.png").read_bytes() == ORIGINAL
    text = (either.failed / "sub/a.png.reason.txt").read_text()
    assert "it is a poem" in text and "sub/a.png" in text and picture.sha256 in text
    assert tree(either.inbox) == {} and either.ledger.picture(picture.id).state is State.FAILED


@pytest.mark.parametrize("taken", ["a.png", "a.png.reason.txt"])
def test_a_failed_picture_overwrites_neither_a_picture_nor_a_reason(either: House, taken: str) -> None:
    (either.failed / taken).write_bytes(b"the user's")
    picture = either.claim()
    name = f"a~{picture.sha256[:8]}.png"
    assert either.delivery.quarantine(picture, "why") == name
    assert set(tree(either.failed)) == {taken, name, f"{name}.reason.txt"}
    assert (either.failed / taken).read_bytes() == b"the user's"


def test_the_longest_name_still_has_room_for_its_reason(either: House) -> None:
    name = "x" * 251 + ".png"
    moved = either.delivery.quarantine(either.claim(name), "why")
    assert set(tree(either.failed)) == {moved, f"{moved}.reason.txt"} and moved.endswith(".png")


def test_a_failed_picture_is_put_back_where_it_was_dropped(either: House) -> None:
    (either.failed / "sub").mkdir()
    (either.failed / "sub/a.png").write_bytes(b"an earlier one")
    picture = either.claim("sub/a.png")
    moved = either.delivery.quarantine(picture, "why")
    assert moved != "sub/a.png"
    assert either.delivery.put_back(moved) == "sub/a.png"
    assert tree(either.inbox) == {"sub/a.png": ORIGINAL}
    assert tree(either.failed) == {"sub/a.png": b"an earlier one"}
    assert either.ledger.picture(picture.id).state is State.WITHDRAWN


def test_putting_back_overwrites_nothing_and_needs_no_row(either: House) -> None:
    (either.failed / "a.png").write_bytes(ORIGINAL)
    (either.inbox / "a.png").write_bytes(b"a newer one")
    assert either.delivery.put_back("a.png") == f"a~{sha256(ORIGINAL)[:8]}.png"
    assert tree(either.inbox) == {"a.png": b"a newer one", f"a~{sha256(ORIGINAL)[:8]}.png": ORIGINAL}
    assert tree(either.failed) == {}
    with pytest.raises(FileNotFoundError):
        either.delivery.put_back("a.png")


# Resuming: what a kill leaves while a result is published


def test_killed_after_the_intent_to_publish(either: House) -> None:
    picture = either.claim()
    either.publishing(picture)
    assert either.resume(picture) is State.DONE
    assert either.delivered()


def test_killed_after_the_result_was_published(either: House) -> None:
    picture = either.claim()
    staged = either.publishing(picture)
    os.rename(staged.path, either.outbox / "a.png")
    assert either.resume(picture) is State.DONE
    assert either.delivered()


def test_killed_between_link_and_unlink_of_the_staged_result(house: House) -> None:
    picture = house.claim()
    staged = house.publishing(picture)
    os.link(staged.path, house.outbox / "a.png")
    assert house.resume(picture) is State.DONE
    assert house.delivered()


def test_killed_between_placeholder_and_rename(house: House) -> None:
    """Where there are no links, an empty file of ours holds the name."""
    picture = house.claim()
    house.publishing(picture)
    (house.outbox / "a.png").write_bytes(b"")
    assert house.resume(picture) is State.DONE
    assert house.delivered()


def test_killed_before_publishing_and_the_name_was_taken_since(house: House) -> None:
    picture = house.claim()
    house.publishing(picture)
    (house.outbox / "a.png").write_bytes(b"the user's")
    assert house.resume(picture) is State.DONE
    name = f"a~{picture.sha256[:8]}.png"
    assert tree(house.outbox) == {"a.png": b"the user's", name: RESULT}
    assert house.ledger.picture(picture.id).result_path == name


def test_killed_after_publishing_and_the_user_took_the_result_since(house: House) -> None:
    """It was delivered: making it again would deliver it twice."""
    picture = house.claim()
    os.unlink(house.publishing(picture).path)  # renamed away
    assert house.resume(picture) is State.DONE
    assert tree(house.archive) == {"a.png": ORIGINAL} and tree(house.outbox) == {}


def test_killed_before_publishing_and_the_outbox_was_emptied_since(house: House) -> None:
    """The staged result is lost with its folder: the picture is done again."""
    picture = house.claim()
    house.publishing(picture)
    shutil.rmtree(house.outbox)
    house.outbox.mkdir()
    assert house.resume(picture) is State.WITHDRAWN
    assert tree(house.inbox) == {"a.png": ORIGINAL} and tree(house.archive) == {}
    assert house.ledger.open_rows() == []


def test_killed_before_publishing_and_the_staged_result_is_damaged(house: House) -> None:
    """A disk that lied: only a part of it is there."""
    picture = house.claim()
    staged = house.publishing(picture)
    Path(staged.path).write_bytes(RESULT[:5])
    house.resume(picture)
    assert ORIGINAL in tree(house.inbox).values(), "no result was delivered, so the original stays"
    assert tree(house.outbox) == {}


@pytest.mark.parametrize("then", ["replaced", "removed"])
def test_killed_before_publishing_and_the_original_changed_since(either: House, then: str) -> None:
    picture = either.claim()
    either.publishing(picture)
    (either.inbox / "a.png").unlink()
    if then == "replaced":
        (either.inbox / "a.png").write_bytes(b"the second version")
    assert either.resume(picture) is State.WITHDRAWN
    assert tree(either.inbox) == ({"a.png": b"the second version"} if then == "replaced" else {})
    assert tree(either.outbox) == tree(either.archive) == {}


def test_killed_after_publishing_and_the_original_was_replaced_since(either: House) -> None:
    picture = either.claim()
    staged = either.publishing(picture)
    os.rename(staged.path, either.outbox / "a.png")
    (either.inbox / "a.png").write_bytes(b"the second version")
    assert either.resume(picture) is State.DONE
    assert tree(either.inbox) == {"a.png": b"the second version"}
    assert tree(either.outbox) == {"a.png": RESULT} and tree(either.archive) == {}


# Resuming: what a kill leaves while an original moves


def test_killed_before_the_original_moved(either: House) -> None:
    picture = either.claim()
    either.archiving(picture)
    assert either.resume(picture) is State.DONE
    assert either.delivered()


def test_killed_after_the_original_moved(house: House) -> None:
    picture = house.claim()
    house.archiving(picture)
    os.rename(house.inbox / "a.png", house.archive / "a.png")
    assert house.resume(picture) is State.DONE
    assert house.delivered()


def test_killed_after_the_move_and_the_same_picture_was_dropped_since(house: House) -> None:
    """The new file is another picture with the same content: it stays to be done."""
    picture = house.claim()
    house.archiving(picture)
    os.rename(house.inbox / "a.png", house.archive / "a.png")
    (house.inbox / "a.png").write_bytes(ORIGINAL)
    assert house.resume(picture) is State.DONE
    assert tree(house.inbox) == tree(house.archive) == {"a.png": ORIGINAL}


def test_killed_after_the_rename_took_a_newer_file(house: House) -> None:
    """Replaced in the instant before the rename: the newer file goes back, to be done."""
    picture = house.claim()
    house.archiving(picture)
    (house.inbox / "a.png").unlink()
    (house.archive / "a.png").write_bytes(b"the second version")
    assert house.resume(picture) is State.DONE
    assert tree(house.inbox) == {"a.png": b"the second version"} and tree(house.archive) == {}


def test_killed_after_the_rename_took_a_newer_file_and_a_third_came_since(house: House) -> None:
    picture = house.claim()
    house.archiving(picture)
    (house.archive / "a.png").write_bytes(b"the second version")
    (house.inbox / "a.png").write_bytes(b"the third version")
    assert house.resume(picture) is State.DONE
    assert sorted(tree(house.inbox).values()) == [b"the second version", b"the third version"]
    assert tree(house.archive) == {}, "what has no result is not archived"


def test_killed_after_the_rename_took_a_newer_file_and_the_folder_was_tidied_up(house: House) -> None:
    picture = house.claim("sub/a.png")
    house.archiving(picture, "sub/a.png")
    shutil.rmtree(house.inbox / "sub")
    (house.archive / "sub").mkdir()
    (house.archive / "sub/a.png").write_bytes(b"the second version")
    assert house.resume(picture) is State.DONE
    assert tree(house.inbox) == {"sub/a.png": b"the second version"}


def test_killed_before_the_move_and_the_name_was_taken_since(either: House) -> None:
    picture = either.claim()
    either.archiving(picture)
    (either.archive / "a.png").write_bytes(b"the user's")
    assert either.resume(picture) is State.DONE
    assert tree(either.archive) == {"a.png": b"the user's", f"a~{picture.sha256[:8]}.png": ORIGINAL}
    assert tree(either.inbox) == {}


def test_killed_before_the_move_and_the_user_took_the_original_since(either: House) -> None:
    picture = either.claim()
    either.archiving(picture)
    (either.inbox / "a.png").unlink()
    assert either.resume(picture) is State.DONE
    assert tree(either.inbox) == tree(either.archive) == {} and tree(either.outbox) == {"a.png": RESULT}


def test_killed_with_the_original_hidden_in_the_archive(house: House) -> None:
    """Where there is no exclusive rename, the original passes through a hidden name."""
    picture = house.claim()
    house.archiving(picture)
    os.rename(house.inbox / "a.png", house.hidden(house.archive, picture))
    assert house.resume(picture) is State.DONE
    assert house.delivered()


@pytest.mark.parametrize("there", [b"", b"the user's"], ids=["placeholder", "file"])
def test_killed_with_the_original_hidden_and_its_name_taken(house: House, there: bytes) -> None:
    """By our own placeholder, where there are no links, or by a file of the user's."""
    picture = house.claim()
    house.archiving(picture)
    os.rename(house.inbox / "a.png", house.hidden(house.archive, picture))
    (house.archive / "a.png").write_bytes(there)
    assert house.resume(picture) is State.DONE
    name = f"a~{picture.sha256[:8]}.png"
    assert tree(house.archive) == ({name: ORIGINAL, "a.png": there} if there else {"a.png": ORIGINAL})
    assert tree(house.inbox) == {}


def test_killed_with_a_newer_file_hidden_in_the_archive(house: House) -> None:
    picture = house.claim()
    house.archiving(picture)
    (house.inbox / "a.png").unlink()
    house.hidden(house.archive, picture).write_bytes(b"the second version")
    assert house.resume(picture) is State.DONE
    assert tree(house.inbox) == {"a.png": b"the second version"} and tree(house.archive) == {}


def test_killed_between_the_two_names_of_a_link(house: House) -> None:
    picture = house.claim()
    house.archiving(picture)
    os.rename(house.inbox / "a.png", house.hidden(house.archive, picture))
    os.link(house.hidden(house.archive, picture), house.archive / "a.png")
    assert house.resume(picture) is State.DONE
    assert house.delivered()


# Resuming: between file systems


@pytest.mark.parametrize("part", [ORIGINAL, ORIGINAL[:4], b""], ids=["whole", "part", "empty"])
def test_killed_while_the_copy_was_hidden(apart: House, part: bytes) -> None:
    picture = apart.claim()
    apart.archiving(picture)
    apart.hidden(apart.archive, picture).write_bytes(part)
    assert apart.resume(picture) is State.DONE
    assert apart.delivered()


def test_killed_after_the_copy_was_published(apart: House) -> None:
    picture = apart.claim()
    apart.archiving(picture)
    shutil.copy2(apart.inbox / "a.png", apart.archive / "a.png")
    assert apart.resume(picture) is State.DONE
    assert apart.delivered()


def test_killed_after_the_original_was_taken_out_of_reach(apart: House) -> None:
    picture = apart.claim()
    apart.archiving(picture)
    shutil.copy2(apart.inbox / "a.png", apart.archive / "a.png")
    os.rename(apart.inbox / "a.png", apart.hidden(apart.inbox, picture))
    assert apart.resume(picture) is State.DONE
    assert apart.delivered()


def test_killed_after_a_newer_file_was_taken_out_of_reach(apart: House) -> None:
    picture = apart.claim()
    apart.archiving(picture)
    shutil.copy2(apart.inbox / "a.png", apart.archive / "a.png")
    (apart.inbox / "a.png").unlink()
    apart.hidden(apart.inbox, picture).write_bytes(b"the second version")
    assert apart.resume(picture) is State.DONE
    assert tree(apart.inbox) == {"a.png": b"the second version"} and tree(apart.archive) == {"a.png": ORIGINAL}


def test_killed_after_the_copy_was_published_and_the_user_took_it(apart: House) -> None:
    """Then the original in the inbox is the only one: it is archived again, and never removed."""
    picture = apart.claim()
    apart.archiving(picture)
    os.rename(apart.inbox / "a.png", apart.hidden(apart.inbox, picture))
    assert apart.resume(picture) is State.DONE
    assert apart.delivered()


def test_killed_while_the_copy_was_hidden_and_the_original_was_replaced(apart: House) -> None:
    picture = apart.claim()
    apart.archiving(picture)
    apart.hidden(apart.archive, picture).write_bytes(ORIGINAL)
    (apart.inbox / "a.png").write_bytes(b"the second version")
    assert apart.resume(picture) is State.DONE
    assert tree(apart.inbox) == {"a.png": b"the second version"}
    assert tree(apart.archive) == {"a.png": ORIGINAL}, "the copy is the last of the original"


@pytest.mark.parametrize("part", [ORIGINAL, ORIGINAL[:4]], ids=["whole", "part"])
def test_killed_while_the_copy_was_hidden_and_the_folder_was_removed(apart: House, part: bytes) -> None:
    """Somebody removed the subfolder of the inbox, with the original in it."""
    picture = apart.claim("sub/a.png")
    apart.archiving(picture, "sub/a.png")
    (apart.archive / "sub").mkdir()
    apart.hidden(apart.archive / "sub", picture).write_bytes(part)
    shutil.rmtree(apart.inbox / "sub")
    assert apart.resume(picture) is State.DONE
    assert tree(apart.archive) == ({"sub/a.png": ORIGINAL} if part == ORIGINAL else {})


# Resuming: quarantine


def quarantining(house: House, picture: Picture) -> None:
    house.ledger.intend_quarantine(picture.id, picture.path, "it is a poem")


def is_failed(house: House, name: str = "a.png") -> bool:
    files = tree(house.failed)
    reason = files.pop(f"{name}.reason.txt", b"")
    return files == {name: ORIGINAL} and b"it is a poem" in reason and tree(house.inbox) == {}


def test_killed_after_the_intent_to_quarantine(either: House) -> None:
    picture = either.claim()
    quarantining(either, picture)
    assert either.resume(picture) is State.FAILED
    assert is_failed(either)


@pytest.mark.parametrize("part", ["", "a.png could not be"], ids=["empty", "half"])
def test_killed_while_the_reason_was_written(either: House, part: str) -> None:
    """The unfinished reason is no picture: it must not come into the inbox."""
    picture = either.claim()
    quarantining(either, picture)
    Path(hidden_name(str(either.failed / "a.png"), picture.id, "reason")).write_text(part)
    assert either.resume(picture) is State.FAILED
    assert is_failed(either)


def test_killed_before_the_failed_picture_moved(either: House) -> None:
    picture = either.claim()
    quarantining(either, picture)
    (either.failed / "a.png.reason.txt").write_text("Why:     it is a poem\n")
    assert either.resume(picture) is State.FAILED
    assert is_failed(either)


def test_killed_after_the_failed_picture_moved(house: House) -> None:
    picture = house.claim()
    quarantining(house, picture)
    (house.failed / "a.png.reason.txt").write_text("Why:     it is a poem\n")
    os.rename(house.inbox / "a.png", house.failed / "a.png")
    assert house.resume(picture) is State.FAILED
    assert is_failed(house)


def test_killed_after_the_move_and_the_reason_is_missing(house: House) -> None:
    picture = house.claim()
    quarantining(house, picture)
    os.rename(house.inbox / "a.png", house.failed / "a.png")
    assert house.resume(picture) is State.FAILED
    assert is_failed(house)


@pytest.mark.parametrize("there", [b"", b"the user's"], ids=["placeholder", "file"])
def test_killed_with_a_failed_picture_hidden_and_its_name_taken(house: House, there: bytes) -> None:
    """The reason lies beside the picture, wherever that ends, and the row says where."""
    picture = house.claim()
    quarantining(house, picture)
    os.rename(house.inbox / "a.png", house.hidden(house.failed, picture))
    (house.failed / "a.png").write_bytes(there)
    assert house.resume(picture) is State.FAILED
    moved = house.ledger.picture(picture.id).moved_path or ""
    assert (house.failed / moved).read_bytes() == ORIGINAL
    assert set(tree(house.failed)) == {*(["a.png"] if there else []), moved, f"{moved}.reason.txt"}


@pytest.mark.parametrize("then", ["replaced", "removed"])
def test_killed_before_a_failed_picture_moved_and_it_changed_since(either: House, then: str) -> None:
    """It may be whole now: it is a new picture, and nothing of the old one's failure remains."""
    picture = either.claim()
    quarantining(either, picture)
    (either.failed / "a.png.reason.txt").write_text("Why:     it is a poem\n")
    Path(hidden_name(str(either.failed / "a.png"), picture.id, "reason")).write_text("Why")
    (either.inbox / "a.png").unlink()
    if then == "replaced":
        (either.inbox / "a.png").write_bytes(b"whole now")
    assert either.resume(picture) is State.WITHDRAWN
    assert tree(either.failed) == {}
    assert list(tree(either.inbox).values()) == ([b"whole now"] if then == "replaced" else [])


def test_resuming_twice_changes_nothing(either: House) -> None:
    picture = either.claim()
    either.publishing(picture)
    row = either.ledger.picture(picture.id)
    assert either.delivery.resume(row) is State.DONE
    assert either.delivery.resume(either.ledger.picture(picture.id)) is State.DONE
    either.delivery.sweep_staging()
    assert either.delivered()


# Staging


def test_staging_is_swept_but_for_results_that_still_have_to_be_published(house: House) -> None:
    kept, dropped = house.claim("a.png"), house.claim("b.png", b"another")
    staged = house.publishing(kept)
    lost = house.stage(dropped)
    house.delivery.sweep_staging()
    assert Path(staged.path).exists() and not Path(lost.path).exists()
    assert house.resume(kept) is State.DONE
    assert os.listdir(house.outbox) == ["a.png"], "not even the hidden folder is left"


def test_an_earlier_result_is_copied_only_if_it_is_still_the_same(house: House) -> None:
    picture = house.claim()
    earlier = house.outbox / "earlier.png"
    assert house.delivery.stage_copy(picture, str(earlier), sha256(RESULT)) is None
    earlier.write_bytes(b"edited by the user")
    assert house.delivery.stage_copy(picture, str(earlier), sha256(RESULT)) is None
    earlier.unlink()
    earlier.symlink_to(house.inbox / "a.png")
    assert house.delivery.stage_copy(picture, str(earlier), sha256(ORIGINAL)) is None
    earlier.unlink()
    earlier.write_bytes(RESULT)
    staged = house.delivery.stage_copy(picture, str(earlier), sha256(RESULT))
    assert staged is not None and Path(staged.path).read_bytes() == RESULT and staged.extension == ".png"


# Through the command


def test_a_picture_that_came_while_its_name_was_on_its_way_is_done_at_once(make_site: Callable[..., Site]) -> None:
    """It is not found by the rescan minutes later, which would take the watcher's events for broken."""
    retry: dict[str, Any] = {"first_seconds": 0.3, "max_seconds": 0.3}
    site = make_site(engine={"command": STUB_ENGINE, **QUICK["engine"]}, retry=retry)
    running = site.start()
    away = site.root / "away"
    site.archive.rename(away)
    site.drop("a.png", b"the first version")
    wait_until(lambda: "waiting until" in running.log(), "the archive to be missed")
    site.drop("a.png", b"the second version")
    wait_until(lambda: running.log().count("delivered half-way") >= 2, "the events to be taken")
    away.rename(site.archive)
    result = stub_result(b"the second version")
    wait_until(lambda: result in site.files(site.outbox).values(), "the second version to be done", 15)
    assert site.status()["watcher"]["backend"].startswith("native")
    assert running.stop() == 0


def test_nothing_hidden_is_left_after_the_outbox_came_back(make_site: Callable[..., Site]) -> None:
    """What a batch staged and could not publish is swept as soon as it is published, not at the next start."""
    site = make_site(engine={"command": STUB_ENGINE, **QUICK["engine"]})
    running = site.start()
    site.archive.rename(site.root / "away")
    site.drop("a.png", b"a picture")
    wait_until(lambda: "waiting until" in running.log(), "the archive to be missed")
    (site.root / "away").rename(site.archive)
    wait_until(lambda: site.names(site.archive) == {"a.png"}, "the picture to be archived")
    wait_until(lambda: os.listdir(site.outbox) == ["a.png"], "the staging folder to go", 5)
    assert running.stop() == 0


@pytest.mark.skipif(shutil.which("strace") is None, reason="strace is not installed: it makes a call fail")
def test_a_name_in_failed_that_is_taken_at_the_last_moment_keeps_no_reason_of_ours(
    make_site: Callable[..., Site],
) -> None:
    """The rename is told that the name exists: the reason goes with the picture to the next name."""
    site = make_site(engine={"command": STUB_ENGINE, **QUICK["engine"]})
    site.drop("a.png", b"UNSUPPORTED")
    fault = ["-e", "trace=renameat2", "-e", "inject=renameat2:error=EEXIST:when=2"]
    done = subprocess.run(
        ["strace", "-f", "-qq", "-o", os.devnull, *fault, command(), "once", "--config", str(site.config_path)],
        check=False,
        cwd=site.root,
        env=site.environment,
        capture_output=True,
        text=True,
    )
    if "ptrace" in done.stderr:
        pytest.skip("strace may not trace here")
    name = f"a~{sha256(b'UNSUPPORTED')[:8]}.png"
    assert site.names(site.failed) == {name, f"{name}.reason.txt"}
