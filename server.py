"""friendlyhello: a page that greets, names its host and counts visits in Redis.

``python server.py`` reads the settings (`config`), listens, serves until SIGTERM or SIGINT,
and drains: what is in flight is finished, everything else is closed.
"""

import asyncio
import contextlib
import functools
import http.client
import logging
import os
import signal
import socket
import sys
from collections.abc import Awaitable, Callable
from typing import NoReturn

from tornado.httpserver import HTTPServer
from tornado.httputil import (
    HTTPConnection,
    HTTPHeaders,
    HTTPMessageDelegate,
    RequestStartLine,
    ResponseStartLine,
)
from tornado.netutil import bind_sockets
from tornado.web import Application

import config
import limits
import logs
import workers
from config import Settings
from handlers import routes
from handlers.base import NotFoundHandler
from visits import Visits
from workers import STOP_SIGNALS

#: Seconds that the start waits for Redis, so that the first visits are counted too.
STARTUP_PATIENCE = 0.25

#: Seconds that listening goes on, and then that idle connections stay open: what a client or a
#: balancer sends before it has heard of the stop is read and answered.
LINGER = 0.1

log = logging.getLogger("friendlyhello")


class StartError(RuntimeError):
    """The server cannot start; the message is one line, fit for the user."""


def make_app(settings: Settings | None = None, visits: Visits | None = None) -> Application:
    """Return the application, as the server and the tests run it.

    :arg settings: `config.Settings`; every default when None.
    :arg visits: the counter; one made from the settings when None.
    """
    settings = settings or Settings()
    visits = visits or Visits(settings.redis_url, timeout=settings.redis_timeout)
    return Application(
        routes(settings.name, socket.gethostname(), visits),
        default_handler_class=NotFoundHandler,
        log_function=logs.log_request if settings.access_log else logs.ignore_request,
        draining=False,
    )


class Server(HTTPServer):
    """Tornado's server, able to finish what is in flight and then stop."""

    def initialize(self, *args: object, **kwargs: object) -> None:
        """Take the arguments of Tornado's server."""
        super().initialize(*args, **kwargs)  # type: ignore[arg-type]
        self._busy: set[object] = set()
        self._no_longer_busy = asyncio.Event()

    def start_request(
        self, server_conn: object, request_conn: HTTPConnection
    ) -> HTTPMessageDelegate:
        """Wait for a connection's next request: what came before it is answered."""
        self._not_busy(server_conn)
        delegate = super().start_request(server_conn, request_conn)
        return _Noticed(delegate, functools.partial(self._busy.add, server_conn))

    def on_close(self, server_conn: object) -> None:
        """Forget a connection."""
        self._not_busy(server_conn)
        super().on_close(server_conn)

    def _not_busy(self, server_conn: object) -> None:
        self._busy.discard(server_conn)
        if not self._busy:
            self._no_longer_busy.set()

    async def drain(self, grace: float) -> None:
        """Stop listening, let the requests in flight finish, close every connection.

        :arg grace: seconds that the requests in flight get.
        """
        await asyncio.sleep(LINGER)
        self.stop()
        await asyncio.sleep(LINGER)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(grace):
                while self._busy:
                    self._no_longer_busy.clear()
                    await self._no_longer_busy.wait()
        if self._busy:
            log.warning("%d requests were not finished in %g s", len(self._busy), grace)
        await self.close_all_connections()


class _Noticed(HTTPMessageDelegate):
    """Passes a request on, and notices when its headers are here."""

    def __init__(self, delegate: HTTPMessageDelegate, notice: Callable[[], None]) -> None:
        self._notice = notice
        self._headers_received = delegate.headers_received
        self.data_received = delegate.data_received  # type: ignore[method-assign]
        self.finish = delegate.finish  # type: ignore[method-assign]
        self.on_connection_close = delegate.on_connection_close  # type: ignore[method-assign]

    def headers_received(
        self, start_line: RequestStartLine | ResponseStartLine, headers: HTTPHeaders
    ) -> Awaitable[None] | None:
        self._notice()
        return self._headers_received(start_line, headers)


