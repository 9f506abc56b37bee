"""Burns a share of a core until its standard input closes. `process.burden` runs it as a program.

It is a process of its own, so that the server goes on. It imports little, because many may run.
"""

import select
import sys
import time

#: Seconds of one period. The program burns the share at the start of each period.
PERIOD = 0.1


def burn(share: float) -> None:
    """Burn a share of a core until the server ends or closes the pipe.

    :arg share: of one core, from 0 to 1.
    """
    while True:
        begun, used = time.monotonic(), time.process_time()
        while time.process_time() - used < share * PERIOD:  # also on a busy machine
            pass
        rest = max(begun + PERIOD - time.monotonic(), 0.0)
        if select.select([sys.stdin], [], [], rest)[0]:
            return


if __name__ == "__main__":
    burn(float(sys.argv[1]))
