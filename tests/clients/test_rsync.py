"""rsync, in the ways of writing that it has: to a temporary name, in place, by way of a folder for parts."""

import pytest
from harness import wait_until
from servers import Programs, RsyncServer, need
from uploads import Album, Uploads

WAYS = {
    "default": (),
    "inplace": ("--inplace",),
    "preallocated": ("--inplace", "--preallocate"),  # of full size from its first moment
    "partial-dir": ("--partial-dir=.rsync-partial",),
    "delayed": ("--delay-updates",),
}


def names_below(uploads: Uploads) -> set[str]:
    return uploads.site.names(uploads.site.inbox)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["daemon", "local"])
def test_pictures_of_a_throttled_rsync_are_taken_whole(
    uploads: Uploads, album: Album, programs: Programs, kind: str
) -> None:
    rsync = need("rsync", "rsync")
    target = RsyncServer(programs, uploads.site.inbox).url if kind == "daemon" else f"{uploads.site.inbox}/"
    clients = {}
    for number, (way, options) in enumerate(WAYS.items()):
        name, data = (f"{way}.png", album.png(2.5)) if number % 2 else (f"{way}.jpg", album.jpeg(2.5))
        source = programs.file(name, uploads.expect(name, data))
        clients[name] = programs.start(rsync, "-t", "--bwlimit=1200", *options, source, target)
    uploads.preallocated.add("preallocated.jpg")
    uploads.stall(clients, album.png(1))
    uploads.finish()


def test_a_folder_of_pictures_is_taken_once_each(uploads: Uploads, album: Album, programs: Programs) -> None:
    """With times, as people do it: they are set after the file has its content and, in place, its name."""
    server = RsyncServer(programs, uploads.site.inbox)
    for number in range(20):
        name = f"album/{number % 3}/{number}.jpg"
        programs.file(name, uploads.expect(name, album.jpeg(1 if number else 12)))
    for options in (["-a"], ["-a", "--inplace"]):
        programs.run(server.rsync, *options, "--exclude=[1-9].jpg", programs.folder / "album", server.url)
    uploads.wait_archived(*(name for name in uploads.originals if len(name) > len("album/0/0.jpg")))
    programs.run(server.rsync, "-a", "--inplace", "--include=*/", "--include=[1-9].jpg", "--exclude=*",
                 programs.folder / "album", server.url)  # fmt: skip
    uploads.finish()


@pytest.mark.slow
def test_an_rsync_that_is_killed_and_resumed_brings_its_picture_once(
    uploads: Uploads, album: Album, programs: Programs
) -> None:
    """The daemon survives the client and tidies up in its way; killed with its receiver, rsync leaves what it wrote."""
    server = RsyncServer(programs, uploads.site.inbox)
    inbox = f"{uploads.site.inbox}/"
    clients = {
        "default.jpg": (server.url, ()),
        "inplace.png": (server.url, ("--inplace",)),
        "partial-dir.jpg": (server.url, ("--partial-dir=.rsync-partial",)),
        "left-behind.png": (inbox, ()),
        "local-inplace.jpg": (inbox, ("--inplace",)),
    }
    in_place = {"inplace.png", "local-inplace.jpg"}
    running = {}
    for name, (target, options) in clients.items():
        data = uploads.expect(name, album.jpeg(4) if name.endswith("jpg") else album.png(4))
        source = programs.file(name, data)
        running[name] = programs.start(server.rsync, "-t", "--bwlimit=800", *options, source, target)
    for name, client in running.items():
        uploads.wait_for_part(name, client)
        client.kill()
    wait_until(lambda: ".rsync-partial/partial-dir.jpg" in names_below(uploads), "the daemon to keep the part")
    for name in in_place:
        uploads.wait_for_doubts(name)
    left = [name for name in names_below(uploads) if name.startswith(".left-behind.png.")]
    assert len(left) == 1, "rsync was killed: nobody tidies up"
    uploads.leave_alone(left[0])
    uploads.expect_sentinel(album.png(1))
    for name, (target, options) in clients.items():
        programs.run(server.rsync, "-t", *options, programs.folder / name, target)
    wait_until(lambda: ".rsync-partial/partial-dir.jpg" not in names_below(uploads), "the part to be used")
    uploads.finish(interrupted=in_place)
