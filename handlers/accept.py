"""Which form and which language of a page a client prefers (RFC 9110, 12.5)."""

import functools
import re
from collections.abc import Sequence
from typing import NamedTuple

#: How many ranges of a header, and how many parameters of a range, the server reads. No real client
#: sends that many, and each takes time.
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
    """A media range, or an offered media type; ``kind`` is in lower case, ``weight`` is 0 to 1."""

    kind: str
    parameters: dict[str, str]
    weight: float


def _parse(text: str) -> _Range | None:
    """Read one range, up to its weight; return None when the range is malformed."""
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
    """Return how closely a range names an offer; None when the range does not match it.

    A parameter that both have, such as ``version``, must have the same value in both. A parameter
    that the offer does not have is ignored: clients ask for JSON in UTF-8, and JSON is always so.
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

    :arg accept: the Accept header; empty when there was none. A malformed range is ignored.
    :arg offers: the media types to choose from, with their parameters.
    :return: the offer with the highest weight. Of several with the same weight, it is the one
        that the client names most closely (RFC 9110, 12.5.1), else the first. When none is
        acceptable, it is the first: any answer helps more than no answer.
    """
    ranges = [one for part in _ranges(accept) if (one := _parse(part))]

    def liking(text: str) -> tuple[float, int]:
        offer = _parse(text)
        assert offer is not None
        # The most specific matching range decides; of two equally specific, the higher weight.
        found = [
            (closeness, one.weight)
            for one in ranges
            if (closeness := _specificity(one, offer)) is not None
        ]
        closeness, weight = max(found, default=(0, 0.0))
        return weight, closeness if weight else 0

    return max(offers, key=liking)


def _ranges(header: str) -> list[str]:
    """Return the ranges of a header that are read; the others are ignored."""
    return header.split(",", MAX_RANGES)[:MAX_RANGES]


def prefers_json(accept: str, media_type: str = "application/json") -> bool:
    """Tell whether the client prefers JSON to ``text/html``.

    :arg accept: the Accept header; empty when there was none.
    :arg media_type: another media type that also means JSON.
    """
    return (_prefers_json if len(accept) <= MAX_CACHED else _look)(accept, media_type)


def _look(accept: str, media_type: str) -> bool:
    offers = ("text/html", "application/json", media_type)
    return preferred(accept, offers) != "text/html"


# There are few browsers, and each sends the same header every time.
_prefers_json = functools.lru_cache(maxsize=64)(_look)


def preferred_language(accept: str, offers: Sequence[str]) -> str:
    """Return the language that a client prefers (RFC 9110, section 12.5.4).

    A range matches every offer with the same first subtag: ``zh-TW`` matches ``zh-CN``, because
    another form of the same language is better than another language.

    :arg accept: the Accept-Language header; empty when there was none. A malformed range is
        ignored.
    :arg offers: the languages to choose from (BCP 47).
    :return: the offer with the highest weight. Of several with the same weight, it is the one
        that the header names first. When none is acceptable, it is the first offer.
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
