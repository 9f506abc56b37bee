"""The lists of the pages are complete: settings, paths, metrics, fields, options, rooms, tricks."""

import asyncio
import inspect
import json
import re
from collections.abc import Callable, Iterable
from typing import Any, get_args

import pytest
import tornado.web
import yaml

from bench.tricks import BEGIN, END, WITHOUT, table
from config.table import variable_of
from counter import KEY, Reason, process_key, tokens
from handlers import COMMON_HEADERS, Faults
from http1 import HTTPServer, RequestHandler
from replicas import Record, Snapshot, keys, records
from replicas.marks import Kind
from replicas.states import State
from tests.deploy.manifests import LISTED
from tests.docs.test_docs import flags, headings, metrics, read, rows, text
from tests.stores.machines import STORES
from tests.stores.test_stores import WAYS
from tests.support import ROOT
from tests.support.here import run_here
from tests.test_house import MODULES, PACKAGES
from watch import FAULTS, events

DESIGN = "docs/design.md"


def first_cells(page: str, *heads: str) -> list[str]:
    return [code for row in rows(page, *heads) for code in re.findall(r"`([^`]+)`", row[0])]


def fields_of_the_stream() -> set[str]:
    """Every field of a message that has all of them, and of one without Redis."""
    record = Record(
        *("id", "host", 1, 100.0),
        version="1",
        labels={"zone": "a"},
        faults=["sick"],
        state="gone",
    )
    snapshot = Snapshot(100.0, 1, [record])
    said = asyncio.run(events.figures(snapshot, {"1": 1}, ["GET: no"])).decode()
    message: dict[str, Any] = json.loads(said.partition("data: ")[2])
    [replica] = message["replicas"]
    return {*message, *replica, "reason"}


def keys_of_redis() -> list[str]:
    histories = map(keys.history_key, keys.HISTORIES)
    return [process_key("ID"), tokens.spares_key(KEY), keys.NAMES, *histories]


def of_a_handler() -> set[str]:
    """What our handlers have besides, but for a switch that the text describes."""
    own = {name for name in vars(RequestHandler) if name[0] != "_"}
    return {name for name in own if not hasattr(tornado.web.RequestHandler, name)} - {"EAGER_START"}


#: Of each table, by its page and first heads, what its first column names.
LISTS: dict[tuple[str, ...], Callable[[], Iterable[str]]] = {
    ("docs/watching.md", "`reason`"): lambda: get_args(Reason),
    ("docs/watching.md", "field", "meaning"): fields_of_the_stream,
    ("docs/paths.md", "header", "value"): lambda: (
        *COMMON_HEADERS,
        "X-Request-ID",
        "X-App-Version",
    ),
    ("docs/counting.md", "key", "what it holds"): keys_of_redis,
    ("docs/counting.md", "field of a process"): lambda: ("token", *records.FIELDS),
    ("docs/http-server.md", ""): of_a_handler,
    ("docs/deploy.md", "component"): lambda: LISTED,
}


@pytest.mark.parametrize("where", LISTS, ids=" ".join)
def test_the_first_column_of_a_table_names_all_that_there_is(where: tuple[str, ...]) -> None:
    assert sorted(first_cells(*where)) == sorted(LISTS[where]())


def second_cells(page: str, *heads: str) -> dict[str, str]:
    described = rows(page, *heads)
    found = {row[0].strip("`"): row[1].strip("`") for row in described}
    assert len(found) == len(described)
    return found


def test_the_metrics_and_the_faults_are_listed_with_their_types_and_what_is_no_fault() -> None:
    assert second_cells("docs/watching.md", "metric", "type") == metrics()
    as_text = {"True": "true", "0.0": "0", "0": '"0"'}
    well = {name: as_text[str(value)] for name, value in Faults().as_json().items()}
    assert second_cells("docs/paths.md", "field") == well | {"exit": "none", "for": "none"}


def test_the_settings_are_those_of_help_with_their_variables_and_defaults() -> None:
    described = {flag: cells for flag, *cells, _ in rows("docs/settings.md", "flag", "variable")}
    assert len(described) == len(rows("docs/settings.md", "flag", "variable"))
    helped = flags("server.py")
    without = [*helped][-3:]
    assert "the last three has an environment variable" in run_here("--help").stdout
    assert described == {
        f"`{flag}`": [
            "none" if flag in without else f"`{variable_of(flag[2:].replace('-', '_'))}`",
            f"`{default}`" if default else "none",
        ]
        for flag, default in helped.items()
    }


