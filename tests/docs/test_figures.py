"""The figures that the pages state are those of the code, and of the committed run.

Where one changes, the page has to say the new one: here is of what, in a sentence of the page, or
in the first two cells of a row.
"""

import math
import re
from functools import cache
from statistics import median

import pytest
import yaml
from tornado.web import StaticFileHandler

import limits
import server as program
from bench.goals import GOALS
from bench.results import load as load_run
from bench.servers import OURS
from bench.text import number as rounded
from config import SettingError, load, wait
from config.checks import MAX_LABELS
from counter import batches, connector, delivery, lookout, opening, outage, probing, resolver
from embedded import journal, keeper, leftover
from handlers import accept
from handlers import metrics as exposed
from handlers.faults import MOST_CORES, FaultsHandler
from http1 import acceptor, body, busy_poll, head, outbox, server, stream
from http1 import turns as of_requests
from process import memory, signals, standard_error, tls, workers
from replicas import figures, keys, known, marks, records, states, telling
from replicas import link as reading
from tests.deploy.manifests import RESOURCES, WEB, environment, pod
from tests.docs.test_docs import read, rows, tables, text
from watch import broadcast, events, logs
from watch.metrics import SHARE_EVERY

TIMES = {
    **{0.1: "a tenth of a second", 0.25: "a quarter of a second", 0.5: "half a second"},
    **{1: "a second", 2: "two seconds", 3: "three seconds", 5: "five seconds"},
    **{10: "ten seconds", 60: "a minute", 3600: "an hour"},
}
NUMBERS = dict(enumerate(("one", "two", "three", "four", "five"), 1))
NUMBERS |= {8: "eight", 10: "ten", 20: "twenty"}


def time(seconds: float) -> str:
    return TIMES.get(seconds, f"{seconds:g} s")


def number(value: float) -> str:
    return NUMBERS.get(round(value), f"{value:,.0f}")


def size(size: int) -> str:
    return f"{size >> 20} MB" if size >= 1 << 20 else f"{size >> 10} kB"


def often(every: float) -> str:
    """How often in a second something is done that is done every so many seconds."""
    return f"{ {1: 'once', 2: 'twice'}[round(1 / every)] } a second"


def steps(history: keys.History) -> str:
    each = f"{history.step} seconds" if history.step < 60 else f"{history.step // 60} minutes"
    return f"{history.steps} steps of {each}"


def found(file: str, pattern: str) -> str:
    match = re.search(pattern, read(file), re.M)
    assert match, f"{file} has no {pattern}"
    return match[1].strip()


def of_lua(file: str, name: str) -> float:
    """A constant of a script, which may be set with others."""
    line = found(file, rf"^local ((?:[A-Z]+, )*{name}\b[^\n]+)")
    names, _, values = line.partition(" -- ")[0].partition(" = ")
    return float(dict(zip(names.split(", "), values.split(", "), strict=True))[name])


def made(pattern: str) -> str:
    return found("Makefile", pattern)


def room(each: int) -> int:
    """How many connections the memory of compose.yaml is enough for."""
    return ((int(found("compose.yaml", r"mem_limit: (\d+)m")) << 20) - limits.BASE) // each


HTTP = {name: float(str(value)) for name, value in limits.HTTP.items()}
DEFAULTS = load([], {})
STACK = yaml.safe_load(read("deploy/stack.yaml"))["services"]["web"]
SCALING = RESOURCES["HorizontalPodAutoscaler/web"]["spec"]
(DELAY,) = {str(STACK["environment"]["DRAIN_DELAY"]), environment(WEB)["DRAIN_DELAY"]}
(GRACE,) = {f"{pod(WEB)['terminationGracePeriodSeconds']}s", STACK["stop_grace_period"]}

