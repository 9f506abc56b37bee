"""Which cores count: those of the affinity, and those of the control groups' quotas."""

import os
from pathlib import Path

import pytest

from process import usable_cores


@pytest.fixture(autouse=True)
def _eight_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(8)))


def system(root: Path, cgroup: str, **quotas: str) -> Path:
    """Make a root folder: the process's groups, and files by their path below /sys/fs/cgroup."""
    (root / "proc/self").mkdir(parents=True)
    (root / "proc/self/cgroup").write_text(cgroup)
    for name, text in quotas.items():
        file = root / "sys/fs/cgroup" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text + "\n")
    return root


@pytest.mark.parametrize(
    ("quota", "cores"),
    [
        ("max 100000", 8),
        ("200000 100000", 2),
        ("150000 100000", 2),
        ("100001 100000", 2),
        ("100000 100000", 1),
        ("1000 100000", 1),
        ("75000 25000", 3),
        ("1600000 100000", 8),
    ],
)
def test_a_quota_of_version_2_counts_and_a_part_of_a_core_is_one(
    quota: str, cores: int, tmp_path: Path
) -> None:
    root = system(tmp_path, "0::/\n", **{"cpu.max": quota})
    assert usable_cores(root) == cores


@pytest.mark.parametrize(
    ("outer", "inner", "own", "cores"),
    [
        ("max 100000", "200000 100000", "max 100000", 2),
        ("300000 100000", "max 100000", "500000 100000", 3),
        ("300000 100000", "400000 100000", "100000 100000", 1),
    ],
)
def test_the_least_quota_of_the_groups_above_counts(
    outer: str, inner: str, own: str, cores: int, tmp_path: Path
) -> None:
    groups = {
        "kubepods.slice/cpu.max": outer,
        "kubepods.slice/pod.slice/cpu.max": inner,
        "kubepods.slice/pod.slice/web:1.scope/cpu.max": own,
        "kubepods.slice/neighbour.slice/cpu.max": "1000 100000",
    }
    root = system(tmp_path, "0::/kubepods.slice/pod.slice/web:1.scope\n", **groups)
    assert usable_cores(root) == cores


@pytest.mark.parametrize("controllers", ["cpu", "cpu,cpuacct", "cpuacct,cpu"])
def test_a_quota_of_version_1_counts(controllers: str, tmp_path: Path) -> None:
    groups = {
        f"{controllers}/cpu.cfs_quota_us": "-1",
        f"{controllers}/cpu.cfs_period_us": "100000",
        f"{controllers}/docker/cpu.cfs_quota_us": "250000",
        f"{controllers}/docker/cpu.cfs_period_us": "100000",
    }
    cgroup = f"4:memory:/docker/web\n3:cpuset:/\n2:{controllers}:/docker/web\n0::/\n"
    assert usable_cores(system(tmp_path, cgroup, **groups)) == 3


def test_a_container_that_is_told_its_path_outside_finds_its_quota(tmp_path: Path) -> None:
    groups = {"cpu/cpu.cfs_quota_us": "200000", "cpu/cpu.cfs_period_us": "100000"}
    assert usable_cores(system(tmp_path, "1:cpu:/docker/0a1b2c\n", **groups)) == 2


@pytest.mark.parametrize(
    "quota", ["", "max", "2 0", "many 100000", "-1 100000", "1 2 3", "0 100000"]
)
def test_what_cannot_be_read_is_no_quota(quota: str, tmp_path: Path) -> None:
    assert usable_cores(system(tmp_path, "0::/\n", **{"cpu.max": quota})) == 8


def test_without_control_groups_the_affinity_counts(tmp_path: Path) -> None:
    assert usable_cores(tmp_path) == 8


def test_without_affinity_the_machines_cores_count(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As on macOS and Windows."""
    monkeypatch.delattr(os, "sched_getaffinity")
    monkeypatch.setattr(os, "cpu_count", lambda: 3)
    assert usable_cores(tmp_path) == 3
    monkeypatch.setattr(os, "cpu_count", lambda: None)
    assert usable_cores(tmp_path) == 1
