"""What is dropped and is no whole picture: told with a reason, never in the way of the others."""

import ctypes
import os
import socket
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from harness import STUB_ENGINE, Site, photo, stub_result, wait_until

STUB = {"command": STUB_ENGINE}
_PR_CAPBSET_DROP = 24  # linux/prctl.h
_DAC_CAPABILITIES = (1, 2)  # CAP_DAC_OVERRIDE, CAP_DAC_READ_SEARCH: what lets root read everything


def as_a_user() -> None:
    """In a child before its exec: let file modes count, even for root."""
    if os.geteuid() == 0:
        library = ctypes.CDLL(None, use_errno=True)
        for capability in _DAC_CAPABILITIES:
            if library.prctl(_PR_CAPBSET_DROP, capability, 0, 0, 0) != 0:
                raise OSError(ctypes.get_errno(), "cannot give up root's powers")


def whys(entries: list[dict[str, str]]) -> dict[str, str]:
    return {entry["path"]: entry["why"] for entry in entries}


BROKEN = {
    "cut.jpg": photo(1, 160, 120, ".jpg")[:2500],
    "cut.png": photo(2, 160, 120)[:9000],
    "cut in its header.png": photo(3)[:20],
    "cut.webp": photo(4, 160, 120, ".webp")[:1500],
    "cut.tiff": photo(5, 160, 120, ".tiff")[:9000],
    "cut.bmp": photo(6, 160, 120, ".bmp")[:9000],
    "empty.jpg": b"",
    "zeros.png": bytes(5000),
    "letter.jpg": b"Dear Sir or Madam,\n" * 100,
    "page.png": b"<!DOCTYPE html><html><body>404 Not Found</body></html>",
    "film.jpg": b"\0\0\0\x20ftypisom" + bytes(200),
    "animation.png": b"GIF89a" + bytes(200),
}


def test_broken_pictures_fail_with_a_readable_reason_and_the_others_are_delivered(
    make_site: Callable[..., Site],
) -> None:
    site = make_site(watch={"incomplete_seconds": 0})
    good = {f"good {seed}.png": photo(seed) for seed in range(4)}
    for name, data in {**BROKEN, **good}.items():
        site.drop(f"album/{name}", data)
    done = site.once()
    assert done.returncode == 1, done.stderr
    assert site.files(site.archive) == {f"album/{name}": data for name, data in good.items()}
    assert site.names(site.outbox) == {f"album/{name}" for name in good}
    assert not site.names(site.inbox)
    failed = site.files(site.failed)
    for name, data in BROKEN.items():
        assert failed.pop(f"album/{name}") == data, f"{name} is not what was dropped"
        reason = failed.pop(f"album/{name}.reason.txt").decode()
        assert name in reason
        (why,) = (line for line in reason.splitlines() if line.startswith("Why: "))
        assert len(why.split()) > 4, f"{name}: {why}"
        assert "What to do:" in reason
    assert not failed
    assert whys(site.status()["failed"]).keys() == {f"album/{name}" for name in BROKEN}
    assert len(site.upscaled()) == 1, "a broken picture must not need an engine of its own"


def test_a_broken_picture_is_given_time_to_become_whole_and_then_fails_without_another_engine(site: Site) -> None:
    site.drop("a.jpg", BROKEN["cut.jpg"])
    done = site.once()
    assert done.returncode == 0, done.stderr
    assert site.files(site.inbox) == {"a.jpg": BROKEN["cut.jpg"]}
    assert "cannot be decoded, perhaps unfinished" in whys(site.status()["waiting"])["a.jpg"]
    wait_until(lambda: site.once().returncode == 1, "the picture to fail", 15)
    assert site.names(site.failed) == {"a.jpg", "a.jpg.reason.txt"}
    assert site.upscaled() == [0]


