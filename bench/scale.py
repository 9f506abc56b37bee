"""SCALE.md: calculates what a million visits a second need, from the figures of a run."""

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass

from bench.results import SATURATED, Results, Row, ratios, spread
from bench.servers import BY_NAME, OURS
from bench.text import number, shown, table

VISITS = 1_000_000
"""Per second."""

# Assumptions, about things that a run on one machine cannot measure.
BUSY = 0.7
"""Share of a core's maximum that the plan uses, so that a burst does not make visitors wait."""
ROUND_TRIP = 0.5
"""Milliseconds from a server to Redis and back, in one data centre."""
FRAMING = 66
"""Bytes of Ethernet, IPv4 and TCP around each packet, with timestamps."""
LINK = 10
"""Gbit/s of a machine's network, each way."""


@dataclass(frozen=True)
class Plan:
    """What `VISITS` need. Rates are per second."""

    connections: int
    rate: float
    """The most visits of one core, with that many connections."""
    processes: int
    """Server processes, each on its own core, used at `BUSY`."""
    each: float
    """Visits of one process."""
    offered: float
    """Commands if every process sends one in each round trip."""
    command_cpu: float
    """Microseconds of Redis's CPU time for one command."""
    capacity: float
    """Commands that one Redis can do."""
    commands: float
    """Commands that the servers send; they cannot send more than Redis can do."""
    group: float
    """Visits in one command."""
    out_gbit: float
    in_gbit: float


def plan(results: Results) -> Plan:
    """Calculate what `VISITS` need from the measured figures."""
    at_most = _by(results.growth, "connections", "rate")
    connections, rate = max(at_most.items(), key=lambda item: item[1])
    processes = math.ceil(VISITS / (rate * BUSY))
    offered = min(VISITS, processes * 1000 / ROUND_TRIP)
    # The measurement with the most commands shows best what one command costs, because an idle
    # Redis costs something too. The commands must come one by one, as from many servers: Node.js
    # sends many together.
    single = [row for row in results.rows if row.server != "node" and row.commands > 0.99]
    top = max(single or results.growth, key=lambda row: row.command_rate)
    command_cpu = top.command_cpu
    capacity = 1e6 / command_cpu
    commands = min(offered, capacity)
    return Plan(
        connections=int(connections),
        rate=rate,
        processes=processes,
        each=VISITS / processes,
        offered=offered,
        command_cpu=command_cpu,
        capacity=capacity,
        commands=commands,
        group=VISITS / commands,
        out_gbit=VISITS * (results.traffic["answer"] + FRAMING) * 8 / 1e9,
        in_gbit=VISITS * (results.traffic["request"] + FRAMING) * 8 / 1e9,
    )


def _by(rows: Sequence[Row], key: str, figure: str) -> dict[float, float]:
    """Return the medians of a figure over the rounds, for each value of a key."""
    found: dict[float, list[float]] = {}
    for row in rows:
        found.setdefault(getattr(row, key), []).append(getattr(row, figure))
    return {at: statistics.median(values) for at, values in found.items()}


def _table(rows: Sequence[Row], key: str, head: str, figures: dict[str, str]) -> list[str]:
    """Return a table of figures, with a line for each value of a key."""
    keys = sorted({getattr(row, key) for row in rows})
    lines = []
    for at in keys:
        of_key = [row for row in rows if getattr(row, key) == at]
        busy = statistics.median(row.busy for row in of_key) > SATURATED
        cells = [
            ("≥ " if busy and figure == "rate" else "")
            + shown(spread([getattr(row, figure) for row in of_key]))
            for figure in figures
        ]
        lines.append([f"{at:,.0f}", *cells])
    return table([head, *figures.values()], lines)


def write(results: Results) -> str:
    """Return SCALE.md."""
    lines = [
        "# A million visits a second",
        "",
        "`make bench` wrote this from the figures of [its run](results.md). That page names the "
        "machine and the versions.",
        "",
        *_growth(results),
        *_distance(results),
        *_servers(results),
        *_arithmetic(plan(results)),
        *_limits(plan(results), results),
    ]
    return "\n".join(lines) + "\n"


def _growth(results: Results) -> list[str]:
    figures = {"rate": "visits/s", "cpu": "CPU, µs per visit", "commands": "commands per visit"}
    figures |= {"p50": "p50, ms", "p99": "p99, ms"}
    return [
        "## As load grows",
        "",
        "One server process on one core, log off. The more visits come at once, the more of them "
        "one command counts.",
        "",
        *_table(results.growth, "connections", "connections", figures),
        "",
    ]


def _distance(results: Results) -> list[str]:
    names = list(dict.fromkeys(row.server for row in results.distance))
    by_name = {name: [row for row in results.distance if row.server == name] for name in names}
    measured = _by(by_name[OURS], "distance", "round_trip")
    lines = [
        "## As Redis moves away",
        "",
        "A proxy delays Redis's replies. The run measures the distances in turn, with so many "
        "connections that no server lacks visitors. Measured round trips, with the proxy's own "
        "time: " + ", ".join(f"{number(value)} ms" for value in measured.values()) + ".",
        "",
    ]
    figures = {"rate": "visits/s", "cpu": "CPU, µs per visit", "command_rate": "commands/s"}
    figures |= {"p50": "p50, ms", "p99": "p99, ms"}
    for name, rows in by_name.items():
        near, *further = sorted({row.distance for row in rows})
        rates = {at: [row.rate for row in rows if row.distance == at] for at in (near, *further)}
        shares = (f"{shown(spread(ratios(rates[at], rates[near])))} at {at:g}" for at in further)
        head = f"{BY_NAME[name].title}, {rows[0].connections:,} connections: ms to Redis"
        lines += [
            *_table(rows, "distance", head, figures),
            "",
            f"Of the throughput at {near:g} ms in the same round: {', '.join(shares)} ms.",
            "",
        ]
    return lines


