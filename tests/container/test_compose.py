"""compose.yaml, with each `docker compose` there is."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.container.engine import (
    RUN,
    command,
    composes,
    first_page,
    free_ports,
    get,
    inspect,
)
from tests.support.page import number_on
from tests.support.waiting import wait_until


class Project:
    """The checkout's compose.yaml, under a name of the run's."""

    def __init__(self, way: tuple[str, ...], checkout: Path, images: tuple[str, str]) -> None:
        python_image, redis_image = images
        self._command = (
            *(*way, f"--project-name={RUN}"),
            *(
                f"--file={checkout}/{name}"
                for name in ("compose.yaml", "tests/container/compose.yaml")
            ),
        )
        self._env = os.environ | {
            "PYTHON_IMAGE": python_image,
            "REDIS_IMAGE": redis_image,
            "IMAGE": f"{RUN}/composed",
        }

    def __call__(self, *arguments: str, ports: str = "4000") -> str:
        env = self._env | {"HELLO_PORTS": ports}
        return command(*self._command, *arguments, seconds=200, env=env)

    def containers(self, service: str) -> list[dict[str, object]]:
        return [inspect("container", one) for one in self("ps", "--quiet", service).split()]


@pytest.fixture(params=composes(), ids=" ".join)
def compose(
    request: pytest.FixtureRequest, checkout: Path, base_images: tuple[str, str]
) -> Iterator[Project]:
    project = Project(request.param, checkout, base_images)
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
        assert host["ReadonlyRootfs"]
        assert host["CapDrop"] == ["ALL"]
        assert host["SecurityOpt"] == ["no-new-privileges:true"]
        assert host["Memory"] == memory
        assert not one["Config"]["User"].startswith(("0", "root"))
        wait_until(lambda one=one: health(one["Id"]) == "healthy")
    assert web["HostConfig"]["PidsLimit"] == 64
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
