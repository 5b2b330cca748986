"""Watching the inbox: it goes away and comes back, events are lost, sync clients write under names of their own."""

import shutil
import time
from collections.abc import Callable

from harness import STUB_ENGINE, Running, Site, photo, stub_result, wait_until

STUB = {"command": STUB_ENGINE}


def watching(site: Site) -> str:
    return str(site.status()["watcher"]["watching"])


def wait_paused(site: Site) -> None:
    wait_until(lambda: watching(site) == "paused: the inbox is gone", "the watcher to notice", 15)


def wait_watching(site: Site) -> None:
    wait_until(lambda: watching(site) == "yes", "the watcher to watch again", 15)


def wait_archived(site: Site, pictures: dict[str, bytes], patience: float = 30) -> None:
    """Until these, and no others, are delivered, each whole."""
    wait_until(lambda: set(pictures) <= site.names(site.archive), f"{set(pictures)} to be archived", patience)
    assert site.files(site.archive) == pictures
    results = {name: data for name, data in site.files(site.outbox).items() if not name.startswith(".")}
    assert results == {name: stub_result(data) for name, data in pictures.items()}
    assert not site.names(site.failed)


# The inbox goes away


SLOW = {f"slow {number}.png": f"SLOW 0.2 {number}".encode() for number in range(4)}


def rename_away(site: Site, running: Running) -> None:
    """In the middle of a batch."""
    engines = running.log().count("engine ready")
    for name, data in SLOW.items():
        site.drop(name, data)
    wait_until(lambda: running.log().count("engine ready") > engines, "the engine to work")
    site.inbox.rename(site.root / "away")


def rename_back(site: Site) -> None:
    wait_until(lambda: not site.engines(), "the batch to end")
    left, archived = site.files(site.root / "away"), site.files(site.archive)
    assert {**left, **archived} == {"before.png": photo(0), **SLOW}
    assert not left.keys() & archived.keys()
    (site.root / "away" / "meanwhile.png").write_bytes(photo(1))
    (site.root / "away").rename(site.inbox)


def remove(site: Site, _: Running) -> None:
    shutil.rmtree(site.inbox)


def create_again(site: Site) -> None:
    site.inbox.mkdir()
    site.drop("meanwhile.png", photo(1))


WAYS = [("renamed", rename_away, rename_back, SLOW), ("removed", remove, create_again, {})]


def test_an_inbox_that_goes_away_and_comes_back_is_watched_again(make_site: Callable[..., Site]) -> None:
    """What was in it is neither failed nor lost; what comes later is processed. By events, and by polling."""
    cases = []
    for name, leave, come_back, survivors in WAYS:
        for backend in ("native", "polling"):
            site = make_site(f"{name}, {backend}", engine=STUB, watch={"backend": backend})
            site.drop("before.png", photo(0))
            cases.append((site, site.start(), leave, come_back, survivors))
    for site, running, leave, _, _ in cases:
        wait_archived(site, {"before.png": photo(0)})
        leave(site, running)
    for site, _, _, come_back, _ in cases:
        wait_paused(site)
        come_back(site)
    for site, _, _, _, _ in cases:
        wait_watching(site)
        site.drop("below/after.png", photo(2))
    later = {"before.png": photo(0), "meanwhile.png": photo(1), "below/after.png": photo(2)}
    for site, _, _, _, survivors in cases:
        wait_archived(site, {**later, **survivors})
        expected = "polling (" if "polling" in site.root.name else "native events ("
        assert site.status()["watcher"]["backend"].startswith(expected)


def test_an_inbox_that_is_replaced_before_anybody_looks_is_watched_again(make_site: Callable[..., Site]) -> None:
    """As when a share is mounted over it: another folder under the same path, at no moment missing for long.

    A folder that is created right after another was removed often gets its inode number.
    """
    sites = [make_site(name, engine=STUB, watch={"poll_seconds": 0.3}) for name in ("renamed", "removed", "polled")]
    sites[2].environment["DROPSCALE_WATCH__BACKEND"] = "polling"
    for site in sites:
        site.start()
        if site is sites[1]:
            shutil.rmtree(site.inbox)
        else:
            site.inbox.rename(site.root / "old")
        site.inbox.mkdir()
        site.drop("new.png", photo(1))
    for site in sites:
        wait_archived(site, {"new.png": photo(1)})
        site.drop("newer.png", photo(2))
    for site in sites:
        wait_archived(site, {"new.png": photo(1), "newer.png": photo(2)})


