"""The goals: promises about the figures. Tells which of them hold."""

from dataclasses import dataclass

from bench.results import HTTPS, KEPT, NEW, Results, ratios, saturated, spread, values
from bench.servers import BY_NAME, OURS, SERVERS
from bench.text import shown, table

#: The Python servers that a user might choose instead.
PYTHON_PEERS = tuple(server.name for server in SERVERS if server.python and server.name != OURS)

#: The figure of a start; the others are fields of `bench.results.Row`.
FIRST_PAGE = "first page"

#: The units of the figures that are no ratios.
UNITS = {"memory": " MiB", FIRST_PAGE: " ms"}


@dataclass(frozen=True)
class Goal:
    """A promise about a figure of friendlyhello, judged by the median over the rounds."""

    text: str
    limit: float
    """For requests/s the least, for other figures the most."""
    figure: str = "rate"
    peers: tuple[str, ...] = ()
    """With the best of these peers it is compared; none: the figure is judged by itself."""
    level: int = 64
    """Connections."""
    kind: str = KEPT
    logs: tuple[bool, ...] = (False,)
    """For which settings of the log it is judged: off, on, or both."""

    @property
    def unit(self) -> str:
        """The unit of its limit and its values."""
        return " ×" if self.peers else UNITS[self.figure]

    def holds(self, values: list[float]) -> bool:
        """Tell whether the median keeps the promise."""
        median = spread(values).median
        return median >= self.limit if self.figure == "rate" else median <= self.limit

    def values(self, results: Results, log: bool) -> list[float]:
        """Return friendlyhello's figure of each round, or its ratio to the best peer's.

        :return: an empty list when one of them was not measured.
        """
        ours = self._figures(results, OURS, log)
        if not self.peers:
            return ours
        peers = self._peers(results, log)
        if not ours or not peers:
            return []
        if self.figure == "rate":
            return ratios(ours, peers[_fastest(peers)])
        return ratios(ours, [min(of_round) for of_round in zip(*peers.values(), strict=True)])

    def is_upper_bound(self, results: Results, log: bool) -> bool:
        """Tell whether the load may have slowed the peer down, whose requests/s are compared."""
        if self.figure != "rate":
            return False
        peer = _fastest(self._peers(results, log))
        return saturated(results.of(peer, _runs(peer, log), self.level, self.kind))

    def _peers(self, results: Results, log: bool) -> dict[str, list[float]]:
        every = {peer: self._figures(results, peer, log) for peer in self.peers}
        return {peer: figures for peer, figures in every.items() if figures}

    def _figures(self, results: Results, server: str, log: bool) -> list[float]:
        log = _runs(server, log)
        if self.figure == FIRST_PAGE:
            return results.first_pages(server, log)
        found = values(results.of(server, log, self.level, self.kind), self.figure)
        return found if all(found) else []  # 0 means that there was no answer


def _fastest(rates: dict[str, list[float]]) -> str:
    return max(rates, key=lambda peer: spread(rates[peer]).median)


def _runs(server: str, log: bool) -> bool:
    """Return a setting of the log that the server has: Flask's own server always logs, Go never."""
    return log if log in BY_NAME[server].variants else BY_NAME[server].always_logs


def _connections(level: int) -> str:
    return f"{level:,} connection{'' if level == 1 else 's'}"


_BOTH = (False, True)
_GO, _NGINX = "of Go `net/http` with redigo", "of nginx with Lua"
_LIMITS = (
    (_GO, "go", {1: 1.0, 8: 1.1, 64: 1.6, 512: 1.5, 4096: 1.5}),
    (_NGINX, "nginx", {1: 0.9, 8: 0.9, 64: 1.2, 512: 1.3, 4096: 1.3}),
)

#: Against servers that a Python user might choose, against other languages, and what a page costs.
GOALS = (
    Goal(
        "requests/s, of the guide's Flask app on its own server", 10, peers=("flask",), logs=(True,)
    ),
    Goal("requests/s, of plain Tornado with `redis.asyncio`", 5, peers=("tornado",), logs=_BOTH),
    Goal("requests/s, of FastAPI on uvicorn", 3.5, peers=("fastapi",), logs=_BOTH),
    Goal("requests/s, of the fastest Python peer", 2, peers=PYTHON_PEERS, logs=_BOTH),
    Goal("requests/s over HTTPS, of the fastest Python peer", 3, peers=PYTHON_PEERS, kind=HTTPS),
    Goal("p50 at 1 connection, of aiohttp's", 1.05, "p50", ("aiohttp",), 1),
    *(
        Goal(
            f"p99 at {_connections(level)}, of the lowest of the Python peers'",
            *(1, "p99", PYTHON_PEERS, level),
        )
        for level in (64, 512)
    ),
    Goal("requests/s, of Node.js", 1.2, peers=("node",)),
    Goal(f"requests/s, {_GO}", 0.6, peers=("go",)),
    *(
        Goal(f"requests/s, at {_connections(level)}, {text}", limit, "rate", (peer,), level)
        for text, peer, limits in _LIMITS
        for level, limit in limits.items()
    ),
    *(
        Goal(
            f"p99 at {_connections(level)}, of the lower of Go's and nginx's",
            *(1, "p99", ("go", "nginx"), level),
        )
        for level in (1, 8, 64, 512, 4096)
    ),
    Goal("requests/s with a new connection for each, of Go's", 1.2, peers=("go",), kind=NEW),
    Goal("requests/s, logged, of Go's, not logged", 1.2, peers=("go",), logs=(True,)),
    Goal("CPU per page, of constant bytes' on uvloop", 2.2, "cpu", ("raw",)),
    *(Goal("memory at 64 connections", limit, "memory", logs=_BOTH) for limit in (45, 36)),
    *(Goal("first page after the start", limit, FIRST_PAGE, logs=_BOTH) for limit in (300, 120)),
    Goal(
        "first page, of the guide's Flask app's on its own server",
        *(1, FIRST_PAGE, ("flask",)),
        logs=_BOTH,
    ),
    Goal("first page, of the earliest of the Python peers'", 1, FIRST_PAGE, PYTHON_PEERS),
)


def table_of(results: Results) -> str:
    """Return a sentence that says how many goals hold, and the table of the goals."""
    rows, verdicts = [], []
    for goal in GOALS:
        cells = []
        for log in _BOTH:
            if log not in goal.logs:
                cells.append("")
            elif not (found := goal.values(results, log)):
                cells.append("not measured")
            else:
                verdicts.append(goal.holds(found))
                bound = "at most " if goal.is_upper_bound(results, log) else ""
                mark = "holds" if verdicts[-1] else "**missed**"
                cells.append(f"{bound}{shown(spread(found))}{goal.unit}, {mark}")
        limit = f"{'≥' if goal.figure == 'rate' else '≤'} {goal.limit:g}{goal.unit}"
        rows.append([goal.text, limit, *cells])
    peers = [name for name in results.ranking(False) if name in PYTHON_PEERS]
    fastest = f" The fastest Python peer is {BY_NAME[peers[0]].title}." if peers else ""
    lines = table(["friendlyhello", "goal", "log off", "log on"], rows)
    return f"{sum(verdicts)} of {len(verdicts)} hold.{fastest}\n\n{lines}"
