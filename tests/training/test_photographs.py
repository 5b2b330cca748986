"""What the networks are trained on: its list, and how it is fetched."""

import hashlib
import os
import re
import shutil
import struct
import subprocess
import sys
import zlib
from itertools import groupby
from pathlib import Path

import packages
import photographs
import pytest
from harness import ROOT
from packages import PackageTrouble
from photographs import Photograph

needs_dpkg = pytest.mark.skipif(shutil.which("dpkg-deb") is None, reason="dpkg-deb is Debian's")

FREE = {"public-domain", "CC0-1.0"}
CREDITED = {"BSD-2-Clause", "BSD-3-Clause", "Expat", "CC-BY-2.0", "CC-BY-3.0", "CC-BY-4.0"}
LISTED = photographs.load_manifest()


def test_manifest_holds_only_licences_that_ask_for_a_credit_at_most():
    assert {row.licence for row in LISTED} <= FREE | CREDITED
    assert [row.file for row in LISTED if row.licence in CREDITED and not row.credit] == []


def test_manifest_names_each_photograph_once():
    for column in ("file", "sha256"):
        values = [getattr(row, column) for row in LISTED]
        assert len(values) == len(set(values)), column
    assert [row.file for row in LISTED if "/" in row.file or row.file.startswith(".")] == []


def test_manifest_rows_are_whole():
    for row in LISTED:
        assert re.fullmatch(r"[0-9a-f]{64}", row.sha256), row.file
        assert row.downscale in range(1, 9), row.file
        assert min(row.width, row.height) // row.downscale >= 192, row.file
        assert row.release in ("bookworm", "trixie"), row.file
        assert row.package and row.version and not row.path.startswith("/"), row.file


def test_manifest_keeps_photographs_of_a_package_together():
    groups = [key for key, _ in groupby((row.package, row.version, row.release) for row in LISTED)]
    assert len(groups) == len({package for package, _, _ in groups})


def resource_file(version, entries):
    """Qt resources with one folder, `pictures`, and files of (name, content, compressed) in it."""
    names, contents, nodes = b"", b"", []

    def name(text):
        nonlocal names
        names += struct.pack(">HI", len(text), 0) + text.encode("utf-16-be")
        return len(names) - 6 - 2 * len(text)

    time = b"" if version == 1 else bytes(8)
    nodes.append(struct.pack(">IHII", 0, 2, 1, 1) + time)
    nodes.append(struct.pack(">IHII", name("pictures"), 2, len(entries), 2) + time)
    for label, content, compressed in entries:
        nodes.append(struct.pack(">IHHHI", name(label), int(compressed), 0, 0, len(contents)) + time)
        stored = struct.pack(">I", len(content)) + zlib.compress(content) if compressed else content
        contents += struct.pack(">I", len(stored)) + stored
    tree = b"".join(nodes)
    header = 20 if version < 3 else 24
    places = (header, header + len(tree), header + len(tree) + len(contents))
    return struct.pack(">4sIIII", b"qres", version, *places).ljust(header, b"\0") + tree + contents + names


@pytest.mark.parametrize("version", [1, 2, 3])
def test_resources_are_read(version, tmp_path):
    rcc = tmp_path / "some.rcc"
    rcc.write_bytes(resource_file(version, [("bee.webp", b"a bee", False), ("öwl.webp", b"an owl" * 9, True)]))
    assert packages.resources(str(rcc)) == {"/pictures/bee.webp": b"a bee", "/pictures/öwl.webp": b"an owl" * 9}


def test_other_files_are_no_resources(tmp_path):
    (tmp_path / "some.rcc").write_bytes(b"something else that is long enough")
    with pytest.raises(PackageTrouble, match=r"^some\.rcc holds no Qt resources$"):
        packages.resources(str(tmp_path / "some.rcc"))


def photograph(path="usr/share/bee.jpg", content=b"a bee"):
    sha256 = hashlib.sha256(content).hexdigest()
    name = os.path.basename(path)
    return Photograph(name, "bees", "1.0-1", "bookworm", path, "CC0-1.0", "", sha256, 1, 640, 480)


def build_package(folder, files):
    """A real `bees_1.0-1_all.deb` in `folder`, with these files by their paths."""
    root = folder / "root"
    control = b"Package: bees\nVersion: 1.0-1\nArchitecture: all\nMaintainer: a <a@b.c>\nDescription: bees\n"
    for path, content in {"DEBIAN/control": control, **files}.items():
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_bytes(content)
    subprocess.run(["dpkg-deb", "--build", root, folder / "bees_1.0-1_all.deb"], check=True, capture_output=True)
    shutil.rmtree(root)


