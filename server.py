"""friendlyhello: a page that greets, names its host and counts visits in Redis.

``python server.py`` reads the settings (`config`), listens, serves until a signal asks it to stop
(`process.STOP_SIGNALS`), and drains: it finishes the requests in flight, and closes all else.
"""

import gc
import os
import signal
import sys

if __name__ == "__main__":
    gc.disable()  # the imported objects stay; to search them takes time
    # If the program that started this one ignored it, nobody could wait for a child (wait(2)).
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    if os.getpid() == 1:
        # The system drops a signal for which process 1 has no handler.
        for one in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            if signal.getsignal(one) != signal.SIG_IGN:
                signal.signal(one, lambda *_: os._exit(0))
        from process import leave_process_1

        leave_process_1()
    if "--healthcheck" in sys.argv:
        # Each container runs this every few seconds. Without the server's modules it is far faster.
        from process import check_health

        check_health()

import asyncio
import contextlib
import dataclasses
import functools
import logging
import socket
from collections.abc import Coroutine, Iterator, Sequence
from itertools import chain

from tornado.netutil import bind_sockets
from tornado.web import RequestHandler

import config
import limits
from config import Settings
from counter import Visits
from handlers import (
    COMMON_HEADERS,
    Faults,
    NotFoundHandler,
    SharedFaults,
    error_body,
    of_each_port,
    route_names,
    routes,
)
from http1 import Application, HTTPServer
from process import (
    STOP_SIGNALS,
    Burdened,
    Certificate,
    Stopping,
    Workers,
    check_health,
    fail,
    give_memory_back,
    inherited_sockets,
    notify,
    password_file,
    sleep,
    usable_cores,
)
from replicas import Figures, Reader, Telling
from watch import FAULTS, Broadcast, Metrics, configure_logs, log_request

#: Connections that the admin port takes: enough for scrapers, probes and people who look.
ADMIN_CONNECTIONS = 32

#: Seconds that the start waits for Redis, so that the first visits get numbers, too.
START_TIMEOUT = 0.25

log = logging.getLogger("friendlyhello")


class StartError(RuntimeError):
    """The server cannot start. The message is one line, and is for the user."""


def make_app(
    settings: Settings | None = None,
    visits: Visits | None = None,
    live: Broadcast | None = None,
    metrics: Metrics | None = None,
) -> Application:
    """Return the application of the page's port, for a server of one's own.

    :arg settings: `config.Settings`; with None, every default.
    :arg visits: the counter; with None, a new one of the settings.
    :arg live: the figures of the live page; with None, new ones that read what replicas write.
    :arg metrics: the metrics; with None, new ones.
    """
    settings = settings or Settings()
    metrics = metrics or new_metrics(settings)
    visits = visits or new_visits(settings, metrics)
    live = live or Broadcast(Reader(visits.new_connector()))
    return make_apps(settings, visits, live, metrics, new_faults(settings), asyncio.Event())[0]


def make_apps(
    settings: Settings,
    visits: Visits,
    live: Broadcast,
    metrics: Metrics,
    faults: SharedFaults | None,
    draining: asyncio.Event,
) -> list[Application]:
    """Return the application of the page's port, and the admin port's if there is an admin port.

    :arg faults: the faults of the replica; None without ``--faults``.
    :arg draining: an event that is set when the server is asked to stop.
    """

    def count_and_log(handler: RequestHandler) -> None:
        metrics.answered(handler)
        log_request(handler)

    max_streams = limits.max_streams(max_connections(settings))
    rules = routes(settings, visits, live, metrics, faults, max_streams)
    metrics.know_routes(route_names(rules))
    metrics.gauge("redis_up", lambda: visits.up)
    metrics.gauge("exactly_once", lambda: visits.exactly_once)
    metrics.gauge("live_watchers", lambda: len(live.watchers))
    if faults:
        for kind in FAULTS:
            metrics.gauge(kind, functools.partial(faults.has, kind))
    new_app = functools.partial(
        Application,
        default_handler_class=NotFoundHandler,
        log_function=count_and_log if settings.access_log else metrics.answered,
        draining=draining,
        version_label=settings.version_label,
    )
    return [new_app(those) for those in of_each_port(settings, rules)]


def new_metrics(settings: Settings, processes: int = 1) -> Metrics:
    """Return the metrics of the replica.

    :arg processes: how many processes share them.
    """
    return Metrics(settings.version_label or "", processes, settings.labels)


