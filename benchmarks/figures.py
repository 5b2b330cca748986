"""How figures are measured and shown: in turns, as ratios, in the page's tables."""

import importlib.metadata
import os
import platform
import re
import statistics
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

PACKAGES = ("numpy", "opencv-contrib-python-headless", "opencv-contrib-python", "openvino", "onnxruntime", "torch")
FLAGS = ("avx2", "avx512f", "avx512_bf16", "avx512_fp16", "amx_bf16")

Side = Callable[[], float]


def in_turns(rounds: int, sides: Sequence[Side]) -> list[list[float]]:
    """Measure each side once a round, so that a machine that gets slower or faster meanwhile does it to all."""
    values = []
    for number in range(rounds):
        sys.stderr.write(f"round {number + 1} of {rounds}\n")
        values.append([side() for side in sides])
    return [list(column) for column in zip(*values, strict=True)]


def ratio(ours: Sequence[float], theirs: Sequence[float]) -> str:
    """Median, smallest and largest of the rounds' ratios."""
    ratios = [a / b for a, b in zip(ours, theirs, strict=True)]
    return f"**{statistics.median(ratios):.2f}** ({min(ratios):.2f} .. {max(ratios):.2f})"


def speed(values: Sequence[float]) -> str:
    """Median, in thousands of pixels a second."""
    return f"{statistics.median(values) / 1e3:,.0f}"


def update(page: Path, part: str, table: str) -> None:
    """Put a part's table between its marks."""
    marks = f"<!-- {part} -->", f"<!-- end of {part} -->"
    text, found = re.subn(f"(?s)(?<={marks[0]}\n).*?(?={marks[1]})", lambda _: f"\n{table}\n\n", page.read_text())
    if not found:
        sys.exit(f"{page} has no marks for {part}: {' '.join(marks)}")
    page.write_text(text)


def machine() -> str:
    """The processor and its memory."""
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    about = {key.strip(): value.strip() for key, _, value in (line.partition(":") for line in lines)}
    able = [flag for flag in FLAGS if flag in about.get("flags", "").split()]
    name = " ".join([about.get("model name", platform.machine()), *able])
    gigabytes = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9
    return f"{name}, {os.cpu_count()} cores, {gigabytes:.0f} GB, Linux {platform.release()}"


def versions() -> str:
    """What runs there."""
    found = [f"Python {platform.python_version()}"]
    for name in PACKAGES:
        try:
            found.append(f"{name} {importlib.metadata.version(name)}")
        except importlib.metadata.PackageNotFoundError:
            continue
    return ", ".join(found)
