"""What the pages state of permissions, errors, balancers and the log is so, tried out."""

import json
import re

import pytest

from counter import delivery
from tests.counter.test_exactly_once import allow, least
from tests.docs.test_docs import code, read, rows, text
from tests.support.here import Serve
from tests.support.program import NOWHERE
from tests.support.raw_http import talk
from tests.support.valkey import Valkey
from tests.support.waiting import wait_until


def test_the_errors_that_are_no_refusals_are_those_that_the_counter_knows() -> None:
    known = set(re.findall(r"[A-Z]{3,}|max number of clients", delivery._STATES.pattern))
    (said,) = re.findall(r"no command would count: (.*?)\. So the", text("docs/counting.md"))
    assert set(re.findall("`(.+?)`", said)) == known - {"MOVED", "ASK"}


@pytest.mark.parametrize("password", ["", ":wrong@"])
def test_a_wrong_password_has_the_reason_that_the_pages_quote(
    password: str, valkey: Valkey, served: Serve
) -> None:
    valkey.client.config_set("requirepass", "right")
    server = served(f"--redis-url=unix://{password}{valkey.path}")
    assert server.visits() is None
    reason = json.loads(server.get("/readyz")[1])["reason"]
    assert f"`{reason}`" in [row[0] for row in rows("docs/guide.md", "reason", "meaning")]
    (begins,) = re.findall(
        r"If the reason begins with `(\w+)` or `(.+?)`", text("docs/watching.md")
    )
    assert reason.startswith(begins)


#: Of each list, the rows of the table to add, by their first words; and what Redis still refuses.
BOTH = ["what a replica tells", "reading the live page", "reading all figures", "a warning before"]
ADDED: dict[str, tuple[list[str], set[str]]] = {
    "exactly once": (["the figures of a replica", *BOTH], set()),
    "at most once": (["the same where Redis refuses", *BOTH], {"evalsha"}),
}


@pytest.mark.parametrize("once", ADDED)
def test_with_the_permissions_of_the_table_redis_refuses_nothing_more(
    once: str, valkey: Valkey, served: Serve
) -> None:
    names, refused = ADDED[once]
    table = rows("docs/counting.md", "for", "add")
    added = [words.strip("`").split() for said, words in table if said.startswith(tuple(names))]
    assert len(added) == len(names)
    url = allow(valkey, *least(once), *(word for words in added for word in words))
    server = served(f"--redis-url={url}", "--faults")
    assert server.visits() == 1
    assert server.put("/faults", b'{"ready": false}')[0] == 200
    # All of the replica is written, told and read.
    wait_until(lambda: "'faults': ['unready']" in str(server.event()), pause=0.1)
    server.close()
    assert {one["object"] for one in valkey.client.acl_log()} == refused


def test_the_check_of_haproxy_is_answered_and_its_bare_one_is_not_as_it_says(
    served: Serve,
) -> None:
    check = r"^http-check send meth (\S+) uri (\S+) ver (\S+) hdr (\S+) (\S+)$"
    ((*line, name, value),) = re.findall(check, read("docs/deploy.md"), re.M)
    server = served(NOWHERE)
    for head, status in (
        (f"{' '.join(line)}\r\n{name}: {value}", 200),
        ("OPTIONS / HTTP/1.0", 405),
    ):
        (answer,) = talk(server, f"{head}\r\nConnection: close\r\n\r\n".encode())
        assert answer.status == status


#: Of the lines of the log that a page quotes: the words that its module writes, filled in or not.
LOGGED = [
    ("docs/names.md", "counter/opening.py", " is no longer "),
    ("docs/names.md", "http1/acceptor.py", "those idle longest are closed"),
    ("docs/names.md", "counter/resolver.py", "too many look-ups of names hang"),
    ("docs/watching.md", "watch/logs.py", "as standard error did not take them"),
    ("docs/watching.md", "counter/link.py", "counter on"),
    ("docs/valkey.md", "embedded/keeper.py", "; starting it again"),
    ("docs/valkey.md", "embedded/keeper.py", ": Valkey is back"),
    ("docs/valkey.md", "embedded/journal.py", "as after a power cut"),
    ("docs/guide.md", "counter/resolver.py", "cannot resolve "),
    ("docs/guide.md", "counter/connector.py", "no answer from Redis in time"),
    ("docs/guide.md", "counter/delivery.py", "replicas acknowledged the visits"),
    ("docs/guide.md", "server.py", "; try --port=4000"),
]


@pytest.mark.parametrize(("page", "module", "words"), LOGGED)
def test_what_a_page_quotes_of_the_log_is_written_there(page: str, module: str, words: str) -> None:
    assert any(words.strip() in one for one in code(page))
    assert words in read(module)
