"""The modules of models/training are no package: they import each other by name."""

import sys
from pathlib import Path

sys.path.append(str(Path(__file__).resolve().parents[2] / "models" / "training"))
