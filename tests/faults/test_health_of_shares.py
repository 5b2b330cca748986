"""`dropscale health` where disks are full and shares are gone, or dead: those let everything wait that touches them."""

import re
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from enclosure import Enclosure
from harness import HASTY_STUB, Site, wait_until


def wait_healthy(site: Site) -> None:
    wait_until(lambda: site.run("health").returncode == 0, "the watcher to be healthy")


@pytest.mark.parametrize("folder", ["outbox", "state"])
def test_a_full_disk_is_told(enclose: Callable[..., Enclosure], folder: str) -> None:
    site = enclose()
    disk = getattr(site, folder)
    site.mount(disk, "size=1m")
    site.start()
    wait_healthy(site)
    filler = disk / "filler"
    with filler.open("wb", buffering=0) as file:
        for size in (4096, 1):
            while True:
                try:
                    file.write(b"x" * size)
                except OSError:
                    break
    done = site.run("health")
    assert done.returncode == 1
    assert re.search(rf"folders\.{folder}: .*: its disk is full", done.stdout), done.stdout
    filler.unlink()
    wait_healthy(site)


def test_a_share_that_is_not_mounted_any_more_is_told(enclose: Callable[..., Enclosure]) -> None:
    site = enclose()
    site.mount(site.outbox)
    site.start()
    wait_healthy(site)
    site.unmount(site.outbox)
    done = site.run("health")
    assert done.returncode == 1
    assert re.search(r"folders\.outbox: .*: its share is not mounted", done.stdout)


@pytest.fixture
def dead_share() -> Iterator[Callable[[Enclosure, Path], Callable[[], None]]]:
    """Mount a FUSE file system over a folder; what comes back stops its server: who looks into it then waits."""
    if shutil.which("bindfs") is None:
        pytest.skip("bindfs is needed for a share that can die")
    servers: list[subprocess.Popen[bytes]] = []

    def mount(site: Enclosure, folder: Path) -> Callable[[], None]:
        behind = site.root / "behind"
        behind.mkdir()
        enter = site.command[:4]
        words = [*enter, "bindfs", "-f", str(behind), str(site.inner(folder))]
        servers.append(subprocess.Popen(words, stderr=subprocess.DEVNULL))
        wait_until(folder.is_mount, "the share to be mounted", 10)
        return lambda: servers[0].send_signal(signal.SIGSTOP)

    yield mount
    for server in servers:
        server.kill()
        server.wait()


def test_a_dead_share_keeps_nobody_waiting(
    enclose: Callable[..., Enclosure], dead_share: Callable[[Enclosure, Path], Callable[[], None]]
) -> None:
    """The limit of `run` is what fails this test: without one, a look at the share never ends."""
    site = enclose()
    kill = dead_share(site, site.archive)
    site.start()
    wait_healthy(site)
    kill()
    done = site.run("health", timeout=30)
    assert done.returncode == 1
    assert re.search(r"no answer within 2 s while \w+", done.stdout), done.stdout


def test_metrics_on_a_dead_share_hold_up_neither_work_nor_stop(
    enclose: Callable[..., Enclosure], dead_share: Callable[[Enclosure, Path], Callable[[], None]]
) -> None:
    site = enclose(**HASTY_STUB, metrics={"textfile": "figures/out.prom", "textfile_seconds": 1})
    folder = site.inbox.parent / "figures"
    folder.mkdir()
    kill = dead_share(site, folder)
    running = site.start()
    wait_until((folder / "out.prom").exists, "the first file")
    kill()
    site.drop("a.png", b"a picture")
    wait_until(lambda: "a.png" in site.names(site.archive), "the picture")
    asked = time.monotonic()
    running.process.send_signal(signal.SIGTERM)
    wait_until(lambda: "stopped" in running.log(), "the watcher to be through", 20)
    assert time.monotonic() - asked < 20
