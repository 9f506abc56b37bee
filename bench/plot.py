"""results.svg: throughput and latency at 64 connections, side by side."""

from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("svg")

from matplotlib import pyplot

from bench.results import Results, spread, values
from bench.servers import BY_NAME, OURS, SERVERS

#: friendlyhello, Python peers, other peers. Most colour-blind readers can tell these colours apart
#: (Okabe and Ito).
OURS_COLOUR, PYTHON_COLOUR, OTHER_COLOUR = "#d55e00", "#0072b2", "#999999"


def draw(results: Results, path: Path) -> None:
    """Write the picture. It has a white background, so that readers of a dark page can read it."""
    settings = {"svg.hashsalt": "bench", "font.size": 10, "svg.fonttype": "none"}
    with pyplot.rc_context(settings | {"font.family": "sans-serif"}):
        figure, (left, right) = pyplot.subplots(1, 2, figsize=(10, 4.6), sharey=True)
        names = _order(results)
        for axes, what, title in (
            (left, "rate", "requests/s at 64 connections (more is better)"),
            (right, "p99", "p99 latency at 64 connections, ms (less is better)"),
        ):
            _bars(axes, results, names, what)
            axes.set_title(title, loc="left", fontsize=10)
            axes.spines[["top", "right"]].set_visible(False)
            axes.grid(axis="x", color="#dddddd")
            axes.set_axisbelow(True)
        left.set_yticks(range(len(names)), [BY_NAME[name].title for name in names])
        figure.text(
            0.01,
            0.01,
            "One core, one INCR per page; requests not logged, thin bars: logged. "
            "Lines: lowest to highest of the rounds.",
            fontsize=8,
        )
        figure.tight_layout(rect=(0, 0.03, 1, 1))
        figure.savefig(path, facecolor="white", metadata={"Date": None})
        pyplot.close(figure)
    lines = path.read_text().splitlines()
    path.write_text("\n".join(line.rstrip() for line in lines) + "\n")


def _order(results: Results) -> list[str]:
    """Name the servers, the slowest first, because a chart's axis begins at the bottom."""
    rates = {
        server.name: spread(values(rows, "rate")).median
        for server in SERVERS
        if server.counts and (rows := results.of(server.name, server.always_logs))
    }
    return sorted(rates, key=lambda name: rates[name])


def _bars(axes: Any, results: Results, names: list[str], what: str) -> None:
    for i, name in enumerate(names):
        server = BY_NAME[name]
        colour = PYTHON_COLOUR if server.python else OTHER_COLOUR
        colour = OURS_COLOUR if name == OURS else colour
        for log in server.variants:
            thin = log and not server.always_logs
            if not (rows := results.of(name, log)):
                continue
            found = spread(values(rows, what))
            axes.barh(
                i - 0.36 if thin else i + 0.06,
                found.median,
                height=0.16 if thin else 0.62,
                color=colour,
                alpha=0.55 if thin else 1.0,
                xerr=[[found.median - found.low], [found.high - found.median]],
                error_kw={"elinewidth": 1, "ecolor": "#222222"},
            )
