"""SCALE.md: calculates what a million visits a second need, from the figures of a run."""

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

from bench.results import WATCHED, Results, Row, ratios, spread, values
from bench.servers import BY_NAME, OURS
from bench.text import cell, number, shown, table

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

FIGURES = WATCHED | {
    "rate": "visits/s",
    "commands": "commands per visit",
    "command_rate": "commands/s",
}


class Plan(NamedTuple):
    """What `VISITS` need. Rates are per second."""

    connections: int
    rate: float
    """The most visits of one core, with that many connections."""
    processes: int
    """Server processes, each on its own core, used at `BUSY`."""
    command_cpu: float
    """Microseconds of Redis's CPU time for one command."""
    capacity: float
    """Commands that one Redis can do."""


def _plan(results: Results) -> Plan:
    """Calculate what `VISITS` need from the measured figures."""
    at_most = _by(results.growth, "connections", "rate")
    connections, rate = max(at_most.items(), key=lambda item: item[1])
    # The measurement with the most commands shows best what one command costs, because an idle
    # Redis costs something too. The commands must come one by one, as from many servers: Node.js
    # sends many together.
    single = [row for row in results.rows if row.server != "node" and row.commands > 0.99]
    command_cpu = max(single, key=lambda row: row.command_rate).command_cpu
    processes = math.ceil(VISITS / (rate * BUSY))
    return Plan(connections, rate, processes, command_cpu, 1e6 / command_cpu)


def _grouped(rows: Sequence[Row], key: str) -> dict[Any, list[Row]]:
    """Return the rows of each value of a key, in order."""
    return {
        at: [row for row in rows if getattr(row, key) == at] for at in sorted({*values(rows, key)})
    }


def _by(rows: Sequence[Row], key: str, figure: str) -> dict[Any, float]:
    """Return the medians of a figure over the rounds, for each value of a key."""
    grouped = _grouped(rows, key)
    return {at: spread(values(of_key, figure)).median for at, of_key in grouped.items()}


def _table(rows: Sequence[Row], key: str, head: str, figures: Sequence[str]) -> list[str]:
    """Return a table of figures, with a line for each value of a key."""
    lines = [
        [f"{at:,.0f}", *(cell(of_key, figure) for figure in figures)]
        for at, of_key in _grouped(rows, key).items()
    ]
    return table([head, *(FIGURES[figure] for figure in figures)], lines)


def write(results: Results) -> str:
    """Return SCALE.md."""
    plan = _plan(results)
    lines = [
        "# A million visits a second",
        "",
        "`make bench` wrote this from the figures of [its run](results.md). That page names the "
        "machine and the versions.",
        "",
        *_growth(results),
        *_distance(results),
        *_servers(results),
        *_arithmetic(plan),
        *_limits(plan, results.traffic),
    ]
    return "\n".join(lines) + "\n"


def _growth(results: Results) -> list[str]:
    figures = ("rate", "cpu", "commands", "p50", "p99")
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
    by_name: dict[str, list[Row]] = {}
    for row in results.distance:
        by_name.setdefault(row.server, []).append(row)
    measured = _by(by_name[OURS], "distance", "round_trip")
    lines = [
        "## As Redis moves away",
        "",
        "A proxy delays Redis's replies. The run measures the distances in turn, with so many "
        "connections that no server lacks visitors. Measured round trips, with the proxy's own "
        f"time: {', '.join(f'{number(value)} ms' for value in measured.values())}.",
        "",
    ]
    for name, rows in by_name.items():
        rates = {at: values(of_key, "rate") for at, of_key in _grouped(rows, "distance").items()}
        near, *further = rates
        shares = (f"{shown(spread(ratios(rates[at], rates[near])))} at {at:g}" for at in further)
        head = f"{BY_NAME[name].title}, {rows[0].connections:,} connections: ms to Redis"
        lines += [
            *_table(rows, "distance", head, ("rate", "cpu", "command_rate", "p50", "p99")),
            "",
            f"Of the throughput at {near:g} ms in the same round: {', '.join(shares)} ms.",
            "",
        ]
    return lines


def _servers(results: Results) -> list[str]:
    row = results.servers[0]
    trip = row.round_trip
    visits = _by(results.servers, "servers", "rate")
    rows = []
    for servers, rate in _by(results.servers, "servers", "command_rate").items():
        most = servers * 1000 / trip
        calculated = f"{servers} × 1,000 / {trip:.2f} = {number(most)}"
        share = f"{rate / most:.0%}"
        rows.append([f"{servers}", number(rate), calculated, share, number(visits[servers])])
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
    connections, rate, processes, command_cpu, capacity = plan
    most = processes * 1000 / ROUND_TRIP
    offered = min(VISITS, most)
    commands = min(offered, capacity)
    steps = {
        "visits of a core at its most": f"{rate:,.0f}/s, measured at {connections:,} connections",
        "server processes": f"{VISITS:,} / ({rate:,.0f} × {BUSY:g}) = {processes:,}, each on a "
        "core of its own",
        "visits of each": f"{VISITS:,} / {processes:,} = {VISITS / processes:,.0f}/s",
        "commands they send at most": f"{processes:,} × 1,000 / {ROUND_TRIP:g} ms = {most:,.0f}/s",
        "a command costs Redis": f"{command_cpu:.1f} µs, measured with commands that come one by "
        "one",
        "commands Redis can do": f"1,000,000 / {command_cpu:.1f} = {capacity:,.0f}/s",
        "commands that are sent": f"min({offered:,.0f}, {capacity:,.0f}) = {commands:,.0f}/s",
        "visits in a command": f"{VISITS:,} / {commands:,.0f} = {VISITS / commands:.1f}",
        "without grouping": f"{VISITS:,} / {capacity:,.0f} = {VISITS / capacity:.1f} times what "
        "one Redis can do",
    }
    return [
        "## The arithmetic",
        "",
        f"Assumed: the plan uses {BUSY:.0%} of a core's maximum, Redis is {ROUND_TRIP:g} ms away, "
        "and clients keep their connections.",
        "",
        "```",
        *(f"{what:31}{how}" for what, how in steps.items()),
        "```",
        "",
        (
            "The servers could send more commands than Redis can do, but that does not matter: a "
            "server sends its next command only after the reply to the last one. So a busy Redis "
            f"makes the round trip {processes:,} / {capacity:,.0f} = "
            f"{processes / capacity * 1000:.1f} ms long, and each command counts more visits."
            if offered > capacity
            else f"Redis can do that, with {commands / capacity:.0%} of its one thread. "
            "If Redis were busier, the round trip would grow, and each command would count more "
            "visits: a server sends its next command only after the reply to the last one."
        ),
        "",
        "The cost of a command includes the whole script, with all that the script writes.",
        "",
    ]


def _limits(plan: Plan, traffic: dict[str, int]) -> list[str]:
    answer, request = traffic["answer"], traffic["request"]
    out_gbit, in_gbit = (VISITS * (size + FRAMING) * 8 / 1e9 for size in (answer, request))
    links = math.ceil(out_gbit / (LINK * BUSY))
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
        f"{VISITS:,} × ({answer} + {FRAMING}) × 8 = {out_gbit:.1f} Gbit/s out, "
        f"{VISITS:,} × ({request} + {FRAMING}) × 8 = {in_gbit:.1f} Gbit/s in. That fills "
        f"{links} link{'' if links == 1 else 's'} of {LINK} Gbit/s at {BUSY:.0%}; for the "
        f"servers it is {out_gbit * 1000 / plan.processes:.0f} Mbit/s each.",
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
