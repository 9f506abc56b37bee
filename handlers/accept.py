"""Which of the forms of a page, and which of its languages, a client prefers (RFC 9110, 12.5)."""

import functools
import re
from collections.abc import Sequence
from typing import NamedTuple

#: Ranges of a header, and parameters of a range, that are looked at: no client has as many, and
#: each takes its time.
MAX_RANGES = 32
MAX_PARAMETERS = 8

#: Characters of the longest header that is cached.
MAX_CACHED = 256

_RANGE = re.compile(r"[^\s/]+/[^\s/]+", re.ASCII)
_LANGUAGE_RANGE = re.compile(
    r"(?P<language>[a-z]{1,8}|\*)(-[a-z0-9]{1,8})*[ \t]*(;[ \t]*q=(?P<weight>\S+))?"
)
_WEIGHT = re.compile(r"0(\.\d{0,3})?|1(\.0{0,3})?", re.ASCII)


class _Range(NamedTuple):
    """A media range, or the type of an offer: ``kind`` is in lower case, ``weight`` up to 1."""

    kind: str
    parameters: dict[str, str]
    weight: float


def _parse(text: str) -> _Range | None:
    """Read one range; what stands behind its weight says nothing. None: it is not well formed."""
    parts = text.lower().split(";", MAX_PARAMETERS + 1)[: MAX_PARAMETERS + 1]
    kind, *rest = (part.strip() for part in parts)
    parameters: dict[str, str] = {}
    weight = "1"
    for part in rest:
        name, _, value = part.partition("=")
        if name == "q":
            weight = value
            break
        parameters[name] = value.strip('"')
    if _RANGE.fullmatch(kind) and _WEIGHT.fullmatch(weight):
        return _Range(kind, parameters, float(weight))
    return None


def _specificity(media_range: _Range, offer: _Range) -> int | None:
    """Tell how closely a range names an offer; None: not at all.

    A parameter that both have must be the same in both, as ``version``. One that the offer does
    not have says nothing of it: clients ask for JSON in UTF-8, which it always is.
    """
    if media_range.kind == offer.kind:
        known = media_range.parameters.keys() & offer.parameters.keys()
        if any(media_range.parameters[name] != offer.parameters[name] for name in known):
            return None
        return 2 + len(known)
    if media_range.kind == offer.kind.partition("/")[0] + "/*":
        return 1
    return 0 if media_range.kind == "*/*" else None


def preferred(accept: str, offers: Sequence[str]) -> str:
    """Return the media type that a client prefers.

    :arg accept: the Accept header, empty when there was none. A range that is not well formed is
        passed over.
    :arg offers: the media types that there are, with their parameters.
    :return: that of the highest weight. Of those that are alike the one that the client names more
        closely (RFC 9110, 12.5.1), else the first; and so when none is acceptable, as any answer
        helps more than none.
    """
    ranges = [one for part in _ranges(accept) if (one := _parse(part))]

    def liking(text: str) -> tuple[float, int]:
        offer = _parse(text)
        assert offer is not None
        # The most specific range that matches decides; of two such, the higher weight.
        found = [
            (closeness, one.weight)
            for one in ranges
            if (closeness := _specificity(one, offer)) is not None
        ]
        closeness, weight = max(found, default=(0, 0.0))
        return weight, closeness if weight else 0

    return max(offers, key=liking)


def _ranges(header: str) -> list[str]:
    """Return the ranges of a header that are looked at; the others count as not there."""
    return header.split(",", MAX_RANGES)[:MAX_RANGES]


def prefers_json(accept: str, media_type: str = "application/json") -> bool:
    """Tell whether JSON is preferred over ``text/html``.

    :arg accept: the Accept header, empty when there was none.
    :arg media_type: what JSON is called besides ``application/json``.
    """
    return (_prefers_json if len(accept) <= MAX_CACHED else _look)(accept, media_type)


def _look(accept: str, media_type: str) -> bool:
    offers = ("text/html", "application/json", media_type)
    return preferred(accept, offers) != "text/html"


# Few browsers, and each says the same each time.
_prefers_json = functools.lru_cache(maxsize=64)(_look)


def preferred_language(accept: str, offers: Sequence[str]) -> str:
    """Return the language that a client prefers (RFC 9110, section 12.5.4).

    A range names each offer of its first subtag, as ``zh-TW`` names ``zh-CN``: that is nearer than
    another language.

    :arg accept: the Accept-Language header, empty when there was none. A range that is not well
        formed is passed over.
    :arg offers: the languages that there are (BCP 47).
    :return: that of the highest weight. Of those that are alike, the one that the header names
        first; the first one when none is acceptable.
    """
    weights: dict[str, float] = {}
    for part in _ranges(accept.lower()):
        found = _LANGUAGE_RANGE.fullmatch(part.strip())
        if found and _WEIGHT.fullmatch(weight := found["weight"] or "1"):
            language = found["language"]
            weights[language] = max(float(weight), weights.get(language, 0))

    def weight_and_place(offer: str) -> tuple[float, int]:
        language = offer.partition("-")[0]
        named = language if language in weights else "*"
        place = list(weights).index(named) if named in weights else len(weights)
        weight = weights.get(named, 0)
        return weight, -place if weight else 0

    return max(offers, key=weight_and_place)
