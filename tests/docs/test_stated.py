"""What the pages state of the code is so: figures, limits, keys, faults and messages."""

import json
import math
import re
from collections.abc import Callable

import pytest
from tornado.web import StaticFileHandler

import http1.server
import server
from config import SettingError, Settings, load, wait
from config.checks import MAX_LABELS
from counter import (
    KEY,
    connector,
    delivery,
    lookout,
    probing,
    process_key,
    resolver,
    spell,
    tokens,
)
from handlers import COMMON_HEADERS, Faults, accept, metrics
from handlers.faults import MOST_CORES, FaultsHandler
from http1 import acceptor, head
from limits import (
    BACKLOG,
    BASE,
    CONNECTION,
    HTTP,
    RESERVE,
    STREAM_SECONDS,
    STREAMS_SHARE,
    TLS_CONNECTION,
    WAITING_VISITS,
)
from process import memory, signals, standard_error, tls, workers
from replicas import figures, keys, link, records
from tests.docs.test_docs import rows, targets
from tests.docs.test_figures import made, number, size, text, time
from tests.stores.machines import STORES
from tests.stores.test_stores import WAYS
from tests.support import ROOT
from tests.support.here import Serve
from tests.support.program import Program
from tests.support.valkey import Valkey
from watch import logs
from watch.metrics import SHARE_EVERY

DEFAULTS = Settings()


def found(file: str, pattern: str) -> str:
    """What a file says, the first time."""
    match = re.search(pattern, (ROOT / file).read_text(), re.M)
    assert match, f"{file} has no {pattern}"
    return match[1]


def of_lua(file: str, name: str) -> float:
    """A constant of a script, which may be set with others."""
    line = found(file, rf"^local ((?:[A-Z]+, )*{name}\b[^\n]+)")
    names, _, values = line.partition(" -- ")[0].partition(" = ")
    return float(dict(zip(names.split(", "), values.split(", "), strict=True))[name])


def room(each: int) -> int:
    """How many connections the memory of compose.yaml is enough for."""
    return ((int(found("compose.yaml", r"mem_limit: (\d+)m")) << 20) - BASE) // each


def often(every: float) -> str:
    """How often in a second something is done that is done every so many seconds."""
    return {1: "once", 2: "twice"}[round(1 / every)]


def step(seconds: int) -> str:
    return f"{seconds} seconds" if seconds < 60 else f"{seconds // 60} minutes"


PYTHON = found("pyproject.toml", r'^requires-python = ">=(.+)"$')
ADDED = int(found("tests/container/test_image.py", r"^MOST_ADDED = (\S+)$"))
BASE_IMAGE = found("Dockerfile", "^ARG PYTHON_IMAGE=(.+)$")
HOUR = {3600: "an hour"}[round(sum(STREAM_SECONDS) / 2)]
OF_THE_BUTTON = float(found("static/send.js", "^const EVERY = (.+);"))  # milliseconds
LAST_VISITS = float(found("check.py", "^LAST_VISITS = (.+)$"))
PORT_OF_THE_HOOK = found("audit/hook.py", '"PORT", "(.+?)"')
YEARS = StaticFileHandler.CACHE_MAX_AGE / 86400 / 365

