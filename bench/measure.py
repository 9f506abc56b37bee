"""One measurement: puts a load on servers, and measures its cost."""

import contextlib
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import psutil

from bench.load import Load, Loading, Outcome, loading
from bench.machine import END
from bench.results import Row
from bench.site import Bench, Site
from bench.store import Redis

#: Seconds without a visit and without work for the server, after which a load is over. They are
#: more than the half second after which the server gives back the numbers of clients that went.
SETTLED = 0.6


@dataclass(frozen=True)
class _Spent:
    """CPU time in seconds, and counts, up to one moment."""

    server: float
    redis: float
    commands: int
    visits: int

    @classmethod
    def now(cls, sites: Sequence[Site], valkey: Redis) -> "_Spent":
        cpu, stats = valkey.client.info("cpu"), valkey.client.info("commandstats")
        return cls(
            server=sum(site.cpu() for site in sites),
            redis=cpu["used_cpu_user"] + cpu["used_cpu_sys"],
            commands=sum(
                stats.get(f"cmdstat_{name}", {"calls": 0})["calls"] for name in ("incr", "incrby")
            ),
            visits=valkey.counter(),
        )


def warm_up(
    run: Bench, sites: Sequence[Site], connections: int, redis: Redis | None = None
) -> None:
    """Let servers fill their caches and open their connections to Redis; see `measure`."""
    measure(run, sites, connections, 0, min(run.seconds, 0.2 + connections / 1000), redis)


def measure(
    run: Bench,
    sites: Sequence[Site],
    load: int | Load,
    round_: int,
    seconds: float | None = None,
    redis: Redis | None = None,
) -> Row:
    """Load one server, or several of the same kind that share the connections.

    :arg load: a load, or the number of kept connections.
    :arg round_: the number of the round, for the result.
    :arg seconds: how long, rounded up to wrk's step of 0.1; None for the run's own.
    :arg redis: in which only these servers count: late visits of other servers would count for
        these. None for the run's own.
    """
    load = Load(load) if isinstance(load, int) else load
    seconds, redis = seconds or run.seconds, redis or run.redis
    server, before = sites[0].server, _settled(sites, redis)
    with _on(run, sites, load, seconds) as loads:
        if server.counts:
            _begun(redis, before.visits + load.connections)
        psutil.cpu_percent(percpu=True)  # the next call tells the shares since this one
        began = time.perf_counter()
        time.sleep(seconds / 2)
        memory = sum(site.memory() for site in sites)
        time.sleep(max(0.0, began + seconds - time.perf_counter()))
        shares = psutil.cpu_percent(percpu=True)
        for one in loads:
            one.stop()
        outcomes = [one.outcome() for one in loads]
    after = _settled(sites, redis)

    duration = max(outcome.seconds for outcome in outcomes)
    answers = sum(outcome.requests for outcome in outcomes)
    commands, visits = after.commands - before.commands, after.visits - before.visits
    return Row(
        server=server.name,
        log=sites[0].log,
        round=round_,
        connections=load.connections,
        kind=load.kind,
        due=load.due,
        rate=answers / duration,
        p50=max(outcome.p50 for outcome in outcomes),
        p99=max(outcome.p99 for outcome in outcomes),
        # Per visit that Redis counted: the server also worked for visits that were cut off.
        cpu=(after.server - before.server) / max(visits if server.counts else answers, 1) * 1e6,
        commands=commands / max(visits, 1),
        memory=memory,
        busy=max(shares[core] for core in run.cores.load) / 100,
        command_rate=commands / duration,
        command_cpu=(after.redis - before.redis) / max(commands, 1) * 1e6,
        problem=_problem(outcomes, visits if server.counts else answers, load.connections),
        servers=len(sites),
    )


@contextlib.contextmanager
def _on(run: Bench, sites: Sequence[Site], load: Load, seconds: float) -> Iterator[list[Loading]]:
    """Load servers, which share the connections."""
    share = replace(load, connections=max(1, load.connections // len(sites)))
    with contextlib.ExitStack() as stack:
        yield [
            stack.enter_context(loading(site, share, seconds, run.cores.load, run.folder / f"{i}"))
            for i, site in enumerate(sites)
        ]


def _begun(valkey: Redis, visits: int) -> None:
    """Wait until there were more visits than connections, so that some visits have answers.

    A busy machine takes some time to open thousands of connections, and for their TLS handshakes.
    """
    deadline = time.monotonic() + END
    while valkey.counter() <= visits and time.monotonic() < deadline:
        time.sleep(0.002)


def _settled(sites: Sequence[Site], valkey: Redis) -> _Spent:
    """Wait until no more visits come: the end of a load cuts visits off, and these still count."""
    deadline = time.monotonic() + END
    before = _Spent.now(sites, valkey)
    while True:
        time.sleep(SETTLED)
        now = _Spent.now(sites, valkey)
        quiet = now.visits == before.visits and now.server - before.server < SETTLED / 2
        # On a busy machine, a server may have work but not have had its turn.
        quiet &= not any(site.is_at_work() for site in sites)
        if quiet or time.monotonic() > deadline:
            return now
        before = now


def _problem(outcomes: Sequence[Outcome], visits: int, connections: int) -> str:
    """Return what is wrong with a load's answers; "" when each was a 200 that Redis counted."""
    answers = sum(outcome.requests for outcome in outcomes)
    errors = sum((Counter(outcome.errors) for outcome in outcomes), Counter())  # without zeros
    if not answers:
        return "no answers"
    if errors:
        return "failed: " + ", ".join(f"{number} {kind}" for kind, number in errors.items())
    # The end of the load cuts off each connection's last visit, which Redis may have counted.
    if not answers <= visits <= answers + connections:
        return f"{answers} answers, but {visits} visits counted"
    return ""
