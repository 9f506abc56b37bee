"""The documentation: it says what the program does, and its links lead somewhere."""

import functools
import re
import unicodedata
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest
import yaml
from markdown_it import MarkdownIt
from markdown_it.token import Token

from tests.support import ROOT
from tests.support.here import Serve, run_here
from tests.support.program import NOWHERE
from tests.support.raw_http import talk
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


@functools.cache
def tokens(page: str) -> list[Token]:
    return MarkdownIt("commonmark").enable("table").parse((ROOT / page).read_text("utf-8"))


def inline(page: str) -> Iterator[Token]:
    """What stands in the lines of a page: text, code, links, pictures."""
    for token in tokens(page):
        yield from token.children or []


def targets(page: str) -> set[str]:
    found = [token.attrGet("href") or token.attrGet("src") for token in inline(page)]
    return {str(target) for target in found if target is not None}


def headings(page: str) -> list[tuple[str, Token]]:
    every = tokens(page)
    return [
        (token.tag, every[at + 1]) for at, token in enumerate(every) if token.type == "heading_open"
    ]


def slug(heading: str) -> str:
    """A heading's anchor, as GitHub makes it: letters, digits, hyphens, in any language."""
    kept = (c for c in heading.lower() if c in " -" or _is_of_a_word(c))
    return "".join(kept).replace(" ", "-")


def _is_of_a_word(character: str) -> bool:
    category = unicodedata.category(character)
    return category[0] in "LM" or category in ("Nd", "Pc")


@functools.cache
def anchors(page: str) -> set[str]:
    """The anchors of a page; the second of two that are alike ends with ``-1``."""
    found: dict[str, int] = {}
    names = set()
    for _, heading in headings(page):
        text = "".join(token.content for token in heading.children or [])
        name = slug(text)
        again = found.get(name, 0)
        found[name] = again + 1
        names.add(f"{name}-{again}" if again else name)
    return names


def tables(page: str) -> Iterator[Table]:
    table: Table = []
    for token in tokens(page):
        if token.type == "table_open":
            table = []
        elif token.type == "tr_open":
            table.append([])
        elif token.type == "inline" and table and token.level >= 4:
            table[-1].append(token.content)
        elif token.type == "table_close":
            yield table
            table = []


def rows(page: str, *heads: str) -> list[list[str]]:
    found = [table for table in tables(page) if table[0][: len(heads)] == list(heads)]
    assert found, f"{page} has no table with {' | '.join(heads)}"
    return [row for table in found for row in table[1:]]


def fences(page: str) -> list[tuple[str, str]]:
    return [(token.info, token.content) for token in tokens(page) if token.type == "fence"]


def code(page: str) -> Iterator[str]:
    """All code of a page: blocks, and what stands between backticks."""
    yield from (content for _, content in fences(page))
    yield from (token.content for token in inline(page) if token.type == "code_inline")


@pytest.mark.parametrize(
    ("heading", "anchor"),
    [
        ("Two commands", "two-commands"),
        ("What to know, first?", "what-to-know-first"),
        ("/static/{file}", "staticfile"),
        ("--redis-url, in short", "--redis-url-in-short"),
        ("Tornado's own", "tornados-own"),
        ("a — b", "a--b"),
        ("snake_case", "snake_case"),
        ("它保证什么？", "它保证什么"),
        ("Café 2", "café-2"),
    ],
)
def test_an_anchor_is_what_github_makes_of_a_heading(heading: str, anchor: str) -> None:
    assert slug(heading) == anchor


@pytest.mark.parametrize("page", PAGES)
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


@pytest.mark.parametrize("page", PAGES)
def test_every_file_that_is_named_exists(page: str) -> None:
    made = re.findall(r"^/(.+?)/?$", (ROOT / ".gitignore").read_text(), re.M)
    for name in {word for text in code(page) for word in text.split()}:
        is_path = re.fullmatch(r"(\.?\w[\w.-]*/)+[\w.-]*", name)
        if not is_path or name.startswith(tuple(made)):  # by a tool, or by the user
            continue
        folders = (ROOT, (ROOT / page).parent)
        places = [one / name for one in folders if (one / name.partition("/")[0]).is_dir()]
        assert not places or any(map(Path.exists, places)), f"{name}: there is no such file"


