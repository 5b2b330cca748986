"""Folders that are renamed, removed or mounted over while a watcher runs, and come back."""

import os
import shutil
from collections.abc import Callable

import pytest
from enclosure import Enclosure
from harness import HASTY_STUB, Site, wait_until
from outcomes import wait_done, whys
from promise import Promise


def wait_paused(site: Site) -> None:
    wait_until(lambda: site.status()["watcher"]["watching"].startswith("paused"), "the watcher to notice", 15)


def drop(promise: Promise, names: str, says: str = "SLOW 0.1") -> None:
    for name in names:
        promise.drop(f"sub/{name}.png", f"picture {name} {says} ".encode())


@pytest.mark.parametrize("folder", ["outbox", pytest.param("archive", marks=pytest.mark.slow)])
def test_a_folder_that_is_renamed_away_in_the_middle_of_a_batch_and_comes_back(
    make_site: Callable[..., Site], folder: str
) -> None:
    """It is not made anew: a folder that is missing may be a share. What waits for it says so."""
    site = make_site(**HASTY_STUB)
    promise = Promise(site)
    running = site.start()
    drop(promise, "abcdef")
    there, away = getattr(site, folder), site.root / "away"
    wait_until(lambda: site.names(site.archive), "the batch to be in its middle")
    there.rename(away)
    setattr(site, folder, away)
    left = wait_until(lambda: whys(site), "the rest to wait")
    wait_until(lambda: all("not there" in why or "No such file" in why for why in whys(site).values()), "the reason")
    assert len(left) < 6
    assert not there.exists()
    promise.check_now()
    drop(promise, "gh")
    wait_until(lambda: len(whys(site)) > len(left), "those that were dropped meanwhile")
    away.rename(there)
    setattr(site, folder, there)
    wait_done(site)
    promise.check_end()
    assert running.stop() == 0


@pytest.mark.slow
def test_an_inbox_that_is_renamed_away_and_back_in_the_middle_of_a_batch(make_site: Callable[..., Site]) -> None:
    site = make_site(**HASTY_STUB)
    promise = Promise(site)
    running = site.start()
    drop(promise, "abcdef")
    there, away = site.inbox, site.root / "away"
    wait_until(lambda: site.names(site.archive), "the batch to be in its middle")
    there.rename(away)
    site.inbox = away
    wait_until(lambda: not site.engines(), "the batch to end")
    promise.check_now()
    drop(promise, "gh")
    wait_until(lambda: "is gone" in running.log(), "the watcher to notice", 15)
    promise.check_now()
    away.rename(there)
    site.inbox = there
    wait_done(site)
    promise.check_end()
    assert running.stop() == 0


@pytest.mark.slow
def test_an_inbox_that_another_file_system_is_mounted_over_while_it_is_watched(
    enclose: Callable[..., Enclosure],
) -> None:
    """What lies beneath is out of reach then, and what the new one holds is done; by events, not by a late scan."""
    site = enclose()
    promise, beneath = Promise(site), Promise(site)
    running = site.start()
    (site.inbox / "beneath.txt").touch()
    site.mount(site.inbox)
    wait_until(lambda: "is another folder now: native events" in running.log(), "the watcher to notice", 15)
    drop(promise, "ab")
    wait_done(site)
    promise.check_end()

    # It was a mount point: an empty folder in its place is a share that went away.
    site.unmount(site.inbox)
    wait_until(lambda: "its share is not mounted" in running.log(), "the watcher to notice", 15)
    wait_paused(site)
    drop(beneath, "c")
    site.mount(site.inbox)
    wait_until(lambda: running.log().count("the inbox") >= 3 and "is there:" in running.log(), "it to be back", 15)
    drop(promise, "de")
    wait_done(site)
    promise.check_end()
    assert running.stop() == 0
    site.unmount(site.inbox)
    assert site.names(site.inbox) == {"beneath.txt", "sub/c.png"}


def test_an_outbox_that_a_share_is_mounted_over_while_the_watcher_runs_is_missed_when_it_goes(
    enclose: Callable[..., Enclosure],
) -> None:
    """As after a start that was quicker than the network: results on the bare mount point would be hidden later."""
    site = enclose()
    promise = Promise(site)
    running = site.start()
    site.mount(site.outbox)
    drop(promise, "a")
    wait_done(site)
    keep = site.root / "kept"
    shutil.copytree(site.outbox, keep)
    site.unmount(site.outbox)
    promise.originals["sub/b.png"] = b"picture b"
    site.drop("sub/b.png", b"picture b")
    wait_until(lambda: "its share is not mounted" in whys(site).get("sub/b.png", ""), "the reason", 20)
    assert site.names(site.outbox) == set()
    assert running.stop() == 0
    refused = site.once()
    assert refused.returncode == 3 and "was a mount point, and its share is not mounted" in refused.stderr
    site.mount(site.outbox)
    shutil.copytree(keep, site.outbox, dirs_exist_ok=True)
    assert site.once().returncode == 0
    promise.check_end()


def test_an_inbox_whose_subfolders_come_and_go_while_it_is_looked_through(make_site: Callable[..., Site]) -> None:
    """Renamed, removed when empty, and made again under their old names: nothing of it stops the watcher."""
    site = make_site(**HASTY_STUB)
    promise = Promise(site)
    running = site.start()
    for number in range(40):
        folder = site.inbox / f"album {number % 4}" / "deep"
        folder.mkdir(parents=True, exist_ok=True)
        promise.drop(f"album {number % 4}/deep/{number}.png", b"picture %d" % number)
        empty = site.inbox / f"empty {number}"
        empty.mkdir()
        empty.rename(site.inbox / f"renamed {number}")
        os.rmdir(site.inbox / f"renamed {number}")
    wait_done(site)
    promise.check_end()
    assert site.status()["watcher"]["events_missed"] == 0
    assert running.stop() == 0