#: Of each page what is stated, by words of the sentence in which it is, and the figure in it.
FIGURES: dict[str, list[tuple[str, object]]] = {
    "README.md": [
        ("Linux Python", f"{found('pyproject.toml', '^requires-python = .>=([0-9.]+)')} or newer"),
        ("`--redis-timeout`", f"{DEFAULTS.redis_timeout:g} seconds"),
        ("two cores", made("real Valkey, in ([a-z ]+) *$")),
        ("port taken", made("PORT .= (.+)")),
    ],
    "SECURITY.md": [
        ("image user", found("Dockerfile", r"^USER (\d+)")),
    ],
    "docs/guide.md": [
        (
            "adds base",
            f"{int(found('tests/container/test_image.py', r'^MOST_ADDED = (.+)$')) / 1e6:g} MB",
        ),
        ("adds base", found("Dockerfile", "^ARG PYTHON_IMAGE=(.+)$")),
    ],
    "docs/settings.md": [
        ("admin port connections", program.ADMIN_CONNECTIONS),
        ("labels", number(MAX_LABELS)),
        ("looks at files", often(tls.LOOK_EVERY)),
        ("failed handshake", f"once {time(server.TLS_WARNINGS_EVERY)}"),
        ("worker another", time(workers.RESTART_BACKOFF)),
        ("After times", number(reading.HANG_UPS)),
        ("memory process", f"{limits.BASE >> 20} MiB"),
        ("connection TLS", f"{limits.CONNECTION >> 10} KiB"),
        ("connection TLS", f"{limits.TLS_CONNECTION >> 10} KiB"),
        ("`compose.yaml` room", room(limits.CONNECTION)),
        ("`compose.yaml` room TLS", room(limits.TLS_CONNECTION)),
        ("after many clients have gone", time(memory.LOOK_EVERY)),
        ("oldest supported Redis", figures.OLDEST),
        # The table of limits.
        ("request line headers together", size(int(HTTP["max_header_size"]))),
        ("time for the headers first byte", f"{HTTP['header_timeout']:g} s"),
        ("TLS handshake", f"{HTTP['header_timeout']:g} s"),
        ("request's body `PUT /faults`", size(int(HTTP["max_body_size"]))),
        ("request's body", f"`PUT /faults` {size(FaultsHandler.MAX_BODY_SIZE)}"),
        ("time for the body", f"{HTTP['body_timeout']:g} s"),
        ("reads nothing", f"{HTTP['write_timeout']:g} s"),
        ("an idle connection", f"{DEFAULTS.idle_timeout:g} s"),
        ("headers of a request", f"{head.MAX_FIELDS}, each with a name of {head.MAX_NAME} bytes"),
        ("after a request that waits", size(acceptor.MAX_UNREAD)),
        ("sent ahead", of_requests.AT_ONCE),
        ("ranges `Accept-Language`", accept.MAX_RANGES),
        ("line of the log", f"{logs.LONGEST:,} characters"),
        ("writes `/metrics`", often(exposed.TEXT_SECONDS)),
        ("open connections", f"{limits.RESERVE} file descriptors"),
        ("streams `/live/events`", {2: "half"}[limits.STREAMS_SHARE]),
        ("stream lives", "{:g} to {:g} minutes".format(*(x / 60 for x in limits.STREAM_SECONDS))),
        ("wait to be accepted", f"{limits.BACKLOG:,}"),
        ("visits that wait", f"{limits.WAITING_VISITS:,} in the queue"),
    ],
    "docs/counting.md": [
        ("looks for Redis", often(probing.PROBE_EVERY)),
        ("further reason", f"{number(outage.MAX_REASONS)} reasons"),
        ("another look-up", time(resolver.HANGS_AFTER)),
        ("another connection", time(connector.STUCK_AFTER)),
        ("gives Redis", f"{lookout.HAND_ON_TIMEOUT:g} s"),
        ("counter past", f"10^{math.log10(of_lua('counter/token.lua', 'EXACT')):g}"),
        ("script again", time(delivery.REFUSED_FOR)),
        ("refusal", number(probing.TRIES)),
        ("times without Redis", number(figures.MAX_OUTAGES)),
        ("step versions", number(of_lua("replicas/figures.lua", "VERSIONS"))),
        *(("steps", steps(one)) for one in keys.HISTORIES.values()),
    ],
    "docs/paths.md": [
        ("ends stream", time(round(sum(limits.STREAM_SECONDS) / 2))),
        ("letters", f"1 to {found('handlers/base.py', r'{1,(.+)}')} letters"),
        ("Caches", f"{number(StaticFileHandler.CACHE_MAX_AGE / 86400 / 365)} years"),
        ("cores", MOST_CORES),
        ("memory", f"{wait.MOST_BYTES >> 30} GiB"),
    ],
    "docs/watching.md": [
        ("another replica later", time(states.SILENT_AFTER)),
        ("event old", time(events.MAX_GAP)),
        (
            "visits second",
            f"{number(1000 / float(found('static/send.js', '^const EVERY = (.+);')))} visits",
        ),
        ("up to old", time(SHARE_EVERY)),
        ("times a second", f"{1 / standard_error.PAUSE:g} times"),
        ("newest last day", marks.MAX_MARKS),
        ("report", time(telling.GOODBYE_TIMEOUT)),
        ("characters text", records.MAX_TEXT),
        ("asks Redis", f"once {time(broadcast.EVERY)}"),
        ("last other", time(known.FRESH)),
        ("in turn", number(known.AGAIN)),
        (
            "again after",
            f"{number(broadcast.RETRY[0] / 1000)} to {time(broadcast.RETRY[1] / 1000)}",
        ),
        ("lines slow", size(standard_error.MOST_WAITING)),
        ("waits standard error", time(standard_error.PATIENCE)),
    ],
    "docs/audit.md": [
        ("waits at most", time(float(found("check.py", "^LAST_VISITS = (.+)$")))),
        ("listens port", found("audit/hook.py", '"PORT", "(.+?)"')),
    ],
    "docs/names.md": [
        ("next address", time(opening.ATTEMPT_DELAY)),
        ("name of Redis", time(opening.LOOK_UP_EVERY)),
        ("answers in a row", number(opening.LOOK_UPS)),
        ("DNS has changed", time(opening.LOOK_UPS * opening.LOOK_UP_EVERY)),
        ("these threads", resolver.MAX_LOOK_UPS),
        ("at most threads", resolver.MAX_LOOK_UPS + 2),  # with the main one, and the log's
        ("limit", STACK["deploy"]["resources"]["limits"]["pids"]),
        ("waiting for", time(server.LEAST_STALLED)),
        ("room", time(acceptor.QUIET)),
    ],
    "docs/valkey.md": [
        ("log more than", size(keeper.LONG_LOG)),
        ("ends again", time(keeper.STEADY)),
        ("twice as long", f"{keeper.LONGEST:g} seconds"),
        ("to end", time(leftover.STOP)),
        ("keeps last", number(journal.COPIES)),
    ],
    "docs/http-server.md": [
        ("idle less than", f"{server.LEAST_IDLE:g} s"),
        ("looks again", f"{acceptor.LOOK_AGAIN:g} s"),
        ("`Host` bytes", head.MAX_HOST),
        ("method bytes", f"{head.MAX_METHOD} bytes"),
        ("line trailer", size(body.MAX_LINE)),
        ("close_notify answer", f"{stream.TLS_CLOSE:g} s"),
        ("still reads", time(stream.LINGERING_CLOSE)),
        ("together turn", f"{outbox.SMALL >> 10} KiB"),
        ("turning", f"{1000 * busy_poll.BUSY_POLL:g} ms"),
        ("pass but", number(len(rows("tests/README.md", "test", "why")))),
    ],
    "docs/deploy.md": [
        ("base Swarm stack", f"{DELAY} seconds"),
        ("both set", f"{GRACE[:-1]} seconds"),
        ("same signal", time(signals.SAME_SIGNAL)),
        ("stack runs", f"{number(STACK['deploy']['replicas'])} replicas"),
        (
            "replicas",
            f"{number(SCALING['minReplicas'])} to {number(SCALING['maxReplicas'])} replicas",
        ),
    ],
    "docs/design.md": [
        ("large batch", number(batches.GATHER_TURNS)),
    ],
}


