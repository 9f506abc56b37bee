"""The image, built once from a clean checkout; containers and networks that go with their test."""

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.container import engine
from tests.container.bases import bases
from tests.container.engine import RUN, Container, build, command, docker
from tests.support import ROOT

Figure = Callable[[str, str], None]
Run = Callable[..., Container]

_figures: list[tuple[str, str]] = []


def pytest_sessionstart() -> None:
    if problem := engine.missing():
        raise pytest.UsageError(problem)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    if _figures:
        terminalreporter.section("figures")
        width = max(len(what) for what, _ in _figures)
        for what, value in _figures:
            terminalreporter.write_line(f"{what:{width}}  {value}")


@pytest.fixture
def figure() -> Figure:
    """Note a figure, to be printed when all is done."""
    return lambda what, value: _figures.append((what, value))


@pytest.fixture(scope="session", autouse=True)
def _nothing_is_left(python_image: str) -> Iterator[None]:
    """What the run made goes with it, but for the base images."""
    before = engine.image_ids()
    yield
    engine.clear(before, python_image)


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
    docker("network", "create", f"--label={RUN}", f"{RUN}-network")
    yield f"{RUN}-network"
    docker("network", "rm", f"{RUN}-network")


@pytest.fixture(scope="session")
def volume() -> Iterator[str]:
    """A volume for the data of one test."""
    yield docker("volume", "create", f"--label={RUN}", f"{RUN}-volume")
    docker("volume", "rm", f"{RUN}-volume")
