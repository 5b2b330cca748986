"""File names are bytes: each that a file system allows survives the way, and every report of it stays readable."""

import hashlib
import json
import os
import unicodedata
from collections.abc import Callable

import pytest
from harness import STUB_ENGINE, Site, photo, stub_result, wait_until

STUB = {"command": STUB_ENGINE}

NAMES = {
    "accents": "Übergröße à Noël.png",
    "chinese": "照片 二〇二六.png",
    "emoji": "🏖️ beach 👨‍👩‍👧.png",
    "right to left": "תמונה\u202e.png",
    "latin-1 bytes": os.fsdecode(b"caf\xe9 \xff\x80.png"),
    "newline": "two\nlines.png",
    "carriage return and escape": "a\r\x1b[31mred.png",
    "leading dash": "-rf.png",
    "only dashes": "--config.png",
    "spaces": "  leading and trailing  .png",
    "percent": "100%25 %s %(x)s {name}.png",
    "quotes": "a'b\"c`d$HOME\\e.png",
    "brackets": "[bold]b[/bold] (1).png",
    "wildcards": "a*b?.png",
    "two extensions": "a.tar.gz.png",
    "upper-case extension": "IMG_0001.PNG",
    "only an extension and a letter": "x.Png",
    "longest": "x" * 251 + ".png",
    "longest in characters of three bytes": "照" * 83 + ".png",
    "longest, not UTF-8": os.fsdecode(b"\xe9" * 251 + b".png"),
    "folder not UTF-8": os.fsdecode(b"caf\xe9/\xff\xfe/a.png"),
    "folder with newline": "a\nb/c\nd.png",
}


