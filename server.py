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
from collections.abc import Sequence

from tornado.netutil import bind_sockets
from tornado.web import RequestHandler

import config
import limits
from config import Settings
from counter import Visits, process_key
from handlers import (
    COMMON_HEADERS,
    Faults,
    NotFoundHandler,
    SharedFaults,
    below,
    error_body,
    of_the_admin_port,
    of_the_page,
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
    faults: SharedFaults | None = None,
    draining: asyncio.Event | None = None,
) -> Application:
    """Return the application of the page's port; see `make_apps`."""
    return make_apps(settings, visits, live, metrics, faults, draining)[0]


def make_apps(
    settings: Settings | None = None,
    visits: Visits | None = None,
    live: Broadcast | None = None,
    metrics: Metrics | None = None,
    faults: SharedFaults | None = None,
    draining: asyncio.Event | None = None,
) -> list[Application]:
    """Return the application of the page's port, and the admin port's if there is an admin port.

    The server and the tests run these applications.

    :arg settings: `config.Settings`; with None, every default.
    :arg visits: the counter; with None, a new one of the settings.
    :arg live: the figures of the live page; with None, new ones that read what replicas write.
    :arg metrics: the metrics; with None, new ones.
    :arg faults: the faults of the replica; with None, those of the settings.
    :arg draining: an event that is set when the server is asked to stop; with None, it never is.
    """
    settings = settings or Settings()
    metrics = metrics or Metrics(settings.version_label or "", labels=settings.labels)
    visits = visits or new_visits(settings, metrics)
    faults = faults or new_faults(settings)
    live = live or Broadcast(Reader(visits.new_connector()))

    def count_and_log(handler: RequestHandler) -> None:
        metrics.answered(handler)
        log_request(handler)

    rules = routes(
        settings.name,
        config.host_name(),
        visits,
        live,
        metrics,
        version=settings.version_label,
        labels=settings.labels,
        faults=faults,
        max_streams=limits.max_streams(max_connections(settings)),
        echo=settings.echo,
    )
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
        draining=draining or asyncio.Event(),
        version_label=settings.version_label,
    )
    ports = [rules]
    if settings.admin_port is not None:
        ports = [of_the_page(rules), of_the_admin_port(rules)]
    return [new_app(below(settings.path_prefix, those)) for those in ports]


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


async def serve(
    settings: Settings,
    visits: Visits,
    figures: Figures,
    metrics: Metrics,
    sockets: list[socket.socket],
    admin: Sequence[socket.socket] = (),
    siblings: Sequence[socket.socket] = (),
    end_of_work: int | None = None,
    certificate: Certificate | None = None,
    faults: SharedFaults | None = None,
    takes_burden: bool = True,
) -> None:
    """Serve until one of `STOP_SIGNALS` comes, then drain.

    :arg settings: `config.Settings`.
    :arg visits: the counter. It is closed at the end.
    :arg figures: what the process writes about itself beside the visits.
    :arg metrics: the metrics. The process has taken its slot in them.
    :arg sockets: the listening sockets of the page's port.
    :arg admin: the listening sockets of the admin port, if there is one.
    :arg siblings: the sockets of other processes on the same port.
    :arg end_of_work: see `draining_event`.
    :arg certificate: the certificate of HTTPS; with None, the server speaks plain HTTP.
    :arg faults: the faults of the replica; None without ``--faults``.
    :arg takes_burden: whether this process takes the CPU and memory that the faults ask for.
    """
    draining = draining_event(end_of_work)
    live = Broadcast(Reader(visits.new_connector()))
    app, *admin_app = make_apps(settings, visits, live, metrics, faults, draining)
    server = new_server(settings, app, certificate)
    admin_server = [new_server(settings, one, None, ADMIN_CONNECTIONS) for one in admin_app]
    metrics.gauge("connections", lambda: server.connections)
    telling = Telling(
        figures,
        process_key(visits.process_id),
        visits.new_connector(),
        draining.is_set,
        (lambda: faults.get().kinds) if faults else None,
    )
    await visits.start(START_TIMEOUT)
    collect_less_garbage()
    server.add_sockets(sockets)
    for one in admin_server:
        one.add_sockets(admin)
    loop = asyncio.get_running_loop()
    accepting = loop.create_task(server.accept_for_siblings(siblings))
    background = [
        loop.create_task(metrics.keep_sharing()),
        loop.create_task(give_memory_back(lambda: server.closed)),
    ]
    if certificate:
        use = functools.partial(setattr, server, "ssl_options")
        background.append(loop.create_task(certificate.follow(use)))
    if faults and takes_burden:
        background.append(loop.create_task(Burdened(lambda: faults.get().burden).follow()))
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
    settings: Settings, processes: int = 1, *, admin: bool = False
) -> list[list[socket.socket]]:
    """Return listening sockets for the address and port of the settings.

    :arg admin: whether to listen on the admin port. If the settings have none, there are no
        sockets.
    :arg processes: how many processes share the port.
    :return: the sockets of each process. On Linux each process has its own, and the system spreads
        the connections among them (SO_REUSEPORT, socket(7)). Other systems would not spread them,
        so there all processes have the same sockets. If a service manager has opened the sockets of
        the page's port, all processes have these.
    :raises StartError: when the port is taken or not permitted, or the address is not available.
    :raises RuntimeError: when a service manager has opened no listening TCP sockets.
    """
    address, wanted = settings.address, settings.port
    if admin:
        if settings.admin_port is None:
            return [[] for _ in range(processes)]
        address, wanted = settings.admin_address, settings.admin_port
    bind = functools.partial(bind_sockets, address=address, backlog=limits.BACKLOG)
    inherited = [] if admin else inherited_sockets()
    try:
        bound = [inherited or bind(wanted)]
        if processes > 1 and sys.platform == "linux" and not inherited:
            # This bind, without SO_REUSEPORT, shows whether the port is free. With it, no port
            # seems taken.
            port = bound[0][0].getsockname()[1]
            for one in bound[0]:
                one.close()
            bound = [bind(port, reuse_port=True) for _ in range(processes)]
    except OSError as error:
        where = f"port {wanted}" + (f" of {address}" if address else "")
        hint = "; try --port=4000" if isinstance(error, PermissionError) else ""
        raise StartError(f"cannot listen on {where}: {error.strerror}{hint}") from None
    return bound if len(bound) == processes else bound * processes