def test_an_upload_that_becomes_whole_in_time_is_delivered_and_never_failed(make_site: Callable[..., Site]) -> None:
    site = make_site(watch={"incomplete_seconds": 60})
    running = site.start()
    whole = photo(1, 160, 120, ".jpg")
    path = site.drop("upload.jpg", whole[:2500])
    site.drop("other.png", photo(2))
    wait_until(lambda: "upload.jpg cannot be decoded" in running.log(), "the engine to meet the unfinished upload")
    wait_until(lambda: site.names(site.archive) == {"other.png"}, "the other picture, which waits for nobody")
    with path.open("ab") as file:
        file.write(whole[2500:])
    wait_until(lambda: "upload.jpg" in site.names(site.archive), "the whole picture", 20)
    assert site.files(site.archive)["upload.jpg"] == whole
    assert site.names(site.outbox) >= {"upload.jpg", "other.png"}
    assert not site.names(site.failed)
    assert " failed" not in running.log()


def test_an_upload_in_pieces_that_each_look_settled_is_delivered_once_whole(make_site: Callable[..., Site]) -> None:
    """A client that closes the file between its pieces, with pauses longer than settle_seconds and the window."""
    site = make_site(engine=STUB, watch={"incomplete_seconds": 2})
    running = site.start()
    for piece in range(4):
        with (site.inbox / "upload.png").open("ab") as file:
            file.write(b"UNDECODABLE " if piece < 3 else b"")
        wait_until(
            lambda count=piece: running.log().count("upload.png cannot be decoded") >= min(count + 1, 3),
            "the engine's verdict",
        )
    (site.inbox / "upload.png").write_bytes(photo(1))
    wait_until(lambda: site.names(site.archive) == {"upload.png"}, "the whole picture", 20)
    assert site.files(site.outbox)["upload.png"] == stub_result(photo(1))
    assert not site.names(site.failed)


def test_other_kinds_of_files_are_left_alone_and_shown_as_ignored_with_the_reason(stub_site: Site) -> None:
    site = stub_site
    others = {"notes.txt": b"hello", "film.mp4": b"x", "README": b"x", "sub/raw.CR2": b"x", "a.jpg.pdf": b"x"}
    for name, data in others.items():
        site.drop(name, data)
    done = site.once()
    assert done.returncode == 0, done.stderr
    assert site.files(site.inbox) == others
    assert site.upscaled() == []
    report = site.status()
    assert whys(report["ignored"]) == {
        "notes.txt": "not a picture (.txt)",
        "film.mp4": "not a picture (.mp4)",
        "README": "not a picture (no extension)",
        "sub/raw.CR2": "not a picture (.cr2)",
        "a.jpg.pdf": "not a picture (.pdf)",
    }
    assert report["failed"] == report["waiting"] == []


def put_special_files(site: Site) -> Path:
    """Links, a pipe, a socket and a folder that are called like pictures; returns the links' target."""
    target = site.root / "private.png"
    target.write_bytes(photo(9))
    (site.inbox / "link.png").symlink_to(target)
    (site.inbox / "dangling.png").symlink_to(site.root / "nothing")
    (site.root / "private").mkdir()
    (site.root / "private" / "inside.png").write_bytes(photo(8))
    (site.inbox / "link to folder.png").symlink_to(site.root / "private")
    (site.inbox / "loop.png").symlink_to(site.inbox)
    os.mkfifo(site.inbox / "pipe.png")
    here = Path.cwd()
    os.chdir(site.inbox)  # a socket's path may have 107 bytes only
    try:
        with socket.socket(socket.AF_UNIX) as server:
            server.bind("socket.png")
    finally:
        os.chdir(here)
    site.drop("folder.jpg/inner.png", photo(7))
    return target


SPECIAL = {"link.png", "dangling.png", "link to folder.png", "loop.png", "pipe.png", "socket.png"}


def test_links_pipes_and_sockets_are_left_alone_and_a_folder_called_like_a_picture_is_entered(
    make_site: Callable[..., Site],
) -> None:
    """By events, and by a scan; nobody hangs on the pipe."""
    watched, scanned = make_site("watched", engine=STUB), make_site("scanned", engine=STUB)
    watched.start()
    targets = [put_special_files(site) for site in (watched, scanned)]
    assert scanned.run("once", timeout=20).returncode == 0
    for site, target in zip((watched, scanned), targets, strict=True):
        wait_until(lambda site=site: "folder.jpg/inner.png" in site.names(site.archive), "the real picture", 20)
        assert site.files(site.outbox)["folder.jpg/inner.png"] == stub_result(photo(7))
        assert {path.name for path in site.inbox.iterdir()} == SPECIAL | {"folder.jpg"}
        assert target.read_bytes() == photo(9)
        assert (site.root / "private" / "inside.png").read_bytes() == photo(8)
        assert site.names(site.archive) == {"folder.jpg/inner.png"}
        report = site.status()
        assert whys(report["ignored"]) == dict.fromkeys(SPECIAL, "not a regular file (a link, a pipe or the like)")
        assert report["waiting"] == report["failed"] == []