def new_figures(settings: Settings) -> Figures:
    """Return the figures that a process of this replica writes about itself."""
    return Figures(config.host_name(), settings.version_label or "", settings.labels)


def new_visits(settings: Settings, metrics: Metrics, beside: Figures | None = None) -> Visits:
    """Return the counter of the settings. If OpenTelemetry is installed, it makes spans.

    :arg metrics: the metrics. They hear which visits get a number.
    :arg beside: the figures that the process writes about itself; with None, new ones.
    :raises config.SettingError: when a password file cannot be read.
    :raises ValueError: when the URL cannot be read.
    :raises OSError: when a certificate that the URL names cannot be loaded.
    """
    try:
        from watch.tracing import TracedVisits as VisitsClass
    except ImportError:
        VisitsClass = Visits  # type: ignore[misc, assignment]
    return VisitsClass(
        settings.redis_url,
        password=password_file(settings, "redis_password_file"),
        sentinel_password=password_file(settings, "redis_sentinel_password_file"),
        timeout=settings.redis_timeout,
        wait=settings.redis_wait,
        max_waiting=limits.WAITING_VISITS,
        observer=metrics,
        beside=beside or new_figures(settings),
    )


def new_faults(settings: Settings) -> SharedFaults | None:
    """Return the faults of the replica, for all its processes; None without ``--faults``."""
    return (
        SharedFaults(Faults(settings.fault_rate, settings.fault_wait)) if settings.faults else None
    )


def new_server(
    settings: Settings,
    app: Application,
    certificate: Certificate | None = None,
    most: int | None = None,
) -> HTTPServer:
    """Return an HTTP server for an application. It does not listen yet.

    :arg certificate: the certificate of HTTPS; with None, the server speaks plain HTTP.
    :arg most: how many clients may be connected; with None, as many as the system allows.
    """
    headers = dict(COMMON_HEADERS)
    if settings.version_label:
        headers["X-App-Version"] = settings.version_label

    def refusal(status: int, why: str, accept: str) -> tuple[dict[str, str], bytes]:
        content_type, body = error_body(status, why, accept)
        return headers | {"Content-Type": content_type}, body.encode()

    return HTTPServer(
        app,
        draining=app.settings["draining"],
        idle_connection_timeout=settings.idle_timeout,
        max_connections=most or max_connections(settings),
        refusal=refusal,
        ssl_options=certificate and certificate.context,
        trusted_proxies=settings.trusted_proxies or (),
        **limits.HTTP,
    )


def max_connections(settings: Settings) -> int:
    """Return how many connections each process may have open."""
    processes = settings.processes or usable_cores()
    return limits.max_connections(processes, is_tls=settings.tls_cert is not None)


@dataclasses.dataclass(frozen=True)
class Parts:
    """What a replica is made of before its processes start. They all have the same parts.

    :arg figures: what a process writes about itself beside the visits.
    :arg faults: None without ``--faults``.
    :arg certificate: of HTTPS; with None, the server speaks plain HTTP.
    :arg sockets: of each process, the listening sockets of the page's port.
    :arg admin: of each process, the listening sockets of the admin port, if there is one.
    """

    settings: Settings
    metrics: Metrics
    visits: Visits
    figures: Figures
    faults: SharedFaults | None
    certificate: Certificate | None
    sockets: Sequence[list[socket.socket]]
    admin: Sequence[list[socket.socket]]


