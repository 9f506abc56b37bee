"""The Docker Engine, by the command line that users have, and what the suite starts on it.

The images that friendlyhello's stand on are made here where no registry can be reached.
"""

import contextlib
import fcntl
import json
import os
import random
import shutil
import subprocess
import sys
import tempfile
import time
import uuid
from functools import cache
from http.client import HTTPException
from pathlib import Path
from typing import Any
from urllib.request import urlopen

from tests.support.page import number_on
from tests.support.ports import held_port
from tests.support.waiting import PATIENCE, wait_until

#: What all that a run makes is labelled with; processes inherit it from the one that starts them.
EVERY = os.environ.setdefault("FRIENDLYHELLO_TEST", f"friendlyhello-test-{uuid.uuid4().hex[:8]}")

#: What all that this process makes is called by, so that neither two runs meet nor two processes.
RUN = f"{EVERY}-{os.environ.get('PYTEST_XDIST_WORKER', 'alone')}"

#: Held by the process that builds.
LOCK = Path(tempfile.gettempdir()) / EVERY

HOW_TO_GET_IT = "on a Debian, .ci/with-engine brings it"

PYTHON = "python:3.13-slim"
REDIS = "redis:8-alpine"

#: What stands in their place, a Debian 13 each, stays in the engine's cache under this prefix.
OWN = "friendlyhello-base/"
RELEASE = "trixie"

REDIS_SERVER = """#!/bin/sh
exec /usr/bin/redis-server "$@" --protected-mode no"""

CA_BUNDLE = "/etc/ssl/certs/ca-certificates.crt"

#: What a Debian needs to install packages of Python's.
PYTHON_PACKAGES = "python3,python3-pip,python3-venv,ca-certificates"

#: pip's settings that say how to reach an index; others may name files of the host.
PIP_SETTINGS = ("index-url", "extra-index-url", "trusted-host", "proxy", "timeout")


def command(*arguments: str, seconds: float = 60, **options: Any) -> str:
    """Run a command, and return what it printed; fail with what it said when it fails."""
    done = subprocess.run(arguments, capture_output=True, text=True, timeout=seconds, **options)
    said = f"{done.stdout[-4000:]}{done.stderr[-4000:]}"
    assert done.returncode == 0, f"{' '.join(arguments)}\n{said}"
    return done.stdout.strip()


def docker(*arguments: str, seconds: float = 60, **options: Any) -> str:
    return command("docker", *arguments, seconds=seconds, **options)


def succeeds(*arguments: str, seconds: float = 60) -> bool:
    with contextlib.suppress(FileNotFoundError, subprocess.TimeoutExpired):
        return subprocess.run(arguments, capture_output=True, timeout=seconds).returncode == 0
    return False


def missing() -> str | None:
    """Return what the suite needs and does not find, in one line; None when all is there."""
    for needed in ("version", "compose up --watch --help", "buildx bake --load --help"):
        if not succeeds("docker", *needed.split(), seconds=20):
            return f"`docker {needed}` fails: {HOW_TO_GET_IT}"
    version = docker("version", "--format={{.Server.Version}}")
    if int(version.partition(".")[0]) < 25:
        return f"the Docker Engine has version {version}, older than 25: {HOW_TO_GET_IT}"
    return None


def inspect(kind: str, name: str) -> dict[str, Any]:
    return json.loads(docker(kind, "inspect", name))[0]


def logs(container: str, *flags: str) -> str:
    """Return what a container printed, as output and as errors."""
    return command("sh", "-c", 'exec docker logs "$@" 2>&1', "sh", *flags, container)


@cache
def bases() -> tuple[str, str]:
    """Return the names of an image with Python and of one with Redis, which the engine has."""
    python = had(PYTHON) or made(
        OWN + PYTHON,
        PYTHON_PACKAGES,
        'ln -s python3 "$1/usr/bin/python"',
        'rm "$1"/usr/lib/python3*/EXTERNALLY-MANAGED',
    )
    redis = had(REDIS) or made(
        OWN + REDIS,
        "redis-server",
        # As in the official image: the user, and no password needed from other hosts.
        'install -d -o 999 -g 1000 "$1/data"',
        f'f="$1/usr/local/bin/redis-server"; echo \'{REDIS_SERVER}\' >"$f"; chmod 755 "$f"',
        changes=("WORKDIR /data", "USER 999:1000"),
    )
    return python, redis