def test_a_picture_that_may_not_be_read_waits_and_says_so(stub_site: Site) -> None:
    site = stub_site
    site.drop("secret.png", photo(1)).chmod(0)
    site.drop("good.png", photo(2))
    try:
        done = site.run("once", preexec_fn=as_a_user)
    except subprocess.SubprocessError:
        pytest.skip("root cannot give up its powers here")
    assert done.returncode == 3, done.stderr
    assert "secret.png" in done.stderr
    assert site.files(site.archive) == {"good.png": photo(2)}
    assert site.names(site.inbox) == {"secret.png"}
    assert not site.names(site.failed)
    shown = site.run("status", preexec_fn=as_a_user)
    assert "secret.png: this user may not read it" in shown.stdout
    (site.inbox / "secret.png").chmod(0o644)
    assert site.run("once", preexec_fn=as_a_user).returncode == 0
    assert site.files(site.archive) == {"good.png": photo(2), "secret.png": photo(1)}


def test_a_folder_that_may_not_be_read_does_not_keep_the_others_waiting(stub_site: Site) -> None:
    site = stub_site
    site.drop("closed/a.png", photo(1))
    site.drop("open/b.png", photo(2))
    (site.inbox / "closed").chmod(0)
    try:
        done = site.run("once", preexec_fn=as_a_user)
    except subprocess.SubprocessError:
        pytest.skip("root cannot give up its powers here")
    finally:
        (site.inbox / "closed").chmod(0o755)
    assert "cannot look into" in done.stderr
    assert site.names(site.archive) == {"open/b.png"}
    assert site.files(site.inbox) == {"closed/a.png": photo(1)}


def test_two_failures_of_one_name_are_both_kept_each_with_its_reason(stub_site: Site) -> None:
    site = stub_site
    for number in range(3):
        site.drop("a.png", b"UNSUPPORTED %d" % number)
        assert site.once().returncode == 1
    failed = site.files(site.failed)
    pictures = {name: data for name, data in failed.items() if not name.endswith(".reason.txt")}
    assert sorted(pictures.values()) == [b"UNSUPPORTED %d" % number for number in range(3)]
    assert {name + ".reason.txt" for name in pictures} == set(failed) - set(pictures)


# Retry


def fail(site: Site, *names: str) -> dict[str, bytes]:
    pictures = {name: b"UNSUPPORTED " + name.encode() for name in names}
    for name, data in pictures.items():
        site.drop(name, data)
    assert site.once().returncode == 1
    assert set(pictures) <= site.names(site.failed)
    return pictures


def test_retry_puts_all_back_where_they_were_dropped(stub_site: Site) -> None:
    pictures = fail(stub_site, "a.png", "trip/day 1/b.png", "trip/c.png")
    done = stub_site.run("retry")
    assert done.returncode == 0, done.stderr
    assert len(done.stdout.splitlines()) == 3
    assert stub_site.files(stub_site.inbox) == pictures
    assert not stub_site.names(stub_site.failed), "reason files must go with their pictures"


def test_retry_puts_back_what_is_named_below_the_failed_folder_as_a_path_or_by_its_reason_file(stub_site: Site) -> None:
    site = stub_site
    pictures = fail(site, *(f"trip/{letter}.png" for letter in "abcde"))
    spellings = ["trip/a.png", "failed/trip/b.png", "trip/c.png.reason.txt", str(site.failed / "trip/d.png")]
    done = site.run("retry", *spellings)
    assert done.returncode == 0, done.stderr
    left = pictures.pop("trip/e.png")
    assert site.files(site.inbox) == pictures
    assert site.names(site.failed) == {"trip/e.png", "trip/e.png.reason.txt"}
    assert site.files(site.failed)["trip/e.png"] == left


