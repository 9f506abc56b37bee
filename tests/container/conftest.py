"""The image, built once from a clean checkout; containers and networks that go with their test."""

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.conftest import all_closed
from tests.container import engine
from tests.container.engine import EVERY, RUN, Container, bases, build, command, docker
from tests.support import ROOT

Figure = Callable[[str, str], None]
Run = Callable[..., Container]


def begins_a_run(config: pytest.Config) -> bool:
    """Whether this process runs tests, and not for another, which begins and ends the run."""
    return not (hasattr(config, "workerinput") or config.option.collectonly)


def pytest_sessionstart(session: pytest.Session) -> None:
    if begins_a_run(session.config):
        if problem := engine.missing():
            raise pytest.UsageError(problem)
        bases()  # once for all


def pytest_sessionfinish(session: pytest.Session) -> None:
    """What the run made goes with it, but for the base images."""
    if begins_a_run(session.config) and not engine.missing():
        engine.clear()


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
def python_image() -> str:
    return bases()[0]


@pytest.fixture(scope="session")
def redis_image() -> str:
    return bases()[1]


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
    return build(checkout, "web", python_image)


@pytest.fixture(scope="session")
def guide_image(python_image: str) -> str:
    return build(Path(__file__).parent / "guide", "guide", python_image)


@pytest.fixture
def run() -> Iterator[Run]:
    """Start containers: an image, `docker run`'s flags, and the command with ``command=``."""
    yield from all_closed(Container)


@pytest.fixture(scope="session")
def network() -> Iterator[str]:
    docker("network", "create", f"--label={EVERY}", f"{RUN}-network")
    yield f"{RUN}-network"
    docker("network", "rm", f"{RUN}-network")