def short(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()[:8]


def test_every_odd_name_is_delivered_under_its_own_bytes_by_the_real_engine(site: Site) -> None:
    pictures = {name: photo(seed, 12, 8) for seed, name in enumerate(NAMES.values())}
    for name, data in pictures.items():
        site.drop(name, data)
    done = site.once()
    assert done.returncode == 0, done.stderr
    assert site.files(site.archive) == pictures
    results = site.files(site.outbox)
    assert set(results) == set(pictures)
    assert all(result.startswith(b"\x89PNG") for result in results.values())
    assert len(set(results.values())) == len(pictures)
    assert not site.names(site.inbox)
    assert not site.names(site.failed)


def test_every_odd_name_is_seen_by_events(stub_site: Site) -> None:
    site = stub_site
    site.start()
    pictures = {name: photo(seed, 12, 8) for seed, name in enumerate(NAMES.values())}
    for name, data in pictures.items():
        site.drop(name, data)
    wait_until(lambda: site.names(site.archive) == set(pictures), "all to be archived", 30)
    assert site.files(site.outbox) == {name: stub_result(data) for name, data in pictures.items()}
    assert site.status()["watcher"]["events_missed"] == 0


def test_a_name_in_two_normal_forms_is_two_pictures(stub_site: Site) -> None:
    """One is drawn like the other; macOS writes the second, everybody else the first."""
    site = stub_site
    composed, decomposed = (unicodedata.normalize(form, "Café.png") for form in ("NFC", "NFD"))
    site.drop(composed, photo(1))
    site.drop(decomposed, photo(2))
    if len(site.names(site.inbox)) < 2:
        pytest.skip("this file system takes both for one name")
    assert site.once().returncode == 0
    assert site.files(site.outbox) == {composed: stub_result(photo(1)), decomposed: stub_result(photo(2))}
    assert site.files(site.archive) == {composed: photo(1), decomposed: photo(2)}


def test_names_that_differ_in_case_are_two_pictures(stub_site: Site) -> None:
    site = stub_site
    site.drop("a.png", photo(1))
    site.drop("A.PNG", photo(2))
    if len(site.names(site.inbox)) < 2:
        pytest.skip("this file system takes both for one name")
    assert site.once().returncode == 0
    assert site.files(site.outbox) == {"a.png": stub_result(photo(1)), "A.PNG": stub_result(photo(2))}


def test_an_upper_case_extension_is_kept(site: Site) -> None:
    site.drop("DSC_0001.JPG", photo(1, extension=".jpg"))
    assert site.once().returncode == 0
    assert site.names(site.outbox) == {"DSC_0001.JPG"}
    assert site.files(site.outbox)["DSC_0001.JPG"].startswith(b"\xff\xd8")


def test_a_collision_of_longest_names_overwrites_nothing(stub_site: Site) -> None:
    site = stub_site
    names = ["x" * 251 + ".png", "照" * 83 + "ab.png", os.fsdecode(b"\xe9" * 251 + b".png")]
    pictures = [(name, photo(seed)) for seed, name in enumerate(names * 2)]
    for first in (0, 3):
        for name, data in pictures[first : first + 3]:
            assert len(os.fsencode(name)) == 255
            site.drop(name, data)
        assert site.once().returncode == 0
    archived, results = site.files(site.archive), site.files(site.outbox)
    assert len(archived) == len(results) == 6
    for name, data in pictures[:3]:
        assert archived.pop(name) == data
        assert results.pop(name) == stub_result(data)
    for name, data in pictures[3:]:
        (other,) = (found for found in archived if found.endswith(f"~{short(data)}.png"))
        assert archived[other] == data
        assert results[other] == stub_result(data)
        assert name.startswith(other.removesuffix(f"~{short(data)}.png"))
        if name.isprintable():
            os.fsencode(other).decode()  # no character was cut in two


def test_a_longest_name_that_fails_still_gets_its_reason_beside_it(stub_site: Site) -> None:
    site = stub_site
    name = "y" * 251 + ".png"
    site.drop(name, b"UNSUPPORTED")
    assert site.once().returncode == 1
    files = site.files(site.failed)
    assert len(files) == 2
    picture = next(found for found, data in files.items() if data == b"UNSUPPORTED")
    reason = files[picture + ".reason.txt"].decode()
    assert "such pictures are not handled" in reason
    assert site.run("retry").returncode == 0
    assert site.files(site.inbox) == {name: b"UNSUPPORTED"}


def test_a_result_of_another_kind_replaces_the_extension_of_odd_names(make_site: Callable[..., Site]) -> None:
    site = make_site(output={"format": "jpeg"})
    names = ["IMG.PNG", "a.b.png", os.fsdecode(b"caf\xe9.png"), "x" * 251 + ".png", "y" * 251 + ".bmp"]
    for seed, name in enumerate(names):
        site.drop(name, photo(seed, 12, 8, extension=os.path.splitext(name)[1].lower()))
    assert site.once().returncode == 0
    assert site.names(site.outbox) == {os.path.splitext(name)[0] + ".jpg" for name in names}
    assert site.names(site.archive) == set(names)


def test_status_of_odd_names_is_valid_json_and_one_line_each_for_people(stub_site: Site) -> None:
    """Waiting, ignored and failed ones."""
    site = stub_site
    for seed, name in enumerate(NAMES.values()):
        site.drop(name, b"UNSUPPORTED %d" % seed)
    assert site.once().returncode == 1
    for seed, name in enumerate(NAMES.values()):
        site.drop(name, photo(seed, 8, 8))
        site.drop(name[:-4] + ".txt", b"")
    report = site.status()
    assert len(report["waiting"]) == len(report["failed"]) == len(report["ignored"]) == len(NAMES)
    for kind in ("waiting", "failed", "ignored"):
        for entry in report[kind]:
            assert entry["path"].isprintable()
            assert entry["why"].isprintable()
    plain = site.run("status")
    assert plain.returncode == 0
    assert "\x1b" not in plain.stdout
    assert len(plain.stdout.splitlines()) == 1 + 4 + 2 + 3 * 21  # each list shows 20 and how many more there are


def test_every_json_log_line_of_odd_names_can_be_parsed(stub_site: Site) -> None:
    site = stub_site
    for seed, name in enumerate(NAMES.values()):
        site.drop(name, photo(seed, 8, 8))
        site.drop(f"bad {seed}/{os.path.basename(name)}", b"UNSUPPORTED %d" % seed)
    done = site.run("once", "--log-format", "json")
    assert done.returncode == 1
    lines = [json.loads(line) for line in done.stderr.splitlines()]
    events = [line["event"] for line in lines]
    assert events.count("delivered") == len(NAMES)
    assert events.count("failed") == len(NAMES)
    assert all(line["message"] for line in lines)


def test_every_plain_log_line_of_odd_names_is_one_line(stub_site: Site) -> None:
    site = stub_site
    for seed, name in enumerate(NAMES.values()):
        site.drop(name, photo(seed, 8, 8))
    done = site.once()
    assert done.returncode == 0
    delivered = [line for line in done.stderr.splitlines() if " -> " in line]
    assert len(delivered) == len(NAMES)
    assert all(line[2] == line[5] == ":" for line in done.stderr.splitlines()), "a line without its time"


def test_retry_and_upscale_take_odd_names_as_arguments(stub_site: Site) -> None:
    site = stub_site
    names = [name for name in NAMES.values() if "/" not in name and not name.startswith("-")]
    for seed, name in enumerate(names):
        site.drop(name, b"UNSUPPORTED %d" % seed)
    assert site.once().returncode == 1
    longest = {name for name in names if len(os.fsencode(name)) > 240}  # shortened, to make room for the reason
    done = site.run("retry", *(name for name in names if name not in longest))
    assert done.returncode == 0, done.stderr
    assert site.names(site.inbox) == set(names) - longest
    for name in site.names(site.inbox):
        (site.inbox / name).write_bytes(photo(1))
    done = site.run("upscale", *(f"inbox/{name}" for name in names if name not in longest), "-o", "results")
    assert done.returncode == 0, done.stderr
    assert len(site.names(site.root / "results")) == len(names) - len(longest)
