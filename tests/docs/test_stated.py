"""What settings, paths and counting state of the code is so; its figures are in test_figures.py."""

import json
import re

import pytest

from config import SettingError, Settings, load
from counter import KEY, delivery, process_key, tokens
from handlers import COMMON_HEADERS, Faults, accept, metrics
from handlers.faults import FaultsHandler
from http1 import acceptor, head, turns
from limits import BACKLOG, HTTP, RESERVE, STREAM_SECONDS, STREAMS_SHARE, WAITING_VISITS
from replicas import keys, records
from tests.docs.test_docs import rows, targets
from tests.docs.test_figures import of_lua, often, sentences, size, text
from tests.stores.machines import STORES
from tests.stores.test_stores import WAYS
from tests.support.here import Serve
from tests.support.valkey import Valkey
from watch import logs


def test_a_record_is_kept_for_a_day_and_an_hour_at_most_as_the_page_says() -> None:
    assert of_lua("replicas/figures.lua", "DAY") == keys.DAY
    assert of_lua("counter/token.lua", "KEPT") == keys.DAY + 3600
    (said,) = [one for one in sentences("docs/counting.md") if "expires" in one and "sign" in one]
    assert re.search("a day .* an hour later|24 to 25 hours", said)


def test_both_front_pages_lead_to_the_same_pages() -> None:
    english, chinese = targets("README.md"), targets("README.zh-CN.md")
    assert english - {"README.zh-CN.md"} == chinese - {"README.md"}


#: Words by which each limit is known, and the figures that the page gives.
LIMITS = {
    "request line and headers": [size(int(str(HTTP["max_header_size"])))],
    "time for the headers": [f"{HTTP['header_timeout']:g} s"],
    "TLS handshake": [f"{HTTP['header_timeout']:g} s"],
    "request's body": [
        size(int(str(HTTP["max_body_size"]))),
        f"`PUT /faults` {size(FaultsHandler.MAX_BODY_SIZE)}",
    ],
    "time for the body": [f"{HTTP['body_timeout']:g} s"],
    "reads nothing": [f"{HTTP['write_timeout']:g} s"],
    "idle connection": [f"{Settings().idle_timeout:g} s"],
    "headers of a request": [f"{head.MAX_FIELDS}", f"{head.MAX_NAME} bytes"],
    "after a request that waits": [size(acceptor.MAX_UNREAD)],
    "sent ahead": [f"{turns.AT_ONCE}"],
    "`Accept-Language`": [f"{accept.MAX_RANGES}"],
    "line of the log": [f"{logs.LONGEST:,} characters"],
    "`/metrics`": [often(metrics.TEXT_SECONDS)],
    "open connections": [f"{RESERVE} file descriptors"],
    "streams (`/live/events`)": [{2: "half"}[STREAMS_SHARE]],
    "stream lives": ["{:g} to {:g} minutes".format(*(one / 60 for one in STREAM_SECONDS))],
    "wait to be accepted": [f"{BACKLOG:,}"],
    "visits that wait": [f"{WAITING_VISITS:,} in the queue"],
}


def test_the_limits_are_those_of_the_code() -> None:
    table = {limit: value for limit, value, _ in rows("docs/settings.md", "limit", "value")}
    assert len(table) == len(LIMITS)
    for words, figures in LIMITS.items():
        (value,) = (table[limit] for limit in table if words in limit)
        assert all(figure in value for figure in figures), words


def accepts(flag: str, value: str) -> bool:
    given = [f"{flag}={value}"]
    if flag.startswith("--admin-a"):
        given.append("--admin-port=0")
    try:
        load([*given, "--faults"], {})
    except SettingError:
        return False
    return True


MEANINGS = {row[0].strip("`"): row[3] for row in rows("docs/settings.md", "flag", "variable")}


