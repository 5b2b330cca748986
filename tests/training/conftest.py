"""The training's modules are no package: they are found the way they find each other."""

import sys

from harness import ROOT

sys.path.insert(0, str(ROOT / "models" / "training"))
