"""Let a policy learn in an environment: `python scripts/rl.py --help`, or the same under mpirun."""

import sys

from dist_relu.cli import main

if __name__ == "__main__":
    main(["rl", *sys.argv[1:]])
