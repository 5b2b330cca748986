"""The main job through the installed command: drop a picture in the inbox, get it back three times larger."""

import hashlib
import os
import re
import time
from collections.abc import Callable

import cv2
import numpy as np
import pytest
from harness import STUB_ENGINE, Site, everything_below, photo, stub_result, wait_until

STUB = {"command": STUB_ENGINE}


def decoded(data: bytes) -> np.ndarray:
    picture = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)
    assert picture is not None, "this is no picture"
    return picture


def assert_three_times(result: bytes, source: bytes) -> None:
    """The result has three times the sides and looks like the source."""
    small, large = decoded(source), decoded(result)
    height, width = small.shape[:2]
    assert large.shape == (3 * height, 3 * width, 3)
    plain = cv2.resize(small, (3 * width, 3 * height), interpolation=cv2.INTER_CUBIC)
    assert np.abs(large.astype(int) - plain.astype(int)).mean() < 6


def wait_archived(site: Site, *names: str) -> None:
    """Until these originals are archived, the inbox is empty and the engine is gone."""
    wanted = set(names)
    wait_until(
        lambda: wanted <= site.names(site.archive) and not site.names(site.inbox) and not site.engines(),
        f"{wanted} to be archived; archive: {site.names(site.archive)}, inbox: {site.names(site.inbox)}",
    )
    wait_until(lambda: not hidden(site), f"the work's own files to be removed: {hidden(site)}")


def hidden(site: Site) -> set[str]:
    """What a user should not find: files and folders of ours, outside the state folder."""
    folders = (site.inbox, site.outbox, site.archive, site.failed)
    return {name for folder in folders for name in everything_below(folder) if os.path.basename(name).startswith(".")}


def tagged(name: str, data: bytes) -> str:
    """The name that a second, different picture called `name` gets."""
    stem, extension = os.path.splitext(name)
    return f"{stem}~{hashlib.sha256(data).hexdigest()[:8]}{extension}"


# One picture, many pictures


def test_one_picture_comes_back_three_times_larger(site: Site) -> None:
    """Result whole, original byte-identical in the archive, no engine left, nothing hidden left."""
    site.start()
    data = photo(1)
    site.drop("holiday.png", data)
    wait_archived(site, "holiday.png")
    assert site.files(site.archive) == {"holiday.png": data}
    results = site.files(site.outbox)
    assert set(results) == {"holiday.png"}
    assert_three_times(results["holiday.png"], data)
    assert not site.names(site.failed)
    assert site.status()["totals"]["done"] == 1


def test_every_kind_of_picture_comes_back_in_its_own_kind(site: Site) -> None:
    kinds = {".jpg": b"\xff\xd8", ".png": b"\x89PNG", ".webp": b"RIFF", ".tiff": b"II", ".bmp": b"BM"}
    pictures = {f"a{extension}": photo(2, extension=extension) for extension in kinds}
    for name, data in pictures.items():
        site.drop(name, data)
    done = site.once()
    assert done.returncode == 0, done.stderr
    results = site.files(site.outbox)
    assert set(results) == set(pictures)
    for name, data in pictures.items():
        assert results[name].startswith(kinds[os.path.splitext(name)[1]]), name
        assert_three_times(results[name], data)
    assert site.files(site.archive) == pictures


def test_a_burst_of_thirty_pictures_takes_few_engine_starts_and_loses_none(site: Site) -> None:
    pictures = {f"burst-{number:02}.png": photo(number, 24, 16) for number in range(30)}
    site.start()
    for name, data in pictures.items():
        site.drop(name, data)
    wait_archived(site, *pictures)
    assert site.files(site.archive) == pictures
    results = site.files(site.outbox)
    assert set(results) == set(pictures)
    for name, data in pictures.items():
        assert_three_times(results[name], data)
    assert sum(site.upscaled()) == 30
    assert len(site.upscaled()) <= 2  # one window; two, if a slow disk made a pause in the middle


# Arriving