def systemd_base() -> str:
    """Return the name of an image of a whole Debian, whose process 1 is systemd."""
    packages = f"{PYTHON_PACKAGES},make,systemd-sysv"
    return made(f"{OWN}systemd", packages, changes=('ENTRYPOINT ["/sbin/init"]',))


def had(name: str) -> str | None:
    """Return an image's name if the engine has it or can pull it, and none of its own for it."""
    if succeeds("docker", "image", "inspect", name):
        return name
    if succeeds("docker", "image", "inspect", OWN + name):
        return None
    return name if succeeds("docker", "pull", "--quiet", name, seconds=60) else None


def made(
    name: str, packages: str, *hooks: str, release: str = RELEASE, changes: tuple[str, ...] = ()
) -> str:
    """Make an image of a Debian and some packages of it, unless there is one; return its name."""
    if succeeds("docker", "image", "inspect", name):
        return name
    assert shutil.which("mmdebstrap"), f"{name} can neither be pulled nor made: {HOW_TO_GET_IT}"
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder, "root.tar")
        if PYTHON_PACKAGES in packages:
            hooks = (*hooks, *_to_reach_an_index(Path(folder)))
        command(
            *("mmdebstrap", "--quiet", "--variant=minbase", f"--include={packages}"),
            # The next release's index may have expired on a mirror.
            *("--aptopt=Acquire::Check-Valid-Until false", release, str(root)),
            *(f"--customize-hook={hook}" for hook in hooks),
            seconds=900,
        )
        docker("import", *(f"--change={one}" for one in changes), str(root), name, seconds=300)
    os.sync()  # otherwise Redis's own fsync waits behind all this, for half a minute
    return name


def _to_reach_an_index(folder: Path) -> list[str]:
    """Return the hooks of mmdebstrap by which pip reaches an index in an image, as it does here."""
    settings = {}
    for line in command(sys.executable, "-m", "pip", "config", "list").splitlines():
        name, _, value = line.partition("=")
        name = name.rpartition(".")[2].removeprefix("default-")
        if name in PIP_SETTINGS and "file://" not in value:
            settings[name] = value.strip("'")
    conf = folder / "pip.conf"
    conf.write_text("[global]\n" + "".join(f"{name} = {settings[name]}\n" for name in settings))
    hooks = [f"upload {conf} /etc/pip.conf"]
    places = (os.environ.get("PIP_CERT"), os.environ.get("SSL_CERT_FILE"), CA_BUNDLE)
    for bundle in [place for place in places if place and Path(place).is_file()][:1]:
        hooks.append(f"upload {bundle} {CA_BUNDLE}")
    return hooks


def build(context: Path, tag: str, python_image: str, **arguments: str) -> str:
    """Build an image as the README has it, and return its name.

    :arg arguments: of the build, by their names.
    """
    more = (f"--build-arg={name}={value}" for name, value in arguments.items())
    # One after the other: then the next one finds in the cache what they have in common.
    with LOCK.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        named = (f"--tag={RUN}/{tag}", str(context))
        docker("build", *build_flags(python_image), *more, *named, seconds=300)
    return f"{RUN}/{tag}"


def build_flags(python_image: str) -> list[str]:
    """Return the flags of a build with which its pip reaches a package index.

    It shares the host's network, as the engine's own may not reach one, and the variables of a
    proxy, which Docker keeps out of the image.
    """
    proxy = [n for n in os.environ if n.lower() in ("http_proxy", "https_proxy", "no_proxy")]
    arguments = [f"--build-arg={argument}" for argument in (f"PYTHON_IMAGE={python_image}", *proxy)]
    return ["--network=host", f"--label={EVERY}", *arguments]


def free_ports(number: int) -> range:
    """Return some ports in a row that nobody listens on.

    The engine opens them later. Until then nobody else gets them: they lie below those that the
    system hands out, and two runs would have to choose the same ones at the same time.
    """
    while True:
        first = random.SystemRandom().randrange(10_000, 30_000)
        with contextlib.suppress(OSError):
            for port in range(first, first + number):
                held_port("", port).close()
            return range(first, first + number)


