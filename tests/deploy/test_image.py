"""Dockerfile and docker-bake.hcl: they say the same of the image."""

import re

from tests.support import ROOT

DOCKERFILE = (ROOT / "Dockerfile").read_text()
BAKE = (ROOT / "docker-bake.hcl").read_text()


def check(text: str) -> tuple[set[str], str]:
    """The flags of a ``HEALTHCHECK``, and its command."""
    [(flags, command)] = re.findall(r"^HEALTHCHECK (.*) \\\n +CMD (.*)$", text, re.MULTILINE)
    return set(flags.split()), command


def test_bake_adds_to_the_check_what_older_engines_cannot_read_and_no_more() -> None:
    flags, command = check(BAKE)
    plain, same = check(DOCKERFILE)
    assert command == same
    assert flags - plain == {"--start-period=10s", "--start-interval=200ms"}
    assert plain < flags


def test_bake_names_arguments_that_the_image_takes() -> None:
    taken = set(re.findall(r"^ARG (\w+)", DOCKERFILE, re.MULTILINE))
    [arguments] = re.findall(r"^  args = \{(.*?)\}", BAKE, re.MULTILINE | re.DOTALL)
    given = set(re.findall(r"^ +(\w+) +=", arguments, re.MULTILINE))
    assert given >= {"SOURCE", "COMMIT", "CREATED"}, "without one of them none is a label"
    assert given <= taken


def test_no_label_states_a_licence() -> None:
    assert not re.search(r"image\.licen[cs]es?", DOCKERFILE + BAKE), "the owner has chosen none"
