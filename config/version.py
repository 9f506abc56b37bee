"""The program's version, here and nowhere else by hand.

`make stamp` writes it into the files that cannot read it from here.
"""

VERSION = "1.0.0"
