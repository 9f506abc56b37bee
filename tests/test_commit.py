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


def write(root: Path, **files: str) -> None:
    for name, text in files.items():
        path = root / name.replace("__", "/").replace("DOT", ".")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)


@pytest.mark.parametrize(
    "files",
    [
        {"COMMIT": HASH + "\n"},
        {"DOTgit__HEAD": HASH + "\n"},
        {"DOTgit__HEAD": "ref: refs/heads/main\n", "DOTgit__refs__heads__main": HASH + "\n"},
        {
            "DOTgit__HEAD": "ref: refs/heads/main\n",
            "DOTgit__packed-refs": f"{'f' * 40} refs/heads/mains\n{HASH} refs/heads/main\n",
        },
        {
            "DOTgit": "gitdir: far/worktrees/one\n",
            "far__worktrees__one__HEAD": "ref: refs/heads/one\n",
            "far__worktrees__one__commondir": "../..\n",
            "far__refs__heads__one": HASH + "\n",
        },
    ],
    ids=["image", "detached", "branch", "packed", "worktree"],
)
def test_it_is_read_where_it_stands(root: Path, files: dict[str, str]) -> None:
    write(root, **files)
    assert commit() == HASH


@pytest.mark.parametrize(
    "files",
    [
        *({}, {"COMMIT": ""}, {"COMMIT": "<script>"}, {"DOTgit__HEAD": "ref: refs/heads/main\n"}),
        {"DOTgit__HEAD": "ref: refs/heads/main\n", "DOTgit__packed-refs": ""},
    ],
)
def test_where_nobody_says_it_there_is_none(root: Path, files: dict[str, str]) -> None:
    write(root, **files)
    assert commit() is None
