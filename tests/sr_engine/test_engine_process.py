"""The process: one conversation, whatever is said or dropped. What it needs to start: test_engine_start.py."""

import hashlib
import os
import signal
import stat
import subprocess
import sys

import cv2
import numpy as np
import pytest
from engine_files import draw, png, ramp, written

from sr_engine.protocol import (
    Bye,
    Code,
    Done,
    End,
    Failed,
    Fault,
    Output,
    Progress,
    Ready,
    Started,
    Upscale,
    decode_path,
    encode_path,
)

posix = pytest.mark.skipif(os.name != "posix", reason="asks for POSIX")


def ask(number, source, target, **options):
    return Upscale(id=number, source=encode_path(os.fspath(source)), target=encode_path(os.fspath(target)), **options)


@pytest.fixture
def drop(tmp_path):
    """drop(name, bytes) -> the path of a new file."""

    def write(name, data):
        path = tmp_path / name
        path.write_bytes(data)
        return path

    return write


def only(heard, kind):
    (event,) = [event for event in heard if isinstance(event, kind)]
    return event


def test_a_conversation(converse, drop, tmp_path):
    source = written(".png", draw(40, 30))
    engine = converse("--threads", "1", "--runtime", "opencv")
    engine.say(ask(7, drop("a.jpg", source), tmp_path / "out"))
    heard, code = engine.finish()
    assert code == 0
    assert [type(event) for event in heard] == [Ready, Started, Started, Progress, Done, Bye]
    ready, announced, started, progress, done, bye = heard
    assert (announced.id, announced.width, announced.height) == (7, 0, 0)
    assert (ready.runtime, ready.device, ready.precision) == ("opencv", "cpu", "fp32")
    assert 0 < ready.load_seconds < 60
    assert (started.id, started.width, started.height) == (7, 30, 40)
    assert (progress.done, progress.total) == (1, 1)
    assert decode_path(done.target) == os.fspath(tmp_path / "out.png")
    result = (tmp_path / "out.png").read_bytes()
    assert done.source_sha256 == hashlib.sha256(source).hexdigest()
    assert done.result_sha256 == hashlib.sha256(result).hexdigest()
    assert (done.result_bytes, done.width, done.height) == (len(result), 90, 120)
    assert min(done.decode_seconds, done.upscale_seconds, done.encode_seconds) > 0
    assert done.peak_memory_bytes > 20e6 or os.name != "posix"
    assert (bye.pictures, bye.failed) == (1, 0)
    assert cv2.imread(os.fspath(tmp_path / "out.png")).shape == (120, 90, 3)
    assert engine.log() == ""


@posix
def test_started_without_stderr_it_ends_all_the_same(converse, tmp_path):
    engine = converse("--runtime", "opencv", before=["sh", "-c", 'exec "$@" 2>&-', "sh"])
    engine.say(ask(1, tmp_path / "gone", tmp_path / "out"))
    heard, code = engine.finish()
    assert code == 0
    assert only(heard, Failed).code is Code.UNREADABLE


def test_nothing_to_do(converse):
    heard, code = converse().finish()
    assert [type(event) for event in heard] == [Ready, Bye]
    assert code == 0


def test_a_bad_picture_amid_good_ones(converse, drop, tmp_path):
    good = written(".jpg", draw(20, 20))
    engine = converse()
    bad = {
        2: (good[:-30], Code.UNDECODABLE, "copy the picture again"),
        3: (b"", Code.UNDECODABLE, "empty"),
        4: (b"plain text", Code.UNDECODABLE, "not a picture"),
        5: (b"%PDF-1.7", Code.UNSUPPORTED, "PDF"),
        6: (png(60_000, 60_000, 8, 2, [b""]), Code.TOO_LARGE, "megapixels"),
    }
    engine.say(ask(1, drop("1", good), tmp_path / "out1"))
    for number, (data, _, _) in bad.items():
        engine.say(ask(number, drop(f"{number}.png", data), tmp_path / f"out{number}"))
    engine.say(ask(8, drop("8", good), tmp_path / "out8"))
    heard, code = engine.finish()
    assert code == 0
    assert {event.id for event in heard if isinstance(event, Started) and not event.width} == {1, *bad, 8}
    assert {event.id for event in heard if isinstance(event, Done)} == {1, 8}
    failures = {event.id: event for event in heard if isinstance(event, Failed)}
    assert set(failures) == set(bad)
    for number, (_, why, words) in bad.items():
        failed = failures[number]
        assert (failed.code, failed.fault, failed.retryable) == (why, Fault.PICTURE, False)
        assert words in failed.message
        assert failed.source_sha256 == hashlib.sha256(bad[number][0]).hexdigest()
    assert only(heard, Bye).failed == 5
    assert sorted(path.name for path in tmp_path.glob("out*")) == ["out1.jpg", "out8.jpg"]
    assert "Traceback" not in engine.log()


