"""Shares that go away: real mounts (tmpfs), in a mount namespace of the test's own."""

import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from harness import QUICK, STUB_ENGINE, Running, Site, below, command, wait_until

UNSHARE = shutil.which("unshare")


class Shares:
    """A site whose folders can be mounted and unmounted: everything runs inside one mount namespace."""

    def __init__(self, site: Site) -> None:
        self.site = site
        assert UNSHARE is not None
        # `sleep` keeps the namespace; the other processes enter it
        self._keeper = subprocess.Popen([UNSHARE, "--mount", "sleep", "600"])
        self.inside = ["nsenter", "--mount", "--target", str(self._keeper.pid)]  # leaves the current folder, too
        own = os.readlink("/proc/self/ns/mnt")
        wait_until(lambda: os.readlink(f"/proc/{self._keeper.pid}/ns/mnt") != own, "the namespace", 10)

    def do(self, *words: str) -> str:
        done = subprocess.run([*self.inside, *words], capture_output=True, text=True, check=True)
        return done.stdout

    def mount(self, folder: Path) -> None:
        self.do("mount", "-t", "tmpfs", "share", str(folder))

    def unmount(self, folder: Path) -> None:
        self.do("umount", str(folder))

    def names(self, folder: Path) -> set[str]:
        return {name for name in self.do("ls", str(folder)).splitlines() if name}

    def drop(self, name: str, data: bytes) -> None:
        source = self.site.root / "source"
        source.write_bytes(data)
        self.do("cp", str(source), str(self.site.inbox / name))

    def dropscale(self, *words: str) -> "subprocess.CompletedProcess[str]":
        site = self.site
        return subprocess.run(
            [*self.inside, command(), *words],
            cwd=site.root,
            env={**site.environment, "DROPSCALE_CONFIG": str(site.config_path)},
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )

    def start(self) -> Running:
        log = self.site.root / "run.log"
        with log.open("wb") as output:
            process = subprocess.Popen(
                [*self.inside, command(), "run"],
                cwd=self.site.root,
                env={**self.site.environment, "DROPSCALE_CONFIG": str(self.site.config_path)},
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
            )
        running = Running(process, log)
        wait_until(lambda: "watching " in running.log() or process.poll() is not None, "the watcher to watch")
        assert process.poll() is None, running.log()
        return running

    def close(self) -> None:
        self._keeper.kill()
        self._keeper.wait()


@pytest.fixture
def shares(make_site: Callable[..., Site]) -> Iterator[Shares]:
    if UNSHARE is None or shutil.which("nsenter") is None:
        pytest.skip("unshare and nsenter are needed to mount without disturbing the machine")
    if subprocess.run([UNSHARE, "--mount", "true"], capture_output=True, check=False).returncode != 0:
        pytest.skip("this user may not make a mount namespace")
    found = Shares(make_site(engine={"command": STUB_ENGINE, **QUICK["engine"]}))
    yield found
    found.close()


def test_an_inbox_that_is_unmounted_pauses_and_is_taken_up_again(shares: Shares) -> None:
    site = shares.site
    shares.mount(site.inbox)
    running = shares.start()
    try:
        shares.unmount(site.inbox)
        wait_until(lambda: "is not mounted" in running.log(), "the watcher to notice", 15)
        site.drop("under.png", b"on the bare mount point")
        shares.mount(site.inbox)
        shares.drop("a.png", b"on the share")
        wait_until(lambda: "a.png" in shares.names(site.archive), "the share's picture", 30)
        assert "under.png" not in site.names(site.archive), "nothing may be taken from under a share"
        assert not site.names(site.failed)
    finally:
        assert running.stop() == 0


def test_pictures_wait_while_the_outbox_is_unmounted(shares: Shares) -> None:
    site = shares.site
    shares.mount(site.outbox)
    running = shares.start()
    try:
        shares.unmount(site.outbox)
        shares.drop("a.png", b"a picture")
        wait_until(lambda: "its share is not mounted" in running.log(), "the picture to wait", 15)
        assert not site.names(site.outbox), "a result on the bare mount point would be hidden by the next mount"
        shares.mount(site.outbox)
        wait_until(lambda: "a.png" in shares.names(site.archive), "the picture", 30)
        assert shares.names(site.outbox) == {"a.png"}
        assert not site.names(site.failed)
    finally:
        assert running.stop() == 0


def test_a_watcher_does_not_start_on_the_bare_mount_point_of_a_share(shares: Shares) -> None:
    site = shares.site
    shares.mount(site.outbox)
    assert shares.dropscale("once").returncode == 0
    shares.unmount(site.outbox)
    site.drop("a.png", b"a picture")
    refused = shares.dropscale("once")
    assert refused.returncode == 3
    assert "folders.outbox" in refused.stderr and "not mounted" in refused.stderr and "dropscale init" in refused.stderr
    assert site.names(site.inbox) == {"a.png"}
    assert shares.dropscale("init", str(site.root)).returncode == 0, (
        "this is how one says that it is a plain folder from now on"
    )
    assert shares.dropscale("once").returncode == 0
    assert site.names(site.outbox) == {"a.png"}


def test_one_folder_under_two_names_is_refused(shares: Shares) -> None:
    site = shares.site
    shares.do("mount", "--bind", str(site.inbox), str(site.outbox))
    refused = shares.dropscale("once")
    assert refused.returncode == 2
    assert "is the same folder as" in refused.stderr


@pytest.fixture
def far_side(shares: Shares) -> Path:
    """The inbox is a FUSE mount; what is written to this folder appears in it without an event, as on sshfs."""
    if shutil.which("bindfs") is None:
        pytest.skip("bindfs is needed for a file system whose changes raise no events")
    behind = shares.site.root / "behind"
    behind.mkdir()
    if subprocess.run([*shares.inside, "bindfs", str(behind), str(shares.site.inbox)], check=False).returncode != 0:
        pytest.skip("FUSE does not work here")
    return behind


def test_an_inbox_without_events_is_polled(shares: Shares, far_side: Path) -> None:
    running = shares.start()
    try:
        assert "polling (fuse" in running.log()
        (far_side / "sub").mkdir()
        (far_side / "sub" / "a.png").write_bytes(b"from another machine")
        wait_until(lambda: "sub/a.png" in shares.site.names(shares.site.archive), "the poll to find it", 15)
        wait_until(lambda: not any(path.suffix == ".png" for path in below(far_side)), "the original to move")
    finally:
        assert running.stop() == 0
        shares.unmount(shares.site.inbox)


def test_a_state_folder_without_sound_locks_is_refused(shares: Shares, far_side: Path) -> None:
    site = shares.site
    site.configure(folders={"inbox": "in", "state": "inbox/state"})
    (site.root / "in").mkdir()
    refused = shares.dropscale("once")
    shares.unmount(site.inbox)
    assert refused.returncode == 3
    assert "folders.state" in refused.stderr and "network file system" in refused.stderr
    assert "local disk" in refused.stderr
    assert not list(far_side.iterdir())
