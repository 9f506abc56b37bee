"""How many clients may be connected: as many as there is memory for, and descriptors."""

import os
import resource
import sys
from pathlib import Path

import pytest

import limits
from tests.process.test_cores import system

MB = 1 << 20

MACHINE = 8192 * MB

#: What version 1 has where there is no limit.
ANY = str((1 << 63) - 4096)


@pytest.fixture(autouse=True)
def _a_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    pages = {"SC_PHYS_PAGES": MACHINE // 4096, "SC_PAGE_SIZE": 4096}
    monkeypatch.setattr(os, "sysconf", pages.__getitem__)
    limited(monkeypatch)


def limited(monkeypatch: pytest.MonkeyPatch, space: int = -1, descriptors: int = -1) -> None:
    """Give the process its own limits; -1 is none (getrlimit(2))."""
    own = {resource.RLIMIT_AS: space, resource.RLIMIT_NOFILE: descriptors}
    monkeypatch.setattr(resource, "getrlimit", lambda which: (own[which], -1))


@pytest.mark.parametrize(
    ("own", "limit", "most"),
    [
        # Which groups count, `tests.process.test_cores` sees.
        ("0::/", {"memory.max": "100663296"}, 96 * MB),
        ("0::/", {"memory.max": "max"}, MACHINE),
        ("0::/", {"memory.max": str(2 * MACHINE)}, MACHINE),
        ("0::/a/b", {"a/b/memory.max": "max", "a/memory.max": "100663296"}, 96 * MB),
        # Version 1, and both.
        ("4:memory:/a\n0::/", {"memory/a/memory.limit_in_bytes": "100663296"}, 96 * MB),
        ("4:memory:/a", {"memory/a/memory.limit_in_bytes": ANY}, MACHINE),
        ("3:cpu:/a", {"memory/a/memory.limit_in_bytes": "100663296"}, MACHINE),
        ("0::/", {"memory.max": ""}, MACHINE),
    ],
)
def test_the_least_limit_of_the_control_groups_and_the_machine_counts(
    own: str, limit: dict[str, str], most: int, tmp_path: Path
) -> None:
    assert limits.memory(system(tmp_path, own, limit)) == most


def test_a_limit_of_the_process_itself_counts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = system(tmp_path, "0::/", {"memory.max": str(200 * MB)})
    for space, most in ((150 * MB, 150 * MB), (300 * MB, 200 * MB)):
        limited(monkeypatch, space=space)
        assert limits.memory(root) == most
    limited(monkeypatch)
    assert limits.memory(tmp_path / "none") == MACHINE, "there are no control groups"


def test_connections_share_what_is_left_of_the_memory_and_streams_have_half_of_them(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(limits, "memory", lambda: 96 * MB)
    assert limits.max_connections() == 512
    assert limits.max_connections(is_tls=True) == 232
    limited(monkeypatch, descriptors=100_000)
    assert limits.max_connections() == 512, "descriptors alone are not enough"
    monkeypatch.setattr(limits, "memory", lambda: 192 * MB)
    assert limits.max_connections(processes=2) == 512, "processes share the memory"
    monkeypatch.setattr(limits, "memory", lambda: 32 * MB)
    assert limits.max_connections() == 1, "who is started with less may serve somebody"
    assert [limits.max_streams(number) for number in (512, 3, 2, 1)] == [256, 1, 1, 1]


def test_connections_share_the_descriptors_that_are_free(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "memory", lambda: sys.maxsize)
    with open(os.devnull) as lowest:
        used = lowest.fileno()
    # Where there are few, the rest gets half of them.
    for free, most in ((1000, 1000 - limits.RESERVE), (10, 5), (0, 1)):
        limited(monkeypatch, descriptors=used + free)
        assert limits.max_connections() == most


def test_windows_limits_no_process(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    limited(monkeypatch, space=MB, descriptors=100)
    monkeypatch.setattr(sys, "platform", "win32")
    assert limits.memory(tmp_path) == MACHINE
    assert limits.max_connections() > 100