@pytest.mark.parametrize("flag", [flag for flag in MEANINGS if "p to " in MEANINGS[flag]])
def test_a_setting_may_be_as_large_as_the_page_says_and_no_larger(flag: str) -> None:
    most = re.search(r"[Uu]p to (\d+|an hour)( s\b)?( letters)?", MEANINGS[flag])
    assert most
    if most[3]:  # of a path
        assert accepts(flag, "/" + "a" * (int(most[1]) - 1))
        assert not accepts(flag, "/" + "a" * int(most[1]))
    else:
        unit = most[2] and "s"
        largest = 3600 if most[1] == "an hour" else int(most[1])
        assert accepts(flag, f"{largest}{unit or ''}")
        assert not accepts(flag, f"{largest + 1}{unit or ''}")


@pytest.mark.parametrize(
    ("flag", "least", "most"),
    [
        (flag, *bounds)
        for flag, meaning in MEANINGS.items()
        for bounds in re.findall(r"[Ff]rom ([\d.]+) to ([\d.]*\d)", meaning)
    ],
)
def test_a_setting_has_the_bounds_that_the_page_says(flag: str, least: str, most: str) -> None:
    assert accepts(flag, least)
    assert accepts(flag, most)
    assert not accepts(flag, f"{float(least) - 0.0005:f}")
    assert not accepts(flag, f"{float(most) + 0.0005:f}")


def test_the_stores_and_the_ways_to_them_are_those_of_their_suite() -> None:
    found = {name: cells for name, *cells in rows("docs/settings.md", "", *WAYS)}
    assert list(found) == list(STORES)
    for cells in found.values():
        for cell, (_, counts) in zip(cells, WAYS.values(), strict=True):
            assert cell.startswith(f"{counts};")


def test_the_keys_and_the_fields_of_a_process_are_those_that_are_written() -> None:
    named = [row[0].strip("`") for row in rows("docs/counting.md", "key", "what it holds")]
    histories = [keys.history_key(last) for last in keys.HISTORIES]
    assert named == [process_key("ID"), tokens.spares_key(KEY), keys.NAMES, *histories]
    fields = [row[0] for row in rows("docs/counting.md", "field of a process")]
    assert set(re.findall(r"`(\w+)`", " ".join(fields))) == {"token", *records.FIELDS}


def test_the_errors_that_are_no_refusals_are_those_that_the_counter_knows() -> None:
    known = set(re.findall(r"[A-Z]{3,}|max number of clients", delivery._STATES.pattern))
    said = re.search(r"no command would count: (.*?)\. So the", text("docs/counting.md"))
    assert said
    assert set(re.findall("`(.+?)`", said[1])) == known - {"MOVED", "ASK"}


def test_the_faults_are_those_that_can_be_set_and_a_well_replica_has_none() -> None:
    table = {row[0].strip("`"): row[1].strip("`") for row in rows("docs/paths.md", "field")}
    as_text = {"True": "true", "0.0": "0", "0": '"0"'}
    well = {name: as_text[str(value)] for name, value in Faults().as_json().items()}
    assert table == well | {"exit": "none", "for": "none"}


def test_the_headers_that_all_answers_share_are_described() -> None:
    described = {row[0].strip("`") for row in rows("docs/paths.md", "header", "value")}
    assert described == {*COMMON_HEADERS, "X-Request-ID", "X-App-Version"}


@pytest.mark.parametrize("password", ["", ":wrong@"])
def test_a_wrong_password_has_the_reason_that_the_pages_quote(
    password: str, valkey: Valkey, served: Serve
) -> None:
    valkey.client.config_set("requirepass", "right")
    server = served(f"--redis-url=unix://{password}{valkey.path}")
    assert server.visits() is None
    reason = json.loads(server.get("/readyz")[1])["reason"]
    assert f"`{reason}`" in [row[0] for row in rows("docs/guide.md", "reason", "meaning")]
    (quoted,) = re.findall(
        r"If the reason begins with `(\w+)` or `(.+?)`", text("docs/watching.md")
    )
    assert reason.startswith(quoted)
