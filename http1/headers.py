"""Header lines as text, and headers that many answers share."""

import copy
import re
from collections.abc import Iterator, Mapping, MutableMapping

#: The values of each name; names are in HTTP's usual form, such as ``Content-Type``.
ByName = dict[str, list[str]]

_LINE = re.compile("^(.*?):(.*)$", re.M)


class PackedFields(MutableMapping[str, list[str]]):
    """The values of each name in one text, which each look-up searches.

    Python gives the memory of one large object back to the system, and keeps much of the memory of
    many small objects. So clients with many headers leave less memory behind.

    :arg by_name: is not changed. No name has a colon, and no name or value has a line feed.
    """

    def __init__(self, by_name: Mapping[str, list[str]]) -> None:
        self._text = "".join(f"{name}:{one}\n" for name, all_ in by_name.items() for one in all_)

    def __getitem__(self, name: str) -> list[str]:
        values: list[str] = re.findall(f"^{re.escape(name)}:(.*)$", self._text, re.M)
        if not values:
            raise KeyError(name)
        return values

    def __setitem__(self, name: str, values: list[str]) -> None:
        self.pop(name, None)
        self._text += "".join(f"{name}:{value}\n" for value in values)

    def __delitem__(self, name: str) -> None:
        self._text, number = re.subn(f"^{re.escape(name)}:.*\n", "", self._text, flags=re.M)
        if not number:
            raise KeyError(name)

    def __iter__(self) -> Iterator[str]:
        return iter(dict.fromkeys(name for name, _ in _LINE.findall(self._text)))

    def __len__(self) -> int:
        return sum(1 for _ in self)

    def copy(self) -> "PackedFields":
        """Return a copy; to change it does not change this one."""
        return copy.copy(self)


def as_lines(by_name: ByName) -> list[str]:
    """Return header lines, without their ends (RFC 9112, 5)."""
    return [f"{name}: {value}" for name, values in by_name.items() for value in values]


def end_lines(lines: list[str]) -> str:
    """Join the lines of a head.

    :raises ValueError: when a line has a line end in it.
    """
    text = "".join(lines)
    if "\r" in text or "\n" in text:
        [bad, *_] = [line for line in lines if "\r" in line or "\n" in line]
        raise ValueError(f"Illegal characters (CR or LF) in header: {bad!r}")
    return "\r\n".join([*lines, ""])


class CommonHeaders:
    """Headers that many answers share; their lines are written once.

    :arg by_name: the headers; nobody may change them afterwards.
    :raises ValueError: when a header has a line end in it.
    """

    def __init__(self, by_name: ByName) -> None:
        self.by_name = by_name
        self.lines = end_lines(as_lines(by_name))


NONE = CommonHeaders({})