@needs_dpkg
def test_photographs_are_taken_out_of_a_package(tmp_path, capsys):
    rcc = resource_file(3, [("owl.webp", b"an owl", True)])
    build_package(tmp_path, {"usr/share/bee.jpg": b"a bee", "usr/share/wasp.jpg": b"a wasp", "usr/share/some.rcc": rcc})
    wanted = [photograph(), photograph("usr/share/some.rcc:/pictures/owl.webp", b"an owl")]
    photographs.fetch(str(tmp_path), wanted)
    assert sorted(os.listdir(tmp_path)) == ["bee.jpg", "bees_1.0-1_all.deb", "owl.webp"]
    assert (tmp_path / "bee.jpg").read_bytes() == b"a bee"
    assert (tmp_path / "owl.webp").read_bytes() == b"an owl"
    assert capsys.readouterr().err == "bees 1.0-1: 2 fetched\n"


@needs_dpkg
def test_photograph_with_another_sha256_is_refused(tmp_path):
    build_package(tmp_path, {"usr/share/bee.jpg": b"a wasp"})
    with pytest.raises(PackageTrouble) as refused:
        photographs.fetch(str(tmp_path), [photograph()])
    expected, found = (hashlib.sha256(content).hexdigest() for content in (b"a bee", b"a wasp"))
    assert str(refused.value) == (
        f"bees 1.0-1: usr/share/bee.jpg is refused: sha256 {expected} was expected, it has {found}"
    )
    assert os.listdir(tmp_path) == ["bees_1.0-1_all.deb"]


@needs_dpkg
@pytest.mark.parametrize("path", ["usr/share/owl.jpg", "usr/share/owl.edj", "usr/share/bees.rcc:/pictures/owl.webp"])
def test_photograph_that_is_not_in_its_package(path, tmp_path):
    build_package(tmp_path, {"usr/share/bees.rcc": resource_file(3, [("bee.webp", b"a bee", False)])})
    with pytest.raises(PackageTrouble, match=f"^bees 1.0-1: there is no {path} in it$"):
        photographs.fetch(str(tmp_path), [photograph(path)])


@needs_dpkg
def test_damaged_package(tmp_path):
    (tmp_path / "bees_1.0-1_all.deb").write_bytes(b"no package")
    with pytest.raises(PackageTrouble, match=r"^bees 1\.0-1: dpkg-deb says: "):
        photographs.fetch(str(tmp_path), [photograph()])


@needs_dpkg
def test_photograph_that_was_changed_is_fetched_again(tmp_path):
    build_package(tmp_path, {"usr/share/bee.jpg": b"a bee"})
    (tmp_path / "bee.jpg").write_bytes(b"half a b")
    photographs.fetch(str(tmp_path), [photograph()])
    assert (tmp_path / "bee.jpg").read_bytes() == b"a bee"


def test_what_is_there_is_left_alone_and_needs_nothing(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("PATH", "")  # neither apt nor dpkg
    (tmp_path / "bee.jpg").write_bytes(b"a bee")
    before = (tmp_path / "bee.jpg").stat()
    photographs.fetch(str(tmp_path), [photograph()])
    after = (tmp_path / "bee.jpg").stat()
    assert (after.st_ino, after.st_mtime_ns) == (before.st_ino, before.st_mtime_ns)
    assert os.listdir(tmp_path) == ["bee.jpg"]
    assert capsys.readouterr().err == ""


def test_command_says_what_it_lacks(tmp_path):
    script = ROOT / "models" / "training" / "photographs.py"
    folder = tmp_path / "photographs"
    ran = subprocess.run(
        [sys.executable, script, folder], env={"PATH": ""}, capture_output=True, text=True, check=False
    )
    assert ran.returncode == 1
    first = LISTED[0]
    # Whether it is apt or Debian that is missing depends on the machine.
    assert ran.stderr.startswith(f"{first.package} {first.version}: th")
    assert f"put its .deb into {folder} or take the lines of {first.package} out of photographs.tsv" in ran.stderr
    assert len(ran.stderr.splitlines()) == 1
    assert list(Path(folder).iterdir()) == []
