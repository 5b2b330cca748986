"""Files of odd names or kinds, or that this user may not touch: done, left alone or waiting, and status says it."""

import json
import os
import shutil
import stat
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from harness import HASTY_STUB, Site, command, wait_until
from outcomes import wait_done
from promise import Promise


@pytest.fixture
def hasty(make_site: Callable[..., Site]) -> Site:
    return make_site(**HASTY_STUB)


@pytest.fixture
def hasty_apart(make_site: Callable[..., Site], other_filesystem: Path) -> Site:
    """The archive is on another file system."""
    site = make_site(**HASTY_STUB, folders={"archive": str(other_filesystem / "archive")})
    site.archive.rmdir()
    site.archive = other_filesystem / "archive"
    site.archive.mkdir()
    return site


@pytest.fixture(params=["hasty", "hasty_apart"])
def either(request: pytest.FixtureRequest) -> Site:
    site: Site = request.getfixturevalue(request.param)
    return site


def whys(site: Site, kind: str) -> dict[str, str]:
    return {entry["path"]: entry["why"] for entry in site.status()[kind]}


TAKEN = [
    "x~1234abcd.png",  # as we name what finds its name taken
    "x~1234abcd-2.png",
    "x.png",
    "sub~folder/x.png",
    "recovered.png",
    "a.png.reason.txt.png",
    "a.reason.png",
    "trailing dots....png",
    "folder with dots.../ folder /x.png",
    "-/--.png",
    "%s %n {} {0} {name!r} $(x) `x`.png",
    "\t.png",
    "\x01\x7f.png",
    "con.png",
    "/".join(["deep"] * 30) + "/x.png",
    "/".join(["l" * 200] * 12) + "/long.png",  # some 2,600 bytes, of the 4,096 that a path may have
]
LEFT_ALONE = {
    ".png": "hidden file",
    "..png": "hidden file",
    "a.png.reason.txt": "not a picture (.txt)",
    "a.png.": "not a picture (no extension)",
    "a.png ": "not a picture (.png )",
    "png": "not a picture (no extension)",
    "-rf": "not a picture (no extension)",
    ".dropscale-1-0123456789abcdef.part": "dropscale's own file",
    ".dropscale-staging/1/1.png": "dropscale's own file",
}


def test_names_like_our_own_and_other_odd_ones_are_taken_or_left_alone_and_shown(hasty: Site) -> None:
    site = hasty
    running = site.start()  # a new ledger sweeps up what a lost one left; these come later
    promise = Promise(site)
    for number, name in enumerate(TAKEN):
        promise.drop(name, b"UNSUPPORTED %d" % number if name == "x.png" else b"picture %d" % number)
    for name in LEFT_ALONE:
        site.drop(name, b"left alone")
    wait_done(site, but=LEFT_ALONE)
    ignored = whys(site, "ignored")
    assert ignored == {name: why for name, why in LEFT_ALONE.items() if not name.startswith(".dropscale-staging")}
    assert site.status()["waiting"] == []
    for name in LEFT_ALONE:
        (site.inbox / name).unlink()
    shutil.rmtree(site.inbox / ".dropscale-staging")
    promise.check_end({"x.png"})
    assert running.stop() == 0


def test_links_within_the_inbox_and_devices_are_left_alone_and_shown(hasty: Site) -> None:
    site = hasty
    promise = Promise(site)
    promise.drop("album/real.png", b"a picture")
    (site.inbox / "link.png").symlink_to(Path("album", "real.png"))
    (site.inbox / "album" / "link to the other.png").symlink_to(site.inbox / "link.png")
    (site.inbox / "linked album").symlink_to("album")
    expected = {"link.png", "album/link to the other.png", "linked album"}
    try:
        os.mknod(site.inbox / "null.png", 0o644 | stat.S_IFCHR, os.makedev(1, 3))
        expected.add("null.png")
    except PermissionError:
        pass  # only root makes devices
    running = site.start()
    wait_until(lambda: site.names(site.archive) == {"album/real.png"}, "the picture", 20)
    wait_until(lambda: not site.query("SELECT id FROM batches WHERE finished_at IS NULL"), "the books to be closed")
    ignored = whys(site, "ignored")
    assert set(ignored) == expected
    assert {ignored[name] for name in expected - {"linked album"}} == {
        "not a regular file (a link, a pipe or the like)"
    }
    assert running.stop() == 0
    for name in expected:
        (site.inbox / name).unlink()
    promise.check_end()


