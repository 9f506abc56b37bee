"""The permissions of Redis's access list that docs/counting.md names are enough."""

import pytest

from tests.counter.test_exactly_once import allow, least
from tests.docs.test_docs import rows
from tests.support.here import Serve
from tests.support.valkey import Valkey
from tests.support.waiting import wait_until

#: Of each list, the rows of the table to add, by their first words; and what Redis still refuses.
BOTH = ["what a replica tells", "reading the live page", "reading all figures", "a warning before"]
ADDED: dict[str, tuple[list[str], set[str]]] = {
    "exactly once": (["the figures of a replica", *BOTH], set()),
    "at most once": (["the same where Redis refuses", *BOTH], {"evalsha"}),
}


def permissions(row: str) -> list[str]:
    """Return the permissions of a row of the table."""
    table = rows("docs/counting.md", "for", "add")
    (added,) = [added for said, added in table if said.startswith(row)]
    return added.strip("`").split()


@pytest.mark.parametrize("once", ADDED)
def test_with_the_permissions_of_the_table_redis_refuses_nothing_more(
    once: str, valkey: Valkey, served: Serve
) -> None:
    names, refused = ADDED[once]
    added = [word for name in names for word in permissions(name)]
    server = served(f"--redis-url={allow(valkey, *least(once), *added)}", "--faults")
    assert server.visits() == 1
    assert server.put("/faults", b'{"ready": false}')[0] == 200
    # All of the replica is written, told and read.
    wait_until(lambda: "'faults': ['unready']" in str(server.event()), pause=0.1)
    server.close()
    assert {one["object"] for one in valkey.client.acl_log()} == refused
