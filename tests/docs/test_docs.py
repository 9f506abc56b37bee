"""The documentation: what it names exists, and its links lead somewhere."""

import functools
import re
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest
import yaml
from markdown_it import MarkdownIt
from markdown_it.token import Token

from audit.options import new_parser
from tests.support import ROOT
from tests.support.here import run_here
from watch import Metrics
from watch.exposition import FORMS, Exposition

#: Folders that are not ours: what tools have made beside the program.
FOREIGN = {"data", "node_modules", "screenshots", "__pycache__"}

#: A table's rows of cells, the heads first; each cell as it is written.
Table = list[list[str]]


def pages(folder: Path = ROOT) -> Iterator[str]:
    """Every Markdown file of the program, by its path from the root."""
    for entry in sorted(folder.iterdir()):
        if entry.is_dir():
            if not entry.name.startswith(".") and entry.name not in FOREIGN:
                yield from pages(entry)
        elif entry.suffix == ".md":
            yield str(entry.relative_to(ROOT))


PAGES = list(pages())
of_each_page = pytest.mark.parametrize("page", PAGES)


@functools.cache
def read(file: str) -> str:
    return (ROOT / file).read_text("utf-8")


def text(page: str) -> str:
    return " ".join(read(page).split())


@functools.cache
def tokens(page: str) -> list[Token]:
    return MarkdownIt("commonmark").enable("table").parse(read(page))


def inline(page: str) -> Iterator[Token]:
    """What stands in the lines of a page: text, code, links, pictures."""
    for token in tokens(page):
        yield from token.children or []


def targets(page: str) -> set[str]:
    found = [token.attrGet("href") or token.attrGet("src") for token in inline(page)]
    return {str(target) for target in found if target is not None}


def headings(page: str) -> list[tuple[str, Token]]:
    every = pairwise(tokens(page))
    return [(token.tag, inner) for token, inner in every if token.type == "heading_open"]


@functools.cache
def anchors(page: str) -> set[str]:
    """The anchors of a page's headings, as GitHub makes them, but for a second of the same name."""
    texts = ["".join(one.content for one in inner.children or []) for _, inner in headings(page)]
    return {re.sub(r"[^\w -]", "", one.lower()).replace(" ", "-") for one in texts}


def tables(page: str) -> list[Table]:
    found: list[Table] = []
    for token, inner in pairwise(tokens(page)):
        if token.type == "table_open":
            found.append([])
        elif token.type == "tr_open":
            found[-1].append([])
        elif token.type in ("th_open", "td_open"):
            found[-1][-1].append(inner.content)
    return found


def rows(page: str, *heads: str) -> list[list[str]]:
    found = [table for table in tables(page) if table[0][: len(heads)] == list(heads)]
    assert found, f"{page} has no table with {' | '.join(heads)}"
    return [row for table in found for row in table[1:]]


def fences(page: str) -> list[tuple[str, str]]:
    return [(token.info, token.content) for token in tokens(page) if token.type == "fence"]


def quoted(page: str) -> list[str]:
    """What stands between backticks."""
    return [token.content for token in inline(page) if token.type == "code_inline"]


def code(page: str) -> list[str]:
    """All code of a page: blocks, and what stands between backticks."""
    return [*(content for _, content in fences(page)), *quoted(page)]


@of_each_page
def test_every_link_and_anchor_leads_somewhere(page: str) -> None:
    for target in targets(page):
        url = urlsplit(target)
        if url.scheme in ("http", "https"):
            continue
        assert not url.scheme, f"{target}: neither a page of ours nor of the web"
        path = (ROOT / page).parent / unquote(url.path) if url.path else ROOT / page
        assert path.resolve().is_relative_to(ROOT), f"{target}: outside of the repository"
        assert path.exists(), f"{target}: there is no such file"
        if url.fragment:
            there = str(path.resolve().relative_to(ROOT))
            assert unquote(url.fragment) in anchors(there), f"{target}: there is no such heading"


@of_each_page
def test_every_file_that_is_named_exists(page: str) -> None:
    made = re.findall(r"^/(.+?)/?$", read(".gitignore"), re.M)
    for name in {word for one in code(page) for word in one.split()}:
        is_path = re.fullmatch(r"(\.?\w[\w.-]*/)+[\w.-]*", name)
        if not is_path or name.startswith(tuple(made)):  # by a tool, or by the user
            continue
        folders = (ROOT, (ROOT / page).parent)
        places = [one / name for one in folders if (one / name.partition("/")[0]).is_dir()]
        assert not places or any(map(Path.exists, places)), f"{name}: there is no such file"