def test_both_front_pages_are_short_and_alike_and_each_links_to_the_other() -> None:
    english, chinese = "README.md", "README.zh-CN.md"
    assert len((ROOT / english).read_text("utf-8").splitlines()) <= 150, "two screens"
    assert [level for level, _ in headings(chinese)] == [level for level, _ in headings(english)]
    assert fences(chinese) == fences(english)
    assert chinese in targets(english)
    assert english in targets(chinese)


def settings_of_help() -> dict[str, tuple[str, str]]:
    """Each flag of ``--help``: its environment variable and its default, ``none`` without."""
    text = run_here("--help").stdout
    found: dict[str, str] = {}
    for flag, words in re.findall(r"^ {2}(--[\w-]+|) +(.+)$", text, re.M):
        name = flag or [*found][-1]
        found[name] = f"{found.get(name, '')} {words}"
    (number,) = re.findall(r"Each flag but\s+the last (\w+) has an environment variable", text)
    without = [*found][-{"two": 2, "three": 3, "four": 4}[number] :]
    settings = {}
    for flag, words in found.items():
        variable = flag.strip("-").replace("-", "_").upper()
        default = re.search(r"\(default (\S+)\)", words)
        settings[flag] = (
            "none" if flag in without else f"`{variable}`",
            f"`{default[1]}`" if default else "none",
        )
    return settings


def test_the_settings_are_those_of_help_with_their_variables_and_defaults() -> None:
    described = rows("docs/settings.md", "flag", "variable", "default")
    assert len(described) == len({flag for flag, *_ in described})
    assert {
        flag.strip("`"): (variable, default) for flag, variable, default, *_ in described
    } == settings_of_help()


def test_the_paths_are_those_of_the_description_of_the_api() -> None:
    codes = [
        token.content
        for level, heading in headings("docs/paths.md")
        for token in heading.children or []
        if level == "h2" and token.type == "code_inline"
    ]
    described = yaml.safe_load((ROOT / "openapi.yaml").read_text())["paths"]
    assert sorted(codes) == sorted(described)


@pytest.mark.parametrize("page", PAGES)
def test_every_target_of_make_that_is_named_exists(page: str) -> None:
    known = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.M))
    named = {
        target
        for text in code(page)
        for words in re.findall(r"\bmake((?: [a-z-]+\b(?!=))+)", text)
        for target in words.split()
    }
    assert named <= known


def test_the_check_of_haproxy_is_answered_and_its_bare_one_is_not_as_it_says(
    served: Serve,
) -> None:
    (line,) = re.findall("^http-check send (.+)$", (ROOT / "docs/deploy.md").read_text(), re.M)
    words = line.split()
    asked = dict(zip(words[::2], words[1::2], strict=False)) | {"hdr": " ".join(words[-2:])}
    server = served(NOWHERE)
    request = f"{asked['meth']} {asked['uri']} {asked['ver']}\r\n{asked['hdr'].replace(' ', ': ')}"
    for first, status in ((request, 200), ("OPTIONS / HTTP/1.0", 405)):
        (answer,) = talk(server, f"{first}\r\nConnection: close\r\n\r\n".encode())
        assert answer.status == status


@functools.cache
def metrics() -> dict[str, str]:
    """The type of each metric of ours, by its name."""
    text = Exposition(Metrics()).written(next(iter(FORMS))).decode()
    return dict(re.findall(r"^# TYPE (friendlyhello_\w+) (\w+)$", text, re.M))


def test_the_metrics_are_those_of_a_scrape_with_their_types() -> None:
    described = rows("docs/watching.md", "metric", "type")
    assert {name.strip("`"): kind for name, kind, *_ in described} == metrics()


@pytest.mark.parametrize("page", PAGES)
def test_every_metric_that_is_named_exists(page: str) -> None:
    known = set(metrics())
    for name, kind in metrics().items():
        if kind == "histogram":
            known |= {f"{name}_{part}" for part in ("bucket", "count", "sum")}
    # Docker names a stack's services so.
    stack = yaml.safe_load((ROOT / "deploy/stack.yaml").read_text())["services"]
    known |= {f"friendlyhello_{service}" for service in stack}
    named = set(re.findall(r"\bfriendlyhello_[a-z]\w*", (ROOT / page).read_text("utf-8")))
    assert named <= known