def test_a_slow_writer_is_waited_for(make_site: Callable[..., Site]) -> None:
    """One holds its file open, with pauses longer than settle_seconds: only the open file tells that it is not done.

    The other closes and appends again, with pauses shorter than settle_seconds.
    """
    holding, appending = make_site("holding", engine=STUB), make_site("appending", engine=STUB)
    appending.configure(engine=STUB, watch={"settle_seconds": 0.9})
    sites = (holding, appending)
    for site in sites:
        site.start()
    chunks = [photo(seed) for seed in range(5)]
    with (holding.inbox / "slow.png").open("wb") as file:
        for chunk in chunks:
            file.write(chunk)
            file.flush()
            with (appending.inbox / "slow.png").open("ab") as reopened:
                reopened.write(chunk)
            time.sleep(0.4)
            for site in sites:
                assert not site.names(site.outbox), f"{site.root.name}: taken before it was whole"
    for site in sites:
        wait_archived(site, "slow.png")
        assert site.files(site.outbox) == {"slow.png": stub_result(b"".join(chunks))}
        assert site.files(site.archive) == {"slow.png": b"".join(chunks)}
        assert site.upscaled() == [1]


def test_a_file_moved_in_is_taken_whatever_its_mtime(stub_site: Site) -> None:
    site = stub_site
    site.start()
    mtimes = {"old.png": 0, "of the future.png": 4_000_000_000}
    for name, mtime in mtimes.items():
        outside = site.root / name
        outside.write_bytes(photo(1) + name.encode())
        os.utime(outside, (mtime, mtime))
        outside.rename(site.inbox / name)
    wait_archived(site, *mtimes)
    assert site.files(site.outbox) == {name: stub_result(photo(1) + name.encode()) for name in mtimes}
    assert {name: (site.archive / name).stat().st_mtime for name in mtimes} == mtimes


def test_a_folder_moved_in_is_taken_with_all_that_it_holds(stub_site: Site) -> None:
    site = stub_site
    site.start()
    outside = site.root / "trip"
    (outside / "day 1" / "morning").mkdir(parents=True)
    (outside / "a.png").write_bytes(photo(1))
    (outside / "day 1" / "morning" / "b.png").write_bytes(photo(2))
    outside.rename(site.inbox / "trip")
    wait_archived(site, "trip/a.png", "trip/day 1/morning/b.png")
    assert site.files(site.outbox) == {
        "trip/a.png": stub_result(photo(1)),
        "trip/day 1/morning/b.png": stub_result(photo(2)),
    }


def test_pictures_that_were_there_before_the_start_are_taken(stub_site: Site) -> None:
    site = stub_site
    site.drop("before.png", photo(1))
    site.start()
    wait_archived(site, "before.png")
    assert site.files(site.outbox) == {"before.png": stub_result(photo(1))}


# The same name again


def test_a_picture_rewritten_while_it_waits_is_taken_once_with_its_last_content(make_site: Callable[..., Site]) -> None:
    site = make_site(engine=STUB, window={"quiet_seconds": 3.0, "max_seconds": 30})
    site.start()
    site.drop("a.png", photo(1))
    time.sleep(0.5)  # until it is whole and in the window, which nothing shows
    site.drop("a.png", photo(2))
    wait_archived(site, "a.png")
    assert site.files(site.outbox) == {"a.png": stub_result(photo(2))}
    assert site.files(site.archive) == {"a.png": photo(2)}
    assert site.upscaled() == [1]


def test_a_picture_rewritten_while_it_is_in_work_ends_with_its_new_content(make_site: Callable[..., Site]) -> None:
    """The result of the old content is not delivered for the new one; the new one is not archived unseen."""
    sites = [make_site(how, engine=STUB) for how in ("in place", "by a rename")]
    starts = [site.start() for site in sites]
    for site in sites:
        site.drop("a.png", b"SLOW 1 " + photo(1))
        site.drop("b.png", photo(3))
    for running in starts:
        wait_until(lambda log=running.log: "engine ready" in log(), "the engine to work")
    time.sleep(0.3)  # until a.png is in work, which nothing shows
    for site in sites:
        if site.root.name == "in place":
            site.drop("a.png", photo(2))
        else:
            (site.root / "new.png").write_bytes(photo(2))
            (site.root / "new.png").replace(site.inbox / "a.png")
    for site in sites:
        wait_archived(site, "a.png", "b.png")
        assert site.files(site.outbox) == {"a.png": stub_result(photo(2)), "b.png": stub_result(photo(3))}
        assert site.files(site.archive) == {"a.png": photo(2), "b.png": photo(3)}
        assert not site.names(site.failed)


