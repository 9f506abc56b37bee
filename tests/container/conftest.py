"""The image, built once from a clean checkout; containers and networks that go with their test."""

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.container import engine
from tests.container.bases import bases
from tests.container.engine import EVERY, RUN, Container, build, command, docker
from tests.support import ROOT

Figure = Callable[[str, str], None]
Run = Callable[..., Container]

_before: set[str] = set()
"""The images that were there before the run."""


def is_helper(config: pytest.Config) -> bool:
    """Whether this process runs tests for another, which begins and ends the run."""
    return hasattr(config, "workerinput")


def pytest_sessionstart(session: pytest.Session) -> None:
    if is_helper(session.config) or session.config.option.collectonly:
        return
    if problem := engine.missing():
        raise pytest.UsageError(problem)
    bases()  # once for all
    _before.update(engine.image_ids())


def pytest_sessionfinish(session: pytest.Session) -> None:
    """What the run made goes with it, but for the base images."""
    if _before:
        engine.clear(_before, bases()[0])


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    figures = [
        one for test in terminalreporter.getreports("passed") for one in test.user_properties
    ]
    if figures:
        terminalreporter.section("figures")
        width = max(len(what) for what, _ in figures)
        for what, value in figures:
            terminalreporter.write_line(f"{what:{width}}  {value}")


@pytest.fixture
def figure(record_property: Figure) -> Figure:
    """Note a figure, to be printed when all is done."""
    return record_property


@pytest.fixture(scope="session")
def base_images() -> tuple[str, str]:
    """The names of an image with Python and one with Redis."""
    return bases()


@pytest.fixture(scope="session")
def python_image(base_images: tuple[str, str]) -> str:
    return base_images[0]


@pytest.fixture(scope="session")
def redis_image(base_images: tuple[str, str]) -> str:
    return base_images[1]


@pytest.fixture(scope="session")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What a clone of the repository as it is now would hold, and nothing that was made in it."""
    folder = tmp_path_factory.mktemp("checkout")
    git = ("git", "-C", str(ROOT), "ls-files", "-z")
    for name in command(*git, "--cached", "--others", "--exclude-standard").split("\0"):
        if name and (ROOT / name).is_file():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, folder / name)
    (folder / ".git").mkdir()
    (folder / ".git" / "HEAD").write_text("ref: refs/heads/main\n")
    return folder


@pytest.fixture(scope="session")
def image(checkout: Path, python_image: str) -> str:
    """The image of this checkout."""
    return build(checkout, "web", python_image)


@pytest.fixture(scope="session")
def guide_image(python_image: str) -> str:
    """The app of Docker's guide, built the same way."""
    return build(Path(__file__).parent / "guide", "guide", python_image)


@pytest.fixture
def run() -> Iterator[Run]:
    """Start containers: an image, `docker run`'s flags, and the command with ``command=``."""
    started: list[Container] = []

    def start(image: str, *flags: str, **options: tuple[str, ...]) -> Container:
        started.append(Container(image, *flags, **options))
        return started[-1]

    yield start
    for one in reversed(started):
        one.remove()


@pytest.fixture(scope="session")
def network() -> Iterator[str]:
    """A user's network."""
    docker("network", "create", f"--label={EVERY}", f"{RUN}-network")
    yield f"{RUN}-network"
    docker("network", "rm", f"{RUN}-network")


@pytest.fixture(scope="session")
def volume() -> Iterator[str]:
    """A volume for the data of one test."""
    yield docker("volume", "create", f"--label={EVERY}", f"{RUN}-volume")
    docker("volume", "rm", f"{RUN}-volume")
