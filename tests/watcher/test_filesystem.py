import errno
import hashlib
import os
import subprocess
import sys
from itertools import islice
from pathlib import Path

import pytest

from watcher.files import filesystem
from watcher.files.filesystem import (
    copy_file,
    digest,
    fsync_folder,
    holds,
    look_at,
    make_folders,
    open_regular,
    publish,
    rename_noreplace,
    write_file,
    writer_present,
)
from watcher.files.names import candidate_names, display, hidden_name, longest_name

linux_only = pytest.mark.skipif(sys.platform != "linux", reason="leases are Linux's")
pytestmark = pytest.mark.usefixtures("no_sigio")


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def test_a_rename_never_overwrites(tmp_path: Path) -> None:
    source, target = tmp_path / "new", tmp_path / "old"
    source.write_bytes(b"new")
    target.write_bytes(b"old")
    with pytest.raises(FileExistsError):
        rename_noreplace(str(source), str(target))
    assert (source.read_bytes(), target.read_bytes()) == (b"new", b"old")
    target.unlink()
    rename_noreplace(str(source), str(target))
    assert target.read_bytes() == b"new" and not source.exists()


def test_a_rename_of_nothing_or_into_nothing_says_so(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        rename_noreplace(str(tmp_path / "absent"), str(tmp_path / "target"))
    (tmp_path / "a").write_bytes(b"a")
    with pytest.raises(FileNotFoundError):
        rename_noreplace(str(tmp_path / "a"), str(tmp_path / "no folder" / "a"))
    assert (tmp_path / "a").exists()


def test_names_that_are_not_utf8_are_renamed(tmp_path: Path) -> None:
    source = os.path.join(os.fsencode(tmp_path), b"\xff\xfe.png")
    Path(os.fsdecode(source)).write_bytes(b"x")
    rename_noreplace(os.fsdecode(source), os.fsdecode(source + b".moved"))
    assert os.listdir(os.fsencode(tmp_path)) == [b"\xff\xfe.png.moved"]


RACER = """
import sys
from watcher.files.filesystem import publish, _publish_by_link
how = {"rename": publish, "link": _publish_by_link}[sys.argv[1]]
folder, name = sys.argv[2:]
won = 0
sys.stdout.write("ready\\n"); sys.stdout.flush(); sys.stdin.readline()
for number in range(300):
    try:
        how(f"{folder}/{name}-{number}", f"{folder}/target-{number}")
        won += 1
    except FileExistsError:
        pass
print(won)
"""


@pytest.mark.parametrize("how", ["rename", "link"])
def test_of_two_processes_that_publish_the_same_name_one_wins_and_the_other_is_told(tmp_path: Path, how: str) -> None:
    for name in ("a", "b"):
        for number in range(300):
            (tmp_path / f"{name}-{number}").write_bytes(name.encode())
    racers = [
        subprocess.Popen(
            [sys.executable, "-c", RACER, how, str(tmp_path), name],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for name in ("a", "b")
    ]
    for racer in racers:
        assert racer.stdout is not None
        assert racer.stdout.readline() == "ready\n"
    won = [int(racer.communicate("go\n")[0]) for racer in racers]
    assert sum(won) == 300, "each name was taken exactly once"
    targets = [(tmp_path / f"target-{number}").read_bytes() for number in range(300)]
    assert [targets.count(b"a"), targets.count(b"b")] == won
    for name, wins in zip(("a", "b"), won, strict=True):
        assert len(list(tmp_path.glob(f"{name}-*"))) == 300 - wins, "the loser keeps its file"


def test_publishing_by_link_never_overwrites_and_leaves_one_name(tmp_path: Path) -> None:
    hidden, target = tmp_path / ".hidden", tmp_path / "target"
    hidden.write_bytes(b"new")
    target.write_bytes(b"old")
    with pytest.raises(FileExistsError):
        filesystem._publish_by_link(str(hidden), str(target))
    assert (hidden.read_bytes(), target.read_bytes()) == (b"new", b"old")
    target.unlink()
    filesystem._publish_by_link(str(hidden), str(target))
    assert target.read_bytes() == b"new" and os.listdir(tmp_path) == ["target"]
    assert target.stat().st_nlink == 1


def test_publishing_across_file_systems_says_so(tmp_path: Path, other_filesystem: Path) -> None:
    (tmp_path / "a").write_bytes(b"a")
    with pytest.raises(OSError) as caught:
        publish(str(tmp_path / "a"), str(other_filesystem / "a"))
    assert caught.value.errno == errno.EXDEV
    assert (tmp_path / "a").exists() and os.listdir(other_filesystem) == []


def test_a_copy_is_equal_in_content_mode_and_times(tmp_path: Path) -> None:
    source, target = tmp_path / "source", tmp_path / "target"
    data = os.urandom(3 << 20) + b"the end"
    source.write_bytes(data)
    source.chmod(0o640)
    os.utime(source, ns=(1_000_000_001, 1_600_000_000_123_456_789))
    target.write_bytes(b"an unfinished copy of ours")
    assert copy_file(str(source), str(target)) == sha256(data)
    assert target.read_bytes() == data
    assert target.stat().st_mtime_ns == 1_600_000_000_123_456_789
    assert target.stat().st_mode & 0o777 == 0o640


def test_a_copy_that_fails_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        copy_file(str(tmp_path / "absent"), str(tmp_path / "target"))
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(OSError):
        copy_file(str(tmp_path / "pipe"), str(tmp_path / "target"))
    (tmp_path / "a").write_bytes(b"a")
    with pytest.raises(FileNotFoundError):
        copy_file(str(tmp_path / "a"), str(tmp_path / "no folder" / "target"))
    assert sorted(os.listdir(tmp_path)) == ["a", "pipe"]


def test_a_copy_onto_a_full_disk_leaves_nothing(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"a" * 4096)
    done = subprocess.run(
        [
            sys.executable,
            "-c",
            "import resource, signal, sys; from watcher.files.filesystem import copy_file\n"
            "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
            "resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))\n"
            "copy_file(sys.argv[1], sys.argv[2])",
            str(tmp_path / "a"),
            str(tmp_path / "b"),
        ],
        check=False,
        capture_output=True,
        text=True,
    )
    assert "File too large" in done.stderr
    assert os.listdir(tmp_path) == ["a"]


def test_a_text_replaces_an_unfinished_one(tmp_path: Path) -> None:
    path = tmp_path / "text"
    path.write_text("half of a longer t")
    write_file(str(path), "whole\n")
    assert path.read_text() == "whole\n"


@pytest.mark.parametrize(
    "stem",
    ["a" * 251, "é" * 125, "画" * 83, "😀" * 62, "a" + "😀" * 62, "\udcff" * 251, "short"],
    ids=["ascii", "two bytes", "three bytes", "four bytes", "odd", "no UTF-8", "short"],
)
@pytest.mark.parametrize("longest", [255, 143])
def test_every_candidate_fits_keeps_its_extension_and_is_another(tmp_path: Path, stem: str, longest: int) -> None:
    names = list(islice(candidate_names(f"{stem}.png", "0123abcd", longest), 12))
    assert len(set(names)) == 12
    for name in names:
        encoded = os.fsencode(name)
        assert len(encoded) <= longest and name.endswith(".png")
        (tmp_path / name).write_bytes(b"")  # the file system takes it
        if not stem.startswith("\udcff"):
            encoded.decode("utf-8")  # no character was cut in two
    assert names[0] == f"{stem}.png" or len(os.fsencode(f"{stem}.png")) > longest


def test_candidates_are_tried_in_an_order_that_people_understand() -> None:
    assert list(islice(candidate_names("a.b.jpg", "0123abcd"), 4)) == [
        "a.b.jpg",
        "a.b~0123abcd.jpg",
        "a.b~0123abcd-2.jpg",
        "a.b~0123abcd-3.jpg",
    ]


def test_a_hidden_name_is_beside_the_file_and_short(tmp_path: Path) -> None:
    hidden = hidden_name(str(tmp_path / ("x" * 250 + ".png")), 7, "ab" * 32)
    assert os.path.dirname(hidden) == str(tmp_path)
    assert os.path.basename(hidden).startswith(".dropscale-") and len(os.path.basename(hidden)) < 60
    assert hidden != hidden_name(str(tmp_path / "x.png"), 8, "ab" * 32)


def test_the_longest_name_is_the_file_systems(tmp_path: Path) -> None:
    assert longest_name(str(tmp_path)) == os.pathconf(tmp_path, "PC_NAME_MAX")
    assert longest_name(str(tmp_path / "absent")) == 255


WRITER = "import sys; f = open(sys.argv[1], sys.argv[2]); print('open', flush=True); sys.stdin.readline()"


@linux_only
def test_a_writer_in_another_process_is_seen_until_it_closes(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    path.write_bytes(b"first half")
    assert writer_present(str(path)) is False
    with subprocess.Popen(
        [sys.executable, "-c", WRITER, str(path), "ab"], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as writer:
        assert writer.stdout is not None and writer.stdin is not None
        assert writer.stdout.readline() == b"open\n"
        assert writer_present(str(path)) is True
        writer.communicate(b"\n")
    assert writer_present(str(path)) is False


@linux_only
def test_a_reader_in_another_process_is_no_writer(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    path.write_bytes(b"all of it")
    with subprocess.Popen(
        [sys.executable, "-c", WRITER, str(path), "rb"], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as reader:
        assert reader.stdout is not None
        assert reader.stdout.readline() == b"open\n"
        assert writer_present(str(path)) is False
        reader.communicate(b"\n")


def test_a_writer_of_nothing_cannot_be_told(tmp_path: Path) -> None:
    assert writer_present(str(tmp_path / "absent")) is None


def test_pipes_links_and_folders_are_refused_and_never_waited_for(tmp_path: Path) -> None:
    (tmp_path / "real").write_bytes(b"x")
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "link").symlink_to("real")
    (tmp_path / "dangling").symlink_to("nowhere")
    (tmp_path / "folder").mkdir()
    for name in ("pipe", "link", "dangling", "folder"):
        path = str(tmp_path / name)
        assert look_at(path) is None
        with pytest.raises(OSError):
            digest(path)
        assert holds(path, sha256(b"x")) is False
    with open_regular(str(tmp_path / "real")) as file:
        assert file.read() == b"x"


def test_a_digest_is_of_the_content_with_the_identity_it_had(tmp_path: Path) -> None:
    path = tmp_path / "a"
    path.write_bytes(b"content")
    found = digest(str(path))
    assert found.sha256 == sha256(b"content")
    assert found.identity == look_at(str(path))
    assert holds(str(path), found.sha256) and not holds(str(path), sha256(b"another"))
    assert holds(str(tmp_path / "absent"), found.sha256) is False
    assert holds(str(path / "below a file"), found.sha256) is False


def test_a_renamed_file_is_known_again_and_a_rewritten_one_is_not(tmp_path: Path) -> None:
    path, moved = tmp_path / "a", tmp_path / "b"
    path.write_bytes(b"one")
    before = look_at(str(path))
    path.rename(moved)
    after = look_at(str(moved))
    assert before is not None and after is not None and after.same_after_rename(before)
    moved.write_bytes(b"two, longer")
    rewritten = look_at(str(moved))
    assert rewritten is not None and not rewritten.same_after_rename(before)


def test_folders_are_made_below_a_root_that_must_exist(tmp_path: Path) -> None:
    assert make_folders(str(tmp_path), "") == ""
    assert make_folders(str(tmp_path), "a/b/c") == "a/b/c"
    assert make_folders(str(tmp_path), "a/b/c") == "a/b/c"
    assert (tmp_path / "a/b/c").is_dir()
    (tmp_path / "a/file").write_bytes(b"in the way")
    beside = make_folders(str(tmp_path), "a/file/c")
    assert (tmp_path / beside).is_dir() and beside.startswith("a/file~"), "a file keeps its name"
    assert make_folders(str(tmp_path), "a/file/c") == beside
    for relative in ("", "a"):
        with pytest.raises(FileNotFoundError):
            make_folders(str(tmp_path / "unmounted"), relative)
    assert not (tmp_path / "unmounted").exists()
    fsync_folder(str(tmp_path / "a"))


@pytest.mark.parametrize(
    ("path", "shown"),
    [
        ("plain name.jpg", "plain name.jpg"),
        ("Größe 画.png", "Größe 画.png"),
        ("two\nlines\r.png", "two\\nlines\\r.png"),
        ("\x1b[31mred\x07.png", "\\x1b[31mred\\x07.png"),
        ("\udcff\udcfe.png", "\\xff\\xfe.png"),
        ("right\u202eto left.png", "right\\u202eto left.png"),
    ],
)
def test_a_hostile_name_is_shown_on_one_line(path: str, shown: str) -> None:
    assert display(path) == shown
    assert display(path).isprintable()
