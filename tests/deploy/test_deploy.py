"""``deploy/``: the dashboard and the alerts, by the metrics that a server has."""

import json
import re
import shutil
from collections import Counter
from pathlib import Path

import yaml

from tests.deploy.manifests import BASE, COMPONENTS, render
from tests.support import ROOT
from tests.support.here import Serve
from tests.watch.test_metrics import scrape

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