def test_both_front_pages_are_short_and_alike_and_each_links_to_the_other() -> None:
    english, chinese = "README.md", "README.zh-CN.md"
    assert len(read(english).splitlines()) <= 150, "two screens"
    assert [level for level, _ in headings(chinese)] == [level for level, _ in headings(english)]
    assert fences(chinese) == fences(english)
    assert targets(english) ^ targets(chinese) == {english, chinese}


@of_each_page
def test_every_target_of_make_that_is_named_exists(page: str) -> None:
    known = set(re.findall(r"^([a-z-]+):", read("Makefile"), re.M))
    calls = re.findall(r"\bmake((?: [a-z-]+\b(?!=))+)", "\n".join(code(page)))
    assert set(" ".join(calls).split()) <= known


@functools.cache
def metrics() -> dict[str, str]:
    """The type of each metric of ours, by its name."""
    scrape = Exposition(Metrics()).written(next(iter(FORMS))).decode()
    return dict(re.findall(r"^# TYPE (friendlyhello_\w+) (\w+)$", scrape, re.M))


@of_each_page
def test_every_metric_that_is_named_exists(page: str) -> None:
    known = set(metrics())
    for name, kind in metrics().items():
        if kind == "histogram":
            known |= {f"{name}_{part}" for part in ("bucket", "count", "sum")}
    # Docker names a stack's services so.
    known |= {
        f"friendlyhello_{one}" for one in yaml.safe_load(read("deploy/stack.yaml"))["services"]
    }
    assert set(re.findall(r"\bfriendlyhello_[a-z]\w*", read(page))) <= known


@functools.cache
def flags(script: str) -> dict[str, str]:
    """The flags of ``server.py`` or ``check.py``, with the defaults, as its help says them."""
    text = run_here("--help").stdout if script == "server.py" else new_parser().format_help()
    found = [" ".join(one.split()) for one in re.split(r"^ {2}(?=--)", text, flags=re.M)[1:]]
    defaults = [re.search(r"\(default ([^\s)]+)", one) for one in found]
    return {
        one.split()[0]: default[1] if default else ""
        for one, default in zip(found, defaults, strict=True)
    }


#: Flags of other programs that the pages name alone, and another spelling of one of ours.
OTHERS = {
    *("--init", "--ulimit", "--volumes", "--cpuset-cpus", "--cpus", "--network"),  # docker
    "--sysctl",
    *("--appendonly", "--appendfsync"),  # redis-server
    *("--url", "--randomly-seed", "--tests"),  # schemathesis, pytest, the mutants
    "--redis_url",
}


@pytest.mark.parametrize("page", [page for page in PAGES if page != "CHANGELOG.md"])
def test_every_flag_that_is_named_exists(page: str) -> None:
    """The flags that stand alone between backticks, and those of commands of ours."""
    named = {flag for one in quoted(page) for flag in re.findall(r"^(--[\w-]+)", one)}
    commands = " ".join(content for _, content in fences(page)).replace("\\\n", " ")
    for line in re.findall(r"(?:server|check)\.py .*", commands):
        named |= set(re.findall(r" (--[\w-]+)", line))
    assert named <= {*flags("server.py"), *flags("check.py"), *OTHERS}


#: Objects that Kustomize, Flagger, and cert-manager or a person make.
MADE = {
    *("deployment/web-canary", "service/web-canary", "configmap/dashboard", "secret/web-tls"),
    *("deployment/web-primary",),
}


@pytest.mark.parametrize("page", ["docs/deploy.md", "docs/watching.md"])
def test_every_object_of_kubernetes_that_is_named_exists(page: str) -> None:
    known = MADE | {
        f"{one['kind'].lower()}/{one['metadata']['name']}"
        for file in (ROOT / "deploy/kubernetes").rglob("*.yaml")
        for one in yaml.safe_load_all(file.read_text())
        if "name" in one.get("metadata", {})
    }
    kinds = {one.partition("/")[0] for one in known}
    words = {word for one in code(page) for word in re.findall(r"[a-z]+/[a-z][a-z-]*", one)}
    assert {word for word in words if word.partition("/")[0] in kinds} <= known
