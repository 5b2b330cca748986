"""Uploads by HTTP: curl to a WebDAV server, rclone's."""

import pytest
from harness import wait_until
from servers import Programs, WebdavServer, need
from uploads import Album, Uploads

# rclone writes into the folder as the bytes come, or keeps them in a cache of its own until they are all there.
WAYS = {"direct": (), "cached": ("--vfs-cache-mode", "writes", "--vfs-write-back", "100ms")}


@pytest.mark.slow
def test_throttled_uploads_are_taken_whole(uploads: Uploads, album: Album, programs: Programs) -> None:
    curl = need("curl", "curl")
    clients = {}
    for way, options in WAYS.items():
        server = WebdavServer(programs, uploads.site.inbox, *options)
        for name, data in ((f"{way}.jpg", album.jpeg(2.5)), (f"{way}.png", album.png(2.5))):
            source = programs.file(name, uploads.expect(name, data))
            clients[name] = programs.start(curl, "-sSf", "--limit-rate", "900k", "-T", source, server.url)
    cached = [clients.pop(name) for name in list(clients) if name.startswith("cached")]
    uploads.stall(clients, album.png(1))
    for client in cached:
        client.wait()
    uploads.finish()


@pytest.mark.slow
def test_uploads_that_are_killed_and_repeated_are_taken_once(
    uploads: Uploads, album: Album, programs: Programs
) -> None:
    """However the server keeps what came before the line broke: it ends up under the final name."""
    curl = need("curl", "curl")
    servers = {f"{way}.jpg": WebdavServer(programs, uploads.site.inbox, *options) for way, options in WAYS.items()}
    clients = {}
    for name, server in servers.items():
        source = programs.file(name, uploads.expect(name, album.jpeg(4)))
        clients[name] = programs.start(curl, "-sSf", "--limit-rate", "1M", "-T", source, server.url)
    uploads.wait_for_part("direct.jpg", clients["direct.jpg"])
    for client in clients.values():
        client.kill()
    uploads.wait_for_doubts("direct.jpg")
    for name, server in servers.items():
        programs.run(curl, "-sSf", "-T", programs.folder / name, server.url)
    uploads.finish(interrupted=set(clients))


def test_many_at_once_are_taken_once_each(uploads: Uploads, album: Album, programs: Programs) -> None:
    curl, server = need("curl", "curl"), WebdavServer(programs, uploads.site.inbox)
    sources = []
    for number in range(10):
        name = f"{number}.jpg"
        sources.append(programs.file(name, uploads.expect(name, album.jpeg(1 if number else 20))))
    names = ",".join(str(source) for source in sources)
    programs.run(curl, "-sSf", "--parallel", "-T", f"{{{names}}}", server.url)
    wait_until(lambda: not uploads.site.names(uploads.site.inbox), "the inbox to be empty")
    uploads.finish()
