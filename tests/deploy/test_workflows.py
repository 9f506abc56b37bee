""".github/workflows/: what `make lint`'s tools cannot know of them."""

import os
import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from config import VERSION
from tests.deploy.manifests import BASE, RESOURCES
from tests.support import ROOT
from tests.support.waiting import PATIENCE, wait_until

BESIDE = ROOT / ".ci" / "beside"
FOLDER = ROOT / ".github" / "workflows"
TEXTS = {path.name: path.read_text() for path in FOLDER.iterdir()}
WORKFLOWS: dict[str, dict[str, Any]] = {
    # YAML 1.1 reads the key `on` as true.
    name: yaml.safe_load(text.replace("\non:", "\n'on':"))
    for name, text in TEXTS.items()
}


def commands(job: dict[str, Any]) -> str:
    return "\n".join(step["run"] for step in job["steps"] if "run" in step)


def test_actions_are_of_one_version_each_and_pinned_by_its_digest() -> None:
    used = {one for text in TEXTS.values() for one in re.findall(r"uses: (.*)", text)}
    assert used
    assert len({one.partition("@")[0] for one in used}) == len(used)
    for one in used:
        assert re.fullmatch(r"[a-z-]+/[a-z-]+@[0-9a-f]{40} # v\d+\.\d+\.\d+", one)


def test_a_job_may_do_no_more_than_it_says() -> None:
    for name, workflow in WORKFLOWS.items():
        assert workflow["permissions"] == {}
        more = {"packages": "write", "id-token": "write"} if name == "release.yaml" else {}
        for job in workflow["jobs"].values():
            assert job["permissions"] == {"contents": "read"} | more
            assert job["timeout-minutes"]


def test_ci_runs_what_decides_whether_a_change_lands() -> None:
    assert commands(WORKFLOWS["ci.yaml"]["jobs"]["ci"]) == "sudo CI=true bash .ci/run"
    script = (ROOT / ".ci" / "run").read_text()
    targets = re.findall("^(test[a-z-]*|lint):", (ROOT / "Makefile").read_text(), re.M)
    assert {*targets} - {"test-all", "test-stores"} <= {*re.findall("[a-z-]+", script)}


def test_suites_beside_each_other_show_all_that_they_say_and_the_first_failure_counts(
    tmp_path: Path,
) -> None:
    go_on = tmp_path / "go on"
    first = "echo one; echo two; exit 3"
    second = f"echo three; until [ -e '{go_on}' ]; do sleep 0.05; done; exit 4"
    beside = subprocess.Popen([BESIDE, second, first], stdout=subprocess.PIPE, text=True)
    assert beside.stdout
    shown = [beside.stdout.readline() for _ in range(3)]
    assert re.fullmatch(rf"=== {re.escape(first)}: status 3 after \d+ s\n", shown[0])
    assert shown[1:] == ["one\n", "two\n"]
    go_on.touch()
    shown = beside.stdout.readlines()
    assert re.fullmatch(rf"=== {re.escape(second)}: status 4 after \d+ s\n", shown[0])
    assert shown[1:] == ["three\n"]
    with beside:
        assert beside.wait(PATIENCE) == 3


@pytest.mark.parametrize("first", ["", "trap '' INT; "], ids=["in front", "in the background"])
def test_when_it_is_interrupted_no_suite_is_left(first: str, tmp_path: Path) -> None:
    begun, ended = tmp_path / "begun", tmp_path / "ended"
    suite = f"trap 'touch {ended}; exit' INT; touch {begun}; while true; do sleep 0.05; done"
    shell = ("sh", "-c", f'{first}exec "$@"', "sh")
    with subprocess.Popen([*shell, BESIDE, suite, "sleep 60"]) as beside:
        wait_until(begun.exists)
        beside.terminate()
        assert beside.wait(PATIENCE) != 0
    assert ended.exists()


def test_end_to_end_adds_the_audit_to_the_base_and_loads_its_image() -> None:
    script = commands(WORKFLOWS["ci.yaml"]["jobs"]["end-to-end"])
    text = (BASE / "kustomization.yaml").read_text()
    [edit] = re.findall(r"sed -i -E '(.*)' deploy/kubernetes/kustomization.yaml", script)
    edited = subprocess.run(["sed", "-E", edit], input=text, capture_output=True, text=True)
    assert yaml.safe_load(edited.stdout)["components"] == ["components/audit"]
    [tag] = re.findall(r"\$\((sed .*)\)", script)
    named = subprocess.run(["sh", "-c", tag], cwd=ROOT, capture_output=True, text=True)
    assert named.stdout == f"{VERSION}\n"
    for kind in re.findall(r"rollout status --timeout=180s (\S+)", script):
        kinds = {"deployment/web": "Deployment/web", "statefulset/redis": "StatefulSet/redis"}
        assert kinds[kind] in RESOURCES


def test_a_release_is_built_for_both_architectures_with_its_parts_and_signed() -> None:
    script = commands(WORKFLOWS["release.yaml"]["jobs"]["image"])
    bake = (ROOT / "docker-bake.hcl").read_text()
    [target] = re.findall(r'^target "release" \{(.*?)^\}', bake, re.M | re.S)
    for promised in ('"linux/amd64", "linux/arm64"', '"type=sbom"', '"type=provenance,mode=max"'):
        assert promised in target
    assert "buildx bake --metadata-file=built.json release\n" in script
    assert script.endswith(""".release["containerimage.digest"]' built.json)\"""")
    [check] = re.findall(r"grep -qx (.*) config/version.py", script)
    for version, status in (VERSION, 0), ("0.0.0", 1):
        line = ["sh", "-c", f"grep -qx {check} config/version.py"]
        done = subprocess.run(line, cwd=ROOT, env={"VERSION": version, "PATH": "/usr/bin:/bin"})
        assert done.returncode == status


def test_what_is_known_to_be_vulnerable_is_looked_for_weekly() -> None:
    workflow = WORKFLOWS["vulnerabilities.yaml"]
    [schedule] = workflow["on"]["schedule"]
    assert re.fullmatch(r"\d+ \d+ \* \* [0-6]", schedule["cron"])
    steps = workflow["jobs"]["scan"]["steps"]
    scans = [step for step in steps if step.get("uses", "").startswith("anchore/scan-action@")]
    assert [set(scan["with"]) & {"image", "path"} for scan in scans] == [{"image"}, {"path"}]
    assert f"docker build --pull --tag={scans[0]['with']['image']} ." in commands({"steps": steps})
    assert "if" in scans[1], "one that finds something does not hold the other up"


def test_dependabot_looks_at_every_folder_that_has_something_for_it() -> None:
    updates = yaml.safe_load((ROOT / ".github" / "dependabot.yml").read_text())["updates"]
    looks = {
        one["package-ecosystem"]: set(one.get("directories", [one.get("directory")]))
        for one in updates
    }
    ours: dict[str, set[str]] = {"Dockerfile": set(), "package-lock.json": set(), "in": set()}
    for folder, inner, names in os.walk(ROOT):
        inner[:] = [one for one in inner if one[0] != "." and one not in ("node_modules", "dist")]
        at = Path("/", os.path.relpath(folder, ROOT))
        if at.parts[1:3] != ("tests", "container"):  # whose images are stand-ins
            for name in names:
                kind = "in" if re.fullmatch(r"requirements.*\.in", name) else name
                ours.get(kind, set()).add(str(at))
    assert looks == {
        "pip": ours["in"],
        "npm": ours["package-lock.json"],
        "docker": ours["Dockerfile"],
        "github-actions": {"/"},
    }
