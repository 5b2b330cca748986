"""Counts as a person reads them."""

import pytest

from watcher.wording import count_of


@pytest.mark.parametrize(
    ("number", "noun", "text"),
    [
        (1, "picture", "one picture"),
        (0, "picture", "0 pictures"),
        (2, "batch", "2 batches"),
        (1000, "start", "1,000 starts"),
    ],
)
def test_counts(number: int, noun: str, text: str) -> None:
    assert count_of(number, noun) == text
