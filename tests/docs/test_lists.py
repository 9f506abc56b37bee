"""The lists of the pages are complete: alerts, reasons, fields, options, files, components."""

import asyncio
import inspect
import json
import re
from functools import cache
from pathlib import Path
from typing import Any, get_args

import pytest
import tornado.web
import yaml

from audit.options import new_parser
from counter import Reason
from http1 import HTTPServer, RequestHandler
from replicas import Record, Snapshot
from replicas.marks import Kind
from replicas.states import State
from tests.docs.test_docs import PAGES, code, fences, inline, rows, settings_of_help
from tests.docs.test_figures import text
from tests.support import ROOT
from watch import FAULTS, events


def first_cells(page: str, *heads: str) -> list[str]:
    return [code for row in rows(page, *heads) for code in re.findall(r"`([^`]+)`", row[0])]


#: How long an alert's condition lasts before it fires, as the page says it.
LASTS = {"30s": "for half a minute, ", "1m": "for a minute, ", "5m": "for five minutes, "}


def test_each_alert_is_listed_with_its_time_and_named_in_the_section_that_it_leads_to() -> None:
    said = {name.strip("`"): when for name, when in rows("docs/watching.md", "alert")}
    sections = re.split("^### ", (ROOT / "docs/watching.md").read_text(), flags=re.M)
    groups = yaml.safe_load((ROOT / "deploy/alerts.yaml").read_text())["groups"]
    rules = [rule for group in groups for rule in group["rules"]]
    assert [rule["alert"] for rule in rules] == list(said)
    for rule in rules:
        if "for" in rule:
            assert said[rule["alert"]].startswith(LASTS[rule["for"]]), rule["alert"]
        page, _, anchor = rule["annotations"]["runbook_url"].partition("#")
        assert page.endswith("/docs/watching.md")
        [section] = [one for one in sections if one.lower().startswith(anchor.replace("-", " "))]
        assert f"`{rule['alert']}`" in section


def test_the_reasons_why_a_visit_got_no_number_are_those_of_the_counter() -> None:
    assert sorted(first_cells("docs/watching.md", "`reason`")) == sorted(get_args(Reason))


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


def test_the_fields_of_the_stream_are_those_that_it_has() -> None:
    described = first_cells("docs/watching.md", "field", "meaning")
    assert set(described) == fields_of_the_stream()


@pytest.mark.parametrize("words", [FAULTS, get_args(Kind), get_args(State)])
def test_the_page_names_each_fault_each_kind_of_mark_and_each_state(words: tuple[str, ...]) -> None:
    for word in filter(None, words):
        assert f"`{word}`" in text("docs/watching.md")


def options() -> dict[str, str]:
    """The options of check.py, each with its default as its help says it."""
    found = re.split(r"^ {2}(?=--)", new_parser().format_help(), flags=re.M)[1:]
    helps = [" ".join(one.split()) for one in found]
    return {
        one.split()[0]: default[1] if (default := re.search(r"\(default ([\d,]+)", one)) else ""
        for one in helps
    }


def test_the_options_of_the_audit_are_those_of_its_help_with_their_defaults() -> None:
    described = rows("docs/audit.md", "option", "default")
    flags = [flag for row in described for flag in re.findall(r"`(--[\w-]+)", row[0])]
    assert sorted(flags) == sorted(options())
    for flag, default in options().items():
        [row] = [row for row in described if f"`{flag}" in row[0]]
        assert not default or row[1].startswith(default), flag


def test_the_options_of_the_http_server_are_those_that_it_takes() -> None:
    described = set(first_cells("docs/http-server.md", "of `HTTPServer`"))
    takes = inspect.signature(HTTPServer.initialize).parameters.values()
    own = {f"{one.name}=" for one in takes if one.kind is inspect.Parameter.KEYWORD_ONLY}
    assert {one for one in described if one.endswith("=")} == own
    code = Path(inspect.getfile(HTTPServer)).read_text()
    for name in (one.partition("(")[0] for one in described if not one.endswith("=")):
        assert re.search(rf"(def |self\.){name}\b", code), name