def test_the_options_of_the_audit_are_those_of_its_help_with_their_defaults() -> None:
    described = [
        (flag, default)
        for option, default, _ in rows("docs/audit.md", "option", "default")
        for flag in re.findall(r"`(--[\w-]+)", option)
    ]
    helped = flags("check.py")
    assert sorted(flag for flag, _ in described) == sorted(helped)
    for flag, default in described:
        assert default.startswith(helped[flag]), flag


def test_the_paths_are_those_of_the_description_of_the_api() -> None:
    found = [inner.children or [] for level, inner in headings("docs/paths.md") if level == "h2"]
    codes = [one.content for those in found for one in those if one.type == "code_inline"]
    assert sorted(codes) == sorted(yaml.safe_load(read("openapi.yaml"))["paths"])


def test_the_options_of_the_http_server_are_those_that_it_takes() -> None:
    described = set(first_cells("docs/http-server.md", "of `HTTPServer`"))
    takes = inspect.signature(HTTPServer.initialize).parameters.values()
    own = {f"{one.name}=" for one in takes if one.kind is inspect.Parameter.KEYWORD_ONLY}
    assert {one for one in described if one.endswith("=")} == own
    server = HTTPServer(lambda request: None)
    assert all(hasattr(server, one.partition("(")[0]) for one in described - own)


#: How long an alert's condition lasts before it fires, as the page says it.
LASTS = {"30s": "for half a minute, ", "1m": "for a minute, ", "5m": "for five minutes, "}


def test_each_alert_is_listed_with_its_time_and_named_in_the_section_that_it_leads_to() -> None:
    said = second_cells("docs/watching.md", "alert")
    sections = re.split("^### ", read("docs/watching.md"), flags=re.M)
    groups = yaml.safe_load(read("deploy/alerts.yaml"))["groups"]
    rules = [rule for group in groups for rule in group["rules"]]
    assert [rule["alert"] for rule in rules] == list(said)
    for rule in rules:
        assert said[rule["alert"]].startswith(LASTS[rule["for"]] if "for" in rule else "")
        page, _, anchor = rule["annotations"]["runbook_url"].partition("#")
        assert page.endswith("/docs/watching.md")
        [section] = [one for one in sections if one.lower().startswith(anchor.replace("-", " "))]
        assert f"`{rule['alert']}`" in section


def test_the_page_names_each_fault_each_kind_of_mark_and_each_state() -> None:
    for word in filter(None, (*FAULTS, *get_args(Kind), *get_args(State))):
        assert f"`{word}`" in text("docs/watching.md")


def test_the_stores_and_the_ways_to_them_are_those_of_their_suite() -> None:
    found = {name: cells for name, *cells in rows("docs/settings.md", "", *WAYS)}
    assert list(found) == list(STORES)
    for cells in found.values():
        assert [cell.partition(";")[0] for cell in cells] == [counts for _, counts in WAYS.values()]


def test_the_rooms_of_the_program_are_described_with_modules_that_they_have() -> None:
    """And a contributor is told how to test each."""
    described = set()
    for room, what in rows(DESIGN, "room", "what is in it"):
        names = re.findall(r"`(\w+)(?:/|\.py)`", room)
        described |= set(names)
        for module in re.findall(r"`(\w+(?:\.lua)?)`", what):
            file = ROOT / names[-1] / (module if "." in module else f"{module}.py")
            assert file.exists(), f"{room}: there is no {module}"
    assert described == {*PACKAGES, *MODULES, "bench", "templates", "static", "deploy", "tests"}
    changed = " ".join(where for _, where, _ in rows("CONTRIBUTING.md", "you change"))
    assert set(PACKAGES) <= set(re.findall(r"`(\w+)/`", changed))


def test_the_table_of_tricks_is_what_measures_them_writes_and_each_is_where_it_says() -> None:
    written = read(DESIGN).partition(BEGIN)[2].partition(END)[0]
    worth = {
        name: int(share) / 100
        for share, name in re.findall(r"\| (-?\d+) % of .* \| `(\w+)` \|$", written, re.M)
    }
    assert worth.keys() == WITHOUT.keys()
    assert table(written, worth) == written
    for _, _, _, where, *_ in rows(DESIGN, "what is skipped"):
        *names, file = re.findall(r"`([^`]+)`", where)
        for name in names:
            assert re.search(rf"(class|def) {name.rpartition('.')[2]}\b", read(file)), name
