"""An inbox on another machine: an sshfs mount, in which the other side's changes raise no event."""

import os
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from harness import Site, below, wait_until
from servers import Program, Programs, SshServer, need
from uploads import SETTINGS, Album, Uploads, slow_source


def mount(programs: Programs, server: SshServer, far: Path, here: Path, *options: str) -> Program:
    """By sshfs; unmounted when the test is over."""
    sshfs, unmount = need("sshfs", "sshfs"), need("fusermount3", "fuse3")
    words = [word for word in server.options if word not in ("-F", "/dev/null")]
    program = programs.start(sshfs, "-f", "-F", "/dev/null", *words, *options, server.at(far), here)
    programs.at_end(lambda: subprocess.run([unmount, "-u", "-z", here], check=False, capture_output=True))
    wait_until(lambda: os.path.ismount(here) or program.ended, "the mount", 20)
    if program.ended:
        pytest.skip(f"FUSE does not work here: {program.log()}")
    return program


@pytest.mark.slow
@pytest.mark.parametrize("cache", ["brief cache", "usual cache"])
def test_pictures_that_come_on_the_far_side_are_found_by_polling(
    make_site: Callable[..., Site], album: Album, programs: Programs, cache: str
) -> None:
    """One that is there, and one that is being written when the watcher comes.

    sshfs remembers sizes, usually for 20 s: a growing file looks still. So a part is tried, and waits for its rest.
    """
    options = ("-o", "dcache_timeout=1") if cache == "brief cache" else ()
    uploads = Uploads(make_site(**SETTINGS), start=False)
    site = uploads.site
    far = programs.folder / "far"
    (far / "below").mkdir(parents=True)
    mount(programs, SshServer(programs), far, site.inbox, *options)
    (far / "quick.jpg").write_bytes(uploads.expect("quick.jpg", album.jpeg(6)))
    data = uploads.expect("below/slow.png", album.png(4))
    slow = far / "below" / "slow.png"
    with slow_source(programs.folder / "fifo", data, 4) as source:
        copying = programs.start(need("cp", "coreutils"), source, slow)
        wait_until(lambda: slow.exists() and slow.stat().st_size, "a part of it")
        running = uploads.start()
        assert "polling (fuse.sshfs" in running.log()
        uploads.wait_for_doubts("below/slow.png")
        copying.wait()
    uploads.wait_archived("quick.jpg", "below/slow.png")
    wait_until(lambda: not list(below(far)), "the originals to be gone on the far side, too")
    uploads.finish(interrupted={"below/slow.png"})
