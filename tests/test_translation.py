"""README.zh-CN.md says what README.md says: the same headings, commands, tables and links, in the same order."""

import re

import pytest
from harness import ROOT

ENGLISH = (ROOT / "README.md").read_text(encoding="utf-8")
CHINESE = (ROOT / "README.zh-CN.md").read_text(encoding="utf-8")


def without_code(text: str) -> str:
    return re.sub(r"^```.*?^```", "", text, flags=re.M | re.S)


def headings(text: str) -> list[int]:
    return [len(marks) for marks in re.findall(r"^(#+) ", without_code(text), re.M)]


def blocks(text: str) -> list[tuple[str, list[str]]]:
    """Language and lines of each block of code; what is said in comments may be translated."""
    found = re.findall(r"^```(\w*)\n(.*?)^```", text, re.M | re.S)
    return [(name, [line.split("#")[0].rstrip() for line in body.splitlines()]) for name, body in found]


def tables(text: str) -> list[tuple[int, int]]:
    """Rows and columns of each table."""
    return [
        (len(rows), rows[0].count(" |")) for rows in map(str.splitlines, re.findall(r"(?:^\|.*\n)+", text + "\n", re.M))
    ]


def first_cells(text: str) -> list[str]:
    """Code in the first column of tables: commands, folders, models."""
    return [code for row in re.findall(r"^\|([^|]*)\|", text, re.M) for code in re.findall(r"`[^`]+`", row)]


def commands(text: str) -> list[str]:
    """Everything that one could type, and every key of the config, wherever it stands."""
    found = [" ".join(code.split()) for code in re.findall(r"`([^`]+)`", without_code(text))]
    return sorted(
        code for code in found if re.match(r"(dropscale|make|pip|apt-get|cp|systemctl|[a-z]+\.[a-z_]+)\b", code)
    )


def links(text: str) -> list[str]:
    return re.findall(r"\]\(([^)]+)\)", text)


@pytest.mark.parametrize("part", [headings, blocks, tables, first_cells, commands], ids=lambda part: part.__name__)
def test_both_have_the_same(part: object) -> None:
    assert callable(part)
    assert part(ENGLISH) == part(CHINESE)
    assert part(ENGLISH)


def test_both_lead_to_the_same_places_and_to_each_other() -> None:
    assert "README.zh-CN.md" in links(ENGLISH)
    assert "README.md" in links(CHINESE)
    assert sorted(set(links(ENGLISH)) - {"README.zh-CN.md"}) == sorted(set(links(CHINESE)) - {"README.md"})


def test_the_translation_is_chinese() -> None:
    text = without_code(CHINESE)
    for paragraph in re.split(r"\n\n+", text):
        prose = re.sub(r"`[^`]*`|\[[^\]]*\]\([^)]*\)|<[^>]*>|!\[.*?\]|^\|[-|]+\|$", "", paragraph, flags=re.M)
        if len(prose) > 80:
            assert len(re.findall(r"[\u4e00-\u9fff]", prose)) > len(prose) / 8, paragraph
