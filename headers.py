"""HTTP headers that need no more checking."""

from typing import Any

from tornado.httputil import HTTPHeaders, _normalize_header


class CheckedHeaders(HTTPHeaders):
    """Tornado's headers, taken as they are; it would look at each anew: 4 % of a page.

    :arg by_name: the values of each name, which is written as HTTP does: ``Content-Type``. The
        lists may be shared, and are not changed.
    """

    def __init__(self, by_name: dict[str, list[str]]) -> None:
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

    def copy(self) -> HTTPHeaders:
        """Return a copy."""
        return HTTPHeaders(self)

    __copy__ = copy
