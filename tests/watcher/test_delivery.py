"""Delivery on real files and a real ledger: the three ends of a picture, and the way back."""

import errno
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from harness import QUICK, STUB_ENGINE, Site, command, stub_result, wait_until
from house import ORIGINAL, RESULT, House, sha256, tree

from watcher.files.filesystem import digest
from watcher.files.originals import OriginalChanged
from watcher.rows import State

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
    wait_until(lambda: running.log().count("half-way moved") >= 2, "the events to be taken")
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
