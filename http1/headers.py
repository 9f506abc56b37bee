"""Header lines as text, and headers that many answers share."""

#: The values of each name; names are in HTTP's usual form, such as ``Content-Type``.
ByName = dict[str, list[str]]


def as_lines(by_name: ByName) -> list[str]:
    """Return header lines, without their ends (RFC 9112, 5)."""
    return [f"{name}: {value}" for name, values in by_name.items() for value in values]


def end_lines(lines: list[str]) -> str:
    """Join the lines of a head.

    :raises ValueError: when a line has a line end in it.
    """
    text = "\r\n".join([*lines, ""])
    if not text.count("\r") == text.count("\n") == len(lines):
        [bad, *_] = [line for line in lines if "\r" in line or "\n" in line]
        raise ValueError(f"Illegal characters (CR or LF) in header: {bad!r}")
    return text


class CommonHeaders:
    """Headers that many answers share; their lines are written once.

    :arg by_name: the headers; nobody may change them afterwards.
    :raises ValueError: when a header has a line end in it.
    """

    def __init__(self, by_name: ByName) -> None:
        self.by_name = by_name
        self.lines = end_lines(as_lines(by_name))


NONE = CommonHeaders({})
