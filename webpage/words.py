"""The page's languages. English is in templates and scripts; a catalogue says what each text is in another language."""

import functools
import json
import os
from collections.abc import Callable

from werkzeug.datastructures import LanguageAccept

from webpage.reasons import code_of

ENGLISH = "en"
_FOLDER = os.path.join(os.path.dirname(os.path.abspath(__file__)), "languages")
# What browsers call a language, and which of ours they get.
_ASKED = {"en": ENGLISH, "zh": "zh", "zh-CN": "zh", "zh-SG": "zh", "zh-Hans": "zh", "zh-Hans-CN": "zh", "zh-TW": "zh"}
TAGS = {ENGLISH: "en", "zh": "zh-Hans"}


def choose(accepted: LanguageAccept) -> str:
    """The language of ours that a browser likes best; English if it likes none."""
    return _ASKED[accepted.best_match(_ASKED) or ENGLISH]


@functools.cache
def catalogue(language: str) -> dict[str, str]:
    """What each English text is in a language; empty for English."""
    if language == ENGLISH:
        return {}
    with open(os.path.join(_FOLDER, f"{language}.json"), encoding="utf-8") as file:
        texts: dict[str, str] = json.load(file)
    return texts


def translator(language: str) -> Callable[..., str]:
    """A function that puts a text into a language and fills its {places}."""
    texts = catalogue(language)

    def translate(text: str, **places: object) -> str:
        return texts.get(text, text).format(**places) if places else texts.get(text, text)

    return translate


def reasons(language: str) -> Callable[[str], str]:
    """A function that says in a language which kind of reason a sentence is; empty in English, or if it is of none."""
    texts = catalogue(language)
    return lambda reason: texts.get(f"js:code:{code_of(reason)}", "")


def of_scripts(language: str) -> str:
    """A catalogue as JSON, to be put into a page for its scripts; `<` cannot end the element that it is in."""
    texts = {text: said for text, said in catalogue(language).items() if text.startswith("js:")}
    return json.dumps({text.removeprefix("js:"): said for text, said in texts.items()}, ensure_ascii=False).replace(
        "<", "\\u003c"
    )