def test_the_same_name_with_other_content_later_overwrites_nothing(stub_site: Site) -> None:
    site = stub_site
    for seed in (1, 2, 3):
        site.drop("a.png", photo(seed))
        assert site.once().returncode == 0
    names = {"a.png": photo(1), tagged("a.png", photo(2)): photo(2), tagged("a.png", photo(3)): photo(3)}
    assert site.files(site.archive) == names
    assert site.files(site.outbox) == {name: stub_result(data) for name, data in names.items()}


def test_the_same_name_with_the_same_content_later_starts_no_engine_and_delivers_nothing_twice(stub_site: Site) -> None:
    site = stub_site
    for _ in range(2):
        site.drop("a.png", photo(1))
        done = site.once()
        assert done.returncode == 0, done.stderr
    assert site.upscaled() == [1]
    assert site.files(site.outbox) == {"a.png": stub_result(photo(1))}
    assert list(site.files(site.archive).values()) == [photo(1)] * 2
    assert not site.names(site.inbox)
    assert site.status()["totals"] == {"done": 2, "reused": 1, "failed": 0}


# One content, several names


def test_three_names_for_one_content_are_one_inference(stub_site: Site) -> None:
    site = stub_site
    pictures = dict.fromkeys(["a.png", "b.png", "below/a.png"], photo(1))
    for name, data in pictures.items():
        site.drop(name, data)
    assert site.once().returncode == 0
    assert site.upscaled() == [1]
    assert site.files(site.outbox) == {name: stub_result(data) for name, data in pictures.items()}
    assert site.files(site.archive) == pictures


def test_a_new_name_for_a_content_that_is_done_starts_no_engine(stub_site: Site) -> None:
    site = stub_site
    site.drop("a.png", photo(1))
    site.once()
    site.drop("b.png", photo(1))
    done = site.once()
    assert "no engine needed" in done.stderr
    assert site.upscaled() == [1]
    assert site.files(site.outbox) == {"a.png": stub_result(photo(1)), "b.png": stub_result(photo(1))}


@pytest.mark.parametrize("how", ["changed", "removed"])
def test_a_result_that_was_changed_or_removed_is_not_used_again(stub_site: Site, how: str) -> None:
    site = stub_site
    site.drop("a.png", photo(1))
    site.once()
    if how == "changed":
        (site.outbox / "a.png").write_bytes(b"retouched by hand")
    else:
        (site.outbox / "a.png").unlink()
    site.drop("b.png", photo(1))
    site.drop("a.png", photo(1))
    assert site.once().returncode == 0
    assert site.upscaled() == [1, 1]
    results = site.files(site.outbox)
    assert results.pop("b.png") == stub_result(photo(1))
    if how == "changed":
        assert results.pop("a.png") == b"retouched by hand"
        assert results == {tagged("a.png", photo(1)): stub_result(photo(1))}
    else:
        assert results == {"a.png": stub_result(photo(1))}


def test_other_output_settings_are_other_results(make_site: Callable[..., Site]) -> None:
    site = make_site()
    data = photo(1, extension=".jpg")
    site.drop("a.jpg", data)
    site.once()
    site.configure(output={"jpeg_quality": 20})
    site.drop("a.jpg", data)
    assert site.once().returncode == 0
    assert site.upscaled() == [1, 1]
    fine, rough = (site.files(site.outbox)[name] for name in ("a.jpg", tagged("a.jpg", data)))
    assert_three_times(rough, data)
    assert len(rough) < len(fine)


def test_jpg_and_png_of_one_name_do_not_collide(stub_site: Site) -> None:
    site = stub_site
    site.drop("a.jpg", photo(1))
    site.drop("a.png", photo(2))
    assert site.once().returncode == 0
    assert site.files(site.outbox) == {"a.jpg": stub_result(photo(1)), "a.png": stub_result(photo(2))}
    assert site.files(site.archive) == {"a.jpg": photo(1), "a.png": photo(2)}


def test_jpg_and_png_that_both_become_png_are_both_delivered(make_site: Callable[..., Site]) -> None:
    site = make_site(output={"format": "png"})
    pictures = {"a.jpg": photo(1, extension=".jpg"), "a.png": photo(2, 40, 24)}
    for name, data in pictures.items():
        site.drop(name, data)
    assert site.once().returncode == 0
    results = site.files(site.outbox)
    assert site.files(site.archive) == pictures
    assert len(results) == 2
    assert "a.png" in results
    by_width = {decoded(result).shape[1]: result for result in results.values()}
    assert_three_times(by_width[3 * 48], pictures["a.jpg"])
    assert_three_times(by_width[3 * 40], pictures["a.png"])
    assert all(result.startswith(b"\x89PNG") for result in results.values())


