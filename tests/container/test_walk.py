"""The guide's walk: the commands of a page, in their order, as one script."""

import os
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.container.engine import RUN, docker, free_ports, reaching_an_index
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


def script(page: str, port: int, images: tuple[str, str]) -> str:
    """Return the commands of a page's walk."""
    every = (shown for block in blocks(page) for shown in block if shown.section in WALKS[page])
    lines = [READER]
    for command in (shown.command for shown in every):
        lines.append(as_here(command, port, images))
        if command.startswith("docker start") or "redis-server" in command:
            lines.append("redis_begins")
    return "\n".join(lines)


def as_here(command: str, port: int, images: tuple[str, str]) -> str:
    """Return a command as it runs beside others, and where no registry can be reached."""
    python_image, redis_image = images
    compose = ("docker compose", f"--project-name={OWN}")
    files = ("--file=compose.yaml", "--file=tests/container/compose.yaml")
    for page_says, here in (
        ("docker compose", " ".join((*compose, *files))),
        ("docker build", " ".join(("docker build", *reaching_an_index(python_image)))),
        (" redis redis-server", f" {redis_image} redis-server"),
        ("--name redis", "--network-alias=redis --name redis"),
        ("4000", str(port)),
    ):
        command = command.replace(page_says, here)
    named = rf"(?<= )(--tag=)?({'|'.join(NAMES)})(?=[ :]|$)"
    return re.sub(named, lambda found: (found[1] or "") + NAMES[found[2]], command)


def visits(text: str) -> list[str]:
    """Return the pages in a text, each with the same hostname."""
    pages = re.findall(r"^<h3>.*$", text, re.MULTILINE)
    return [re.sub("(?<=Hostname:</b> )[0-9a-f]{12}", "ID", page) for page in pages]


def left() -> list[str]:
    """Return what there is of a walk: containers, networks and volumes."""
    kinds = (("ps", "--all"), ("network", "ls"), ("volume", "ls"))
    return [one for kind in kinds for one in docker(*kind, "-q", f"--filter=name={OWN}").split()]


@pytest.fixture(autouse=True)
def _nothing_is_left_when_it_fails() -> Iterator[None]:
    yield
    for kind in ("container", "network", "volume"):
        listing = ("--all",) if kind == "container" else ()
        if found := docker(kind, "ls", *listing, "-q", f"--filter=name={OWN}").split():
            docker(kind, "rm", "--force", *found)


@pytest.mark.parametrize("page", WALKS)
def test_the_walk_runs_as_it_stands_shows_what_the_page_shows_and_leaves_nothing(
    page: str, checkout: Path, base_images: tuple[str, str]
) -> None:
    port = free_ports(1)
    python_image, redis_image = base_images
    done = subprocess.run(
        ["bash", "-c", script(page, port, base_images)],
        cwd=checkout,
        env=os.environ
        | {
            "PYTHON_IMAGE": python_image,
            "REDIS_IMAGE": redis_image,
            "IMAGE": NAMES["friendlyhello"],
            "HELLO_PORTS": str(port),
        },
        capture_output=True,
        text=True,
        timeout=280,
    )
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    told = "\n".join(
        shown.output for block in blocks(page) for shown in block if shown.section in WALKS[page]
    )
    assert visits(done.stdout) == visits(told) != []
    assert left() == []
