"""What stands beside the program is of one mind with it, and with itself.

The image, bake, the dev container, the version, the workflows, the dashboard and the alerts.
"""

import json
import os
import re
import shutil
import subprocess
import tomllib
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import yaml

from config import VERSION
from tests.deploy.manifests import BASE, COMPONENTS, KUSTOMIZATION, RESOURCES, render
from tests.support import ROOT
from tests.support.here import Serve, run_here
from tests.support.waiting import PATIENCE, wait_until
from tests.watch.test_metrics import scrape

DOCKERFILE, BAKE, MAKEFILE, COMPOSE = (
    (ROOT / name).read_text()
    for name in ("Dockerfile", "docker-bake.hcl", "Makefile", "compose.yaml")
)
BESIDE = ROOT / ".ci" / "beside"
TEXTS = {path.name: path.read_text() for path in (ROOT / ".github" / "workflows").iterdir()}
WORKFLOWS: dict[str, dict[str, Any]] = {
    # YAML 1.1 reads the key `on` as true.
    name: yaml.safe_load(text.replace("\non:", "\n'on':"))
    for name, text in TEXTS.items()
}


def test_bake_adds_to_the_check_what_older_engines_cannot_read_and_no_more() -> None:
    checks = r"^HEALTHCHECK (.*) \\\n +CMD (.*)$"
    [(plain, same)] = re.findall(checks, DOCKERFILE, re.M)
    [(flags, command)] = re.findall(checks, BAKE, re.M)
    assert command == same
    more = {"--start-period=10s", "--start-interval=200ms"}
    assert {*flags.split()} == {*plain.split()} | more


def test_bake_names_arguments_that_the_image_takes_and_no_label_states_a_licence() -> None:
    [arguments] = re.findall(r"^  args = \{(.*?)\}", BAKE, re.M | re.S)
    given = set(re.findall(r"^ +(\w+) +=", arguments, re.M))
    assert given >= {"SOURCE", "COMMIT", "CREATED"}, "without one of them none is a label"
    assert given <= set(re.findall(r"^ARG (\w+)", DOCKERFILE, re.M))
    assert not re.search(r"image\.licen[cs]es?", DOCKERFILE + BAKE), "the owner has chosen none"


def test_the_dev_container_runs_the_page_on_the_port_that_it_opens() -> None:
    container = json.loads((ROOT / ".devcontainer" / "devcontainer.json").read_text())
    assert container["postAttachCommand"] == "make run"
    [port] = re.findall(r"^PORT \?= (\d+)", MAKEFILE, re.M)
    assert (container["forwardPorts"], [*container["portsAttributes"]]) == ([int(port)], [port])


def test_compose_watch_builds_anew_for_requirements_and_restarts_for_the_rest() -> None:
    rules = yaml.safe_load(COMPOSE)["services"]["web"]["develop"]["watch"]
    [workdir] = set(re.findall(r"^WORKDIR (.*)", DOCKERFILE, re.M))
    assert {"action": "rebuild", "path": "requirements.txt"} in rules
    assert {"action": "sync+restart", "path": ".", "target": workdir} in rules


@pytest.mark.parametrize(
    ("file", "names"), [("compose.yaml", {"web"}), ("deploy/stack.yaml", set())]
)
def test_each_container_has_a_limit_and_no_rights_and_writes_to_volumes_alone(
    file: str, names: set[str]
) -> None:
    """But for those of the names: Compose copies changed files into them."""
    for name, one in yaml.safe_load((ROOT / file).read_text())["services"].items():
        assert (one["cap_drop"], one.get("read_only", False)) == (["ALL"], name not in names)
        limits = one.get("deploy", {}).get("resources", {}).get("limits", {})
        assert "mem_limit" in one or "memory" in limits


def test_one_place_states_the_version_and_what_cannot_read_it_was_stamped_with_it() -> None:
    told = run_here("--version")
    assert (told.returncode, told.stdout, told.stderr) == (0, f"friendlyhello {VERSION}\n", "")
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    assert project["project"]["dynamic"] == ["version"]
    assert project["tool"]["setuptools"]["dynamic"]["version"] == {"attr": "config.version.VERSION"}
    assert re.findall(r'image\.version="(.*)"', DOCKERFILE) == [VERSION], "make stamp writes it"
    stamped = KUSTOMIZATION["labels"][0]["pairs"]["app.kubernetes.io/version"]
    assert (KUSTOMIZATION["images"][0]["newTag"], stamped) == (VERSION, VERSION), "as above"


def commands(job: dict[str, Any]) -> str:
    return "\n".join(step["run"] for step in job["steps"] if "run" in step)


# That they are pinned, and may do little, zizmor sees in `make lint`.
def test_actions_are_of_one_version_each_and_a_job_has_a_limit() -> None:
    used = {one for text in TEXTS.values() for one in re.findall(r"uses: (.*)", text)}
    assert len({one.partition("@")[0] for one in used}) == len(used)
    assert all(re.search(r"@[0-9a-f]{40} # v\d+\.\d+\.\d+$", one) for one in used)
    for workflow in WORKFLOWS.values():
        assert all(job["timeout-minutes"] for job in workflow["jobs"].values())


