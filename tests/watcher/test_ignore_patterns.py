"""The user's own patterns, beside the table of the ignore rules."""

import pytest

from watcher.files.ignore import IgnoreRules


@pytest.mark.parametrize(
    ("pattern", "left_alone", "taken"),
    [
        ("*.bmp", ["a.bmp", "2024/A.BMP", "old.bmp/photo.jpg"], ["a.bmp.jpg", "bmp.jpg"]),
        ("draft*", ["draft.jpg", "2024/Draft 2.jpg", "drafts/photo.jpg"], ["my draft.jpg"]),
        ("drafts/", ["drafts/photo.jpg", "2024/Drafts/x/photo.jpg"], ["drafts.jpg", "my drafts/photo.jpg"]),
        ("drafts/*.png", ["drafts/a.png"], ["drafts/a.jpg", "drafts/x/a.png", "2024/drafts/a.png"]),
        ("drafts/**/*.png", ["drafts/a.png", "drafts/x/y/a.png"], ["a.png", "2024/drafts/a.png"]),
        ("**/drafts/*.png", ["drafts/a.png", "x/y/drafts/a.png"], ["drafts/x/a.png"]),
        ("drafts/**", ["drafts/a.png", "drafts/x/y/a.png"], ["drafts2/a.png"]),
        ("/old", ["old/photo.jpg"], ["2024/old/photo.jpg"]),
        ("/old.jpg", ["old.jpg"], ["2024/old.jpg"]),
        ("./old.jpg", ["old.jpg"], ["cold.jpg"]),
        ("2024/01/", ["2024/01/a.jpg", "2024/01/x/a.jpg"], ["2024/011/a.jpg", "x/2024/01/a.jpg"]),
        ("IMG_?.jpg", ["IMG_1.jpg", "img_é.jpg"], ["IMG_12.jpg", "IMG_.jpg"]),
        ("[ab]*.jpg", ["a1.jpg", "B2.jpg"], ["c.jpg"]),
        ("[!A-M]*.jpg", ["zoo.jpg", "1.jpg"], ["air.jpg", "May.jpg"]),
        ("[[]1[]]*", ["[1] a.jpg"], ["1 a.jpg"]),
        ("a[*].jpg", ["a*.jpg"], ["ab.jpg"]),
        ("a[--0&&~~||].jpg", ["a-.jpg", "a~.jpg", "a..jpg"], ["ab.jpg"]),
        ("a[b.jpg", ["a[b.jpg"], ["ab.jpg"]),
        ("<draft>*", ["<draft> a.jpg"], ["draft a.jpg"]),
        ("#*", ["#1.jpg"], ["1.jpg"]),
        ("a+(b).jpg", ["a+(b).jpg"], ["aab.jpg"]),
        ("Entwürfe/", ["ENTWÜRFE/a.jpg", "Entwu\u0308rfe/a.jpg"], ["Entwurfe/a.jpg"]),
        ("*é.jpg", ["caf\u0065\u0301.jpg", "caf\u00e9.jpg"], ["cafe.jpg"]),
    ],
)
def test_user_patterns(pattern: str, left_alone: list[str], taken: list[str]) -> None:
    rules = IgnoreRules([pattern])
    for path in left_alone:
        assert rules.reason(path) == f'your pattern "{pattern}"', path
    for path in taken:
        assert rules.reason(path) is None, path


def test_a_pattern_for_folders_is_not_for_files() -> None:
    rules = IgnoreRules(["drafts.jpg/"])
    assert rules.reason("drafts.jpg") is None
    assert rules.folder_reason("drafts.jpg") == 'your pattern "drafts.jpg/"'


def test_user_patterns_add_to_the_table() -> None:
    rules = IgnoreRules(["*.bak.jpg", "drafts/"])
    assert rules.reason("._photo.jpg") == "macOS metadata"
    assert rules.reason("@eaDir/a.jpg") == "Synology thumbnails and metadata"
    assert rules.reason("photo.jpg") is None


def test_an_exclamation_mark_takes_names_after_all() -> None:
    rules = IgnoreRules(["!~*.jpg", "scan*", "!scan*.png", "scan 13.png", "!.hidden/"])
    assert rules.reason("~sunset~.jpg") is None
    assert rules.reason("~sunset~.png") == "temporary file (its name begins with ~)"
    assert rules.reason("scan 1.png") is None
    assert rules.reason("scan 1.jpg") == 'your pattern "scan*"'
    assert rules.reason("scan 13.png") == 'your pattern "scan 13.png"', "the last that matches decides"
    assert rules.reason(".hidden/a.jpg") is None
    assert rules.reason("@eaDir/~a.jpg") == "Synology thumbnails and metadata"
    assert IgnoreRules(["!*.txt"]).reason("notes.txt") == "not a picture (.txt)"


def test_our_own_files_are_never_taken() -> None:
    rules = IgnoreRules(["!*", "!.*", "!.dropscale*"])
    assert rules.reason(".photo.jpg") is None
    assert rules.reason(".dropscale-photo.jpg") == "dropscale's own file"
    assert rules.reason(".dropscale-stage/photo.jpg") == "dropscale's own file"


@pytest.mark.parametrize("pattern", ["", "/", "!", "!/", "./", "[z-a].jpg", "[].jpg"])
def test_patterns_that_cannot_work_are_refused(pattern: str) -> None:
    with pytest.raises(ValueError, match="ignore pattern") as raised:
        IgnoreRules([pattern])
    assert f'"{pattern}"' in str(raised.value)
