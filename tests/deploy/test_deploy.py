"""``deploy/``: the dashboard and the alerts, by the metrics that a server has."""

import json
import re
from collections.abc import Callable, Iterator

import yaml

from tests.docs.test_docs import anchors
from tests.support import ROOT
from tests.support.program import Program
from tests.support.valkey import Valkey
from tests.watch.test_metrics import scrape

Start = Callable[..., Program]

DASHBOARD = json.loads((ROOT / "deploy/grafana.json").read_text())
GROUPS = yaml.safe_load((ROOT / "deploy/alerts.yaml").read_text())["groups"]
RULES = [rule for group in GROUPS for rule in group["rules"]]

#: What Prometheus adds to a sample, and what a histogram has.
ADDED = {"job", "instance", "le"}


def alerts() -> dict[str, str]:
    """The expression of each alert."""
    return {rule["alert"]: rule["expr"] for rule in RULES}


def queries() -> Iterator[str]:
    """Every expression of the dashboard."""
    for panel in DASHBOARD["panels"]:
        for target in panel["targets"]:
            yield target["expr"]
    for variable in DASHBOARD["templating"]["list"]:
        if variable["type"] == "query":
            yield variable["query"]["query"]


def names(expression: str) -> set[str]:
    return set(re.findall(r"\b(?:friendlyhello|process)_\w+", expression))


def labels(expression: str) -> set[str]:
    """The labels that an expression selects or groups by."""
    grouped = re.findall(r"\b(?:by|on|group_left) \(([^)]*)\)", expression)
    selected = re.findall(r'(\w+)="', expression)
    return {label.strip() for one in grouped for label in one.split(",")} | set(selected)


def test_each_metric_and_label_that_is_named_exists(program: Start, valkey: Valkey) -> None:
    server = program(f"--redis-url={valkey.url}", "--version-label=v1")
    server.wait_for(b"counter on")
    assert server.visits() == 1
    had: dict[str, set[str]] = {}
    for name, pairs in scrape(server):
        had.setdefault(name, set()).update(label for label, _ in pairs)
    assert alerts()
    for expression in (*alerts().values(), *queries()):
        assert names(expression), expression
        assert names(expression) <= set(had), expression
        of_these = set().union(*(had[name] for name in names(expression)))
        assert labels(expression) <= of_these | ADDED, expression


def test_there_is_an_alert_for_each_thing_that_matters() -> None:
    uncounted = {"friendlyhello_visits_total", "friendlyhello_visits_uncounted_total"}
    assert {name: names(expression) for name, expression in alerts().items()} == {
        "FriendlyhelloRedisAway": {"friendlyhello_redis_up"},
        "FriendlyhelloVisitsUncounted": uncounted,
        "FriendlyhelloUncountedBudgetBurns": uncounted,
        "FriendlyhelloSlowPages": {"friendlyhello_request_seconds_bucket"},
    }


def test_each_alert_leads_to_a_section_that_says_what_to_do() -> None:
    known = anchors("docs/watching.md")
    for rule in RULES:
        page, _, anchor = rule["annotations"]["runbook_url"].partition("#")
        assert page.endswith("/docs/watching.md")
        assert anchor in known, rule["alert"]


def test_panels_lie_beside_one_another() -> None:
    panels = DASHBOARD["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels)
    taken: set[tuple[int, int]] = set()
    for panel in panels:
        at = panel["gridPos"]
        cells = {
            (x, y)
            for x in range(at["x"], at["x"] + at["w"])
            for y in range(at["y"], at["y"] + at["h"])
        }
        assert not cells & taken, panel["title"]
        assert at["x"] + at["w"] <= 24  # columns that Grafana has
        taken |= cells
