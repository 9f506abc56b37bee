"""The program's version. Change it only here.

`make stamp` writes it into the files that cannot read it from here.
"""

import functools
import re
from pathlib import Path

VERSION = "1.1.0"

ROOT = Path(__file__).parent.parent


@functools.cache
def commit() -> str | None:
    """Return the commit's hash.

    In the image, a file that the build wrote has the hash. In a checkout, Git's own files have it
    (https://git-scm.com/docs/gitrepository-layout).

    :return: None when neither has it.
    """
    for read in (_of_the_image, _of_git):
        try:
            found = read()
        except OSError:
            continue
        if re.fullmatch("[0-9a-f]{7,64}", found):
            return found
    return None


def _of_the_image() -> str:
    return (ROOT / "COMMIT").read_text().strip()


def _of_git() -> str:
    git = ROOT / ".git"
    if git.is_file():  # in a worktree
        git = ROOT / git.read_text().partition("gitdir: ")[2].strip()
    head = (git / "HEAD").read_text().strip()
    if not head.startswith("ref: "):
        return head
    name = head.removeprefix("ref: ")
    common = git / "commondir"
    shared = git / common.read_text().strip() if common.is_file() else git
    if (shared / name).is_file():
        return (shared / name).read_text().strip()
    packed = (shared / "packed-refs").read_text()
    found = re.search(rf"^([0-9a-f]+) {re.escape(name)}$", packed, re.M)
    return found[1] if found else ""
