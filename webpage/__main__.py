"""`python -m webpage`: what the watcher starts where `web.enabled` is set; the same as `dropscale web`."""

import sys

from watcher.cli import main

main(["web", *sys.argv[1:]])