def test_retry_overwrites_nothing_in_the_inbox(stub_site: Site) -> None:
    site = stub_site
    fail(site, "a.png")
    site.drop("a.png", photo(1))
    assert site.run("retry").returncode == 0
    assert sorted(site.files(site.inbox).values()) == sorted([photo(1), b"UNSUPPORTED a.png"])
    assert site.files(site.inbox)["a.png"] == photo(1)


def test_retry_of_several_failures_of_one_name_puts_all_back(stub_site: Site) -> None:
    site = stub_site
    contents = [b"UNSUPPORTED %d" % number for number in range(3)]
    for content in contents:
        site.drop("a.png", content)
        site.once()
    assert site.run("retry").returncode == 0
    assert sorted(site.files(site.inbox).values()) == contents
    assert not site.names(site.failed)


def test_retry_takes_a_file_that_somebody_put_into_failed_if_it_is_named(stub_site: Site) -> None:
    """What lies there without a reason is not ours. A watcher that runs processes it like any other."""
    site = stub_site
    site.start()
    (site.failed / "by hand").mkdir()
    (site.failed / "by hand" / "x.png").write_bytes(photo(1))
    assert site.run("retry").stdout == f"There is nothing to put back in {site.failed}\n"
    assert site.files(site.failed) == {"by hand/x.png": photo(1)}
    assert site.run("retry", "by hand/x.png").returncode == 0
    wait_until(lambda: site.names(site.archive) == {"by hand/x.png"}, "the picture", 20)
    assert site.files(site.outbox)["by hand/x.png"] == stub_result(photo(1))
    assert not site.names(site.failed)


def test_retry_judges_a_picture_anew(make_site: Callable[..., Site]) -> None:
    """Whatever was counted against it before: attempts, and the time to become whole."""
    site = make_site(engine=STUB, watch={"incomplete_seconds": 0.5})
    site.drop("a.png", b"UNDECODABLE")
    wait_until(lambda: site.once().returncode == 1, "the picture to fail", 15)
    assert site.run("retry").returncode == 0
    assert site.once().returncode == 0
    assert "perhaps unfinished" in whys(site.status()["waiting"])["a.png"]


def test_retry_with_nothing_failed_is_done(stub_site: Site) -> None:
    done = stub_site.run("retry")
    assert (done.returncode, done.stdout) == (0, f"There is nothing to put back in {stub_site.failed}\n")


def test_retry_of_what_is_not_there_says_so_and_does_the_rest(stub_site: Site) -> None:
    fail(stub_site, "a.png")
    done = stub_site.run("retry", "missing.png", "a.png")
    assert done.returncode == 1
    assert "missing.png" in done.stderr
    assert "a.png is back in the inbox" in done.stdout


@pytest.mark.parametrize("path", ["config.yaml", "../x.png", "/etc/hostname", "failed/../inbox/b.png"])
def test_retry_moves_nothing_that_is_not_in_the_failed_folder(stub_site: Site, path: str) -> None:
    site = stub_site
    site.drop("b.png", photo(1))
    done = site.run("retry", path)
    assert done.returncode == 2
    assert "is not in" in done.stderr
    assert site.config_path.exists()
    assert site.files(site.inbox) == {"b.png": photo(1)}


def test_retry_of_a_folder_puts_back_what_is_below_it_or_says_why_not(stub_site: Site) -> None:
    site = stub_site
    pictures = fail(site, "trip/a.png", "trip/b/c.png", "other.png")
    done = site.run("retry", "trip")
    assert done.returncode == 0, done.stderr
    assert site.files(site.inbox) == {name: data for name, data in pictures.items() if name.startswith("trip")}
    assert site.names(site.failed) == {"other.png", "other.png.reason.txt"}


def test_nobody_waits_for_a_broken_picture_while_others_come(make_site: Callable[..., Site]) -> None:
    site = make_site(engine=STUB, watch={"incomplete_seconds": 1})
    site.start()
    site.drop("broken.png", b"UNDECODABLE")
    for number in range(3):
        site.drop(f"{number}.png", photo(number))
        wait_until(lambda name=f"{number}.png": name in site.names(site.archive), "a good picture")
        wait_until(lambda: "broken.png" in site.names(site.failed), "the broken picture to fail")
    assert site.names(site.archive) == {"0.png", "1.png", "2.png"}
