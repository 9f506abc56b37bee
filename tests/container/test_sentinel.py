"""The component sentinel: its scripts, in containers that have the names of its pods."""

import contextlib
import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import redis
import yaml

from tests.container.conftest import Run
from tests.container.engine import RUN, Container, counted
from tests.container.test_run import PUBLISH
from tests.deploy.manifests import COMPONENTS
from tests.support.waiting import wait_until

COMPONENT = COMPONENTS / "sentinel"
PATCHES = yaml.safe_load((COMPONENT / "kustomization.yaml").read_text())["patches"]
SETTINGS = [
    "--env={name}={value}".format(**operation["value"])
    for patch in PATCHES
    if patch.get("target", {}).get("kind") == "Deployment"
    for operation in yaml.safe_load(patch["patch"])
]

PASSWORD_FILE = "--env=REDIS_PASSWORD_FILE=/run/secrets/redis/password"
PASSWORD = "it's a \"pass # $word"


def on(network: str) -> tuple[str, ...]:
    """The flags of a container in a network, where a name that is gone is unknown at once.

    Docker would ask the host's name servers. Sentinels do nothing while they wait for an answer.
    """
    return (f"--network={network}", "--dns=127.0.0.1")


class Pods:
    """Three pods of Redis and three of the sentinels, each with a volume that outlives it."""

    def __init__(self, run: Run, image: str, network: str, folder: Path) -> None:
        secret = folder / "password"
        secret.write_text(PASSWORD + "\n")
        secret.chmod(0o644)
        scripts = shutil.copytree(COMPONENT, folder / "scripts")
        self._run, self.image = run, image
        self.mounted = f"--volume={secret}:/run/secrets/redis/password:ro"
        self._flags = (*on(network), f"--volume={scripts}:/scripts:ro", self.mounted)
        self.running: dict[str, Container] = {}

    def start(self, *names: str) -> None:
        for name in names:
            service = name.partition("-")[0]
            # Each by its own name and that of its Service, as Kubernetes has it.
            known = [f"--network-alias={name}.{service}", f"--network-alias={service}"]
            self.running[name] = self._run(
                self.image,
                *(*self._flags, *known, f"--hostname={name}"),
                *("--user=999:1000", "--read-only", "--workdir=/data"),
                f"--volume={RUN}-{name}:/data",
                command=("sh", f"/scripts/{service}.sh"),
            )

    def end(self, *names: str) -> None:
        for name in names:
            self.running.pop(name).close()

    def ask(self, name: str, port: int, *question: str) -> dict[str, Any]:
        """Return a pod's answer; nothing while it gives none."""
        address = self.running[name].address
        asking = redis.Redis(address, port, password=PASSWORD, socket_timeout=5)
        with contextlib.suppress(redis.RedisError), asking as client:
            return dict(client.execute_command(*question))
        return {}

    def sentinels(self, *fields: str) -> set[tuple[object, ...]]:
        """Return what the sentinels know of their primary."""
        question = ("SENTINEL MASTER", "friendlyhello")
        every = [self.ask(f"sentinel-{number}", 26379, *question) for number in range(3)]
        return {tuple(one.get(field) for field in fields) for one in every}

    def primaries(self) -> set[str]:
        return {str(name).removesuffix(".redis") for (name,) in self.sentinels("ip")}

    def agreed(self) -> bool:
        named = self.primaries()
        return len(named) == 1 and named <= self.running.keys() and self.replicas(*named) == 2

    def acquainted(self) -> bool:
        """Whether each sentinel knows both replicas and both others.

        It hears of replicas every 10 s. One that knows none cannot make any the primary, and when
        it leads the failover, the next attempt comes a minute later.
        """
        return self.sentinels("num-slaves", "num-other-sentinels") == {(2, 2)}

    def replicas(self, primary: str) -> int:
        answer = self.ask(primary, 6379, "INFO", "replication")
        return sum(isinstance(one, dict) and one["state"] == "online" for one in answer.values())


@pytest.fixture
def pods(run: Run, redis_image: str, network: str, tmp_path: Path) -> Pods:
    tmp_path.chmod(0o755)
    names = [f"{kind}-{number}" for kind in ("redis", "sentinel") for number in range(3)]
    pods = Pods(run, redis_image, network, tmp_path)
    pods.start(*names)
    return pods  # the volumes go with the run


@pytest.mark.timeout(600)
def test_numbers_stay_consecutive_when_the_primary_is_lost_and_when_all_restart(
    pods: Pods, image: str, run: Run, network: str
) -> None:
    wait_until(lambda: pods.primaries() == {"redis-0"} and pods.replicas("redis-0") == 2, 120)
    web = run(image, PUBLISH, *on(network), pods.mounted, PASSWORD_FILE, *SETTINGS)
    last = counted(web.url)
    wait_until(pods.acquainted, 120)

    def next_number() -> int:
        # Sentinels that get no turn of a busy machine do nothing for 30 s. The next attempt at a
        # failover comes a minute after one that failed.
        try:
            return counted(web.url, 240)
        except AssertionError:
            logs = {name: one.logs() for name, one in {"web": web, **pods.running}.items()}
            raise AssertionError("no number; " + json.dumps(logs, indent=1)) from None

    pods.end("redis-0")
    assert next_number() == last + 1
    # One of the sentinels may hear of it later than the others.
    (primary,) = wait_until(lambda: (one := pods.primaries()) < {"redis-1", "redis-2"} and one)
    run(pods.image, f"--network={network}", command=("sleep", "600"))  # takes its address
    pods.start("redis-0")
    wait_until(lambda: pods.replicas(primary) == 2, 120)

    every = [*pods.running]
    pods.end(*every)
    pods.start(*every)
    # Mostly the same one; another when it took its time to start. All of them have the number.
    wait_until(pods.agreed, 120)
    assert next_number() == last + 2
    assert not any(PASSWORD in one.logs() for one in pods.running.values())
