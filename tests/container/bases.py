"""The images that friendlyhello's stand on, made here where no registry can be reached."""

import contextlib
import os
import shutil
import sys
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
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


def bases() -> tuple[str, str]:
    """Return the names of an image with Python and of one with Redis, which the engine has."""
    with _index() as index, ThreadPoolExecutor() as pool:
        python = pool.submit(
            _image,
            PYTHON,
            PYTHON_PACKAGES,
            'ln -s python3 "$1/usr/bin/python"',
            'rm "$1"/usr/lib/python3*/EXTERNALLY-MANAGED',
            *index,
        )
        redis = pool.submit(
            _image,
            REDIS,
            "redis-server",
            # As in the official image: the user, and no password needed from other hosts.
            'install -d -o 999 -g 1000 "$1/data"',
            f'f="$1/usr/local/bin/redis-server"; echo \'{REDIS_SERVER}\' >"$f"; chmod 755 "$f"',
            changes=("WORKDIR /data", "USER 999:1000"),
        )
        return python.result(), redis.result()


def _image(name: str, packages: str, *hooks: str, changes: tuple[str, ...] = ()) -> str:
    """Return an image's own name if it can be had, else that of one made in its place."""
    own = OWN + name
    for known in (name, own):
        if succeeds("docker", "image", "inspect", known):
            return known
    if succeeds("docker", "pull", "--quiet", name, seconds=60):
        return name
    return _made(own, packages, *hooks, changes=changes)


def systemd_base() -> str:
    """Return the name of an image of a whole Debian, whose process 1 is systemd."""
    own = f"{OWN}systemd"
    if succeeds("docker", "image", "inspect", own):
        return own
    with _index() as index:
        change = 'ENTRYPOINT ["/sbin/init"]'
        return _made(own, f"{PYTHON_PACKAGES},make,systemd-sysv", *index, changes=(change,))


def _made(name: str, packages: str, *hooks: str, changes: tuple[str, ...] = ()) -> str:
    """Make an image of a Debian and some packages of it, and return its name."""
    assert shutil.which("mmdebstrap"), f"{name} can neither be pulled nor made: {HOW_TO_GET_IT}"
    with tempfile.TemporaryDirectory() as folder:
        command(
            *("mmdebstrap", "--quiet", "--variant=minbase", f"--include={packages}"),
            *(f"--customize-hook={hook}" for hook in hooks),
            *(RELEASE, f"{folder}/root.tar"),
            seconds=600,
        )
        docker("import", *(f"--change={one}" for one in changes), f"{folder}/root.tar", name)
    os.sync()  # otherwise Redis's own fsync waits behind all this, for half a minute
    return name


def _ca_bundle() -> str | None:
    """Return where the host's certificates are, where they are a file."""
    places = (os.environ.get("PIP_CERT"), os.environ.get("SSL_CERT_FILE"), CA_BUNDLE)
    return next((place for place in places if place and Path(place).is_file()), None)


@contextlib.contextmanager
def _index() -> Iterator[list[str]]:
    """The hooks of mmdebstrap by which pip reaches an index in an image, as it does here."""
    with _pip_conf() as conf:
        bundle = _ca_bundle()
        yield [
            *([f"upload {bundle} {CA_BUNDLE}"] if bundle else []),
            f"upload {conf} /etc/pip.conf",
        ]


@contextlib.contextmanager
def _pip_conf() -> Iterator[Path]:
    """A pip.conf with what pip goes by here to reach an index, from its files and variables."""
    settings = {}
    for line in command(sys.executable, "-m", "pip", "config", "list").splitlines():
        name, _, value = line.partition("=")
        name = name.rpartition(".")[2].removeprefix("default-")
        if name in PIP_SETTINGS and "file://" not in value:
            settings[name] = value.strip("'")
    with tempfile.NamedTemporaryFile("w", suffix=".conf") as file:
        file.write("[global]\n" + "".join(f"{name} = {settings[name]}\n" for name in settings))
        file.flush()
        yield Path(file.name)