def test_what_a_handler_has_besides_is_described() -> None:
    own = {name for name in vars(RequestHandler) if name[0] != "_"}
    added = {name for name in own if not hasattr(tornado.web.RequestHandler, name)}
    described = first_cells("docs/http-server.md", "")
    assert {*described, "EAGER_START"} == added
    assert "`EAGER_START = True`" in text("docs/http-server.md")


def files(folder: str, pattern: str) -> set[str]:
    return {file.name for file in (ROOT / folder).glob(pattern)}


@pytest.mark.parametrize(
    ("page", "folder"),
    [
        ("tests/faults/README.md", "tests/faults"),
        ("tests/README.md", "tests/container"),
        ("tests/README.md", "tests/browser"),
    ],
)
def test_the_files_of_a_suite_are_listed(page: str, folder: str) -> None:
    table = "what goes wrong" if "faults" in page else "what it tests"
    assert files(folder, "test_*.py") <= set(first_cells(page, "file", table))


def test_the_rooms_of_the_tests_are_listed() -> None:
    listed = {name.strip("/") for name in first_cells("tests/README.md", "folder or file")}
    folders = {file.parent.name for file in (ROOT / "tests").glob("*/*.py")}
    alone = files("tests", "*.py") - {"__init__.py", "conftest.py"}
    assert folders | alone <= listed


def test_the_components_are_those_of_the_manifests_in_their_order() -> None:
    listed = re.findall(
        r"^# +- components/(\w+)", (ROOT / "deploy/kubernetes/kustomization.yaml").read_text(), re.M
    )
    described = [row[0] for row in rows("docs/deploy.md", "component", "what it adds")]
    assert [re.findall(r"`(\w+)`", one)[0] for one in described] == listed


#: Flags of other programs that the pages name alone, and another spelling of one of ours.
OTHERS = {
    *("--init", "--ulimit", "--volumes", "--cpuset-cpus", "--cpus", "--network"),  # docker
    "--sysctl",
    *("--appendonly", "--appendfsync"),  # redis-server
    *("--url", "--randomly-seed", "--tests"),  # schemathesis, pytest, the mutants
    "--redis_url",
}


@cache
def flags_that_are() -> set[str]:
    return {*settings_of_help(), *options(), *OTHERS}


def flags_of(page: str) -> set[str]:
    """The flags that stand alone between backticks, and those of commands of ours."""
    alone = [token.content for token in inline(page) if token.type == "code_inline"]
    named = {flag for one in alone for flag in re.findall(r"^(--[\w-]+)", one)}
    commands = " ".join(content for _, content in fences(page)).replace("\\\n", " ")
    for line in re.findall(r"(?:server|check)\.py .*", commands):
        named |= set(re.findall(r" (--[\w-]+)", line))
    return named


@pytest.mark.parametrize("page", [page for page in PAGES if page != "CHANGELOG.md"])
def test_every_flag_that_is_named_exists(page: str) -> None:
    assert flags_of(page) <= flags_that_are()


#: Objects that Kustomize, Flagger, and cert-manager or a person make.
MADE = {
    *("deployment/web-canary", "service/web-canary", "configmap/dashboard", "secret/web-tls"),
    *("deployment/web-primary",),
}


def objects() -> set[str]:
    """The kind and name of each object of the manifests."""
    found = set()
    for file in (ROOT / "deploy/kubernetes").rglob("*.yaml"):
        for one in yaml.safe_load_all(file.read_text()):
            if "name" in one.get("metadata", {}):
                found.add(f"{one['kind'].lower()}/{one['metadata']['name']}")
    return found


@pytest.mark.parametrize("page", ["docs/deploy.md", "docs/watching.md"])
def test_every_object_of_kubernetes_that_is_named_exists(page: str) -> None:
    known = objects() | MADE
    kinds = {one.partition("/")[0] for one in known}
    words = {word for one in code(page) for word in re.findall(r"[a-z]+/[a-z][a-z-]*", one)}
    assert {word for word in words if word.partition("/")[0] in kinds} <= known
