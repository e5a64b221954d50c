"""Train a network: `python scripts/train.py --help`, or the same under mpirun."""

import sys
from pathlib import Path

sys.path.append(str(Path(__file__).resolve().parents[1]))  # of a checkout that is not installed

from dist_relu_main import main

if __name__ == "__main__":
    main(["train", *sys.argv[1:]])
