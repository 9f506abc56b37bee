"""deploy/stack.yaml on a swarm of one node, visited through its network."""

import contextlib
import json
import os
import time
from collections.abc import Iterator
from typing import Any

import pytest

from tests.container.conftest import Figure, Run
from tests.container.engine import EVERY, RUN, docker, get, inspect, logs, succeeds
from tests.support import ROOT
from tests.support.waiting import wait_until

REPLICAS = 5
WEB = f"{RUN}_web"
STACK_LABEL = f"--filter=label=com.docker.stack.namespace={RUN}"

#: Visits under way at once.
CONCURRENCY = 16


@pytest.fixture(scope="module")
def swarm() -> Iterator[None]:
    """A swarm with a node for Redis and the secret; the engine's own when it is a manager."""
    inactive = docker("info", "--format={{.Swarm.LocalNodeState}}") == "inactive"
    if inactive:
        docker("swarm", "init", "--advertise-addr=127.0.0.1", "--listen-addr=127.0.0.1")
    node = docker("info", "--format={{.Swarm.NodeID}}")
    if inactive:
        # By this label the end of the run knows that the engine is to leave it.
        docker("node", "update", f"--label-add={EVERY}", node)
    labelled = docker("node", "ls", "--quiet", "--filter=node.label=friendlyhello.redis=true")
    if not labelled:
        docker("node", "update", "--label-add=friendlyhello.redis=true", node)
    docker("secret", "create", RUN, "-", input=os.urandom(32).hex() + "\n")
    yield
    docker("secret", "rm", RUN)
    if not labelled:
        docker("node", "update", "--label-rm=friendlyhello.redis", node)


@pytest.fixture(scope="module")
def stack(swarm: None, image: str, redis_image: str) -> Iterator[None]:
    files = ("deploy/stack.yaml", "tests/container/stack.yaml")
    given = (f"--compose-file={ROOT / file}" for file in files)
    env = {"IMAGE": image, "REDIS_IMAGE": redis_image, "HELLO_PORT": "0", "SECRET": RUN}
    docker("stack", "deploy", "--resolve-image=never", *given, RUN, env=os.environ | env)
    yield
    # Said again while a task that is ending keeps the network.
    wait_until(lambda: succeeds("docker", "stack", "rm", RUN))
    wait_until(lambda: not docker("ps", "--all", "--quiet", STACK_LABEL))
    wait_until(lambda: not docker("network", "ls", "--quiet", STACK_LABEL))
    docker("volume", "rm", *docker("volume", "ls", "--quiet", STACK_LABEL).split())


@pytest.fixture
def replicas(stack: None) -> list[str]:
    """The ids of the replicas' containers, once all of them are running and Redis is."""
    wait_for_all(f"{RUN}_redis", 1)
    return wait_for_all(WEB, REPLICAS)


def wait_for_all(service: str, number: int) -> list[str]:
    """Return the ids of a service's containers, once there are as many and all are healthy."""
    try:
        return wait_until(
            lambda: found if len(found := running(service)) == number else None, seconds=120
        )
    except AssertionError:
        seen = docker("service", "ps", "--no-trunc", service) + "\n" + docker("ps", "--all")
        raise AssertionError(f"not {number} of {service} after 120 s:\n{seen}") from None


def running(service: str) -> list[str]:
    return docker("ps", "-q", f"--filter=name={service}", "--filter=health=healthy").split()


@contextlib.contextmanager
def audited(run: Run, image: str, replicas: list[str]) -> Iterator[dict[str, Any]]:
    """Audit from inside the network meanwhile; the report is there afterwards."""
    flags = ("--duration=600", "--rate=300", f"--concurrency={CONCURRENCY}", "--exclusive")
    command = ("python", "check.py", "http://web", "--json", *flags)
    auditor = run(image, f"--network={RUN}_default", command=command)
    since = f"--since={auditor.state['StartedAt']}"
    wait_until(lambda: "GET / (" in logs(replicas[0], since))
    report: dict[str, Any] = {}
    yield report
    docker("stop", "--time=60", auditor.id)
    report.update(json.loads(docker("logs", auditor.id)))