def test_the_output_options_are_obeyed(converse, drop, tmp_path):
    source = drop("a.png", written(".png", np.dstack([draw(20, 20), ramp(20, 20)])))
    engine = converse()
    engine.say(ask(1, source, tmp_path / "same"), ask(2, source, tmp_path / "as", output=Output("jpeg")))
    heard, _ = engine.finish()
    assert {decode_path(event.target)[-4:] for event in heard if isinstance(event, Done)} == {".png", ".jpg"}
    assert cv2.imread(os.fspath(tmp_path / "same.png"), cv2.IMREAD_UNCHANGED).shape == (60, 60, 4)


def test_a_name_that_is_not_text(converse, tmp_path):
    folder = os.fsencode(tmp_path)
    source = os.fsdecode(os.path.join(folder, b"caf\xe9 %41.png"))
    try:
        with open(source, "wb") as file:
            file.write(written(".png", draw(8, 9)))
    except OSError:
        pytest.skip("this filesystem takes text only")
    target = os.fsdecode(os.path.join(folder, b"caf\xe9"))
    engine = converse()
    engine.say(ask(1, source, target), ask(2, target + "gone", target + "2"))
    heard, code = engine.finish()
    assert code == 0
    assert decode_path(only(heard, Done).target) == target + ".png"
    assert os.path.exists(target + ".png")
    assert only(heard, Failed).code is Code.UNREADABLE


@posix
def test_only_regular_files_are_read(converse, drop, tmp_path):
    picture = drop("picture.png", written(".png", draw(8, 9)))
    (tmp_path / "link").symlink_to(picture)
    (tmp_path / "folder").mkdir()
    os.mkfifo(tmp_path / "pipe")
    engine = converse()
    for number, name in enumerate(("link", "folder", "pipe", "gone")):
        engine.say(ask(number, tmp_path / name, tmp_path / f"out{number}"))
    heard, code = engine.finish()
    assert code == 0
    failures = [event for event in heard if isinstance(event, Failed)]
    assert len(failures) == 4
    assert {(event.code, event.fault, event.retryable) for event in failures} == {
        (Code.UNREADABLE, Fault.ENVIRONMENT, True)
    }
    assert "symbolic link" in next(event.message for event in failures if event.id == 0)


def test_results_never_overwrite(converse, drop, tmp_path):
    picture = drop("picture.png", written(".png", draw(8, 9)))
    drop("taken.png", b"precious")
    engine = converse()
    engine.say(ask(1, picture, tmp_path / "taken"), ask(2, picture, tmp_path / "no folder" / "out"))
    heard, _ = engine.finish()
    failures = [event for event in heard if isinstance(event, Failed)]
    assert [(event.code, event.fault, event.retryable) for event in failures] == [
        (Code.UNWRITABLE, Fault.ENVIRONMENT, True)
    ] * 2
    assert (tmp_path / "taken.png").read_bytes() == b"precious"


@posix
def test_a_full_disk_leaves_nothing_behind(converse, drop, tmp_path):
    # A limit of 8 blocks (4 KiB) on the size of files stands for the disk: the write breaks off in the middle.
    engine = converse(before=["sh", "-c", 'ulimit -f 8; exec "$@"', "sh"])
    large, small = (drop(name, written(".png", draw(*sides))) for name, sides in (("l", (60, 60)), ("s", (5, 5))))
    engine.say(ask(1, large, tmp_path / "out1"), ask(2, small, tmp_path / "out2"))
    heard, code = engine.finish()
    assert code == 0
    failed = only(heard, Failed)
    assert (failed.id, failed.code, failed.fault, failed.retryable) == (1, Code.UNWRITABLE, Fault.ENVIRONMENT, True)
    assert [path.name for path in tmp_path.glob("out*")] == ["out2.png"]


@pytest.mark.skipif(sys.platform != "linux", reason="limits of address space hold on Linux")
def test_exhausted_memory_is_the_machines_fault(converse, drop, tmp_path):
    engine = converse(
        "--threads",
        "1",
        before=["sh", "-c", 'ulimit -v 2400000; exec "$@"', "sh"],
        environment={"OPENBLAS_NUM_THREADS": "1"},  # its threads' stacks count too
    )
    large = drop("large.png", png(9000, 9000, 1, 3, [bytes(1125)] * 9000, (b"PLTE", bytes(6))))
    small = drop("small.png", written(".png", draw(5, 5)))
    engine.say(ask(1, large, tmp_path / "out1"), ask(2, small, tmp_path / "out2"))
    heard, code = engine.finish()
    assert code == 0
    failed = only(heard, Failed)
    assert (failed.id, failed.code, failed.fault, failed.retryable) == (
        1,
        Code.OUT_OF_MEMORY,
        Fault.ENVIRONMENT,
        True,
    )
    assert only(heard, Done).id == 2