def test_a_watcher_does_not_start_without_an_inbox_and_an_empty_one_is_no_trouble(stub_site: Site) -> None:
    """An emptied listing never means that the pictures are gone: what waits is still known when they come back."""
    site = stub_site
    site.drop("a.png", b"DISKFULL")
    assert site.once().returncode == 3
    (site.inbox / "a.png").rename(site.root / "a.png")
    assert site.once().returncode == 0
    (site.root / "a.png").rename(site.inbox / "a.png")
    (site.inbox / "a.png").write_bytes(photo(1))
    assert site.once().returncode == 0
    wait_archived(site, {"a.png": photo(1)})


# How it is watched


def test_polling_finds_what_comes_changes_and_is_moved_in(make_site: Callable[..., Site]) -> None:
    site = make_site(engine=STUB, watch={"backend": "polling"})
    running = site.start()
    assert "polling (watch.backend is polling)" in running.log()
    pictures = {"a.png": photo(1), "below/it/b.png": photo(2)}
    for name, data in pictures.items():
        site.drop(name, data)
    (site.root / "c.png").write_bytes(photo(3))
    (site.root / "c.png").rename(site.inbox / "c.png")
    wait_archived(site, {**pictures, "c.png": photo(3)})
    report = site.status()["watcher"]
    assert report["backend"].startswith("polling")
    assert report["events_missed"] == 0


def test_events_are_used_on_a_local_disk_and_cost_no_waiting_for_a_scan(stub_site: Site) -> None:
    """rescan_seconds is 300 here."""
    stub_site.start()
    assert stub_site.status()["watcher"]["backend"].startswith("native events (")
    stub_site.drop("a.png", photo(1))
    wait_archived(stub_site, {"a.png": photo(1)}, patience=10)


# Sync clients and downloaders: temporary names, then the final one

CLIENTS = {
    "Syncthing": (".syncthing.{}.tmp", "{}"),
    "Syncthing, on Windows": ("~syncthing~{}.tmp", "{}"),
    "Nextcloud": (".{}.~4f3a1b", "{}"),
    "Nextcloud server": ("{}.ocTransferId8675309.part", "{}"),
    "Dropbox": (".dropbox.cache/{}", "{}"),
    "rsync": (".{}.Xa91Bz", "{}"),
    "rsync --partial-dir": (".rsync-partial/{}", "{}"),
    "rsync --delay-updates": (".~tmp~/{}", "{}"),
    "rclone": ("{}.a1b2c3d4.partial", "{}"),
    "Synology Drive": (".SynologyWorkingDirectory/{}", "{}"),
    "Resilio Sync": ("{}.!sync", "{}"),
    "Google Drive": (".tmp.drivedownload/{}", "{}"),
    "Chrome": ("{}.crdownload", "{}"),
    "Firefox": ("{}.part", "{}"),
    "Safari": ("{}.download/{}", "{}"),
    "WinSCP": ("{}.filepart", "{}"),
    "Android": (".pending-1700000000-{}", "{}"),
    "a copy tool": ("{}.tmp", "{}"),
    "into a subfolder": ("album/.{}.Xa91Bz", "album/{}"),
}


def test_a_picture_under_a_temporary_name_is_taken_once_whole_under_its_final_name(
    make_site: Callable[..., Site],
) -> None:
    """Every client writes in pieces with pauses longer than settle_seconds, then renames."""
    sites = [make_site(backend, engine=STUB, watch={"backend": backend}) for backend in ("native", "polling")]
    starts = [site.start() for site in sites]
    pictures = {final.format(f"{client}.png"): photo(seed) for seed, (client, (_, final)) in enumerate(CLIENTS.items())}
    moves = {
        final.format(f"{client}.png"): temporary.replace("{}", f"{client}.png")
        for client, (temporary, final) in CLIENTS.items()
    }
    for piece in range(2):
        for site in sites:
            for name, data in pictures.items():
                path = site.inbox / moves[name]
                path.parent.mkdir(parents=True, exist_ok=True)
                half = len(data) // 2
                with path.open("ab") as file:
                    file.write(data[half:] if piece else data[:half])
        time.sleep(0.6)  # settle_seconds is 0.1, and so is the window
        for running in starts:
            assert "window closed" not in running.log(), "a temporary file was taken"
    for site in sites:
        assert site.status()["waiting"] == []
        for name, temporary in moves.items():
            (site.inbox / temporary).rename(site.inbox / name)
    for site in sites:
        wait_archived(site, pictures)
        wait_until(lambda site=site: sum(site.upscaled()) == len(pictures), "the engine to be booked")
        assert site.query("SELECT COUNT(*) FROM pictures") == [(len(pictures),)]
        assert not site.names(site.inbox)


