"""Burns a share of a core until its standard input ends; `process.burden` runs it as a program.

It is a process of its own, so that pages go on, and it imports little, as it may be one of many.
"""

import select
import sys
import time

#: Seconds in which the share is burnt once.
PERIOD = 0.1


def burn(share: float) -> None:
    """Burn it, until whoever began this has ended or closed the pipe.

    :arg share: of one core, from 0 to 1.
    """
    while True:
        begun = time.monotonic()
        while time.monotonic() - begun < share * PERIOD:
            pass
        rest = max(begun + PERIOD - time.monotonic(), 0.0)
        if select.select([sys.stdin], [], [], rest)[0]:
            return


if __name__ == "__main__":
    burn(float(sys.argv[1]))