def test_hard_links_of_one_picture_are_as_many_pictures(either: Site) -> None:
    """Two in the inbox, and one in the user's own album, which stays; the move of one touches the others' ctime."""
    site = either
    promise = Promise(site)
    promise.place(site.root / "album" / "mine.png", b"a picture")
    for name in ("a.png", "sub/b.png"):
        promise.originals[name] = b"a picture"
        (site.inbox / name).parent.mkdir(exist_ok=True)
        os.link(site.root / "album" / "mine.png", site.inbox / name)
    for _ in range(3):
        done = site.once()
        assert done.returncode == 0, done.stderr
        promise.check_now()
        if not site.names(site.inbox):
            break
    promise.check_end()
    assert site.upscaled() == [1]


# What this user may not do


def without_powers() -> list[str]:
    """The command, beneath what takes root's powers over modes; other users have none."""
    if os.geteuid() != 0:
        return [command()]
    give_up = ["setpriv", "--bounding-set=-dac_override,-dac_read_search"]
    if shutil.which("setpriv") is None or subprocess.run([*give_up, "true"], check=False).returncode != 0:
        pytest.skip("root cannot give up its powers here")
    return [*give_up, command()]


@pytest.fixture
def powerless(hasty: Site) -> Iterator[Site]:
    hasty.command = without_powers()
    yield hasty
    for folder in (hasty.inbox, hasty.outbox, hasty.archive, hasty.failed):
        folder.chmod(0o755)
        for path in folder.rglob("*"):
            path.chmod(0o755)


def shown(site: Site) -> dict[str, str]:
    """What status, with the same powers, says of each picture that has not come to its end."""
    words = [*site.command, "status", "--json", "--config", str(site.config_path)]
    report = json.loads(subprocess.run(words, env=site.environment, check=True, capture_output=True).stdout)
    return {entry["path"]: entry["why"] for entry in (*report["waiting"], *report["working"])}


FORBIDDEN = {
    "a picture": ("inbox/album/a.png", 0, "this user may not read it"),
    "the folder of a picture": ("inbox/album", 0o555, os.strerror(13)),
    "the outbox": ("outbox", 0o555, os.strerror(13)),
    "a folder of the outbox": ("outbox/album", 0o555, os.strerror(13)),
    "the archive": ("archive", 0o555, os.strerror(13)),
    "a folder of the archive": ("archive/album", 0o555, os.strerror(13)),
    "the failed ones": ("failed", 0o555, os.strerror(13)),
}
KEY = {"a picture", "the archive"}


@pytest.mark.parametrize(
    "what", [what if what in KEY else pytest.param(what, marks=pytest.mark.slow) for what in FORBIDDEN]
)
def test_what_this_user_may_not_touch_waits_and_is_done_once_he_may(powerless: Site, what: str) -> None:
    """Without a restart, and though no event tells of a changed mode."""
    site = powerless
    promise = Promise(site)
    running = site.start()
    for key in ("outbox", "archive"):
        (site.root / key / "album").mkdir()
    path, mode, why = FORBIDDEN[what]
    says = "UNSUPPORTED " if what == "the failed ones" else ""
    promise.originals["album/a.png"] = f"{says}a picture".encode()
    (site.root / "coming").mkdir()
    (site.root / "coming" / "a.png").write_bytes(promise.originals["album/a.png"])
    if path.startswith("inbox"):
        (site.root / path.replace("inbox/album", "coming")).chmod(mode)
    else:
        (site.root / path).chmod(mode)
    (site.root / "coming").rename(site.inbox / "album")
    promise.drop("b.png", f"{says}another picture".encode())
    wait_until(lambda: any(why in each for each in shown(site).values()), f"{why} as the reason", 20)
    if path.startswith("inbox"):
        wait_until(lambda: "b.png" in site.names(site.archive), "the other picture, which nothing forbids")
    promise.check_now()
    (site.root / path).chmod(0o755)
    wait_done(site)
    promise.check_end(set(promise.originals) if says else None)
    assert running.stop() == 0


@pytest.mark.parametrize("closed", ["state", "state/watcher.lock"])
def test_who_may_not_look_into_the_state_folder_is_told_so_and_not_that_nobody_watches(
    powerless: Site, closed: str
) -> None:
    """A service has its state for itself; a person asks with another account."""
    running = powerless.start()
    place = powerless.root / closed
    mode = place.stat().st_mode
    place.chmod(0)
    try:
        for verb, code in (("health", 1), ("status", 3)):
            words = [*powerless.command, verb, "--config", str(powerless.config_path)]
            done = subprocess.run(words, check=False, capture_output=True, text=True, env=powerless.environment)
            said = done.stdout + done.stderr
            assert done.returncode == code, said
            assert f"{place} cannot be read by this user" in said
            assert "no watcher" not in said and "not running" not in said
    finally:
        place.chmod(mode)
    assert running.stop() == 0