async def serve(parts: Parts, slot: int, end_of_work: int | None) -> None:
    """Serve until one of `STOP_SIGNALS` comes, then drain. Close the counter at the end.

    :arg slot: which of the replica's processes this is. It has taken this slot in the metrics.
    :arg end_of_work: see `draining_event`.
    """
    settings, metrics, visits, faults = parts.settings, parts.metrics, parts.visits, parts.faults
    draining = draining_event(end_of_work)
    live = Broadcast(Reader(visits.new_connector()))
    app, *admin_app = make_apps(settings, visits, live, metrics, faults, draining)
    server = new_server(settings, app, parts.certificate)
    admin_server = [new_server(settings, one, None, ADMIN_CONNECTIONS) for one in admin_app]
    metrics.gauge("connections", lambda: server.connections)
    kinds = (lambda: faults.get().kinds) if faults else None
    telling = Telling(parts.figures, visits, draining.is_set, kinds)
    await visits.start(START_TIMEOUT)
    collect_less_garbage()
    own = parts.sockets[slot]
    server.add_sockets(own)
    for one in admin_server:
        one.add_sockets(parts.admin[slot])
    siblings = [one for one in chain(*parts.sockets) if one not in own]
    accepting = asyncio.create_task(server.accept_for_siblings(siblings))
    background = [asyncio.create_task(one) for one in works_beside(parts, slot, server)]
    telling.start()

    await draining.wait()

    accepting.cancel()
    log.info("stopping")
    if end_of_work is None:  # otherwise the parent of the workers sends this
        notify("STOPPING=1")
    telling.look()
    await live.close()  # streams would not end by themselves
    await server.drain(settings.grace, settings.drain_delay)  # the admin port still answers
    for task in background:
        task.cancel()
    await asyncio.wait(background)
    await asyncio.gather(visits.close(), telling.close())
    # The loop removes its handlers when it closes. So block the signals until there are others.
    signal.pthread_sigmask(signal.SIG_BLOCK, STOP_SIGNALS)


def works_beside(
    parts: Parts, slot: int, server: HTTPServer
) -> Iterator[Coroutine[None, None, None]]:
    """Yield what a process does beside serving, until it has drained."""
    yield parts.metrics.keep_sharing()
    yield give_memory_back(lambda: server.closed)
    if certificate := parts.certificate:
        yield certificate.follow(functools.partial(setattr, server, "ssl_options"))
    if (faults := parts.faults) and slot == 0:  # CPU and memory are taken once
        yield Burdened(lambda: faults.get().burden).follow()


def draining_event(end_of_work: int | None) -> asyncio.Event:
    """Return an event that `STOP_SIGNALS` set. A second signal ends the process at once.

    :arg end_of_work: a descriptor that becomes readable when the parent process is asked to stop,
        or dies. This counts as a first signal.
    """
    draining = asyncio.Event()
    loop = asyncio.get_running_loop()
    stopping = Stopping()

    def on_stop(signum: int | None) -> None:
        if stopping.ask(signum):
            os._exit(128 + (signum or 0))
        draining.set()

    def on_end_of_work(descriptor: int) -> None:
        loop.remove_reader(descriptor)  # it stays readable
        on_stop(None)

    for signum in STOP_SIGNALS:
        loop.add_signal_handler(signum, on_stop, signum)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, STOP_SIGNALS)
    if end_of_work is not None:
        loop.add_reader(end_of_work, on_end_of_work, end_of_work)
    return draining


def collect_less_garbage() -> None:
    """Let the garbage collector skip all present objects, which stay: to search them costs time."""
    gc.freeze()
    gc.set_threshold(10_000, 50, 50)
    gc.enable()


def new_event_loop() -> asyncio.AbstractEventLoop:
    """Return uvloop's event loop if uvloop is installed, else asyncio's."""
    try:
        import uvloop
    except ImportError:  # on Windows
        return asyncio.new_event_loop()
    return uvloop.new_event_loop()


def exit_on_signals() -> None:
    """Make `STOP_SIGNALS` end the program while there is nothing to drain.

    Otherwise process 1 of a container would not notice SIGTERM, and would answer SIGINT with a
    traceback.
    """
    for signum in STOP_SIGNALS:
        signal.signal(signum, lambda *_: sys.exit(0))
    signal.pthread_sigmask(signal.SIG_UNBLOCK, STOP_SIGNALS)


def listen(
    address: str | None,
    port: int,
    processes: int = 1,
    inherited: list[socket.socket] | None = None,
) -> list[list[socket.socket]]:
    """Return listening sockets for an address and a port.

    :arg address: an address or a host name; None for every interface.
    :arg port: 0 picks a free one.
    :arg processes: how many processes share the port.
    :arg inherited: the sockets that a service manager has opened, if it has.
    :return: the sockets of each process. On Linux each process has its own, and the system spreads
        the connections among them (SO_REUSEPORT, socket(7)). Other systems would not spread them,
        so there all processes have the same sockets, as they have the inherited ones.
    :raises StartError: when the port is taken or not permitted, or the address is not available.
    """
    bind = functools.partial(bind_sockets, address=address, backlog=limits.BACKLOG)
    try:
        bound = inherited or bind(port)
        if processes == 1 or sys.platform != "linux" or inherited:
            return [bound] * processes
        # This bind, without SO_REUSEPORT, shows whether the port is free. With it, no port
        # seems taken.
        port = bound[0].getsockname()[1]
        for one in bound:
            one.close()
        return [bind(port, reuse_port=True) for _ in range(processes)]
    except OSError as error:
        where = f"port {port}" + (f" of {address}" if address else "")
        hint = "; try --port=4000" if isinstance(error, PermissionError) else ""
        raise StartError(f"cannot listen on {where}: {error.strerror}{hint}") from None


