"""What friendlyhello.pyz starts with: its compiled parts are for one kind of Python.

As a program of its own it tells which kind runs it. `make pyz` keeps that beside it, in
``MADE_FOR``.
"""

import os
import runpy
import sys
from pathlib import Path

HERE = f"{sys.implementation.cache_tag} {sys.platform} {os.uname().machine}"


def main() -> None:
    """Run the program; end with status 1 and one line where its parts are for another Python."""
    made_for = Path(__file__).with_name("MADE_FOR").read_text().strip()
    if made_for != HERE:
        sys.exit(f"friendlyhello.pyz: made for {made_for}, and this is {HERE}; make pyz there")
    runpy.run_module("server", run_name="__main__")


if __name__ == "__main__":
    print(HERE)
