"""The measured servers: one table of friendlyhello and its peers.

The benchmark knows of a server only its command line. A server reads ``NAME``, ``PORT``,
``REDIS_URL`` and ``PROCESSES`` from its environment. For HTTPS it also reads ``TLS_CERT`` and
``TLS_KEY``, the paths of PEM files. It serves on 127.0.0.1, and logs to standard output and error.
"""

import os
import shutil
import subprocess
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

HERE = Path(__file__).parent
ROOT = HERE.parent
PEERS = HERE / "peers"
PYTHON = HERE / ".venv/bin/python"

#: Debian installs nginx in a folder that only root's PATH has.
PATH = os.environ.get("PATH", os.defpath) + ":/usr/sbin"

OURS = "friendlyhello"


@dataclass(frozen=True)
class Server:
    """How to run a server, and what it needs."""

    name: str
    title: str
    command: tuple[str, ...]
    """The command line. The benchmark fills in ``{port}`` and ``{redis}``, a URL."""
    quiet: tuple[str, ...] | None = ()
    """Options with which it logs no requests; None when it always logs them."""
    logged: tuple[str, ...] | None = None
    """Options with which it logs each request; None when this is not measured."""
    tls: tuple[str, ...] | None = None
    """Options with which it serves HTTPS, with ``{cert}`` and ``{key}`` to fill in; None when
    this is not measured."""
    counts: bool = True
    """Whether it counts visits. A server that does not only shows a limit, and is in no ranking."""
    python: bool = True
    """Whether a Python user might choose it."""
    needs: tuple[str, ...] = ()
    """Programs, or absolute paths of files."""
    package: str = ""
    """The command that installs them."""
    build: tuple[str, ...] = ()
    """The command that builds it, in the folder of its name in `PEERS`."""

    @property
    def variants(self) -> dict[bool, tuple[str, ...]]:
        """The options, for each setting of the log."""
        both = {False: self.quiet, True: self.logged}
        return {log: flags for log, flags in both.items() if flags is not None}

    @property
    def always_logs(self) -> bool:
        """Whether it logs in its main variant, because it cannot do without."""
        return self.quiet is None


def _python(script: str, *flags: str) -> tuple[str, ...]:
    return (str(PYTHON), str(PEERS / script), *flags)


def _uvicorn(app: str) -> tuple[str, ...]:
    options = ("--host=127.0.0.1", "--port={port}", "--loop=uvloop", "--http=httptools")
    return (str(PYTHON), "-m", "uvicorn", f"--app-dir={PEERS}", *options, app)


_UVICORN_TLS = ("--ssl-certfile={cert}", "--ssl-keyfile={key}")
_GRANIAN = (
    *(str(PYTHON), "-m", "granian", "--interface=asgi", "--loop=uvloop", "--host=127.0.0.1"),
    *("--port={port}", f"--working-dir={PEERS}", "--no-ws", "blacksheep_app:app"),
)
_GUNICORN = (
    *(str(PYTHON), "-m", "gunicorn", f"--chdir={PEERS}", "--bind=127.0.0.1:{port}"),
    *("--threads=8", "flask_app:app"),
)
_OURS = (
    *(str(ROOT / ".venv/bin/python"), str(ROOT / "server.py")),
    *("--address=127.0.0.1", "--port={port}", "--redis-url={redis}"),
)

_GO = "/usr/share/gocode/src/github.com"
_GO_PACKAGES = "apt-get install golang-go golang-github-gomodule-redigo-dev"
_GO_BUILD = ("env", "GO111MODULE=off", "GOPATH=/usr/share/gocode", "go", "build", "hello.go")

#: In the order of a round. A machine's speed changes during a round, so friendlyhello stands next
#: to the servers whose speed is closest to its own.
SERVERS = (
    Server("flask", "Flask, its own server", _python("flask_app.py"), None, ()),
    Server("gunicorn", "Flask on gunicorn, 8 threads", _GUNICORN, (), ("--access-logfile=-",)),
    Server("tornado", "Tornado", _python("tornado_app.py"), ("--logging=warning",), (), tls=()),
    Server("fastapi", "FastAPI on uvicorn", _uvicorn("fastapi_app:app"), ("--no-access-log",), ()),
    Server(
        "starlette",
        "Starlette on uvicorn",
        *(_uvicorn("starlette_app:app"), ("--no-access-log",), ()),
        tls=_UVICORN_TLS,
    ),
    Server(
        "blacksheep",
        "BlackSheep on Granian",
        *(_GRANIAN, ("--no-access-log",), ("--access-log",)),
        tls=("--ssl-certificate={cert}", "--ssl-keyfile={key}"),
    ),
    Server("aiohttp", "aiohttp on uvloop", _python("aiohttp_app.py"), (), ("--log",), tls=()),
    Server("sanic", "Sanic", _python("sanic_app.py"), (), ("--log",), tls=()),
    Server("raw", "constant bytes on uvloop", _python("raw.py"), counts=False, python=False),
    Server(OURS, "friendlyhello", _OURS, ("--access-log=false",), (), tls=()),
    Server(
        "node",
        "Node.js",
        (str(PEERS / "node/newest"), str(PEERS / "node/server.js")),
        tls=(),
        python=False,
        needs=("node", "npm"),
        package="apt-get install nodejs npm",
        build=("npm", "ci", "--silent", "--no-audit", "--no-fund"),
    ),
    Server(
        "fasthttp",
        "Go fasthttp with redigo",
        (str(PEERS / "fasthttp/hello"),),
        python=False,
        needs=("go", f"{_GO}/gomodule/redigo", f"{_GO}/valyala/fasthttp"),
        package=f"{_GO_PACKAGES} golang-github-valyala-fasthttp-dev",
        build=_GO_BUILD,
    ),
    Server(
        "go",
        "Go net/http with redigo",
        (str(PEERS / "go/hello"),),
        tls=(),
        python=False,
        needs=("go", f"{_GO}/gomodule/redigo"),
        package=_GO_PACKAGES,
        build=_GO_BUILD,
    ),
    Server(
        "nginx",
        "nginx with Lua",
        (str(PEERS / "nginx/start.sh"),),
        tls=(),
        python=False,
        needs=(
            "nginx",
            "/usr/lib/nginx/modules/ngx_http_lua_module.so",
            "/usr/share/lua/5.1/nginx/redis.lua",
        ),
        package="apt-get install nginx-light libnginx-mod-http-lua lua-nginx-redis",
    ),
)

BY_NAME = {server.name: server for server in SERVERS}


def lacks(programs: Iterable[str]) -> str:
    """Name the first program or file that is missing; "" when all are there.

    :arg programs: names of programs, or absolute paths of files.
    """
    for name in programs:
        there = Path(name).exists() if name.startswith("/") else shutil.which(name, path=PATH)
        if not there:
            return Path(name).name
    return ""


def prepare(servers: Iterable[Server]) -> dict[str, str]:
    """Build the servers that need it.

    :return: for each server that cannot run here, by name, the reason and what to install.
    """
    missing = {}
    for server in servers:
        if lacking := lacks(server.needs):
            missing[server.name] = f"{lacking} is not installed: {server.package}"
        elif server.build:
            built = subprocess.run(
                server.build,
                cwd=PEERS / server.name,
                env=os.environ | {"PATH": PATH},
                capture_output=True,
                text=True,
            )
            if built.returncode:
                said = (built.stderr or built.stdout).strip().splitlines() or ["no reason given"]
                missing[server.name] = f"it could not be built: {said[-1]}"
    return missing
