"""Train a network: `python scripts/train.py --help`, or the same under mpirun."""

import sys

from dist_relu.cli import main

if __name__ == "__main__":
    main(["train", *sys.argv[1:]])
