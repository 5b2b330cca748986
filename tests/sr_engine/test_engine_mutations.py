"""Damaged pictures through real engines: each gets one answer in time, and sound ones come out right.

What thousands of them do to a watcher and its memory is what tests/hostile/test_fuzzed_pictures.py looks at.
"""

import io
import os
import sys
import threading
import time

import cv2
import msgspec
import numpy as np
import pytest
from mutations import originals, variants

from sr_engine.formats.decoding import decode
from sr_engine.headers import HeaderError, Kind, read_header
from sr_engine.protocol import (
    Bye,
    Code,
    Done,
    End,
    Failed,
    Fault,
    Limits,
    Started,
    Upscale,
    decode_path,
    encode_path,
)

FILES = originals()
FAMILIES = ("jpeg", "png", "webp", "tiff", "bmp", "avif", "jpeg 2000", "gif", "heic")
EACH = 25
# A variant that claims more is refused; so it is the decoders, not the network, that this test keeps busy.
LIMITS = Limits(pixels=30_000, memory_bytes=600_000_000)
# What an engine may take at all, lest a bomb take the machine down; threads' stacks and reserves count too.
ADDRESSES_KB = 6_000_000
PATIENCE = 5.0
HANGS = 100.0


def family(name):
    return {
        file: data
        for file, data in FILES.items()
        if file.startswith(name) and (name, file[:9]) != ("jpeg", "jpeg 2000")
    }


class Answers:
    """What became of numbered pictures; an engine that dies is replaced, as the watcher does.

    Attributes:
        events: the last event of each.
        killers: numbers of those that took an engine with them when they were alone in it.
        slowest: seconds between two events, and the number that the second of them was about.
    """

    def __init__(self, converse, folder, pictures):
        self.events, self.killers, self.slowest = {}, [], (0.0, -1)
        self._converse, self._folder = converse, folder
        for number, data in enumerate(pictures):
            (folder / f"{number}").write_bytes(data)
        left = list(range(len(pictures)))
        while left:
            suspects = self._converse_about(left)
            for number in suspects:
                if self._converse_about([number]):
                    self.killers.append(number)
            left = [number for number in left if number not in self.events and number not in self.killers]

    def _converse_about(self, numbers):
        """Those that were begun and never answered because the engine died."""
        before = ["sh", "-c", f'ulimit -v {ADDRESSES_KB}; exec "$@"', "sh"] if sys.platform == "linux" else []
        engine = self._converse(
            "--runtime",
            "opencv",
            "--limits",
            msgspec.json.encode(LIMITS).decode(),
            before=before,
            environment={"OPENBLAS_NUM_THREADS": "1"},
        )
        try:
            for number in numbers:
                paths = (encode_path(os.fspath(self._folder / name)) for name in (f"{number}", f"{number}-out"))
                engine.say(Upscale(number, *paths))
            engine.say(End())
        except BrokenPipeError:
            pass
        watchdog = threading.Timer(HANGS, engine.process.kill)
        watchdog.start()
        begun = set()
        last = time.monotonic()
        while (event := engine.hear()) is not None and not isinstance(event, Bye):
            last, waited = time.monotonic(), time.monotonic() - last
            if isinstance(event, Started):
                begun.add(event.id)
            elif isinstance(event, Done | Failed):
                assert event.id in begun, event
                assert event.id not in self.events, "a second answer"
                self.events[event.id] = event
                self.slowest = max(self.slowest, (waited, event.id))
        watchdog.cancel()
        if event is None:
            assert begun - self.events.keys(), f"the engine died without a picture to blame: {engine.log()}"
            return sorted(begun - self.events.keys())
        assert (event.pictures, event.failed) == (
            len(numbers),
            sum(isinstance(self.events[number], Failed) for number in numbers),
        )
        engine.process.stdin.close()
        assert engine.process.wait(30) == 0
        assert "Traceback" not in engine.log()
        return []


def check_result(done, data, result, name):
    """Whether it is of three times the size that the header claimed, or that size turned."""
    header = read_header(io.BytesIO(data))
    assert sorted((done.width, done.height)) == sorted((3 * header.width, 3 * header.height)), name
    pages = decode(result)
    assert (pages[0].width, pages[0].height) == (done.width, done.height), name
    assert len(pages) == header.pages, name
    for page, sides in zip(pages[1:], header.further, strict=True):
        assert sorted((page.width, page.height)) == sorted(3 * side for side in sides), name


def check_original(name, data, result):
    """Whether the result shows the original."""
    before, shown = (
        np.atleast_3d(page.colour) / np.iinfo(page.colour.dtype).max for page in (decode(data)[0], decode(result)[0])
    )
    small = np.atleast_3d(cv2.resize(shown, before.shape[1::-1], interpolation=cv2.INTER_AREA))
    assert np.abs(small - before).mean() < 0.05, name  # grey may have become three equal channels


@pytest.mark.parametrize("kind", FAMILIES)
def test_every_variant_is_answered_once(converse, tmp_path, kind):
    files = family(kind)
    made = [(name, data, name) for name, data in files.items()]
    made += [(name, data, "") for name, data in variants(files, EACH, seed=len(kind))]
    # What one kind begins another goes on with.
    made += [(name, data, "") for name, data in variants(FILES, EACH // 4, seed=100 + len(kind))]
    # The originals are spread among the variants.
    made.sort(key=lambda entry: len(entry[1]) % 101)
    answers = Answers(converse, tmp_path, [data for _, data, _ in made])
    assert [made[number][0] for number in answers.killers] == []
    assert sorted(answers.events) == list(range(len(made)))
    waited, number = answers.slowest
    assert waited < PATIENCE, f"{waited:.1f} s for {made[number][0]}"
    for number, event in answers.events.items():
        name, data, original = made[number]
        if isinstance(event, Failed):
            assert not original, f"{original}: {event.message}"
            assert event.fault is Fault.PICTURE, f"{name}: {event.message}"
            assert event.code in (Code.UNDECODABLE, Code.UNSUPPORTED, Code.TOO_LARGE), f"{name}: {event.message}"
            assert ": " in event.message, "it says what to do"
            assert not event.retryable
            continue
        with open(decode_path(event.target), "rb") as file:
            result = file.read()
        check_result(event, data, result, name)
        if original:
            check_original(original, data, result)
    assert len([path for path in tmp_path.iterdir() if "-out" in path.name]) == sum(
        isinstance(event, Done) for event in answers.events.values()
    )


def test_the_corpus_is_of_every_kind_and_its_variants_get_past_the_headers():
    kinds = set()
    for data in FILES.values():
        kinds.add(read_header(io.BytesIO(data)).kind)
    assert kinds == set(Kind)
    past = 0
    for _, data in variants(FILES, 300, seed=1):
        try:
            past += not read_header(io.BytesIO(data)).obstacle
        except HeaderError:
            continue
    assert past > 150
