"""The commands of Redis that `counter/token.lua` and the plain ways to count use, in Python.

They take the forms that are used, and fail as Redis does. `tests/counter/test_store.py` compares
them with a real Valkey.
"""

import re
from collections.abc import Callable, Sequence
from typing import TypeVar

#: What a command answers in RESP2 (https://redis.io/docs/latest/develop/reference/protocol-spec/).
Reply = int | bytes | None | list[bytes]

_INTEGER = re.compile(rb"0|-?[1-9][0-9]{0,18}")
_FLOAT = re.compile(rb"[+-]?(?:[0-9]+(?:\.[0-9]*)?(?:[eE][+-]?[0-9]+)?|inf)")

MAX = 2**63 - 1

Kind = TypeVar("Kind")


class StoreError(Exception):
    """An error as Redis answers it."""


class Hash(dict[bytes, bytes]):
    """A hash: fields and their values."""


class SortedSet(dict[bytes, float]):
    """A sorted set: members and their scores."""

    def in_order(self) -> list[tuple[bytes, float]]:
        return sorted(self.items(), key=lambda item: (item[1], item[0]))


class Commands:
    """Keys, their values, and the seconds for which they live."""

    def __init__(self) -> None:
        self.keys: dict[bytes, bytes | Hash | SortedSet] = {}
        self.ttls: dict[bytes, int] = {}
        self.ran: list[bytes] = []
        """The names of the commands that it ran, those within scripts too."""
        self.forbidden: set[bytes] = set()
        """The names of those that an access list forbids."""

    def run(self, *words: bytes) -> Reply:
        """Run a command.

        :raises StoreError: as Redis answers it.
        """
        name, *arguments = words
        command, least, most = _COMMANDS[name.upper()]
        if name in self.forbidden:
            raise StoreError(f"NOPERM this user may not run '{name.decode().lower()}'")
        if not least <= len(arguments) <= most:
            raise StoreError(f"ERR wrong number of arguments for '{name.decode().lower()}' command")
        self.ran.append(name)
        return command(self, *arguments)

    # Values.

    def value(self, key: bytes, kind: type[Kind]) -> Kind | None:
        """Return what a key holds, if it holds anything.

        :raises StoreError: when it is of another kind.
        """
        value = self.keys.get(key)
        if value is None or isinstance(value, kind):
            return value
        raise StoreError("WRONGTYPE Operation against a key holding the wrong kind of value")

    def _sorted_set(self, key: bytes) -> SortedSet:
        found = self.value(key, SortedSet)
        return SortedSet() if found is None else found

    def _keep(self, key: bytes, value: SortedSet) -> None:
        if value:
            self.keys[key] = value
        else:  # an empty one is none
            self.keys.pop(key, None)
            self.ttls.pop(key, None)

    # Commands.

    def _get(self, key: bytes) -> Reply:
        return self.value(key, bytes)

    def _exists(self, key: bytes) -> Reply:
        return int(key in self.keys)

    def _expire(self, key: bytes, seconds: bytes) -> Reply:
        assert _integer(seconds) > 0
        if key in self.keys:
            self.ttls[key] = int(seconds)
        return int(key in self.keys)

    def _incr(self, key: bytes) -> Reply:
        return self._incrby(key, b"1")

    def _incrby(self, key: bytes, step: bytes) -> Reply:
        by = _integer(step)
        total = _integer(self.value(key, bytes) or b"0") + by
        if not -MAX - 1 <= total <= MAX:
            raise StoreError("ERR increment or decrement would overflow")
        self.keys[key] = b"%d" % total
        return total

    def _hget(self, key: bytes, field: bytes) -> Reply:
        return (self.value(key, Hash) or Hash()).get(field)

    def _hset(self, key: bytes, *pairs: bytes) -> Reply:
        if len(pairs) % 2:
            raise StoreError("ERR wrong number of arguments for 'hset' command")
        found = self.value(key, Hash) or Hash()
        new = Hash(zip(pairs[::2], pairs[1::2], strict=True))
        added = len(new.keys() - found.keys())
        found.update(new)
        self.keys[key] = found
        return added

    def _zadd(self, key: bytes, *words: bytes) -> Reply:
        only_old = words[0].upper() == b"XX"
        if len(words) != 2 + only_old:
            raise StoreError("ERR syntax error")
        score, member = words[-2:]
        value = _float(score, "ERR value is not a valid float")
        found = self._sorted_set(key)
        is_new = member not in found
        if not (is_new and only_old):
            found[member] = value
        self._keep(key, found)
        return int(is_new and not only_old)

    def _zrem(self, key: bytes, member: bytes) -> Reply:
        found = self._sorted_set(key)
        removed = found.pop(member, None) is not None
        self._keep(key, found)
        return int(removed)

    def _zscore(self, key: bytes, member: bytes) -> Reply:
        score = self._sorted_set(key).get(member)
        return None if score is None else _score(score)

    def _zrange(self, key: bytes, start: bytes, stop: bytes, *options: bytes) -> Reply:
        first, last = _integer(start), _integer(stop)
        if options and options[0].upper() != b"WITHSCORES":
            raise StoreError("ERR syntax error")
        items = self._sorted_set(key).in_order()
        first, last = (one + len(items) if one < 0 else one for one in (first, last))
        return _flat(items[max(0, first) : max(0, last + 1)], bool(options))

    def _zrangebyscore(self, key: bytes, low: bytes, high: bytes) -> Reply:
        return _flat(self._between(key, low, high), with_scores=False)

    def _zremrangebyscore(self, key: bytes, low: bytes, high: bytes) -> Reply:
        gone = self._between(key, low, high)
        found = self._sorted_set(key)
        for member, _ in gone:
            del found[member]
        self._keep(key, found)
        return len(gone)

    def _between(self, key: bytes, low: bytes, high: bytes) -> list[tuple[bytes, float]]:
        (least, no_least), (most, no_most) = _bound(low), _bound(high)
        items = self._sorted_set(key).in_order()
        return [
            (member, score)
            for member, score in items
            if (least < score or (least == score and not no_least))
            and (score < most or (score == most and not no_most))
        ]


