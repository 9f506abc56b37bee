"""What the pages say of the rooms is so: their modules, their imports, what each trick is worth."""

import re

import pytest

from tests.docs.test_docs import rows
from tests.docs.test_lists import first_cells
from tests.support import ROOT
from tests.test_house import FILES, MODULES, PACKAGES, name_of, of_ours, tree_of

DESIGN = "docs/design.md"


def room_of(module: str) -> str:
    return module.partition(".")[0].partition("/")[0]


def imports() -> dict[str, set[str]]:
    """The rooms that each room imports."""
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
    assert described >= {*PACKAGES, *MODULES} | others
    assert described <= {*PACKAGES, *MODULES} | others


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


TRICKS = [(worth, where) for *_, worth, where in rows(DESIGN, "what is skipped")]

#: Figures that the code writes in words.
IN_WORDS = {"half of that cost": "half as much", "half of its time": "half the time"}


@pytest.mark.parametrize(("worth", "where"), TRICKS)
def test_what_a_trick_is_worth_is_said_beside_it_in_the_code(worth: str, where: str) -> None:
    *names, file = re.findall(r"`([^`]+)`", where)
    code = " ".join((ROOT / file).read_text().split())
    figure = re.search(r"[\d.]+ (%|ms|s|times)|a third of a page|half of .+", worth)
    assert figure
    said = IN_WORDS.get(figure[0], figure[0].removesuffix(" of a page")).removesuffix(" times")
    assert said in code
    for name in names:
        assert re.search(rf"(class|def) {name.rpartition('.')[2]}\b", code), name