def another(image: str, tag: str, line: str) -> str:
    """Make an image that differs from another one by a line of its Dockerfile."""
    docker("build", f"--tag={RUN}/{tag}", "-", input=f"FROM {image}\n{line}\n")
    return f"{RUN}/{tag}"


def update(image: str) -> str:
    """Give the service another image; return the state that this ended in."""
    how = ("--detach=false", "--quiet", "--no-resolve-image")
    docker("service", "update", *how, f"--image={image}", WEB, seconds=180)
    return inspect("service", WEB)["UpdateStatus"]["State"]


def images_of(containers: list[str]) -> set[str]:
    every = [inspect("container", one)["Config"]["Image"] for one in containers]
    return {image.removesuffix(":latest") for image in every}


def test_each_replica_is_published_limited_and_has_the_password(replicas: list[str]) -> None:
    numbers = []
    for one in replicas:
        page = get("http://" + docker("port", one, "80/tcp").splitlines()[0])
        assert f"<b>Hostname:</b> {one[:12]}<br/>" in page
        numbers.append(int(page.rpartition(" ")[2]))
        host = inspect("container", one)["HostConfig"]
        assert (host["ReadonlyRootfs"], host["CapDrop"]) == (True, ["ALL"])
        assert (host["Memory"], host["PidsLimit"]) == (96 << 20, 64)
    assert numbers == [*range(numbers[0], numbers[0] + REPLICAS)]


def test_a_rolling_update_loses_no_visit_and_repeats_no_number(
    replicas: list[str], image: str, run: Run, figure: Figure
) -> None:
    newer = another(image, "newer", f"LABEL made={time.time()}")
    with audited(run, image, replicas) as report:
        began = time.monotonic()
        assert update(newer) == "completed"
        seconds = time.monotonic() - began
    visits = report["visits"]
    figure(
        "swarm, rolling update",
        f"{seconds:.0f} s, {visits['made']} visits, {visits['failed']} failed",
    )
    assert report["holds"], report
    assert visits["uncounted"] == 0
    wait_until(lambda: images_of(running(WEB)) == {newer})  # the last one goes on for a while
    now = running(WEB)
    assert not set(now) & set(replicas)
    assert report["replicas"].keys() == {one[:12] for one in (*replicas, *now)}


def test_an_update_that_does_not_become_healthy_is_rolled_back(
    replicas: list[str], image: str, run: Run, figure: Figure
) -> None:
    sick = "HEALTHCHECK --interval=1s --timeout=1s --retries=1 CMD false"
    with audited(run, image, replicas) as report:
        assert update(another(image, "bad", sick)) == "rollback_completed"
    figure("swarm, update rolled back", f"{report['visits']['failed']} failed")
    assert report["holds"], report
    wait_until(lambda: set(running(WEB)) == set(replicas))


def test_killed_replicas_lose_only_the_connections_that_were_on_them(
    replicas: list[str], image: str, run: Run, figure: Figure
) -> None:
    killed = replicas[:2]
    with audited(run, image, replicas) as report:
        for one in killed:
            docker("kill", one)
            wait_for_all(WEB, REPLICAS)
    figure("swarm, visits lost on 2 killed replicas", json.dumps(report["failures"]))
    assert (report["numbers"]["twice"], report["visits"]["uncounted"]) == ([], 0)
    # Its network goes with a replica, so some wait for it in vain. None was refused, or unanswered
    # by a replica that lives: these would be more than can be under way at once.
    assert report["failures"].keys() <= {"reset", "closed without an answer", "timeout"}
    assert report["visits"]["failed"] <= len(killed) * CONCURRENCY
    assert report["numbers"]["missing"] <= report["visits"]["failed"]
    assert not set(running(WEB)) & set(killed)