def run(settings: Settings) -> None:
    """Start, serve and stop.

    :raises StartError: when the server cannot start.
    """
    limits.raise_descriptors()
    with contextlib.ExitStack() as stack:
        try:
            processes = settings.processes or usable_cores()
            metrics = Metrics(settings.version_label or "", processes, settings.labels)
            configure_logs(settings.log_format, settings.log_level, metrics.log_lines_dropped)
            certificate = Certificate(settings) if settings.tls_cert else None
            if settings.start_wait:
                log.warning("faults: not listening for %g s", settings.start_wait)
                sleep(settings.start_wait)
            sockets = listen(settings, processes)
            admin = listen(settings, processes, admin=True)
            every = [one for those in (*sockets, *admin) for one in those]
            if folder := config.embedded_folder(settings.redis_url):
                import embedded  # only here, because Windows cannot import it

                url = stack.enter_context(embedded.running(folder, every))
                settings = dataclasses.replace(settings, redis_url=url)
            figures = new_figures(settings)
            visits = new_visits(settings, metrics, figures)
            faults = new_faults(settings)
        except (config.SettingError, RuntimeError, OSError) as error:
            raise StartError(str(error)) from None

        scheme = "https" if certificate else "http"
        log.info("listening on %s", _url(scheme, settings.address, sockets[0], settings))
        if admin[0]:
            log.info("admin port at %s", _url("http", settings.admin_address, admin[0], settings))
        notify("READY=1")  # from now on the system keeps connections in a queue

        def work(slot: int, end_of_work: int | None = None) -> None:
            siblings = [one for those in sockets for one in those if one not in sockets[slot]]
            metrics.take(slot)
            # Block the signals until the loop handles them: an exception would break its start.
            signal.pthread_sigmask(signal.SIG_BLOCK, STOP_SIGNALS)
            with asyncio.Runner(loop_factory=new_event_loop) as runner:
                runner.run(
                    serve(
                        settings,
                        visits,
                        figures,
                        metrics,
                        sockets[slot],
                        admin[slot],
                        siblings=siblings,
                        end_of_work=end_of_work,
                        certificate=certificate,
                        faults=faults,
                        takes_burden=slot == 0,
                    )
                )
            exit_on_signals()

        if processes == 1:
            work(0)
        else:
            metrics.lead()
            asked_status = (lambda: faults.get().exit) if faults else lambda: None
            try:
                Workers(work, every, asked_status).run(processes)
            except OSError as error:
                raise StartError(str(error)) from None


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