def _servers(results: Results) -> list[str]:
    row = results.servers[0]
    trip = row.round_trip
    commands = _by(results.servers, "servers", "command_rate")
    rows = [
        [
            f"{servers:.0f}",
            number(rate),
            f"{servers:.0f} × 1,000 / {trip:.2f} = {number(servers * 1000 / trip)}",
            f"{rate / (servers * 1000 / trip):.0%}",
            number(_by(results.servers, "servers", "rate")[servers]),
        ]
        for servers, rate in commands.items()
    ]
    head = ["servers", "commands/s", "one per round trip and server", "of that", "visits/s"]
    return [
        "## As servers are added",
        "",
        f"They share one core and {row.connections} connections, {trip:.2f} ms from one Redis. "
        "Each server has at most one command under way, so Redis gets at most one command per "
        "round trip and server.",
        "",
        *table(head, rows),
        "",
    ]


def _arithmetic(plan: Plan) -> list[str]:
    capped = plan.offered > plan.capacity
    return [
        "## The arithmetic",
        "",
        f"Assumed: the plan uses {BUSY:.0%} of a core's maximum, Redis is {ROUND_TRIP:g} ms away, "
        "and clients keep their connections.",
        "",
        "```",
        f"visits of a core at its most   {plan.rate:,.0f}/s, measured at {plan.connections:,} "
        "connections",
        f"server processes               {VISITS:,} / ({plan.rate:,.0f} × {BUSY:g}) = "
        f"{plan.processes:,}, each on a core of its own",
        f"visits of each                 {VISITS:,} / {plan.processes:,} = {plan.each:,.0f}/s",
        f"commands they send at most     {plan.processes:,} × 1,000 / {ROUND_TRIP:g} ms = "
        f"{plan.processes * 1000 / ROUND_TRIP:,.0f}/s",
        f"a command costs Redis          {plan.command_cpu:.1f} µs, measured with commands that "
        "come one by one",
        f"commands Redis can do          1,000,000 / {plan.command_cpu:.1f} = "
        f"{plan.capacity:,.0f}/s",
        f"commands that are sent         min({plan.offered:,.0f}, {plan.capacity:,.0f}) = "
        f"{plan.commands:,.0f}/s",
        f"visits in a command            {VISITS:,} / {plan.commands:,.0f} = {plan.group:.1f}",
        f"without grouping               {VISITS:,} / {plan.capacity:,.0f} = "
        f"{VISITS / plan.capacity:.1f} times what one Redis can do",
        "```",
        "",
        (
            "The servers could send more commands than Redis can do, but that does not matter: a "
            "server sends its next command only after the reply to the last one. So a busy Redis "
            f"makes the round trip {plan.processes:,} / {plan.capacity:,.0f} = "
            f"{plan.processes / plan.capacity * 1000:.1f} ms long, and each command counts more "
            "visits."
            if capped
            else f"Redis can do that, with {plan.commands / plan.capacity:.0%} of its one thread. "
            "If Redis were busier, the round trip would grow, and each command would count more "
            "visits: a server sends its next command only after the reply to the last one."
        ),
        "",
        "The cost of a command includes the whole script, with all that the script writes.",
        "",
    ]


def _limits(plan: Plan, results: Results) -> list[str]:
    answer, request = results.traffic["answer"], results.traffic["request"]
    links = math.ceil(plan.out_gbit / (LINK * BUSY))
    years = 2**63 / VISITS / (365.25 * 86400)
    longest = plan.processes / plan.capacity * 1000
    slow = plan.capacity / 100  # processes that make a round trip 10 ms long
    return [
        "## Where the next limit is",
        "",
        f"- **Cores** come first: {plan.processes:,} of them. They share nothing but Redis, so "
        "twice the visits take twice the cores.",
        f"- **The network.** An answer is {answer} bytes, a request {request} (wrk's; a browser "
        f"sends some 500), each in a packet with {FRAMING} around it: "
        f"{VISITS:,} × ({answer} + {FRAMING}) × 8 = {plan.out_gbit:.1f} Gbit/s out, "
        f"{VISITS:,} × ({request} + {FRAMING}) × 8 = {plan.in_gbit:.1f} Gbit/s in. That fills "
        f"{links} link{'' if links == 1 else 's'} of {LINK} Gbit/s at {BUSY:.0%}; for the "
        f"servers it is {plan.out_gbit * 1000 / plan.processes:.0f} Mbit/s each.",
        "- **The load balancer.** A million packets a second each way, with their "
        "acknowledgements, need a balancer that forwards packets (LVS, or ECMP in the routers). A "
        "balancer that speaks HTTP does as much for each visit as the server does. It needs as "
        "many cores as its own benchmark says.",
        f"- **Redis** has {plan.processes:,} connections, and never gets more commands than it can "
        f"do. If every process waits for its turn, a round trip takes {longest:.1f} ms. With "
        f"{slow:,.0f} processes it would take 10 ms, and these processes could do "
        f"{slow * plan.rate * BUSY:,.0f} visits a second. For more visits, use one Redis per "
        "region, and give up the single number.",
        f"- **The number** itself: 2⁶³ / {VISITS:,} per second is {years:,.0f} years.",
        "",
        "Not measured here: new connections (each costs a handshake), TLS, a real network, and a "
        "failover at this rate.",
    ]
