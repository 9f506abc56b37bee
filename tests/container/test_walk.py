"""The guide's walk: the commands of a page, in their order, as one script."""

import os
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.container.engine import RUN, build_flags, command, docker, free_ports
from tests.docs.console import blocks

#: The pages, each with the sections that are the walk. README.zh-CN.md has README.md's commands.
WALKS = {
    "README.md": ("Follow Docker's guide",),
    "docs/guide.md": ("Build the image", "Run it", "Add Redis", "Clean up"),
}

OWN = f"{RUN}-walk"

#: What the pages name, and what it is called here, so that a run meets nobody else's.
NAMES = {
    "friendlyhello": f"{RUN}/walk",
    "web": f"{OWN}-web",
    "redis": f"{OWN}-redis",
    "hello": f"{OWN}-network",
    "redis-data": f"{OWN}-data",
}

#: A reader is slower than a script: the page and Redis have begun before the next command.
READER = f"""
set -eu
curl() {{ command curl -sS --retry 60 --retry-delay 1 --retry-all-errors "$@"; echo; }}
sleep() {{ command sleep $((2 * $1)); }}
redis_begins() {{ until docker exec {NAMES["redis"]} redis-cli ping; do command sleep 0.1; done; }}
"""


def as_here(command: str, port: int, python_image: str, redis_image: str) -> str:
    """Return a command as it runs beside others, and where no registry can be reached."""
    compose = ("docker compose", f"--project-name={OWN}")
    files = ("--file=compose.yaml", "--file=tests/container/compose.yaml")
    for page_says, here in (
        ("4000", str(port)),
        ("docker compose", " ".join((*compose, *files))),
        ("docker build", " ".join(("docker build", *build_flags(python_image)))),
        (" redis redis-server", f" {redis_image} redis-server"),
        ("--name redis", "--network-alias=redis --name redis"),
    ):
        command = command.replace(page_says, here)
    named = rf"(?<= )(--tag=)?({'|'.join(NAMES)})(?=[ :]|$)"
    return re.sub(named, lambda found: (found[1] or "") + NAMES[found[2]], command)


def visits(text: str) -> list[str]:
    """Return the pages in a text, each with the same hostname."""
    pages = re.findall(r"^<h3>.*$", text, re.MULTILINE)
    return [re.sub("(?<=Hostname:</b> )[0-9a-f]{12}", "ID", page) for page in pages]


KINDS = {"container": ("--all",), "network": (), "volume": ()}


def left(kind: str) -> list[str]:
    """Return what there is of a walk, of a kind."""
    return docker(kind, "ls", *KINDS[kind], "-q", f"--filter=name={OWN}").split()


@pytest.fixture(autouse=True)
def _nothing_is_left_when_it_fails() -> Iterator[None]:
    yield
    for kind in KINDS:
        if found := left(kind):
            docker(kind, "rm", "--force", *found)


@pytest.mark.parametrize("page", WALKS)
def test_the_walk_runs_as_it_stands_shows_what_the_page_shows_and_leaves_nothing(
    page: str, checkout: Path, python_image: str, redis_image: str
) -> None:
    walk = [shown for block in blocks(page) for shown in block if shown.section in WALKS[page]]
    (port,) = free_ports(1)
    lines = [READER]
    for shown in walk:
        lines.append(as_here(shown.command, port, python_image, redis_image))
        if shown.command.startswith("docker start") or "redis-server" in shown.command:
            lines.append("redis_begins")
    images = {"PYTHON_IMAGE": python_image, "REDIS_IMAGE": redis_image}
    env = os.environ | images | {"IMAGE": NAMES["friendlyhello"], "HELLO_PORTS": str(port)}
    printed = command("bash", "-c", "\n".join(lines), seconds=280, cwd=checkout, env=env)
    assert visits(printed) == visits("\n".join(shown.output for shown in walk)) != []
    assert [left(kind) for kind in KINDS] == [[], [], []]
