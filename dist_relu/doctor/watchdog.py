"""Ends a process that MPI_Init keeps: python watchdog.py PID SECONDS NAME.

When a rank or a node does not come up, the others may wait in MPI_Init for ever, where no thread of theirs gets a
turn. So each rank starts this program, which says what happened and kills it. The end of its standard input sends it
away. It imports nothing of the package: it must start at once and stay small.
"""

import os
import select
import signal
import sys

if __name__ == "__main__":
    ready, _, _ = select.select([0], [], [], float(sys.argv[2]))
    if not ready:
        message = (
            f"{sys.argv[3]}: MPI_Init did not return within {sys.argv[2]} seconds. Another rank died, or nodes can't "
            "reach each other. Compare on each node: dist-relu doctor, without mpirun.\n"
        )
        os.write(2, message.encode())
        os.kill(int(sys.argv[1]), signal.SIGKILL)