def run(settings: Settings) -> None:
    """Start, serve and stop.

    :raises StartError: when the server cannot start.
    """
    limits.raise_descriptors()
    with contextlib.ExitStack() as stack:
        try:
            parts = make_parts(settings, stack)
        except (config.SettingError, RuntimeError, OSError) as error:
            raise StartError(str(error)) from None

        scheme = "https" if parts.certificate else "http"
        log.info("listening on %s", _url(scheme, settings.address, parts.sockets[0], settings))
        if admin := parts.admin[0]:
            log.info("admin port at %s", _url("http", settings.admin_address, admin, settings))
        notify("READY=1")  # from now on the system keeps connections in a queue

        def work(slot: int, end_of_work: int | None = None) -> None:
            parts.metrics.take(slot)
            # Block the signals until the loop handles them: an exception would break its start.
            signal.pthread_sigmask(signal.SIG_BLOCK, STOP_SIGNALS)
            with asyncio.Runner(loop_factory=new_event_loop) as runner:
                runner.run(serve(parts, slot, end_of_work))
            exit_on_signals()

        if (processes := len(parts.sockets)) == 1:
            work(0)
        else:
            parts.metrics.lead()
            faults = parts.faults
            asked_status = (lambda: faults.get().exit) if faults else lambda: None
            try:
                Workers(work, [*chain(*parts.sockets, *parts.admin)], asked_status).run(processes)
            except OSError as error:
                raise StartError(str(error)) from None


def make_parts(settings: Settings, stack: contextlib.ExitStack) -> Parts:
    """Configure the log, listen, and make all else that the processes have in common.

    :arg stack: gets what must end with the server.
    :raises config.SettingError: when a file that a setting names cannot be used.
    :raises RuntimeError: when the server cannot listen, or cannot start the private Valkey.
    :raises OSError: when a certificate cannot be loaded.
    """
    processes = settings.processes or usable_cores()
    metrics = new_metrics(settings, processes)
    configure_logs(settings.log_format, settings.log_level, metrics.log_lines_dropped)
    certificate = Certificate(settings) if settings.tls_cert else None
    if settings.start_wait:
        log.warning("faults: not listening for %g s", settings.start_wait)
        sleep(settings.start_wait)
    sockets = listen(settings.address, settings.port, processes, inherited_sockets())
    admin: list[list[socket.socket]] = [[]] * processes
    if settings.admin_port is not None:
        admin = listen(settings.admin_address, settings.admin_port, processes)
    if folder := config.embedded_folder(settings.redis_url):
        import embedded  # only here, because Windows cannot import it

        url = stack.enter_context(embedded.running(folder, [*chain(*sockets, *admin)]))
        settings = dataclasses.replace(settings, redis_url=url)
    figures = new_figures(settings)
    visits = new_visits(settings, metrics, figures)
    faults = new_faults(settings)
    return Parts(settings, metrics, visits, figures, faults, certificate, sockets, admin)


def _url(scheme: str, address: str | None, sockets: list[socket.socket], settings: Settings) -> str:
    bound, port, *_ = sockets[0].getsockname()
    host = address or ("localhost" if bound in ("::", "0.0.0.0") else bound)
    shown = f"[{host}]" if ":" in host else host
    return f"{scheme}://{shown}:{port}{settings.path_prefix}/"


def main() -> None:
    """Run the program. The exit status is 2 for a bad setting, and 1 if the server cannot start."""
    try:
        settings = config.load()
    except config.SettingError as error:
        fail(2, error)
    if settings.healthcheck:
        check_health()
    exit_on_signals()
    try:
        run(settings)
    except StartError as error:
        fail(1, error)
    finally:  # Python removes its handlers before it ends, and a signal would change the status
        signal.pthread_sigmask(signal.SIG_BLOCK, STOP_SIGNALS)


if __name__ == "__main__":
    main()