def test_ci_runs_what_decides_whether_a_change_lands() -> None:
    assert commands(WORKFLOWS["ci.yaml"]["jobs"]["ci"]) == "sudo CI=true bash .ci/run"
    script = (ROOT / ".ci" / "run").read_text()
    targets = re.findall("^(test[a-z-]*|lint):", MAKEFILE, re.M)
    assert {*targets} - {"test-all", "test-stores"} <= {*re.findall("[a-z-]+", script)}


def test_suites_beside_each_other_show_all_that_they_say_and_the_first_failure_counts(
    tmp_path: Path,
) -> None:
    go_on = tmp_path / "go on"
    first = "echo one; echo two; exit 3"
    second = f"echo three; until [ -e '{go_on}' ]; do sleep 0.05; done; exit 4"
    with subprocess.Popen([BESIDE, second, first], stdout=subprocess.PIPE, text=True) as beside:
        shown = [beside.stdout.readline() for _ in range(3)]
        go_on.touch()
        shown += beside.stdout.readlines()
        assert beside.wait(PATIENCE) == 3
    assert [re.sub(r"after \d+ s", "after N s", line) for line in shown] == [
        *(f"=== {first}: status 3 after N s\n", "one\n", "two\n"),
        *(f"=== {second}: status 4 after N s\n", "three\n"),
    ]


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
    [edit] = re.findall(r"sed -i -E '(.*)' deploy/kubernetes/kustomization.yaml", script)
    edited = subprocess.check_output(["sed", "-E", edit, BASE / "kustomization.yaml"])
    assert yaml.safe_load(edited)["components"] == ["components/audit"]
    [tag] = re.findall(r"\$\((sed .*)\)", script)
    assert subprocess.check_output(["sh", "-c", tag], cwd=ROOT, text=True) == f"{VERSION}\n"
    waited = set(re.findall(r"rollout status --timeout=180s (\S+)", script))
    assert waited == {"deployment/web", "statefulset/redis"}
    assert waited <= {name.lower() for name in RESOURCES}


def test_a_release_is_built_for_both_architectures_with_its_parts_and_signed() -> None:
    script = commands(WORKFLOWS["release.yaml"]["jobs"]["image"])
    [target] = re.findall(r'^target "release" \{(.*?)^\}', BAKE, re.M | re.S)
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


DASHBOARD = json.loads((ROOT / "deploy/grafana.json").read_text())
PANELS = DASHBOARD["panels"]
ALERTS = yaml.safe_load((ROOT / "deploy/alerts.yaml").read_text())

#: What Prometheus adds to a sample, and what a histogram has.
ADDED = {"job", "instance", "le"}


def test_each_metric_and_label_that_is_named_exists(serve: Serve) -> None:
    server = serve("--version-label=v1")
    assert server.visits() == 1
    had: dict[str, set[str]] = {}
    for name, pairs in scrape(server):
        had.setdefault(name, set()).update(label for label, _ in pairs)
    variables = DASHBOARD["templating"]["list"]
    for expression in (
        *(rule["expr"] for group in ALERTS["groups"] for rule in group["rules"]),
        *(target["expr"] for panel in PANELS for target in panel["targets"]),
        *(one["query"]["query"] for one in variables if one["type"] == "query"),
    ):
        names = set(re.findall(r"\b(?:friendlyhello|process)_\w+", expression))
        assert names, expression
        assert names <= had.keys(), expression
        grouped = ", ".join(re.findall(r"\b(?:by|on|group_left) \(([^)]*)\)", expression))
        labels = {*re.findall(r"\w+", grouped), *re.findall(r'(\w+)="', expression)}
        assert labels <= ADDED.union(*(had[name] for name in names)), expression


def test_panels_lie_beside_one_another() -> None:
    assert len({panel["id"] for panel in PANELS}) == len(PANELS)
    cells = Counter(
        (x, y)
        for at in (panel["gridPos"] for panel in PANELS)
        for x in range(at["x"], at["x"] + at["w"])
        for y in range(at["y"], at["y"] + at["h"])
    )
    assert max(cells.values()) == 1
    assert max(x for x, _ in cells) < 24  # columns that Grafana has


def test_alerts_and_dashboard_are_those_of_deploy_for_the_operator_and_the_sidecar() -> None:
    rules = yaml.safe_load((COMPONENTS / "monitor/rules.yaml").read_text())
    assert rules["spec"] == ALERTS, "make stamp copies them"
    whole = (ROOT / "deploy/grafana.json").read_text()
    copy = COMPONENTS / "monitor/friendlyhello.json"
    assert copy.read_text() == whole, "make stamp copies it"
    dashboard = render("monitor")["ConfigMap/dashboard"]
    assert dashboard["metadata"]["labels"]["grafana_dashboard"] == "1"
    assert dashboard["data"] == {"friendlyhello.json": whole}


def test_each_alert_leads_to_where_the_documentation_is(tmp_path: Path) -> None:
    own = shutil.copytree(BASE, tmp_path / "own")
    file, place = own / "components/monitor/documentation.yaml", "git.example.com/hello/main"
    file.write_text(file.read_text().replace("friendlyhello.example", place))
    rendered = render("monitor", of=own)
    assert "ConfigMap/documentation" not in rendered
    (group,) = rendered["PrometheusRule/friendlyhello"]["spec"]["groups"]
    for rule in group["rules"]:
        url = rule["annotations"]["runbook_url"]
        assert url.startswith(f"https://{place}/docs/watching.md#"), rule["alert"]
