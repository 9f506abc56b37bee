"""The promise that visits count exactly once, as a check of all that the visitors saw."""

from collections import Counter
from collections.abc import Iterable, Sequence

import redis

from tests.support.driven import Driven
from tests.support.program import Program
from tests.support.waiting import wait_until

#: Visits that each server gets at most, one after the other, until no number is spare any more.
MOST_QUIET = 1000


def numbers(load: Driven, since: float = 0) -> list[int]:
    """Return the numbers that were shown to the visits that began after a moment."""
    return [visit.number for visit in load.counted_since(since) if visit.number is not None]


def assert_exact(
    client: redis.Redis, servers: Sequence[Program], shown: Iterable[int]
) -> Counter[int]:
    """Assert that each number up to the counter was shown, and shown once.

    A number that was counted, and shown to nobody, goes to one of the next visits. So some are
    made first, one after the other, until none is left.

    :arg client: of the Redis that counts.
    :arg servers: those that run now.
    :arg shown: what visitors saw, of all servers.
    :return: what they have seen now.
    """
    seen = Counter(shown)
    for _ in range(MOST_QUIET):
        seen.update(wait_until(server.visits) for server in servers)
        total = int(client.get("counter") or 0)
        missing = sorted(set(range(1, total + 1)) - seen.keys())
        if not missing and not client.exists("{counter}:spares"):
            break
    twice = sorted(number for number, times in seen.items() if times > 1)
    beyond = sorted(number for number in seen if not 0 < number <= total)
    assert (twice, missing, beyond) == ([], [], []), f"of {total:,}: twice, missing, beyond"
    return seen


def assert_all_counted(load: Driven) -> None:
    report = load.report()
    assert (report.failed, report.uncounted) == (0, 0), report.as_text()