class Container:
    def __init__(self, image: str, *flags: str, command: tuple[str, ...] = ()) -> None:
        self.id = docker("run", "-d", f"--label={EVERY}", *flags, image, *command)

    @property
    def short_id(self) -> str:
        return self.id[:12]

    @property
    def state(self) -> dict[str, Any]:
        return inspect("container", self.id)["State"]

    @property
    def health(self) -> str:
        return self.state["Health"]["Status"]

    @property
    def address(self) -> str:
        """The address on its first network."""
        networks = inspect("container", self.id)["NetworkSettings"]["Networks"]
        return next(iter(networks.values()))["IPAddress"]

    @property
    def url(self) -> str:
        """Where its port 80 is published."""
        return "http://" + docker("port", self.id, "80/tcp").splitlines()[0]

    def exec(self, *arguments: str) -> str:
        return docker("exec", self.id, *arguments)

    def logs(self) -> str:
        return logs(self.id)

    def stop(self, *flags: str) -> float:
        """Stop it; return the seconds from the first signal to its end, by the engine's clock."""
        events = ("docker", "events", f"--since={time.time():.3f}", f"--filter=container={self.id}")
        chosen = ("--filter=event=kill", "--filter=event=die", "--format={{.Action}} {{.TimeNano}}")
        at: dict[str, int] = {}
        # It follows them, as the engine keeps the last 256 of all containers.
        with subprocess.Popen([*events, *chosen], stdout=subprocess.PIPE, text=True) as told:
            try:
                docker("stop", *flags, self.id)
                assert told.stdout
                while "die" not in at:
                    action, moment = told.stdout.readline().split()
                    at.setdefault(action, int(moment))
            finally:
                told.kill()
        return (at["die"] - at["kill"]) / 1e9

    def close(self) -> None:
        docker("rm", "--force", "--volumes", self.id)


def get(url: str, seconds: float = PATIENCE) -> str:
    """Return the page at a URL, which must answer 200."""
    with urlopen(url, timeout=seconds) as answer:
        assert answer.status == 200
        return answer.read().decode()


def page(url: str) -> str:
    """Return the page at a URL; nothing while nobody listens there, behind the proxy."""
    with contextlib.suppress(HTTPException, OSError):
        return get(url)
    return ""


def first_page(url: str, seconds: float = PATIENCE) -> str:
    """Return the page at a URL as soon as it is there."""
    return wait_until(lambda: page(url), seconds)


def number(url: str) -> int | None:
    return number_on(get(url).encode())


def counted(url: str, seconds: float = PATIENCE) -> int:
    """Visit until a page shows a number, and return it."""
    return wait_until(
        lambda: number_on(seen.encode()) if (seen := page(url)) else None, seconds, pause=0.05
    )


def layers(image: str) -> list[str]:
    """Return the digests of an image's layers, the base's first."""
    return inspect("image", image)["RootFS"]["Layers"]


def clear() -> None:
    """Remove what the run has made and not removed: all but the base images."""
    forced = {"container": ("--force", "--volumes"), "image": ("--force",)}
    kinds = ["container", "volume", "network", "image"]
    in_swarm = succeeds("docker", "service", "ls")
    if in_swarm:  # a test that was interrupted has left its stack
        kinds = ["service", *kinds, "secret"]
    for kind in kinds:
        every = ("--all",) if kind in forced else ()
        for how in ("label",) if kind == "image" else ("label", "name"):
            listing = (kind, "ls", "--quiet", *every, f"--filter={how}={EVERY}")
            if found := {*docker(*listing).split()}:
                docker(kind, "rm", *forced.get(kind, ()), *found)
    # When no test runs: the engine then forgets the names of all containers, on every network.
    if in_swarm and docker("node", "ls", "--quiet", f"--filter=node.label={EVERY}"):
        docker("swarm", "leave", "--force")
        wait_until(lambda: succeeds("docker", "network", "rm", "docker_gwbridge"))
    LOCK.unlink(missing_ok=True)
