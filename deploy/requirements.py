"""Print what dropscale needs, one requirement a line, with OpenCV's headless wheel in place of the full one.

    python deploy/requirements.py [--only] [EXTRA...] | pip install -r /dev/stdin && pip install --no-deps .

The wheel opencv-contrib-python needs libGL and X libraries that servers, containers and NAS boxes lack. The headless
one of the same version is the same cv2 without windows, which dropscale never opens. pip cannot swap a dependency, so
`make run`, `make test` and the Dockerfile install this list instead of the one in pyproject.toml, from which it is
made. With --only, just what the extras add.
"""

import sys
import tomllib
from pathlib import Path

FULL, HEADLESS = "opencv-contrib-python", "opencv-contrib-python-headless"


def main(extras: list[str], *, only: bool) -> None:
    """Print the list."""
    project = tomllib.loads((Path(__file__).parent.parent / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    optional = project["optional-dependencies"]
    for extra in extras:
        if extra not in optional:
            sys.exit(f"pyproject.toml has no extra {extra!r}; it has: {', '.join(optional)}")
    requirements = [line for extra in extras for line in optional[extra]]
    if not only:
        requirements = project["dependencies"] + requirements
    for requirement in requirements:
        print(requirement.replace(FULL, HEADLESS, 1) if requirement.startswith(FULL) else requirement)


if __name__ == "__main__":
    main([argument for argument in sys.argv[1:] if argument != "--only"], only="--only" in sys.argv[1:])
