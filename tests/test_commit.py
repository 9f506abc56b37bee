"""The commit that ``/version`` tells."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from config import commit

HASH = "0123456789abcdef0123456789abcdef01234567"


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    monkeypatch.setattr("config.version.ROOT", tmp_path)
    commit.cache_clear()
    yield tmp_path
    commit.cache_clear()


def write(root: Path, files: dict[str, str]) -> None:
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)


MAIN = {".git/HEAD": "ref: refs/heads/main\n"}


@pytest.mark.parametrize(
    "files",
    [
        {"COMMIT": HASH + "\n"},
        {".git/HEAD": HASH + "\n"},
        MAIN | {".git/refs/heads/main": HASH + "\n"},
        MAIN | {".git/packed-refs": f"{'f' * 40} refs/heads/mains\n{HASH} refs/heads/main\n"},
        {
            ".git": "gitdir: far/worktrees/one\n",
            "far/worktrees/one/HEAD": "ref: refs/heads/one\n",
            "far/worktrees/one/commondir": "../..\n",
            "far/refs/heads/one": HASH + "\n",
        },
    ],
    ids=["image", "detached", "branch", "packed", "worktree"],
)
def test_it_is_read_where_it_stands(root: Path, files: dict[str, str]) -> None:
    write(root, files)
    assert commit() == HASH


@pytest.mark.parametrize(
    "files", [{}, {"COMMIT": ""}, {"COMMIT": "<script>"}, MAIN, MAIN | {".git/packed-refs": ""}]
)
def test_where_nobody_says_it_there_is_none(root: Path, files: dict[str, str]) -> None:
    write(root, files)
    assert commit() is None
