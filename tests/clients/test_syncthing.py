"""Syncthing: pictures come under temporary names, conflict copies under names of their own."""

import os
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from harness import Site, below, wait_until
from servers import Programs
from syncthing import Syncthing
from uploads import MEGABYTE, SETTINGS, Album, Uploads

MARKER = ".stfolder"


def two_sides(programs: Programs, uploads: Uploads, **options: str) -> tuple[Syncthing, Syncthing]:
    """The user's, and the one whose folder is the inbox; the latter takes no more than the options allow."""
    phone_folder = programs.folder / "camera"
    phone_folder.mkdir()
    phone = Syncthing(programs, "phone", phone_folder)
    return phone, Syncthing(programs, "server", uploads.site.inbox, **options)


@pytest.mark.slow
def test_pictures_are_taken_under_their_final_names_and_then_gone_on_both_sides(
    uploads: Uploads, album: Album, programs: Programs
) -> None:
    phone, server = two_sides(programs, uploads, maxRecvKbps="2000")
    phone.start(server)
    server.start(phone)
    server.wait_connected(phone)
    inbox = uploads.site.inbox
    uploads.leave_alone(MARKER)
    for name, data in (("a.jpg", album.jpeg(4)), ("below/b.png", album.png(4)), ("c.jpg", album.jpeg(1))):
        path = phone.folder / name
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(uploads.expect(name, data))
    phone.scan()
    temporary = inbox / ".syncthing.a.jpg.tmp"  # of full size at once, but full of holes
    wait_until(lambda: temporary.exists() and temporary.stat().st_blocks * 512 > MEGABYTE, "a part of a.jpg", 20)
    phone.program.pause()
    assert not (inbox / "a.jpg").exists()
    uploads.expect_sentinel(album.png(1))
    assert temporary.exists() and not (inbox / "a.jpg").exists(), "a temporary file was taken"
    phone.program.resume()
    uploads.wait_archived(*uploads.originals)
    server.scan()
    wait_until(lambda: not pictures(phone.folder), "the phone to hear that they have moved")
    uploads.finish()


@pytest.mark.slow
def test_a_conflict_copy_is_left_alone_on_both_sides(
    make_site: Callable[..., Site], album: Album, programs: Programs
) -> None:
    """One name with another content on each side, while they don't talk: the newer one wins, the other one is kept.

    The watcher starts after that, because it would not leave a picture lying about until there is a conflict.
    """
    uploads = Uploads(make_site(**SETTINGS), start=False)
    phone, server = two_sides(programs, uploads)
    inbox = uploads.site.inbox
    shared, older, newer = album.jpeg(1.5), album.jpeg(1), uploads.expect("bee.jpg", album.jpeg(2))
    (phone.folder / "bee.jpg").write_bytes(shared)
    phone.start(server)
    server.start(phone)
    wait_until(lambda: Site.files(inbox).get("bee.jpg") == shared, "what they have in common", 30)
    phone.pause(server)
    server.pause(phone)
    for side, data, age in ((server, older, 60), (phone, newer, 0)):
        (side.folder / "bee.jpg").write_bytes(data)
        os.utime(side.folder / "bee.jpg", (time.time() - age,) * 2)
        side.scan()
    phone.resume(server)
    server.resume(phone)
    sides = (inbox, phone.folder)
    copies = wait_until(lambda: all(conflicts(side) for side in sides) and conflicts(inbox), "the conflict", 30)
    wait_until(lambda: Site.files(inbox).get("bee.jpg") == newer, "the newer one")
    copy = copies[0].name
    assert (inbox / copy).read_bytes() == older
    assert uploads.start()
    uploads.wait_archived("bee.jpg")

    edited = album.jpeg(3)  # and while it runs, the copy comes once more
    (phone.folder / copy).write_bytes(edited)
    phone.scan()
    wait_until(lambda: Site.files(inbox).get(copy) == edited, "the edited copy", 30)
    (phone.folder / "later.png").write_bytes(uploads.expect("later.png", album.png(1)))
    phone.scan()
    uploads.wait_archived("later.png")
    ignored = {entry["path"]: entry["why"] for entry in uploads.site.status()["ignored"]}
    assert ignored[copy] == "Syncthing conflict copy"
    assert (phone.folder / copy).read_bytes() == edited
    uploads.leave_alone(copy)
    uploads.leave_alone(MARKER)
    uploads.finish()


def pictures(folder: Path) -> list[Path]:
    return [path for path in below(folder) if path.suffix in {".jpg", ".png"}]


def conflicts(folder: Path) -> list[Path]:
    return list(folder.glob("bee.sync-conflict-*.jpg"))