@posix
def test_results_obey_the_umask(converse, drop, tmp_path):
    engine = converse(before=["sh", "-c", 'umask 027; exec "$@"', "sh"])
    engine.say(ask(1, drop("a", written(".png", draw(5, 5))), tmp_path / "out"))
    engine.finish()
    assert stat.S_IMODE((tmp_path / "out.png").stat().st_mode) == 0o640


def test_stdin_closing_ends_it_at_once(converse, drop, tmp_path):
    engine = converse()
    engine.say(ask(1, drop("large.png", written(".png", np.zeros((4000, 4000), np.uint8))), tmp_path / "out"))
    engine.hear_until(Progress)
    engine.process.stdin.close()
    assert engine.process.wait(10) == 4
    assert not list(tmp_path.glob("out*"))
    assert "Traceback" not in engine.log()


def test_stdin_closing_while_it_loads_ends_it(converse):
    engine = converse()
    engine.process.stdin.close()
    assert engine.process.wait(30) == 4
    assert Bye not in {type(event) for event in iter(engine.hear, None)}


def test_stdin_closing_after_the_end_was_said_but_not_answered_ends_it(converse, drop, tmp_path):
    engine = converse()
    large = drop("large.png", written(".png", np.zeros((4000, 4000), np.uint8)))
    engine.say(ask(1, large, tmp_path / "out"), End(), b'{"type":"upsc')
    engine.hear_until(Progress)
    engine.process.stdin.close()
    assert engine.process.wait(10) == 4


def test_a_closed_stdout_ends_it_quietly(converse, drop, tmp_path):
    engine = converse()
    engine.hear_until(Ready)
    engine.process.stdout.close()
    engine.say(ask(1, drop("a.png", written(".png", draw())), tmp_path / "out"))
    assert engine.process.wait(30) == 4
    assert engine.log() == ""


@posix
def test_interrupts_are_for_the_watcher(converse, drop, tmp_path):
    engine = converse()
    engine.hear_until(Ready)
    engine.process.send_signal(signal.SIGINT)
    engine.say(ask(1, drop("a.png", written(".png", draw())), tmp_path / "out"))
    heard, code = engine.finish()
    assert code == 0
    assert only(heard, Done).id == 1


@pytest.mark.parametrize(
    "garbage",
    [
        b"hello\n",
        b"\n",
        b"\xff\xfe\n",
        b'{"type":"upscale","id":1}\n',
        b'{"type":"end","v":99}\n',
        b'{"type":"ready"}\n',
        b"x" * (1 << 20) + b"\n",
    ],
)
def test_garbage_requests_end_it(converse, garbage):
    engine = converse()
    engine.hear_until(Ready)
    engine.say(garbage)
    assert engine.process.wait(30) == 2
    assert "the engine cannot go on" in engine.log()
    assert "Traceback" not in engine.log()


CHATTY = """
import importlib, os, sys
os.write(1, b"a library says hello\\n")
here = os.path.dirname(os.path.abspath(__file__))
sys.path = [folder for folder in sys.path if os.path.abspath(folder) != here]
del sys.modules["cv2"]
cv2 = importlib.import_module("cv2")
quiet = cv2.imdecode
def imdecode(*arguments):
    print("decoding", flush=True)
    os.write(1, b"more of it\\n")
    return quiet(*arguments)
cv2.imdecode = imdecode
"""


def test_a_chatty_library_cannot_corrupt_the_stream(converse, drop, tmp_path):
    (tmp_path / "stub").mkdir()
    (tmp_path / "stub" / "cv2.py").write_text(CHATTY)
    engine = converse(environment={"PYTHONPATH": os.fspath(tmp_path / "stub")})
    engine.say(ask(1, drop("a.png", written(".png", draw())), tmp_path / "out"))
    heard, code = engine.finish()
    assert code == 0
    assert [type(event) for event in heard] == [Ready, Started, Started, Progress, Done, Bye]
    for words in ("a library says hello", "decoding", "more of it"):
        assert words in engine.log()


def run_by_hand(*arguments):
    return subprocess.run(
        [sys.executable, "-P", "-m", "sr_engine", *arguments],
        check=False,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=60,
    )


def test_help_says_what_it_is():
    ran = run_by_hand("--help")
    assert ran.returncode == 0
    assert "dropscale upscale FILE" in ran.stdout


@pytest.mark.parametrize("arguments", [[], ["--model", "x", "--threads", "-1"], ["--model", "x", "--runtime", "y"]])
def test_wrong_arguments_are_refused(arguments):
    ran = run_by_hand(*arguments)
    assert ran.returncode == 2
    assert ran.stdout == ""
    assert "usage:" in ran.stderr
