"""Deliveries that a kill broke off, on real files and a real ledger: every state that it can leave is finished."""

import os
import shutil
from pathlib import Path

import pytest
from house import ORIGINAL, RESULT, House, is_failed, quarantining, tree

from watcher.files.names import hidden_name
from watcher.rows import State

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