METADATA = {
    "@eaDir/a.png/SYNOPHOTO_THUMB_XL.jpg": "Synology thumbnails and metadata",
    "album/@eaDir/a.png/SYNOPHOTO_THUMB_M.jpg": "Synology thumbnails and metadata",
    "#recycle/a.png": "Synology recycle bin",
    "#snapshot/a.png": "Synology snapshots",
    ".stversions/a~20260101-120000.png": "Syncthing old versions",
    ".dropbox.cache/a.png": "Dropbox cache",
    ".sync/Archive/a.png": "Resilio Sync metadata",
    ".@__thumb/a.jpg": "QNAP thumbnails",
    "@Recycle/a.png": "QNAP recycle bin",
    ".Trash-1000/files/a.png": "recycle bin",
    "$RECYCLE.BIN/a.png": "Windows recycle bin",
    ".Trashes/501/a.png": "macOS recycle bin",
    "__MACOSX/a.png": "macOS metadata from an archive",
    "._a.png": "macOS metadata",
    "album/._b.jpg": "macOS metadata",
    ".hidden/a.png": "hidden folder",
    ".hidden.png": "hidden file",
}
CONFLICTS = {
    "a.sync-conflict-20260102-030405-ABCDEFG.png": "Syncthing conflict copy",
    "a (conflicted copy 2026-01-02 030405).png": "Nextcloud conflict copy",
    "a (conflicted copy anna 2026-01-02 030405).png": "Nextcloud conflict copy",
    "a_conflict-20260102-030405.png": "ownCloud conflict copy",
    "a (Anna's conflicted copy 2026-01-02).png": "Dropbox conflict copy",
    "a_laptop_Jan-03-0901-2013_CaseConflict_1.png": "Synology Drive conflict copy",
}


def test_metadata_folders_and_conflict_copies_are_left_alone_and_shown_unless_hidden_in_a_folder(
    stub_site: Site,
) -> None:
    """By events, and by a scan."""
    site = stub_site
    running = site.start()
    left_alone = {name: photo(seed) for seed, name in enumerate([*METADATA, *CONFLICTS])}
    for name, data in left_alone.items():
        site.drop(name, data)
    site.drop("a.png", photo(1000))
    wait_archived(site, {"a.png": photo(1000)})
    assert running.stop() == 0
    site.drop("album/z.png", photo(1001))
    assert site.once().returncode == 0
    wait_archived(site, {"a.png": photo(1000), "album/z.png": photo(1001)})
    assert site.files(site.inbox) == left_alone
    report = site.status()
    ignored = {entry["path"]: entry["why"] for entry in report["ignored"]}
    for name, why in CONFLICTS.items():
        assert ignored[name] == why
    for name in ("._a.png", ".hidden.png", "album/._b.jpg"):
        assert ignored[name] == METADATA[name]
    assert all(METADATA.get(name, CONFLICTS.get(name)) == why for name, why in ignored.items())
    assert report["waiting"] == report["failed"] == []


def test_a_pattern_of_the_user_can_take_what_is_left_alone_and_leave_alone_what_is_taken(
    make_site: Callable[..., Site],
) -> None:
    site = make_site(engine=STUB, watch={"ignore": ["drafts/", "*.bmp", "!~*.png"]})
    for number, name in enumerate(["drafts/a.png", "a.bmp", "~b.png", "c.png"]):
        site.drop(name, photo(number))
    assert site.once().returncode == 0
    assert site.names(site.archive) == {"~b.png", "c.png"}
    assert site.names(site.inbox) == {"drafts/a.png", "a.bmp"}