STATED = {
    "README.md": [
        f"Python {PYTHON} or newer",
        f"which is {DEFAULTS.redis_timeout:g} seconds by default",
        f"They take {made('real Valkey, in ([a-z ]+) *$')} on two cores",
        f"If port {made('PORT .= (.+)')} is taken",
    ],
    "docs/guide.md": [
        f"less than {ADDED / 1e6:g} MB to its base, `{BASE_IMAGE}`",
        f"Python {PYTHON} or newer, and pip",
    ],
    "docs/settings.md": [
        f"and takes {server.ADMIN_CONNECTIONS} connections",
        f"at most {number(MAX_LABELS)} labels",
        f"looks at the files {often(tls.LOOK_EVERY)} a second",
        f"a failed handshake at most once {time(http1.server.TLS_WARNINGS_EVERY)}",
        f"another after {time(workers.RESTART_BACKOFF)}",
        f"After {number(link.HANG_UPS)} times the live page says",
        f"less {BASE >> 20} MiB for each process",
        f"counts each connection as {CONNECTION >> 10} KiB, or {TLS_CONNECTION >> 10} KiB over TLS",
        f"room for {room(CONNECTION)} connections, or {room(TLS_CONNECTION)} over TLS",
        f"{time(memory.LOOK_EVERY).capitalize()} after many clients have gone",
        f"the default is {DEFAULTS.idle_timeout:g}",
        f"{BASE_IMAGE.partition('-')[0].replace('python:', 'Python ')}, which the image has",
        f"The oldest supported Redis is {figures.OLDEST}",
    ],
    "docs/counting.md": [
        f"`--redis-timeout` ({DEFAULTS.redis_timeout:g} s)",
        f"looks for Redis {often(probing.PROBE_EVERY)} a second",
        f"one for each further reason ({number(spell.MAX_REASONS)} reasons at most)",
        f"asks them again {often(probing.PROBE_EVERY)} a second",
        f"holds at most {WAITING_VISITS:,} visits",
        f"comes within {time(probing.PROBE_EVERY)}, the server sends a token",
        f"or within {time(probing.PROBE_EVERY)} after a visitor has gone",
        f"gives Redis {lookout.HAND_ON_TIMEOUT:g} s for this",
        f"takes longer than {lookout.HAND_ON_TIMEOUT:g} s",
        f"past 10^{math.log10(of_lua('counter/token.lua', 'EXACT')):g}:",
        f"begins another look-up at the same time, every {resolver.HANGS_AFTER:g} s",
        f"begins another connection at the same time, every {connector.STUCK_AFTER:g} s",
        f"again every {time(delivery.REFUSED_FOR).removeprefix('a ')}",
        f"a refusal after {number(probing.TRIES)} times",
        f"within {time(signals.SAME_SIGNAL)} is not a second one",
        f"the last {number(figures.MAX_SPELLS)} times without Redis",
        f"holds {number(of_lua('replicas/figures.lua', 'VERSIONS'))} versions",
        *(f"in {one.steps} steps of {step(one.step)}" for one in keys.HISTORIES.values()),
    ],
    "docs/systemd.md": [f"You need Python {PYTHON} or newer"],
    "docs/paths.md": [
        f"answer for {number(YEARS)} years",
        f"cores to burn, up to {MOST_CORES},",
        f"write to, up to {wait.MOST_BYTES >> 30} GiB",
        f"Headers of more than {HTTP['max_header_size'] >> 10} kB get 431",  # type: ignore[operator]
        f"After about {HOUR}, the server ends the stream",
        f"well formed: 1 to {found('handlers/base.py', r'{1,(.+)}')} letters",
    ],
    "docs/watching.md": [
        f"sends {number(1000 / OF_THE_BUTTON)} visits a second",
        f"are up to {time(SHARE_EVERY)} old",
        f"up to {1 / standard_error.PAUSE:g} times a second",
        f"ends a stream after about {HOUR}",
    ],
    "docs/audit.md": [
        f"it waits for {time(LAST_VISITS)} at most",
        f"listens on port {PORT_OF_THE_HOOK} (`PORT`)",
    ],
}


@pytest.mark.parametrize(
    ("page", "said"), [(page, said) for page, those in STATED.items() for said in those]
)
def test_a_page_states_the_figures_of_the_code(page: str, said: str) -> None:
    assert said in text(page)


def test_a_record_is_kept_for_a_day_and_an_hour_at_most_as_the_page_says() -> None:
    assert of_lua("replicas/figures.lua", "DAY") == keys.DAY
    assert of_lua("counter/token.lua", "KEPT") == keys.DAY + 3600
    hours = f"{keys.DAY // 3600} to {keys.DAY // 3600 + 1} hours"
    assert f"expires {hours} after the last sign of the process" in text("docs/counting.md")
    assert "for more than a day after its last token" in text("docs/counting.md")


def test_both_front_pages_lead_to_the_same_pages() -> None:
    english, chinese = targets("README.md"), targets("README.zh-CN.md")
    assert english - {"README.zh-CN.md"} == chinese - {"README.md"}


# Settings.