@cache
def sentences(page: str) -> list[str]:
    cells = [": ".join(row[:2]) for table in tables(page) for row in table]
    return cells + re.split(r"(?<=[.:;?!])\s|(?<=[.:;?!]\*\*)\s|\s\|\s|\s- ", text(page))


@pytest.mark.parametrize(
    ("page", "words", "figure"),
    [(page, *one) for page, those in FIGURES.items() for one in those],
)
def test_the_figures_of_a_page_are_those_of_the_code(page: str, words: str, figure: object) -> None:
    stated = re.sub(r" s$", " s(econds)?", re.escape(f"{figure}").replace(r"\ ", " "))
    said = [one for one in sentences(page) if all(word in one for word in words.split())]
    assert said, "no sentence has these words"
    assert any(re.search(rf"(?i)(?<![\w.,]){stated}(?!\w)", one) for one in said), said


def test_a_record_is_kept_for_a_day_and_an_hour_at_most_as_the_page_says() -> None:
    assert of_lua("replicas/figures.lua", "DAY") == keys.DAY
    assert of_lua("counter/token.lua", "KEPT") == keys.DAY + 3600
    assert "It expires 24 to 25 hours after the last sign" in text("docs/counting.md")


def accepts(flag: str, value: str) -> bool:
    try:
        load([f"{flag}={value}", "--admin-port=0", "--faults"], {})
    except SettingError:
        return False
    return True


