"""Packages of npm, installed in a folder for a test."""

import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest


def with_npm(folder: Path, source: Path) -> Callable[[str], str]:
    """Install a copy of a package in a folder; return what asks its ``validate.js``."""
    if shutil.which("npm") is None:
        pytest.fail("npm is missing: apt-get install npm", pytrace=False)
    shutil.copytree(source, folder)

    def run(*command: str, given: str = "") -> str:
        done = subprocess.run(
            command, cwd=folder, input=given, capture_output=True, text=True, timeout=120
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    run("npm", "ci", "--no-audit", "--no-fund")
    return lambda given: run("node", "validate.js", given=given)
