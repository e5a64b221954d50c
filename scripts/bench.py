"""Measure speed: `python scripts/bench.py --help`."""

import sys

from dist_relu.cli import main

if __name__ == "__main__":
    main(["bench", *sys.argv[1:]])
