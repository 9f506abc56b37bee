"""compose.yaml, by `docker compose`."""

import os
import shutil
import signal
import subprocess
from collections.abc import Iterator
from http.client import HTTPException
from pathlib import Path

import pytest

from tests.container.engine import (
    RUN,
    command,
    first_page,
    free_ports,
    get,
    inspect,
)
from tests.support.page import number_on
from tests.support.waiting import wait_until

#: What compose.yaml becomes in the suite.
OWN = "tests/container/compose.yaml"


class Project:
    """The checkout's compose.yaml, under a name of the run's."""

    def __init__(self, checkout: Path, images: tuple[str, str]) -> None:
        python_image, redis_image = images
        self._command = (
            *("docker", "compose", f"--project-name={RUN}"),
            *(f"--file={checkout}/{name}" for name in ("compose.yaml", OWN)),
        )
        self._env = os.environ | {
            "PYTHON_IMAGE": python_image,
            "REDIS_IMAGE": redis_image,
            "IMAGE": f"{RUN}/composed",
        }

    def __call__(self, *arguments: str, ports: str = "4000") -> str:
        env = self._env | {"HELLO_PORTS": ports}
        return command(*self._command, *arguments, seconds=200, env=env)

    def begin(self, *arguments: str, ports: str) -> subprocess.Popen[bytes]:
        """Run a command that goes on until it is interrupted."""
        env = self._env | {"HELLO_PORTS": ports}
        return subprocess.Popen((*self._command, *arguments), env=env, start_new_session=True)

    def containers(self, service: str) -> list[dict[str, object]]:
        return [inspect("container", one) for one in self("ps", "--quiet", service).split()]


@pytest.fixture
def compose(checkout: Path, base_images: tuple[str, str]) -> Iterator[Project]:
    project = Project(checkout, base_images)
    yield project
    project("down", "--volumes")


def visit(port: int) -> tuple[str, int | None]:
    """Visit, and return who answered and the number."""
    page = get(f"http://127.0.0.1:{port}/")
    return page.partition("Hostname:</b> ")[2].partition("<")[0], number_on(page.encode())


def test_up_builds_and_starts_all_of_it_and_scale_adds_replicas(compose: Project) -> None:
    first = free_ports(3)
    compose("up", "--detach", "--build", ports=str(first))
    first_page(f"http://127.0.0.1:{first}/")
    assert visit(first)[1] == 2  # Redis was healthy before it
    (web,), (redis,) = compose.containers("web"), compose.containers("redis")
    for one, memory in (web, 96 << 20), (redis, 256 << 20):
        host = one["HostConfig"]
        assert host["CapDrop"] == ["ALL"]
        assert host["SecurityOpt"] == ["no-new-privileges:true"]
        assert host["Memory"] == memory
        assert not one["Config"]["User"].startswith(("0", "root"))
        wait_until(lambda one=one: health(one["Id"]) == "healthy")
    assert web["HostConfig"]["PidsLimit"] == 64
    assert redis["HostConfig"]["ReadonlyRootfs"]
    (data,) = redis["Mounts"]
    assert (data["Type"], data["Destination"]) == ("volume", "/data")

    ports = range(first, first + 3)
    compose("up", "--detach", "--scale", "web=3", ports=f"{ports[0]}-{ports[-1]}")
    for port in ports:
        first_page(f"http://127.0.0.1:{port}/")
    seen = [visit(port) for port in ports]
    assert [number for _, number in seen] == [6, 7, 8]
    assert {host for host, _ in seen} == {
        one["Config"]["Hostname"] for one in compose.containers("web")
    }

    compose("stop")
    compose("start")
    for port in ports:
        first_page(f"http://127.0.0.1:{port}/")
    wait_until(lambda: visit(ports[0])[1])
    assert visit(ports[0])[1] in range(10, 40), "the numbers go on from where they were"


def health(container: str) -> str:
    return inspect("container", container)["State"]["Health"]["Status"]


@pytest.fixture
def watched(checkout: Path, base_images: tuple[str, str], tmp_path: Path) -> Iterator[Project]:
    """A project whose files the test may change."""
    shutil.copytree(checkout, tmp_path / "changed")
    project = Project(tmp_path / "changed", base_images)
    yield project
    project("down", "--volumes")


def test_what_is_changed_runs_at_once_and_new_requirements_are_built(
    watched: Project, tmp_path: Path
) -> None:
    port = free_ports(1)
    url = f"http://127.0.0.1:{port}/"
    up = watched.begin("up", "--build", "--watch", ports=str(port))
    try:
        assert first_page(url, seconds=200).startswith("<h3>Hello ")
        (first,) = watched.containers("web")
        hello = tmp_path / "changed" / "handlers" / "hello.py"
        change(hello, "<h3>Hello", "<h3>Good day")

        def is_shown() -> bool:
            hello.touch()  # Compose may not have watched before
            return page(url).startswith("<h3>Good day ")

        wait_until(is_shown, seconds=100, pause=5)
        (same,) = watched.containers("web")
        assert same["Id"] == first["Id"], "it was restarted alone"
        change(tmp_path / "changed" / "requirements.txt", "#", "# changed\n#")
        wait_until(lambda: made_anew(watched, first["Id"]), seconds=200)
        first_page(url)
    finally:
        os.killpg(up.pid, signal.SIGKILL)  # the fixture ends the containers
        up.wait()


def change(path: Path, old: str, new: str) -> None:
    path.write_text(path.read_text().replace(old, new, 1))


def page(url: str) -> str:
    """Return the page; nothing while it restarts."""
    try:
        return get(url)
    except (OSError, HTTPException):
        return ""


def made_anew(project: Project, before: object) -> bool:
    return project("ps", "--quiet", "web").split() not in ([], [before])
