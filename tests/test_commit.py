"""The commit that ``/version`` tells."""

from pathlib import Path

import pytest

from config import commit
from tests.support import Patch

HASH = "0123456789abcdef0123456789abcdef01234567"
MAIN = {".git/HEAD": "ref: refs/heads/main\n"}


@pytest.mark.parametrize(
    ("files", "said"),
    [
        ({"COMMIT": HASH + "\n"}, HASH),  # of the image
        ({".git/HEAD": HASH + "\n"}, HASH),  # without a branch
        (MAIN | {".git/refs/heads/main": HASH + "\n"}, HASH),
        (
            MAIN | {".git/packed-refs": f"{'f' * 40} refs/heads/mains\n{HASH} refs/heads/main\n"},
            HASH,
        ),
        (
            {
                ".git": "gitdir: far/worktrees/one\n",
                "far/worktrees/one/HEAD": "ref: refs/heads/one\n",
                "far/worktrees/one/commondir": "../..\n",
                "far/refs/heads/one": HASH + "\n",
            },
            HASH,
        ),
        *(({"COMMIT": text}, None) for text in ("", "<script>")),
        *((files, None) for files in ({}, MAIN, MAIN | {".git/packed-refs": ""})),
    ],
)
def test_it_is_read_where_it_stands_and_where_nobody_says_it_there_is_none(
    files: dict[str, str], said: str | None, tmp_path: Path, monkeypatch: Patch
) -> None:
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    monkeypatch.setattr("config.version.ROOT", tmp_path)
    assert commit.__wrapped__() == said  # nothing is kept for others