def test_a_setting_has_the_bounds_that_the_page_says() -> None:
    bounds = re.compile(r"(?:rom ([\d.]+) to|p to) ([\d.]*\d)( s\b|\b)(?! letters)")
    for flag, _, _, meaning in rows("docs/settings.md", "flag", "variable"):
        flag = flag.strip("`")
        for least, most, unit in bounds.findall(meaning.replace("an hour", "3600")):
            assert accepts(flag, most + unit.strip()), flag
            assert not accepts(flag, f"{float(most) + 1:g}{unit.strip()}"), flag
            if least:
                assert accepts(flag, least)
                assert not accepts(flag, f"{float(least) - 0.0005:f}")


#: The committed run of the benchmark, whose figures the page on performance states.
PAGE = "docs/performance.md"
RUN = load_run(read("bench/results.json"))


def ours(figure: str, connections: int = 64) -> float:
    return RUN.median(figure, OURS, False, connections)


def ratio(what: str, log: bool = False) -> float:
    (goal,) = (one for one in GOALS if one.text == f"requests/s{what}")
    return median(goal.values(RUN, log))


NEW = " with a new connection for each, of Go's"

STATED = [
    f"gets one command for {1 / ours('commands'):.0f} visits",
    f"With 8, a batch has {NUMBERS[round(1 / ours('commands', 8))]} visits",
    f"takes {rounded(ours('cpu'))} µs of CPU time",
    f"uses {ours('memory'):.0f} MiB of memory",
    f"comes {median(RUN.first_pages(OURS, False)) / 1000:.2f} s after the start",
    f"serves {ratio(' over HTTPS, of the fastest Python peer'):.2f} times the pages",
    f"serves {ratio(', of the fastest Python peer', log=True):.1f} times the pages",
    f"at most {ratio(NEW):.1f} times Go",
]


@pytest.mark.parametrize("said", STATED)
def test_the_page_states_the_figures_of_the_run(said: str) -> None:
    assert said in text(PAGE)


def test_the_pages_a_second_are_those_of_the_run() -> None:
    _, *stated = zip(*rows(PAGE, "server", "requests not logged"), strict=True)
    run = [one for one in tables("bench/results.md") if one[0][-1] == "first page, ms"]
    for cells, (_, *measured) in zip(stated, run, strict=True):
        medians = {re.findall(r"[\d,]+", rate)[0] for _, rate, *_ in measured}
        assert set(re.findall(r"[\d,]+", " ".join(cells))) <= medians


@pytest.mark.parametrize(
    ("said", "peer"), [("Go's `net/http`", "Go `net/http` with redigo"), ("nginx with Lua",) * 2]
)
def test_the_ratios_are_those_of_the_run(said: str, peer: str) -> None:
    levels = ("1 connection", *(f"{one} connections" for one in ("8", "64", "512", "4,096")))
    first, _ = (row for row in rows(PAGE, "pages a second, as a multiple of") if row[0] == said)
    assert first[1:] == [f"{ratio(f', at {one}, of {peer}'):.2f}" for one in levels]