async def serve(
    settings: Settings, visits: Visits, sockets: list[socket.socket], orphaned: int | None = None
) -> None:
    """Serve until SIGTERM or SIGINT, then drain. A second signal ends the process at once.

    :arg settings: `config.Settings`.
    :arg visits: the counter; it is closed at the end.
    :arg sockets: listening.
    :arg orphaned: a descriptor that becomes readable when the parent process is gone, which
        then counts as a signal.
    """
    stop = asyncio.Event()

    def on_signal(signum: int) -> None:
        if stop.is_set():
            os._exit(128 + signum)
        stop.set()

    loop = asyncio.get_running_loop()
    for signum in STOP_SIGNALS:
        loop.add_signal_handler(signum, on_signal, signum)
    if orphaned is not None:
        loop.add_reader(orphaned, stop.set)

    app = make_app(settings, visits)
    server = Server(app, **limits.HTTP)
    await visits.start(STARTUP_PATIENCE)
    server.add_sockets(sockets)
    await stop.wait()
    log.info("stopping")
    app.settings["draining"] = True
    await server.drain(settings.grace)
    await visits.close()


def new_event_loop() -> asyncio.AbstractEventLoop:
    """Return uvloop's event loop where it is installed, else asyncio's."""
    try:
        import uvloop
    except ImportError:  # on Windows
        return asyncio.new_event_loop()
    return uvloop.new_event_loop()


def exit_on_signals() -> None:
    """Make SIGTERM and SIGINT end the program where nothing has to be drained.

    Process 1 of a container would not notice the one, and answer the other with a traceback.
    """
    for signum in STOP_SIGNALS:
        signal.signal(signum, lambda *_: sys.exit(0))


def listen(settings: Settings) -> list[socket.socket]:
    """Return listening sockets for the address and port of the settings.

    :raises StartError: when the port is taken or not permitted, or the address not to be had.
    """
    try:
        return bind_sockets(settings.port, settings.address, backlog=limits.BACKLOG)
    except OSError as error:
        where = f"port {settings.port}" + (f" of {settings.address}" if settings.address else "")
        hint = "; try --port=4000" if isinstance(error, PermissionError) else ""
        raise StartError(f"cannot listen on {where}: {error.strerror}{hint}") from None


def healthcheck(settings: Settings) -> str | None:
    """Ask the server of the same settings for ``/healthz``.

    :return: what is wrong with it, or None when it is healthy.
    """
    host = {None: "localhost", "0.0.0.0": "127.0.0.1", "::": "::1"}.get(
        settings.address, settings.address
    )
    connection = http.client.HTTPConnection(str(host), settings.port, timeout=2)
    try:
        connection.request("GET", "/healthz")
        status = connection.getresponse().status
    except (OSError, http.client.HTTPException) as error:
        return f"no answer from {host} port {settings.port}: {error}"
    return None if status == 200 else f"{host} port {settings.port} answered {status}"


def run(settings: Settings) -> None:
    """Start, serve and stop.

    :raises StartError: when something is missing for it.
    """
    with contextlib.ExitStack() as stack:
        url = settings.redis_url
        try:
            password = config.read_password(settings, "redis_password_file")
            sentinel_password = config.read_password(settings, "redis_sentinel_password_file")
            sockets = listen(settings)
            if folder := config.embedded_folder(url):
                import embedded  # here, as it does not import on Windows

                url = stack.enter_context(embedded.running(folder))
            visits = Visits(
                url,
                password=password,
                sentinel_password=sentinel_password,
                timeout=settings.redis_timeout,
                wait=settings.redis_wait,
            )
        except (config.SettingError, RuntimeError, OSError) as error:
            raise StartError(str(error)) from None

        host, port = settings.address or "localhost", sockets[0].getsockname()[1]
        log.info("listening on http://%s:%d/", f"[{host}]" if ":" in host else host, port)
        number = settings.processes or os.cpu_count() or 1

        def work(orphaned: int | None = None) -> None:
            with asyncio.Runner(loop_factory=new_event_loop) as runner:
                runner.run(serve(settings, visits, sockets, orphaned))
            exit_on_signals()  # the loop has taken its handlers along

        if number == 1:
            work()
        else:
            workers.run(number, work, sockets)


def main() -> None:
    """Run the program: exit status 2 for a bad setting, 1 when it cannot start."""
    try:
        settings = config.load()
    except config.SettingError as error:
        _fail(2, error)
    if settings.healthcheck:
        if wrong := healthcheck(settings):
            _fail(1, wrong)
        return
    exit_on_signals()
    logs.configure(settings.log_format)
    try:
        run(settings)
    except StartError as error:
        _fail(1, error)


def _fail(status: int, error: object) -> NoReturn:
    print(logs.one_line(f"server.py: {error}"), file=sys.stderr)
    sys.exit(status)


if __name__ == "__main__":
    main()