# Subfolders


def test_subfolders_are_mirrored_however_fast_they_appear(stub_site: Site) -> None:
    """`mkdir -p` with files right after: events for folders that are not watched yet never come."""
    site = stub_site
    site.start()
    pictures = {}
    for number in range(25):
        folder = f"trip {number}/a/b/c/d"
        for depth, name in enumerate([f"trip {number}/top.png", f"trip {number}/a/b/mid.png", f"{folder}/deep.png"]):
            pictures[name] = photo(1000 + 10 * number + depth, 8, 8)
            site.drop(name, pictures[name])
    wait_archived(site, *pictures)
    assert site.files(site.outbox) == {name: stub_result(data) for name, data in pictures.items()}
    assert site.files(site.archive) == pictures
    assert site.status()["watcher"]["events_missed"] == 0


def test_without_recursion_subfolders_are_left_alone(make_site: Callable[..., Site]) -> None:
    site = make_site(engine=STUB, watch={"recursive": False})
    site.start()
    site.drop("below/a.png", photo(1))
    site.drop("top.png", photo(2))
    wait_until(lambda: "top.png" in site.names(site.archive), "the upper picture")
    site.drop("last.png", photo(3))
    wait_until(lambda: "last.png" in site.names(site.archive), "the last picture")
    assert site.names(site.inbox) == {"below/a.png"}
    assert site.names(site.outbox) == {"top.png", "last.png"}


# The window


LIMITS: list[tuple[dict[str, float], int, str]] = [
    ({"quiet_seconds": 0.3, "max_seconds": 30}, 1, "quiet for 0.3 s"),
    ({"quiet_seconds": 30, "max_seconds": 0.6}, 1, "open for 0.6 s"),
    ({"quiet_seconds": 30, "max_seconds": 30, "max_files": 3}, 3, "3 pictures"),
    ({"quiet_seconds": 30, "max_seconds": 30, "max_pixels": 3000}, 2, "0.003 megapixels"),
]


def test_the_log_says_why_the_window_closed(make_site: Callable[..., Site]) -> None:
    starts = []
    for limits, pictures, reason in LIMITS:
        site = make_site(reason, engine=STUB, window=limits)
        for number in range(pictures):
            site.drop(f"{number}.png", photo(number))  # 1536 pixels
        starts.append((site.start(), reason))
    for running, reason in starts:
        wait_until(lambda log=running.log: "window closed" in log(), f"the window to close: {reason}", 15)
        assert f"window closed ({reason}): " in running.log()


def test_pictures_that_keep_coming_do_not_keep_the_window_open_for_ever(make_site: Callable[..., Site]) -> None:
    site = make_site(engine=STUB, window={"quiet_seconds": 0.7, "max_seconds": 1.0})
    running = site.start()
    number = 0
    deadline = time.monotonic() + 15
    while "window closed" not in running.log():
        assert time.monotonic() < deadline, "the window never closed"
        site.drop(f"{number}.png", photo(number, 8, 8))
        number += 1
        time.sleep(0.15)
    assert "window closed (open for 1 s)" in running.log()


def test_while_a_batch_runs_the_next_window_fills(stub_site: Site) -> None:
    """What arrived meanwhile starts together, as one batch, as soon as the first is done."""
    site = stub_site
    running = site.start()
    site.drop("slow.png", b"SLOW 1.6")
    wait_until(lambda: "engine ready" in running.log(), "the first batch")
    pictures = [f"{number}.png" for number in range(3)]
    for number, name in enumerate(pictures):
        site.drop(name, photo(number))
        time.sleep(0.25)  # longer than quiet_seconds: alone they would be four windows
    assert not site.names(site.outbox) - {f".dropscale-staging/1/{number}" for number in range(9)}
    wait_archived(site, "slow.png", *pictures)
    assert site.upscaled() == [1, 3]
    assert re.findall(r"window closed .*: (.*)", running.log()) == ["one picture", "3 pictures"]
