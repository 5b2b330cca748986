"""cp and mv, from sources that are slower than the watcher is patient, and from other file systems."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from harness import wait_until
from servers import Programs, need
from uploads import Album, Uploads, slow_source

# A program that saves as it goes: a scanner, a camera's tether.
SAVING = """
import sys, time
data = sys.stdin.buffer.read()
with open(sys.argv[1], "wb", buffering=0) as file:
    for start in range(0, len(data), len(data) // 5):
        file.write(data[start:start + len(data) // 5])
        time.sleep(0.4)
"""


def test_a_slow_copy_is_taken_when_it_is_whole(uploads: Uploads, album: Album, programs: Programs) -> None:
    """The pauses are longer than settle_seconds and quiet_seconds together: only the open file tells of more."""
    inbox = uploads.site.inbox
    copied = uploads.expect("copied.jpg", album.jpeg(4))
    saved = programs.file("saved.png", uploads.expect("saved.png", album.png(4)))
    with slow_source(programs.folder / "fifo", copied, 2) as source, saved.open("rb") as picture:
        clients = {
            "copied.jpg": programs.start(need("cp", "coreutils"), source, inbox / "copied.jpg"),
            "saved.png": programs.start(sys.executable, "-c", SAVING, inbox / "saved.png", stdin=picture),
        }
        uploads.stall(clients, album.png(1))
    uploads.finish()


def test_a_copy_that_is_killed_and_repeated_is_taken_once(uploads: Uploads, album: Album, programs: Programs) -> None:
    inbox, cp = uploads.site.inbox, need("cp", "coreutils")
    data = uploads.expect("copied.jpg", album.jpeg(4))
    with slow_source(programs.folder / "fifo", data, 6) as source:
        copying = programs.start(cp, source, inbox / "copied.jpg")
        uploads.wait_for_part("copied.jpg", copying)
        copying.kill()
    uploads.wait_for_doubts("copied.jpg")
    programs.run(cp, programs.file("copied.jpg", data), inbox / "copied.jpg")
    uploads.finish(interrupted={"copied.jpg"})


def test_pictures_moved_in_from_another_file_system_are_taken_whole(
    uploads: Uploads, album: Album, programs: Programs, other_filesystem: Path
) -> None:
    """mv copies them in place, under the final name; twenty megabytes are not written at once."""
    large = {"large.jpg": album.jpeg(20), "large.png": album.png(10)}
    many = {f"album/{number}.jpg": album.jpeg(1) for number in range(12)}
    (other_filesystem / "album").mkdir()
    for name, data in {**large, **many}.items():
        (other_filesystem / name).write_bytes(uploads.expect(name, data))
    sources = [other_filesystem / name for name in [*large, "album"]]
    programs.run(need("mv", "coreutils"), *sources, uploads.site.inbox)
    assert not list(other_filesystem.iterdir())
    uploads.finish()


@pytest.mark.slow
def test_a_slow_move_from_another_file_system_killed_and_repeated_is_taken_once(
    uploads: Uploads, album: Album, programs: Programs
) -> None:
    """From a mount that is as slow as a share over a bad line: rclone's, with a limit."""
    rclone, mv, unmount = need("rclone", "rclone"), need("mv", "coreutils"), need("fusermount3", "fuse3")
    need("fusermount", "fuse3")  # rclone asks for it by this name
    source, mount, inbox = programs.folder / "behind", programs.folder / "share", uploads.site.inbox
    mount.mkdir()
    for name in ("moved.jpg", "again.png"):
        data = album.jpeg(5) if name == "moved.jpg" else album.png(5)
        programs.file(f"behind/{name}", uploads.expect(name, data))
    own = ("--config", programs.file("rclone.conf", ""), "--cache-dir", programs.folder / "cache")
    limits = ("--bwlimit", "2M", "--buffer-size", "0", "--vfs-read-chunk-size", "256k")
    mounted = programs.start(rclone, "mount", source, mount, *own, *limits)
    programs.at_end(lambda: subprocess.run([unmount, "-u", "-z", mount], check=False, capture_output=True))
    wait_until(lambda: os.path.ismount(mount) or mounted.ended, "the mount", 15)
    if mounted.ended:
        pytest.skip(f"FUSE does not work here: {mounted.log()}")
    moves = {name: programs.start(mv, mount / name, inbox / name) for name in ("moved.jpg", "again.png")}
    uploads.wait_for_part("again.png", moves["again.png"])
    moves["again.png"].kill()
    uploads.wait_for_doubts("again.png")
    moves["moved.jpg"].wait()
    programs.run(mv, mount / "again.png", inbox / "again.png")
    assert not list(source.iterdir())
    uploads.finish(interrupted={"again.png"})
