"""Which cores count: those of the affinity, and those of the control groups' quotas."""

import os
from pathlib import Path

import pytest

from process import usable_cores
from tests.support import Patch


@pytest.fixture(autouse=True)
def _eight_cores(monkeypatch: Patch) -> None:
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


def version_1(controllers: str, folder: str, quota: int) -> Groups:
    quotas = {
        f"{controllers}{place}/cpu.cfs_{name}_us": str(number)
        for place, most in (("", -1), (folder, quota))
        for name, number in (("quota", most), ("period", 100_000))
    }
    return f"4:memory:/docker/web\n3:cpuset:/\n2:{controllers}:/docker/web\n0::/", quotas


@pytest.mark.parametrize(
    ("groups", "cores"),
    [
        *((version_2(one), 2) for one in ("150000 100000", "100001 100000")),
        *((version_2("100000 100000"), 1), (version_2("1000 100000"), 1)),
        *((version_2("75000 25000"), 3), (version_2("1600000 100000"), 8)),
        # What cannot be read is no quota.
        *((version_2(one), 8) for one in ("", "2 0", "max 100000", "1 2 3", "0 100000")),
        # The least of the groups above counts.
        *((nested("max", "200000", "max"), 2), (nested("300000", "max", "500000"), 3)),
        (nested("300000", "400000", "100000"), 1),
        (version_1("cpuacct,cpu", "/docker", 250_000), 3),
        (version_1("cpu", "", 200_000), 2),  # a container is told its path outside
        (("\nno line of ours\n0::/a\x0bb", {"a\x0bb/cpu.max": "150000 100000"}), 2),
    ],
)
def test_the_least_quota_counts(groups: Groups, cores: int, tmp_path: Path) -> None:
    assert usable_cores(system(tmp_path, *groups)) == cores


def test_without_groups_the_affinity_or_all_cores_count(tmp_path: Path, monkeypatch: Patch) -> None:
    assert usable_cores(tmp_path) == 8
    monkeypatch.delattr(os, "sched_getaffinity")  # as on macOS and Windows
    for found, cores in ((3, 3), (None, 1)):
        monkeypatch.setattr(os, "cpu_count", lambda found=found: found)
        assert usable_cores(tmp_path) == cores
