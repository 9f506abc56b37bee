"""A picture of the load over time: visits per second by replica, and latency."""

import math
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Sequence
from xml.etree import ElementTree
from xml.etree.ElementTree import Element, SubElement

from audit.load import Visit

WIDTH, HEIGHT = 960, 560
LEFT, RIGHT = 70, 20
#: The top and the bottom of the two charts.
RATE, LATENCY = (50, 260), (310, 500)

#: Colours that most colour-blind readers can tell apart (Okabe and Ito). With more replicas than
#: colours, some share a colour.
COLOURS = ("#0072b2", "#e69f00", "#009e73", "#cc79a7", "#56b4e9", "#8c6d00", "#666666")
RED, AMBER = "#d00000", "#b36b00"

#: How many slices of time the picture has at most, and how many seconds a slice has at least.
MOST_SLICES, SHORTEST_SLICE = 120, 0.1


def draw(visits: Sequence[Visit], seconds: float) -> str:
    """Return the picture as SVG.

    :arg visits: all visits, in any order.
    :arg seconds: how long the load lasted.
    """
    seconds = max(seconds, SHORTEST_SLICE)
    slices = min(MOST_SLICES, int(seconds / SHORTEST_SLICE))
    width = seconds / slices

    def slice_of(visit: Visit) -> int:
        return min(int(visit.end / width), slices - 1)

    def x(at: float) -> float:
        return LEFT + (WIDTH - LEFT - RIGHT) * at / seconds

    svg = Element(
        "svg",
        xmlns="http://www.w3.org/2000/svg",
        viewBox=f"0 0 {WIDTH} {HEIGHT}",
        role="img",
    )
    svg.set("font-family", "sans-serif")
    svg.set("font-size", "13")
    SubElement(svg, "title").text = "Visits per second by replica, and latency, over time"
    SubElement(svg, "rect", width=str(WIDTH), height=str(HEIGHT), fill="white")

    middles = [x((i + 0.5) * width) for i in range(slices)]
    _draw_rates(svg, visits, slice_of, middles, width)
    _draw_latencies(svg, visits, slice_of, middles)
    for what, colour, chosen in (
        ("failed", RED, [visit for visit in visits if visit.failure is not None]),
        ("uncounted", AMBER, [v for v in visits if v.failure is None and v.number is None]),
    ):
        _mark(svg, what, colour, Counter(map(slice_of, chosen)), middles)
    for i in range(6):
        anchor = "end" if i == 5 else "middle"
        _text(svg, x(seconds * i / 5), LATENCY[1] + 18, f"{round(seconds * i / 5, 1):g} s", anchor)
    return ElementTree.tostring(svg, encoding="unicode") + "\n"


def _draw_rates(
    svg: Element,
    visits: Iterable[Visit],
    slice_of: Callable[[Visit], int],
    middles: Sequence[float],
    width: float,
) -> None:
    answers: dict[str, Counter[int]] = defaultdict(Counter)
    for visit in visits:
        if visit.replica is not None:
            answers[visit.replica][slice_of(visit)] += 1
    most = max((n for counts in answers.values() for n in counts.values()), default=1) / width
    y = _scale(svg, RATE, "answers per second, by replica", [0, most / 2, most], lambda v: v / most)
    at = LEFT
    for i, replica in enumerate(sorted(answers)):
        colour = COLOURS[i % len(COLOURS)]
        line = [(m, y(answers[replica][j] / width)) for j, m in enumerate(middles)]
        _line(svg, line, colour)
        label = replica if len(replica) <= 24 else replica[:23] + "…"
        if at + 8 * len(label) < WIDTH - RIGHT:
            _text(svg, at, RATE[0] - 12, label, colour=colour)
        at += 8 * len(label) + 16


def _draw_latencies(
    svg: Element,
    visits: Iterable[Visit],
    slice_of: Callable[[Visit], int],
    middles: Sequence[float],
) -> None:
    found: dict[int, list[float]] = defaultdict(list)
    for visit in visits:
        if visit.failure is None:
            found[slice_of(visit)].append(visit.latency * 1000)
    every = [ms for values in found.values() for ms in values]
    low = 10 ** math.floor(math.log10(max(min(every, default=1), 0.001)))
    high = 10 ** math.ceil(math.log10(max(max(every, default=10), 10 * low)))
    decades = [low * 10**i for i in range(round(math.log10(high / low)) + 1)]
    title = "latency in ms: median, and slowest (dotted)"
    y = _scale(svg, LATENCY, title, decades, lambda v: math.log10(v / low) / math.log10(high / low))
    for dotted, pick in ((False, _median), (True, max)):
        line = [(m, y(pick(found[j]))) for j, m in enumerate(middles) if j in found]
        _line(svg, line, COLOURS[0], dotted)


def _scale(
    svg: Element,
    field: tuple[int, int],
    title: str,
    ticks: Iterable[float],
    share: Callable[[float], float],
) -> Callable[[float], float]:
    """Draw a chart's title and ticks; return a function from a value to its height in the chart.

    :arg field: the chart's top and bottom.
    :arg ticks: the values of the ticks.
    :arg share: the height of a value, from 0 to 1.
    """
    top, bottom = field

    def y(value: float) -> float:
        return bottom - (bottom - top) * share(value)

    for tick in ticks:
        end = {"x1": f"{LEFT}", "x2": f"{WIDTH - RIGHT}", "y1": f"{y(tick):.1f}"}
        SubElement(svg, "line", end | {"y2": end["y1"], "stroke": "#dddddd"})
        _text(svg, LEFT - 8, y(tick) + 4, f"{tick:,.0f}" if tick >= 10 else f"{tick:.3g}", "end")
    _text(svg, LEFT, top - 30 if field is RATE else top - 12, title)
    return y


def _mark(
    svg: Element, what: str, colour: str, counts: Counter[int], middles: Sequence[float]
) -> None:
    height = LATENCY[1] + (36 if what == "failed" else 50)
    if counts:
        _text(svg, LEFT - 8, height + 4, what, "end", colour)
    for j, times in sorted(counts.items()):
        mark = SubElement(svg, "path", fill="none", stroke=colour)
        mark.set("stroke-width", "2")
        mark.set("d", f"M{middles[j] - 3:.1f} {height - 3}l6 6m0 -6l-6 6")
        SubElement(mark, "title").text = f"{times:,} {what}"


def _line(
    svg: Element, points: Iterable[tuple[float, float]], colour: str, dotted: bool = False
) -> None:
    line = SubElement(svg, "polyline", fill="none", stroke=colour)
    line.set("stroke-width", "1.5")
    line.set("points", " ".join(f"{x:.1f},{y:.1f}" for x, y in points))
    if dotted:
        line.set("stroke-dasharray", "2 3")


def _text(
    svg: Element, x: float, y: float, text: str, anchor: str = "start", colour: str = "#333333"
) -> None:
    element = SubElement(svg, "text", x=f"{x:.1f}", y=f"{y:.1f}", fill=colour)
    element.set("text-anchor", anchor)
    element.text = text


def _median(values: list[float]) -> float:
    return sorted(values)[len(values) // 2]
