"""Code that runs in a program before its own."""

from pathlib import Path

from tests.support import ROOT


def run_before(folder: Path, code: str) -> dict[str, str]:
    """Return the variables with which a program first runs some code, and may import from ours.

    :arg folder: for this alone.
    """
    lines = ["import sys", f"sys.path.insert(0, {str(ROOT)!r})", code, "sys.path.pop(0)", ""]
    (folder / "sitecustomize.py").write_text("\n".join(lines))
    return {"PYTHONPATH": str(folder)}
