"""Writes figures and tables."""

from collections.abc import Iterable

from bench.results import Spread


def table(head: Iterable[str], rows: Iterable[Iterable[str]]) -> list[str]:
    """Return the lines of a Markdown table. All columns except the first have figures."""
    head = list(head)
    rule = ["---", *["---:"] * (len(head) - 1)]
    return [f"| {' | '.join(cells)} |" for cells in (head, rule, *rows)]


def number(value: float) -> str:
    """Return a figure as text, with two digits at least."""
    if value >= 100:
        return f"{value:,.0f}"
    return f"{value:.1f}" if value >= 10 else f"{value:.2f}" if value >= 0.1 else f"{value:.3f}"


def shown(found: Spread) -> str:
    """Return a median as text, with the lowest and the highest in brackets."""
    if not found.width:
        return number(found.median)
    return f"{number(found.median)} ({number(found.low)}–{number(found.high)})"
