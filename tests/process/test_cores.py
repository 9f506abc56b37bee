"""Which cores count: those of the affinity, and those of the control groups' quotas."""

import os
from pathlib import Path

import pytest

from process import usable_cores

POD = "kubepods.slice/pod.slice"


@pytest.fixture(autouse=True)
def _eight_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(8)))


def system(root: Path, cgroup: str, quotas: dict[str, str]) -> Path:
    """Make a root folder: the process's groups, and files by their path below /sys/fs/cgroup."""
    files = {"proc/self/cgroup": cgroup, **{f"sys/fs/cgroup/{k}": v for k, v in quotas.items()}}
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text + "\n")
    return root


@pytest.mark.parametrize(
    ("quota", "cores"),
    [
        *(("max 100000", 8), ("200000 100000", 2), ("150000 100000", 2), ("100001 100000", 2)),
        *(("100000 100000", 1), ("1000 100000", 1), ("75000 25000", 3), ("1600000 100000", 8)),
        # What cannot be read is no quota.
        *((quota, 8) for quota in ("", "max", "2 0", "many 100000", "-1 100000", "1 2 3")),
        ("0 100000", 8),
    ],
)
def test_a_quota_of_version_2_counts_and_a_part_of_a_core_is_one(
    quota: str, cores: int, tmp_path: Path
) -> None:
    assert usable_cores(system(tmp_path, "0::/", {"cpu.max": quota})) == cores


def test_the_least_quota_of_the_groups_above_counts(tmp_path: Path) -> None:
    for number, (outer, inner, own, cores) in enumerate(
        [("max", 200_000, "max", 2), (300_000, "max", 500_000, 3), (300_000, 400_000, 100_000, 1)]
    ):
        groups = {
            "kubepods.slice/cpu.max": f"{outer} 100000",
            f"{POD}/cpu.max": f"{inner} 100000",
            f"{POD}/web:1.scope/cpu.max": f"{own} 100000",
            "kubepods.slice/neighbour.slice/cpu.max": "1000 100000",
        }
        root = system(tmp_path / str(number), f"0::/{POD}/web:1.scope", groups)
        assert usable_cores(root) == cores


@pytest.mark.parametrize(
    ("controllers", "folder", "group", "quota", "cores"),
    [
        *((one, "/docker", "/docker/web", 250_000, 3) for one in ("cpu", "cpu,cpuacct")),
        ("cpuacct,cpu", "/docker", "/docker/web", 250_000, 3),
        ("cpu", "", "/docker/0a1b2c", 200_000, 2),  # a container is told its path outside
    ],
)
def test_a_quota_of_version_1_counts(
    controllers: str, folder: str, group: str, quota: int, cores: int, tmp_path: Path
) -> None:
    groups = {f"{controllers}/cpu.cfs_quota_us": "-1", f"{controllers}/cpu.cfs_period_us": "100000"}
    groups[f"{controllers}{folder}/cpu.cfs_quota_us"] = f"{quota}"
    groups[f"{controllers}{folder}/cpu.cfs_period_us"] = "100000"
    cgroup = f"4:memory:/docker/web\n3:cpuset:/\n2:{controllers}:{group}\n0::/"
    assert usable_cores(system(tmp_path, cgroup, groups)) == cores


def test_without_groups_the_affinity_counts_and_without_that_the_machines_cores(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert usable_cores(tmp_path) == 8
    monkeypatch.delattr(os, "sched_getaffinity")  # as on macOS and Windows
    for found, cores in ((3, 3), (None, 1)):
        monkeypatch.setattr(os, "cpu_count", lambda found=found: found)
        assert usable_cores(tmp_path) == cores
