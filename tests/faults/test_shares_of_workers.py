"""A worker whose share is unmounted and mounted again while it waits for jobs."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from enclosure import Enclosure, needs_mounts
from harness import wait_until

pytest.importorskip("rq")

from machines import QueueSite, RedisServer
from test_queue_hostile import put


class MountedSite(QueueSite, Enclosure):
    """A site with workers, in a mount namespace of its own."""

    def view(self, folder: Path) -> Path:
        """A folder as it is seen from outside."""
        return self._view / folder.relative_to("/")

    def mount_share(self, folder: Path) -> None:
        self.mount(self.view(folder))
        (self.view(folder) / "file").write_text("it is not empty")


@pytest.fixture
def site(tmp_path: Path) -> Iterator[MountedSite]:
    needs_mounts()
    server = RedisServer()
    server.start()
    site = MountedSite(tmp_path / "site", server)
    yield site
    site.close()
    server.close()


def test_a_share_that_is_mounted_again_is_the_share(site: MountedSite) -> None:
    """NFS, SMB and FUSE get another number of their device when another share was mounted meanwhile."""
    share = site.root / "share"
    share.mkdir()
    (share / "below").write_text("what the share hides while it is mounted")
    site.mount_share(share)
    worker = site.worker(share=share)

    def is_taken(job: str) -> bool:
        return f"job {job} refused" in worker.log()

    put(site, b"first")
    wait_until(lambda: is_taken("first"), "the worker to have looked at the share")
    site.unmount(site.view(share))
    wait_until(lambda: "not mounted any more" in worker.log(), "the worker to miss it")
    site.mount(site.view(site.root / "another"))
    site.mount_share(share)
    for job in ("second", "third"):
        put(site, job.encode())
    wait_until(lambda: is_taken("third"), f"the worker to go on: {worker.log_path}")
