"""``deploy/``: the dashboard and the alerts, by the metrics that a server has."""

import json
import re
from collections.abc import Iterator

import yaml

from tests.support import ROOT
from tests.support.here import Serve
from tests.watch.test_metrics import scrape

DASHBOARD = json.loads((ROOT / "deploy/grafana.json").read_text())
GROUPS = yaml.safe_load((ROOT / "deploy/alerts.yaml").read_text())["groups"]
ALERTS = [rule["expr"] for group in GROUPS for rule in group["rules"]]

#: What Prometheus adds to a sample, and what a histogram has.
ADDED = {"job", "instance", "le"}


def queries() -> Iterator[str]:
    for panel in DASHBOARD["panels"]:
        for target in panel["targets"]:
            yield target["expr"]
    for variable in DASHBOARD["templating"]["list"]:
        if variable["type"] == "query":
            yield variable["query"]["query"]


def names(expression: str) -> set[str]:
    return set(re.findall(r"\b(?:friendlyhello|process)_\w+", expression))


def labels(expression: str) -> set[str]:
    grouped = re.findall(r"\b(?:by|on|group_left) \(([^)]*)\)", expression)
    selected = re.findall(r'(\w+)="', expression)
    return {label.strip() for one in grouped for label in one.split(",")} | set(selected)


def test_each_metric_and_label_that_is_named_exists(serve: Serve) -> None:
    server = serve("--version-label=v1")
    assert server.visits() == 1
    had: dict[str, set[str]] = {}
    for name, pairs in scrape(server):
        had.setdefault(name, set()).update(label for label, _ in pairs)
    for expression in (*ALERTS, *queries()):
        assert names(expression), expression
        assert names(expression) <= set(had), expression
        of_these = set().union(*(had[name] for name in names(expression)))
        assert labels(expression) <= of_these | ADDED, expression


def test_panels_lie_beside_one_another() -> None:
    panels = DASHBOARD["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels)
    taken: set[tuple[int, int]] = set()
    for at in (panel["gridPos"] for panel in panels):
        rows = range(at["y"], at["y"] + at["h"])
        cells = {(x, y) for x in range(at["x"], at["x"] + at["w"]) for y in rows}
        assert not cells & taken, at
        assert at["x"] + at["w"] <= 24  # columns that Grafana has
        taken |= cells