#: Each command, and how many words follow its name.
_COMMANDS: dict[bytes, tuple[Callable[..., Reply], int, int]] = {
    b"GET": (Commands._get, 1, 1),
    b"EXISTS": (Commands._exists, 1, 1),
    b"EXPIRE": (Commands._expire, 2, 2),
    b"INCR": (Commands._incr, 1, 1),
    b"INCRBY": (Commands._incrby, 2, 2),
    b"HGET": (Commands._hget, 2, 2),
    b"HSET": (Commands._hset, 3, 99),
    b"ZADD": (Commands._zadd, 3, 4),
    b"ZREM": (Commands._zrem, 2, 2),
    b"ZSCORE": (Commands._zscore, 2, 2),
    b"ZRANGE": (Commands._zrange, 3, 4),
    b"ZRANGEBYSCORE": (Commands._zrangebyscore, 3, 3),
    b"ZREMRANGEBYSCORE": (Commands._zremrangebyscore, 3, 3),
}


def _integer(word: bytes) -> int:
    if _INTEGER.fullmatch(word) and -MAX - 1 <= int(word) <= MAX:
        return int(word)
    raise StoreError("ERR value is not an integer or out of range")


def _float(word: bytes, otherwise: str) -> float:
    if _FLOAT.fullmatch(word):
        return float(word)
    raise StoreError(otherwise)


def _bound(word: bytes) -> tuple[float, bool]:
    """Return a bound of scores, and whether it lies outside."""
    is_outside = word[:1] == b"("
    return _float(word[is_outside:], "ERR min or max is not a float"), is_outside


def _score(score: float) -> bytes:
    """Return a score as Redis writes it."""
    if score.is_integer() and abs(score) < 2**52:
        return b"%d" % int(score)
    return b"%.17g" % score


def _flat(items: Sequence[tuple[bytes, float]], with_scores: bool) -> list[bytes]:
    return [
        word
        for member, score in items
        for word in ((member, _score(score)) if with_scores else (member,))
    ]
