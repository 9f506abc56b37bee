"""Which of the two forms of a page a client prefers (RFC 9110, section 12.5.1)."""

import functools
import re

_RANGE = re.compile(
    r"\s*(?P<range>[^\s;,]+/[^\s;,]+)\s*"
    r"(?:;(?!\s*q=)[^;]*)*"
    r"(?:;\s*q=(?P<weight>0(?:\.\d{0,3})?|1(?:\.0{0,3})?)\s*(?:;.*)?)?",
    re.IGNORECASE | re.ASCII,
)


@functools.lru_cache(maxsize=64)  # few browsers, and each says the same each time
def prefers_json(accept: str) -> bool:
    """Tell whether ``application/json`` is preferred over ``text/html``.

    :arg accept: the Accept header, empty when there was none. A range that is not well
        formed is passed over.
    :return: whether JSON's weight is the higher one; alike, HTML it is.
    """
    weights: dict[str, float] = {}
    for part in accept.split(","):
        if match := _RANGE.fullmatch(part):
            media_range, weight = match["range"].lower(), float(match["weight"] or 1)
            weights[media_range] = max(weight, weights.get(media_range, 0.0))
    return _weight(weights, "application", "json") > _weight(weights, "text", "html")


def _weight(weights: dict[str, float], kind: str, form: str) -> float:
    # The most specific range that matches decides.
    for media_range in (f"{kind}/{form}", f"{kind}/*", "*/*"):
        if media_range in weights:
            return weights[media_range]
    return 0.0
