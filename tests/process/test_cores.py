"""Which cores count: those of the affinity, and those of the control groups' quotas."""

import os
from pathlib import Path

import pytest

from process import usable_cores


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


Groups = tuple[str, dict[str, str]]


def version_2(quota: str) -> Groups:
    return "0::/", {"cpu.max": quota}


def nested(outer: str, inner: str, own: str) -> Groups:
    """The groups of a pod, and those of one beside it."""
    groups = {"": outer, "/pod.slice": inner, "/pod.slice/web:1.scope": own, "/other": "1000"}
    quotas = {f"kubepods.slice{name}/cpu.max": f"{quota} 100000" for name, quota in groups.items()}
    return "0::/kubepods.slice/pod.slice/web:1.scope", quotas


def version_1(controllers: str, folder: str, group: str, quota: int) -> Groups:
    quotas: dict[str, str] = {}
    for place, most in (controllers, -1), (f"{controllers}{folder}", quota):
        quotas |= {f"{place}/cpu.cfs_quota_us": f"{most}", f"{place}/cpu.cfs_period_us": "100000"}
    return f"4:memory:/docker/web\n3:cpuset:/\n2:{controllers}:{group}\n0::/", quotas


@pytest.mark.parametrize(
    ("groups", "cores"),
    [
        *((version_2(f"{quota} 100000"), 2) for quota in (200_000, 150_000, 100_001)),
        *((version_2(f"{quota} 100000"), 1) for quota in (100_000, 1000)),
        *((version_2("75000 25000"), 3), (version_2("1600000 100000"), 8)),
        # What cannot be read is no quota.
        *((version_2(quota), 8) for quota in ("", "max", "2 0", "many 100000", "-1 100000")),
        *((version_2(quota), 8) for quota in ("max 100000", "1 2 3", "0 100000")),
        # The least of the groups above counts.
        *((nested("max", "200000", "max"), 2), (nested("300000", "max", "500000"), 3)),
        (nested("300000", "400000", "100000"), 1),
        *((version_1(one, "/docker", "/docker/web", 250_000), 3) for one in ("cpu", "cpu,cpuacct")),
        (version_1("cpuacct,cpu", "/docker", "/docker/web", 250_000), 3),
        (
            version_1("cpu", "", "/docker/0a1b2c", 200_000),
            2,
        ),  # a container is told its path outside
    ],
)
def test_the_least_quota_counts_and_a_part_of_a_core_is_one(
    groups: Groups, cores: int, tmp_path: Path
) -> None:
    assert usable_cores(system(tmp_path, *groups)) == cores


def test_without_groups_the_affinity_counts_and_without_that_the_machines_cores(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert usable_cores(tmp_path) == 8
    monkeypatch.delattr(os, "sched_getaffinity")  # as on macOS and Windows
    for found, cores in ((3, 3), (None, 1)):
        monkeypatch.setattr(os, "cpu_count", lambda found=found: found)
        assert usable_cores(tmp_path) == cores
