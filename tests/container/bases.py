"""The images that friendlyhello's stand on, made here where no registry can be reached."""

import os
import shutil
import sys
import tempfile
from functools import cache
from pathlib import Path

from tests.container.engine import HOW_TO_GET_IT, command, docker, succeeds

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
