"""Both languages say everything: no text of a page or script is missing from the catalogue, and none is left over."""

import json
import re
import string
from pathlib import Path

import pytest
from harness import ROOT
from visits import Page

PAGE = ROOT / "webpage"
CHINESE = json.loads((PAGE / "languages" / "zh.json").read_text(encoding="utf-8"))


def texts_of_pages() -> set[str]:
    found = set()
    for path in (PAGE / "templates").glob("*.html"):
        text = path.read_text(encoding="utf-8")
        found |= {"GPU minutes"} if "_(use.unit)" in text else set()
        found |= {first or second for first, second in re.findall(r"""\b_\((?:"([^"]+)"|'([^']+)')""", text)}
    return found


def texts_of_scripts() -> set[str]:
    """Literals that are translated where they stand, and those that are chosen from a table first."""
    found = set()
    for path in (PAGE / "static").glob("*.js"):
        text = path.read_text(encoding="utf-8")
        found |= set(re.findall(r'(?<![A-Za-z.])t\("([^"]+)"', text))
        for table in re.findall(r"const (?:ENGINE|TITLES) = \{(.*?)\};", text, re.S):
            found |= set(re.findall(r'"([^"]*)"', table)) - {""}
        for table in re.findall(r"(?<![A-Za-z.])t\(\{([^}]*)\}\[", text):
            found |= set(re.findall(r'"([^"]+)"', table))
    return {f"js:{text}" for text in found}


# What the watcher says of files that wait, as far as it is translated; the rest is shown in English.
SOURCES = "".join((ROOT / "watcher" / name).read_text(encoding="utf-8") for name in ("status.py", "governor.py"))
REASONS = {text for text in CHINESE if f'"{text.removeprefix("js:")}"' in SOURCES}


def test_every_text_of_a_page_is_in_the_catalogue() -> None:
    assert len(texts_of_pages()) > 50
    assert texts_of_pages() - set(CHINESE) == set()


def test_every_text_of_a_script_is_in_the_catalogue() -> None:
    assert len(texts_of_scripts()) > 30
    assert texts_of_scripts() - set(CHINESE) == set()


def test_nothing_in_the_catalogue_is_left_over() -> None:
    assert set(CHINESE) - texts_of_pages() - texts_of_scripts() - REASONS == set()


@pytest.mark.parametrize("text", CHINESE)
def test_a_translation_has_the_same_places(text: str) -> None:
    def places(form: str) -> list[str]:
        return sorted(name for _, name, _, _ in string.Formatter().parse(form) if name)

    assert CHINESE[text]
    assert places(text.removeprefix("js:")) == places(CHINESE[text])


@pytest.mark.parametrize(
    ("accepted", "lang"),
    [
        ("zh-CN,zh;q=0.9,en;q=0.8", "zh-Hans"),
        ("zh", "zh-Hans"),
        ("zh-Hans-CN", "zh-Hans"),
        ("zh-TW", "zh-Hans"),
        ("en-GB,en;q=0.9,zh;q=0.1", "en"),
        ("de-DE,de", "en"),
        ("de, zh;q=0.5, en;q=0.4", "zh-Hans"),
        ("", "en"),
        ("nonsense;q=x,,,", "en"),
    ],
)
def test_the_browsers_language_is_taken(still: Page, accepted: str, lang: str) -> None:
    answer = still.visitor().get("/", Accept_Language=accepted)
    assert f'<html lang="{lang}">' in answer.text
    assert "Accept-Language" in answer.headers["Vary"]


def test_files_of_the_page_are_in_the_package() -> None:
    kinds = {path.suffix for path in PAGE.rglob("*") if path.is_file() and "__pycache__" not in path.parts}
    assert kinds == {".py", ".html", ".css", ".js", ".svg", ".json"}
    assert Path(PAGE / "languages" / "zh.json").exists()
