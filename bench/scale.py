"""SCALE.md: calculates what a million visits a second need, from the figures of a run."""

import math
from collections.abc import Sequence
from typing import Any

from tornado.template import Template

from bench.results import WATCHED, Results, Row, ratios, spread, values
from bench.servers import BY_NAME, HERE, OURS
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


def _grouped(rows: Sequence[Row], key: str) -> dict[Any, list[Row]]:
    """Return the rows of each value of a key, in order."""
    return {
        at: [row for row in rows if getattr(row, key) == at] for at in sorted({*values(rows, key)})
    }


def _by(rows: Sequence[Row], key: str, figure: str) -> dict[Any, float]:
    """Return the medians of a figure over the rounds, for each value of a key."""
    grouped = _grouped(rows, key)
    return {at: spread(values(of_key, figure)).median for at, of_key in grouped.items()}


def _table(rows: Sequence[Row], key: str, head: str, figures: Sequence[str]) -> str:
    """Return a table of figures, with a line for each value of a key."""
    lines = [
        [f"{at:,.0f}", *(cell(of_key, figure) for figure in figures)]
        for at, of_key in _grouped(rows, key).items()
    ]
    return table([head, *(FIGURES[figure] for figure in figures)], lines)


def write(results: Results) -> str:
    """Return SCALE.md: `scale.txt`, with the figures of a run."""
    of_ours = [row for row in results.distance if row.server == OURS]
    trips = _by(of_ours, "distance", "round_trip").values()
    of_many = results.servers[0]
    page = Template((HERE / "scale.txt").read_text(), autoescape=None)
    written = page.generate(
        growth=_table(
            *(results.growth, "connections", "connections"),
            ("rate", "cpu", "commands", "p50", "p99"),
        ),
        trips=", ".join(f"{number(trip)} ms" for trip in trips),
        distance=_distances(results),
        shared=of_many.connections,
        trip=of_many.round_trip,
        servers=_servers(results, of_many.round_trip),
        whole="{:,.0f}".format,
        tenths="{:.1f}".format,
        percent="{:.0%}".format,
        **_plan(results),
    )
    return written.decode()


def _distances(results: Results) -> str:
    """Return a table for each server, and what the distance leaves of its throughput."""
    parts = []
    for name in dict.fromkeys(row.server for row in results.distance):
        rows = [row for row in results.distance if row.server == name]
        rates = {at: values(of_key, "rate") for at, of_key in _grouped(rows, "distance").items()}
        near, *further = rates
        shares = (f"{shown(spread(ratios(rates[at], rates[near])))} at {at:g}" for at in further)
        head = f"{BY_NAME[name].title}, {rows[0].connections:,} connections: ms to Redis"
        parts += [
            _table(rows, "distance", head, ("rate", "cpu", "command_rate", "p50", "p99")),
            f"Of the throughput at {near:g} ms in the same round: {', '.join(shares)} ms.",
        ]
    return "\n\n".join(parts)


def _servers(results: Results, trip: float) -> str:
    """Return the table of servers on one Redis.

    :arg trip: the milliseconds of a round trip.
    """
    visits = _by(results.servers, "servers", "rate")
    rows = []
    for servers, rate in _by(results.servers, "servers", "command_rate").items():
        most = servers * 1000 / trip
        calculated = f"{servers} × 1,000 / {trip:.2f} = {number(most)}"
        share = f"{rate / most:.0%}"
        rows.append([f"{servers}", number(rate), calculated, share, number(visits[servers])])
    head = ["servers", "commands/s", "one per round trip and server", "of that", "visits/s"]
    return table(head, rows)


def _plan(results: Results) -> dict[str, float]:
    """Calculate what `VISITS` need from the measured figures. Rates are per second."""
    at_most = _by(results.growth, "connections", "rate")
    connections, rate = max(at_most.items(), key=lambda item: item[1])
    processes = math.ceil(VISITS / (rate * BUSY))
    # The measurement with the most commands shows best what one command costs, because an idle
    # Redis costs something too. The commands must come one by one, as from many servers: Node.js
    # sends many together.
    single = [row for row in results.rows if row.server != "node" and row.commands > 0.99]
    command_cpu = max(single, key=lambda row: row.command_rate).command_cpu
    capacity = 1e6 / command_cpu
    most = processes * 1000 / ROUND_TRIP
    offered = min(VISITS, most)
    sizes = results.traffic
    gbit = {way: VISITS * (size + FRAMING) * 8 / 1e9 for way, size in sizes.items()}
    return {
        **{"connections": connections, "rate": rate, "processes": processes},
        # One Redis can do `capacity` commands. The servers send no more than that.
        **{"command_cpu": command_cpu, "capacity": capacity, "commands": min(offered, capacity)},
        **{"most": most, "offered": offered, "longest": processes / capacity * 1000},
        **{"gbit_out": gbit["answer"], "gbit_in": gbit["request"], **sizes},
        "links": math.ceil(gbit["answer"] / (LINK * BUSY)),
    }
