"""What the pages say of the rooms is so: their modules, their imports, what each trick is worth."""

import re
import tokenize

from bench.tricks import BEGIN, END, TRICKS, table
from tests.docs.test_docs import rows
from tests.docs.test_lists import first_cells
from tests.support import ROOT
from tests.test_house import FILES, MODULES, PACKAGES, name_of, of_ours, tree_of

DESIGN = "docs/design.md"

#: The rooms that skip something to be fast.
WHERE_TRICKS = {"server", "handlers", "watch", "process", "counter", "http1"}


def room_of(module: str) -> str:
    return module.partition(".")[0].partition("/")[0]


def imports() -> dict[str, set[str]]:
    found: dict[str, set[str]] = {name: set() for name in (*PACKAGES, *MODULES)}
    for file in FILES:
        room = room_of(name_of(file))
        found[room] |= {room_of(one) for one in of_ours(tree_of(file))} - {room}
    return found


def test_the_rooms_are_those_of_the_program() -> None:
    described = {
        name.rstrip("/").removesuffix(".py")
        for name in first_cells(DESIGN, "room", "what is in it")
    }
    others = {"bench", "templates", "static", "deploy", "tests"}
    assert described == {*PACKAGES, *MODULES} | others


def test_every_module_that_the_table_of_rooms_names_is_in_its_room() -> None:
    for room, what in rows(DESIGN, "room", "what is in it"):
        folder = ROOT / re.findall(r"`(\w+)/?", room)[-1]
        for name in re.findall(r"`(\w+(?:\.lua)?)`", what):
            file = folder / (name if "." in name else f"{name}.py")
            assert file.exists(), f"{room}: there is no {name}"


def test_the_imports_of_each_room_are_those_of_its_code() -> None:
    described: dict[str, set[str]] = {}
    for rooms, imported in rows(DESIGN, "room", "it imports"):
        named = set(re.findall(r"`(\w+)`", imported))
        if imported.startswith("every room but"):
            named = set(imports()) - named - {"server", "check"}
        for room in re.findall(r"`(\w+)`", rooms):
            described[room] = named
    assert described == imports()


def test_a_contributor_is_told_how_to_test_each_room() -> None:
    described = " ".join(where for _, where, _ in rows("CONTRIBUTING.md", "you change"))
    assert set(PACKAGES) <= set(re.findall(r"`(\w+)/`", described))


def test_what_the_program_runs_with_is_listed() -> None:
    lines = (ROOT / "requirements.in").read_text().splitlines()
    packages = [re.split(r"[ ;]", line)[0] for line in lines if not line.startswith("#")]
    assert [package for package, _ in rows(DESIGN, "package")] == packages


def test_each_trick_is_where_the_table_says() -> None:
    for *_, where in rows(DESIGN, "what is skipped"):
        *names, file = re.findall(r"`([^`]+)`", where)
        code = (ROOT / file).read_text()
        for name in names:
            assert re.search(rf"(class|def) {name.rpartition('.')[2]}\b", code), name


def test_the_table_of_tricks_is_what_measures_them_writes() -> None:
    _, _, rest = (ROOT / DESIGN).read_text().partition(BEGIN)
    written, _, _ = rest.partition(END)
    worth = {
        trick.name: int(found[1]) / 100
        for trick in TRICKS
        if (found := re.search(rf"\| {re.escape(trick.skipped)} \|.*\| (-?\d+) % of ", written))
    }
    assert worth.keys() == {trick.name for trick in TRICKS}
    assert table(worth) == written


#: How the worth of something is said: "4 % of a page", "1.1 times the pages".
WORTH = re.compile(r"\d %|times the pages|(half|third|quarter|tenth) of (a|its|the) (page|start)")


def test_no_code_says_what_a_trick_is_worth() -> None:
    """It would be old before long: the table alone is measured anew."""
    for file in FILES:
        if room_of(name_of(file)) in WHERE_TRICKS:
            with file.open("rb") as code:
                told = [
                    " ".join(token.string.split())
                    for token in tokenize.tokenize(code.readline)
                    if token.type in (tokenize.COMMENT, tokenize.STRING)
                ]
            assert [one for one in told if WORTH.search(one)] == [], file
