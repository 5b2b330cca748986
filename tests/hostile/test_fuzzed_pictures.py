"""Ten thousand damaged pictures dropped into an inbox: whatever they do to a decoder, each comes to its own end."""

import functools
import os
import random
import re
import shutil
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path, PurePath

import pytest
from foreign_networks import network
from harness import HASTE, QUICK, Running, Site, wait_until
from mutations import originals, refused, variants
from promise import REASON_SUFFIX, Promise, sha256

from sr_engine.errors import PictureError
from sr_engine.formats.decoding import decode

EACH, PARTS, FEW = 2_500, 4, 150
WARM = 500  # pictures, by which the watcher's heaps have the size that they keep
# Larger claims are refused from the header, so that decoders are busy and not the network; a bomb is beyond that.
MEGAPIXELS = 0.1
# The engine itself has 90 MB. Of pictures it estimates 50 MB each, and has some ten in work.
MOST_ENGINE_BYTES = 500_000_000
# A library that crashes on some input is no fault of ours, if that input alone is blamed; many would make us look.
MOST_BLAMED = 5
MOST_GROWTH_KB = 4_000
EXTENSIONS = (".jpg", ".png", ".webp", ".tiff", ".bmp", ".avif", ".jp2", ".gif", ".heic")
# What is said to a person is no program's: the name of an exception, a place in memory, a line of code.
UNREADABLE = re.compile(r"[a-z](Error|Exception|Warning)\b|Traceback|0x[0-9a-f]{4}|<class|\.py\b|\bNone\b|errno", re.I)


@pytest.fixture
def fuzzed_site(tmp_path: Path) -> Iterator[Site]:
    """A site in memory, where nobody waits for a disk, whose network costs next to nothing."""
    memory = Path("/dev/shm")
    with tempfile.TemporaryDirectory(prefix="dropscale-test-", dir=memory if memory.is_dir() else tmp_path) as folder:
        site = Site(Path(folder) / "site")
        network(site.root / "tiny.onnx", scale=3)
        site.configure(engine={"models_folder": "models"})
        assert site.run("models", "add", "tiny.onnx", "--range", "255").returncode == 0
        site.configure(
            **{
                **HASTE,
                "watch": {**HASTE["watch"], "incomplete_seconds": 0},
                "window": {"quiet_seconds": 0.3, "max_seconds": 5, "max_files": 250},
                "engine": {**QUICK["engine"], "models_folder": "models", "model": "tiny", "runtime": "opencv"},
                "limits": {"megapixels": MEGAPIXELS},
            }
        )
        yield site
        site.close()
        shutil.copytree(site.failed, tmp_path / "failed")  # to be looked at where the test fails


def inputs(count: int, seed: int) -> dict[str, bytes]:
    """Names with extensions that need not be true, and contents that are all different."""
    dice = random.Random(seed)
    found: dict[str, bytes] = {}
    seen: set[str] = set()
    for what, data in variants(originals() | refused(), count * 2, seed):
        if sha256(data) not in seen:
            seen.add(sha256(data))
            found[f"{len(found):04} {what.partition(',')[0]}{dice.choice(EXTENSIONS)}"] = data
        if len(found) == count:
            return found
    raise AssertionError("too many variants are the same")


@functools.lru_cache(maxsize=1 << 14)
def is_whole(result: bytes) -> bool:
    try:
        return bool(decode(result))
    except PictureError:
        return False


def owner(path: str, result: bytes, dropped: dict[str, bytes]) -> str | None:
    """Whose result it is: of the one of its number, if it can be decoded."""
    number = PurePath(path).name[:4]
    names = [name for name in dropped if name.startswith(number)]
    return sha256(dropped[names[0]]) if len(names) == 1 and is_whole(result) else None


def kilobytes(pid: int, field: str) -> int:
    try:
        status = Path(f"/proc/{pid}/status").read_text()
    except OSError:  # it ended
        return 0
    return int(status.partition(f"{field}:")[2].split()[0]) if f"{field}:" in status else 0


class Meter:
    """Looks at memory while the watcher is at work."""

    def __init__(self, site: Site, running: Running) -> None:
        self.engine_bytes = self.warm_kilobytes = 0
        self._site, self._running, self._left = site, running, len(os.listdir(site.inbox))

    def is_done(self) -> bool:
        """Whether the inbox is empty and all is at rest."""
        for pid in self._site.engines():
            self.engine_bytes = max(self.engine_bytes, 1024 * kilobytes(pid, "VmHWM"))
        left = len(os.listdir(self._site.inbox))
        if self._left - left >= WARM and not self.warm_kilobytes:
            self.warm_kilobytes = kilobytes(self._running.pid, "VmRSS")
        assert self._running.process.poll() is None, self._running.log()[-2000:]
        open_batches = "SELECT id FROM batches WHERE finished_at IS NULL"
        return not left and not self._site.engines() and not self._site.query(open_batches)


def fuzz(site: Site, count: int, seed: int, patience: float) -> None:
    """Drop so many, wait, and look at every single one."""
    promise = Promise(site, owner)
    running = site.start()
    made = inputs(count, seed)
    began = time.monotonic()
    for name, data in made.items():
        promise.drop(name, data)
    meter = Meter(site, running)
    wait_until(meter.is_done, "all to come to their ends", patience)
    seconds = time.monotonic() - began

    failed = {name for name in site.names(site.failed) if not name.endswith(REASON_SUFFIX)}
    crashes = site.query("SELECT path, state, reason FROM pictures WHERE attempts > 0")
    runs = site.query("SELECT exit_code, peak_memory_bytes FROM engine_runs")
    peak = max(meter.engine_bytes, *(told or 0 for _, told in runs))
    grown = kilobytes(running.pid, "VmRSS") - meter.warm_kilobytes if meter.warm_kilobytes else 0
    print(
        f"seed {seed}: {count} inputs in {seconds:.0f} s, {count - len(failed)} archived, {len(failed)} failed; "
        f"{len(runs)} engines, ends {dict(Counter(code for code, _ in runs))}, {len(crashes)} blamed: {crashes}; "
        f"engines' peak {peak / 1e6:.0f} MB, watcher {kilobytes(running.pid, 'VmRSS')} kB, grown by {grown} kB"
    )
    promise.check_end(failed)
    reasons = {name: (site.failed / f"{name}{REASON_SUFFIX}").read_text() for name in failed}
    for name, text in reasons.items():
        why = text.partition("Why:")[2].partition("\nWhen:")[0].strip()
        assert len(why.split()) > 3 and not UNREADABLE.search(why), f"{name}: {why}"
    assert len(crashes) <= MOST_BLAMED and {state for _, state, _ in crashes} <= {"failed"}, crashes
    assert peak < MOST_ENGINE_BYTES
    assert grown < MOST_GROWTH_KB
    assert " waiting until " not in running.log(), "no surroundings failed"
    assert running.stop() == 0
    assert not site.engines()


def test_some_damaged_pictures_each_come_to_their_own_end(fuzzed_site: Site) -> None:
    fuzz(fuzzed_site, FEW, seed=11, patience=60)


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("seed", range(PARTS))
def test_thousands_of_damaged_pictures_each_come_to_their_own_end(fuzzed_site: Site, seed: int) -> None:
    fuzz(fuzzed_site, EACH, seed, patience=500)
