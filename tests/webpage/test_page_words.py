"""Both languages say everything: no text of a page or script is missing from the catalogue, and none is left over."""

import json
import re
import string
from pathlib import Path

import pytest
from harness import ROOT
from visits import Page, fill

from webpage import reasons

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
SOURCES = "".join(
    (ROOT / "watcher" / name).read_text(encoding="utf-8") for name in ("operation/status.py", "engine/governor.py")
)
REASONS = {text for text in CHINESE if f'"{text.removeprefix("js:")}"' in SOURCES}


# Codes of reasons and of refusals; most are shown to programs only.
PAGE_SOURCES = "".join(path.read_text(encoding="utf-8") for path in PAGE.glob("*.py"))
CODES = set(re.findall(r'(?:Refused|ApiError|_answer|_Told)\(\s*(?:\d+, )?"([a-z_]+)"', PAGE_SOURCES)) | {
    *(str(code) for code in reasons._TOLD),
}


def test_what_a_person_is_refused_with_is_told_in_chinese() -> None:
    told = {text.removeprefix("js:code:") for text in CHINESE if text.startswith("js:code:")}
    assert told <= CODES
    assert {str(code) for code in reasons._TOLD} <= told
    assert set(re.findall(r'Refused\("([a-z_]+)"', PAGE_SOURCES)) <= told


def literals(pattern: str) -> set[str]:
    """What the engine says where it raises; of texts with places in them, the whole literal."""
    found = set()
    for path in (ROOT / "sr_engine").rglob("*.py"):
        found |= set(re.findall(pattern, path.read_text(encoding="utf-8")))
    return found


@pytest.mark.parametrize(
    ("pattern", "code", "least"),
    [
        (r'_damaged\(\s*f?"([^"]+)"', "undecodable", 30),
        (r'"([^"]+ (?:is|are) not handled[^"]*)"', "unsupported", 10),
        (r'"(the network gave [^"]+)"', "upscale_failed", 2),
    ],
)
def test_the_engines_sentences_are_known_by_their_kind(pattern: str, code: str, least: int) -> None:
    sentences = literals(pattern)
    assert len(sentences) >= least
    assert {text for text in sentences if reasons.code_of(text) != code} == set()


@pytest.mark.parametrize(
    ("sentence", "code"),
    [
        (
            "90000 x 90000 pixels are more than 100 megapixels: cut the picture in parts, or raise limits.megapixels",
            "too_large",
        ),
        (
            "it needs more memory than the engine may hold (2 GB): cut it in parts, or raise limits.engine_megabytes",
            "out_of_memory",
        ),
        ("the engine was ended by SIGSEGV while it worked on this picture, 2 times", "engine_ended"),
        ("this is an SVG drawing", "unsupported"),
        ("HEIC pictures need one more package: pip install pillow-heif", "missing_package"),
        ("a sentence of tomorrow", ""),
        ("", ""),
    ],
)
def test_a_sentence_has_the_kind_of_its_remedy(sentence: str, code: str) -> None:
    assert reasons.code_of(sentence) == code


def test_a_failed_picture_says_why_in_chinese_and_what_the_engine_said(page: Page) -> None:
    fill(page.site, failed=1)
    page.site.execute("UPDATE pictures SET reason = 'the JPEG is cut off before its end: copy the picture again'")
    for path in ("/gallery?state=failed", "/pictures/1"):
        text = page.visitor().get(path, Accept_Language="zh-CN").text
        assert "请重新复制一份" in text
        assert "the JPEG is cut off before its end" in text
        assert "请" not in page.visitor().get(path).text
    assert page.visitor().get("/api/v1/pictures/1").json["code"] == "undecodable"


def test_what_the_watcher_says_of_a_file_has_the_forms_that_the_page_knows() -> None:
    said = "".join(
        (ROOT / "watcher" / f"{name}.py").read_text(encoding="utf-8")
        for name in ("operation/status", "engine/governor", "endings")
    )
    forms = (
        " (next try at {when})",
        " (next try: as soon as a watcher looks)",
        "held until {clock(",
        "the budget is used up: {use}",
        "cannot be decoded, perhaps unfinished: {reason}",
    )
    for form in forms:
        assert form in said, form


def test_every_text_of_a_page_is_in_the_catalogue() -> None:
    assert len(texts_of_pages()) > 50
    assert texts_of_pages() - set(CHINESE) == set()


def test_every_text_of_a_script_is_in_the_catalogue() -> None:
    assert len(texts_of_scripts()) > 30
    assert texts_of_scripts() - set(CHINESE) == set()


def test_nothing_in_the_catalogue_is_left_over() -> None:
    assert (
        set(CHINESE) - texts_of_pages() - texts_of_scripts() - REASONS - {f"js:code:{code}" for code in CODES} == set()
    )


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
