"""compose.yaml, by `docker compose`."""

import os
import re
import shutil
import signal
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.conftest import all_closed
from tests.container.engine import (
    RUN,
    command,
    counted,
    first_page,
    free_ports,
    get,
    inspect,
    page,
)
from tests.support.waiting import wait_until

#: What compose.yaml becomes in the suite.
OWN = "tests/container/compose.yaml"


class Project:
    """A checkout's compose.yaml, under a name of the run's, at a port of this machine."""

    def __init__(self, folder: Path, python_image: str, redis_image: str, port: int) -> None:
        self._command = (
            *("docker", "compose", f"--project-name={RUN}"),
            *(f"--file={folder}/{name}" for name in ("compose.yaml", OWN)),
        )
        self.env = os.environ | {
            **{"PYTHON_IMAGE": python_image, "REDIS_IMAGE": redis_image},
            **{"IMAGE": f"{RUN}/composed", "HELLO_PORTS": f"{port}"},
        }

    def __call__(self, *arguments: str) -> str:
        return command(*self._command, *arguments, seconds=200, env=self.env)

    def begin(self, *arguments: str) -> subprocess.Popen[bytes]:
        """Run a command that goes on until it is interrupted."""
        line = (*self._command, *arguments)
        return subprocess.Popen(line, env=self.env, start_new_session=True)

    def containers(self, service: str) -> list[dict[str, object]]:
        return [inspect("container", one) for one in self("ps", "--quiet", service).split()]

    def close(self) -> None:
        self("down", "--volumes")


@pytest.fixture
def compose() -> Iterator[Callable[..., Project]]:
    yield from all_closed(Project)


def test_up_builds_and_starts_all_of_it_and_scale_adds_replicas(
    compose: Callable[..., Project], checkout: Path, python_image: str, redis_image: str
) -> None:
    ports = free_ports(3)
    project = compose(checkout, python_image, redis_image, ports[0])
    urls = [f"http://127.0.0.1:{port}/" for port in ports]
    project("up", "--wait", "--build")
    assert first_page(urls[0]).endswith("<b>Visits:</b> 1"), "Redis was healthy before it"
    (web,), (redis,) = project.containers("web"), project.containers("redis")
    for one, memory in (web, 96 << 20), (redis, 256 << 20):
        host = one["HostConfig"]
        assert (host["CapDrop"], host["Memory"]) == (["ALL"], memory)
        assert host["SecurityOpt"] == ["no-new-privileges:true"]
        assert not one["Config"]["User"].startswith(("0", "root"))
        assert one["State"]["Health"]["Status"] == "healthy"
    assert (web["HostConfig"]["PidsLimit"], redis["HostConfig"]["ReadonlyRootfs"]) == (64, True)
    (data,) = redis["Mounts"]
    assert (data["Type"], data["Destination"]) == ("volume", "/data")

    project.env["HELLO_PORTS"] = f"{ports[0]}-{ports[-1]}"
    project("up", "--detach", "--scale", "web=3")
    for url in urls:
        first_page(url)
    pages = [get(url) for url in urls]
    assert [page.rpartition(" ")[2] for page in pages] == ["5", "6", "7"]
    hosts = {re.search("Hostname:</b> (.*?)<", page)[1] for page in pages}
    assert hosts == {one["Config"]["Hostname"] for one in project.containers("web")}

    project("stop")
    project("start")
    assert counted(urls[0]) in range(8, 40), "the numbers go on from where they were"


def test_what_is_changed_runs_at_once_and_new_requirements_are_built(
    compose: Callable[..., Project],
    checkout: Path,
    python_image: str,
    redis_image: str,
    tmp_path: Path,
) -> None:
    (port,) = free_ports(1)
    changed = shutil.copytree(checkout, tmp_path / "changed")
    project = compose(changed, python_image, redis_image, port)
    url = f"http://127.0.0.1:{port}/"
    up = project.begin("up", "--build", "--watch")
    try:
        assert first_page(url, seconds=200).startswith("<h3>Hello ")
        first = project("ps", "--quiet", "web")
        hello = changed / "handlers" / "hello.py"
        hello.write_text(hello.read_text().replace("<h3>Hello", "<h3>Good day", 1))

        def is_shown() -> bool:
            hello.touch()  # Compose may not have watched before
            return page(url).startswith("<h3>Good day ")

        wait_until(is_shown, seconds=100, pause=5)
        assert project("ps", "--quiet", "web") == first, "it was restarted alone"
        with (changed / "requirements.txt").open("a") as requirements:
            requirements.write("# changed\n")
        wait_until(lambda: project("ps", "--quiet", "web") not in ("", first), seconds=200)
        first_page(url)
    finally:
        os.killpg(up.pid, signal.SIGKILL)  # the fixture ends the containers
        up.wait()
