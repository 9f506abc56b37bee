"""The start of friendlyhello.pyz. The file's compiled parts are for one kind of Python.

Run by itself, this module prints the kind of Python that runs it. `make pyz` writes that kind into
``MADE_FOR``, beside this module.
"""

import os
import runpy
import sys
from pathlib import Path

HERE = f"{sys.implementation.cache_tag} {sys.platform} {os.uname().machine}"


def main() -> None:
    """Run the program; exit with status 1 and one line if its parts are for another Python."""
    made_for = Path(__file__).with_name("MADE_FOR").read_text().strip()
    if made_for != HERE:
        sys.exit(f"friendlyhello.pyz: made for {made_for}, and this is {HERE}; make pyz there")
    runpy.run_module("server", run_name="__main__")


if __name__ == "__main__":
    print(HERE)