def test_the_limits_are_those_of_the_code() -> None:
    waits = {name: f"{HTTP[name]:g} s" for name in HTTP if name.endswith("timeout")}
    bodies = size(HTTP["max_body_size"]), size(FaultsHandler.MAX_BODY_SIZE)  # type: ignore[arg-type]
    assert {limit: value for limit, value, _ in rows("docs/settings.md", "limit", "value")} == {
        "the request line and headers together": size(HTTP["max_header_size"]),  # type: ignore[arg-type]
        "time for the headers, from their first byte": waits["header_timeout"],
        "time for a TLS handshake": waits["header_timeout"],
        "a request's body": "{}; for `PUT /faults` {}. The server keeps no other body.".format(
            *bodies
        ),
        "time for the body": waits["body_timeout"],
        "time in which a client reads nothing of an answer that waits for it": waits[
            "write_timeout"
        ],
        "an idle connection": f"{DEFAULTS.idle_timeout:g} s, by default (`--idle-timeout`)",
        "headers of a request": f"{head.MAX_FIELDS}, each with a name of {head.MAX_NAME} bytes",
        "bytes after a request that waits for its answer": size(acceptor.MAX_UNREAD),
        "ranges of `Accept` or `Accept-Language`": f"{accept.MAX_RANGES}",
        "what a client sent, in a line of the log": f"{logs.LONGEST:,} characters",
        "how often the server writes `/metrics`": f"{often(metrics.TEXT_SECONDS)} a second",
        "open connections, per process": f"what the system allows, less {RESERVE} file "
        "descriptors, and what the memory has room for; see [below](#memory)",
        "streams (`/live/events`), per process": {2: "half"}[STREAMS_SHARE] + " of the connections",
        "how long a stream lives": "{:g} to {:g} minutes".format(
            *(seconds / 60 for seconds in STREAM_SECONDS)
        ),
        "connections that wait to be accepted": f"{BACKLOG:,}, or the system's own limit "
        "(on Linux `net.core.somaxconn`)",
        "visits that wait for a number, per process": f"{WAITING_VISITS:,} in the queue, and as "
        "many in the batch under way",
    }


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


# Counting.


def test_the_keys_and_the_fields_of_a_process_are_those_that_are_written() -> None:
    named = [row[0].strip("`") for row in rows("docs/counting.md", "key", "what it holds")]
    histories = [keys.history_key(last) for last in keys.HISTORIES]
    assert named == [process_key("ID"), tokens.spares_key(KEY), keys.NAMES, *histories]
    fields = [row[0] for row in rows("docs/counting.md", "field of a process")]
    assert set(re.findall(r"`(\w+)`", " ".join(fields))) == {"token", *records.FIELDS}


def test_the_errors_that_are_no_refusals_are_those_that_the_counter_knows() -> None:
    known = set(re.findall(r"[A-Z]{3,}|max number of clients", delivery._STATES.pattern))
    said = re.search(r"no command would count: (.*?)\. So these", text("docs/counting.md"))
    assert said
    assert set(re.findall("`(.+?)`", said[1])) == known - {"MOVED", "ASK"}


def test_a_counter_that_is_set_by_hand_goes_on_from_there(
    valkey: Valkey, counting: Callable[..., Program]
) -> None:
    running = counting(f"--redis-url={valkey.url}")
    assert [running.visits(), running.visits()] == [1, 2]
    for number_set in (0, 1234):
        valkey.client.set(KEY, number_set)
        assert running.visits() == number_set + 1


# Paths.


def test_the_faults_are_those_that_can_be_set_and_each_value_without_a_fault_is_so() -> None:
    table = {
        row[0].strip("`"): row[1].strip("`")
        for row in rows("docs/paths.md", "field", "value without a fault")
    }
    as_text = {"True": "true", "0.0": "0", "0": '"0"'}
    well = {name: as_text[str(value)] for name, value in Faults().as_json().items()}
    assert table == well | {"exit": "none", "for": "none"}


def test_the_headers_that_all_answers_share_are_described() -> None:
    described = {row[0].strip("`") for row in rows("docs/paths.md", "header", "value")}
    assert described == {*COMMON_HEADERS, "X-Request-ID", "X-App-Version"}


# The guide.

#: What the guide says that the program says, as the program writes it.
SAID = {
    "cannot resolve redis: Name or service not known": ("counter/resolver.py", "cannot resolve {"),
    "no answer from Redis in time": ("counter/connector.py", "no answer from Redis in time"),
    "replicas acknowledged the visits": ("counter/delivery.py", "replicas acknowledged the visits"),
    "cannot listen on port 80: Permission denied; try --port=4000": ("server.py", "; try --port="),
    "counter still off:": ("counter/spell.py", '"still off"'),
}


@pytest.mark.parametrize("said", SAID)
def test_the_program_says_what_the_guide_quotes(said: str) -> None:
    file, written = SAID[said]
    assert said in text("docs/guide.md")
    assert written in (ROOT / file).read_text()


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
