"""Writes figures and tables."""

from collections.abc import Iterable, Sequence

from bench.results import Row, Spread, saturated, spread, values


def table(head: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    """Return a Markdown table. All columns except the first have figures."""
    head = list(head)
    rule = ["---", *["---:"] * (len(head) - 1)]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in (head, rule, *rows))


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


def cell(rows: Sequence[Row], figure: str) -> str:
    """Return a figure of some rounds for a table, with a mark if it is a bound; "" for no rows."""
    if not rows:
        return ""
    bound = ""
    if saturated(rows):
        # In an open loop, a late load makes its answers late.
        late = rows[0].due and figure in ("p50", "p99")
        bound = "≥ " if figure == "rate" else "≤ " if late else ""
    return bound + shown(spread(values(rows, figure)))
