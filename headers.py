"""HTTP headers that need no more checking."""

from typing import Any

from tornado.httputil import HTTPHeaders, _normalize_header

#: The values of each name, which is written as HTTP does: ``Content-Type``.
ByName = dict[str, list[str]]


def as_lines(by_name: ByName) -> list[str]:
    """Return header lines, without their ends (RFC 9112, 5)."""
    return [f"{name}: {value}" for name, values in by_name.items() for value in values]


def end_lines(lines: list[str]) -> str:
    """Join the lines of a head.

    :raises ValueError: when there is a line end in one, which would be two.
    """
    text = "\r\n".join([*lines, ""])
    if not text.count("\r") == text.count("\n") == len(lines):
        [bad, *_] = [line for line in lines if "\r" in line or "\n" in line]
        raise ValueError(f"Illegal characters (CR or LF) in header: {bad!r}")
    return text


class CheckedHeaders(HTTPHeaders):
    """Tornado's headers, taken as they are; it would look at each anew: 9 % of a page.

    :arg by_name: the lists may be shared, and are not changed.
    """

    def __init__(self, by_name: ByName) -> None:
        self._as_list = by_name
        self._combined_cache = {}

    def add(self, name: str, value: str, **kwargs: Any) -> None:
        """Add a value to those of a name."""
        normal = _normalize_header(name)
        if normal in self._as_list:
            self._as_list[normal] = self.get_list(normal)
        super().add(normal, value, **kwargs)

    def get_list(self, name: str) -> list[str]:
        """Return the values of a name."""
        return self._as_list.get(_normalize_header(name), []).copy()

    def get(self, name: str, default: Any = None) -> Any:
        """Return the value of a name; several are joined by commas.

        Tornado's raises an exception and catches it where there is none: 4 % of a page.
        """
        values = self._as_list.get(_normalize_header(name))
        return default if values is None else ",".join(values)

    def copy(self) -> HTTPHeaders:
        """Return a copy."""
        return HTTPHeaders(self)

    __copy__ = copy


class CommonHeaders:
    """Headers that many answers have alike, written down once.

    :arg by_name: is not changed.
    :raises ValueError: when a line end in one would end it, or begin another.
    """

    def __init__(self, by_name: ByName) -> None:
        self.by_name = by_name
        self.lines = end_lines(as_lines(by_name))


_NONE = CommonHeaders({})


class AnswerHeaders(CheckedHeaders):
    """An answer's headers, most of them common ones, which are not written anew: 4 % of a page.

    :arg common: those. When one of them is changed, all become the answer's own.
    :arg own: the others.
    """

    def __init__(self, common: CommonHeaders, own: ByName) -> None:
        self.common = common
        self.own = own
        self._combined_cache = {}

    @property
    def _as_list(self) -> ByName:  # type: ignore[override]
        """All headers, for the methods that may change any."""
        if self.common is not _NONE:
            self.own = self.common.by_name | self.own
            self.common = _NONE
        return self.own

    def __setitem__(self, name: str, value: str) -> None:
        normal = _normalize_header(name)
        if normal in self.common.by_name:
            super().__setitem__(name, value)
        else:
            self.own[normal] = [value]
            self._combined_cache[normal] = value

    def get(self, name: str, default: Any = None) -> Any:
        """Return the value of a name; several are joined by commas."""
        normal = _normalize_header(name)
        values = self.own.get(normal) or self.common.by_name.get(normal)
        return ",".join(values) if values else default
