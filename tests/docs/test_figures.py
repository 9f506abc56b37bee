"""The figures that the pages state are those of the code.

Where one changes, the page has to say the new one: here is of what, in a sentence of the page.
"""

import math
import re
from functools import cache

import pytest
import yaml
from tornado.web import StaticFileHandler

import limits
import server as program
from config import Settings, wait
from config.checks import MAX_LABELS
from counter import batches, connector, delivery, link, lookout, opening, outage, probing, resolver
from embedded import journal, keeper, leftover
from handlers.faults import MOST_CORES
from http1 import acceptor, body, busy_poll, head, outbox, server, stream
from process import memory, signals, standard_error, tls, workers
from replicas import figures, keys, known, marks, records, states, telling, turns
from replicas import link as reading
from tests import mutants
from tests.docs.test_docs import rows
from tests.support import ROOT, patient_loops
from watch import broadcast, events
from watch.metrics import SHARE_EVERY

TIMES = {
    0.0005: "half a millisecond",
    0.1: "a tenth of a second",
    0.25: "a quarter of a second",
    0.5: "half a second",
    1: "a second",
    2: "two seconds",
    3: "three seconds",
    5: "five seconds",
    10: "ten seconds",
    60: "a minute",
    3600: "an hour",
}

NUMBERS: dict[int, str] = {
    1: "one",
    2: "two",
    3: "three",
    4: "four",
    5: "five",
    8: "eight",
    10: "ten",
    20: "twenty",
}


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


@cache
def read(file: str) -> str:
    return (ROOT / file).read_text("utf-8")


def text(page: str) -> str:
    return " ".join(read(page).split())


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


def of_bench(name: str) -> str:
    """A constant of the benchmark, which takes packages of its own to import."""
    return " and ".join(found("bench/run.py", rf"^{name} = (.+)$").strip("()").rsplit(", ", 1))


def argument(name: str) -> int:
    return int(found(AUDIT, rf"--{name}=(\d+)"))


def manifest(name: str) -> dict:
    return next(yaml.safe_load_all(read(f"deploy/{name}")))


def room(each: int) -> int:
    """How many connections the memory of compose.yaml is enough for."""
    return ((int(found("compose.yaml", r"mem_limit: (\d+)m")) << 20) - limits.BASE) // each


def checked_every(file: str, option: str) -> int:
    """How often an image's health check runs, in the unit of the file."""
    return int(found(file, rf" --{option}=(\d+)m?s "))


AUDIT = "deploy/kubernetes/components/audit/job.yaml"
DEFAULTS = Settings()
STACK = manifest("stack.yaml")["services"]["web"]
POD = manifest("kubernetes/web.yaml")["spec"]["template"]["spec"]
SCALING = manifest("kubernetes/scaling.yaml")["spec"]
ENVIRONMENT = {one["name"]: one.get("value") for one in POD["containers"][0]["env"]}
DELAYS = {f"{one['DRAIN_DELAY']}" for one in (ENVIRONMENT, STACK["environment"])}
GRACES = {f"{POD['terminationGracePeriodSeconds']}s", STACK["stop_grace_period"]}
THREADS = resolver.MAX_LOOK_UPS + 2  # the main one, and the log's
PYTHON = found("pyproject.toml", r'^requires-python = ">=(.+)"$')
BASE_IMAGE = found("Dockerfile", "^ARG PYTHON_IMAGE=(.+)$")
USER = found("Dockerfile", r"^USER (\d+)")
TESTS_TAKE = made("real Valkey, in ([a-z ]+) *$")
DOWN_AFTER = found(
    "deploy/kubernetes/components/sentinel/sentinel.sh",
    r"down-after-milliseconds friendlyhello (\d+)",
)

HOUR = time(round(sum(limits.STREAM_SECONDS) / 2))
OF_THE_BUTTON = float(found("static/send.js", "^const EVERY = (.+);"))  # milliseconds
LAST_VISITS = float(found("check.py", "^LAST_VISITS = (.+)$"))

#: A share of the replicas, in percent, as the page says it.
SHARES = {"10": "a tenth of the replicas", "50": "half of them"}
ROLLED_OUT = re.findall(
    r"setWeight: (\d+)", read("deploy/kubernetes/components/rollouts/rollout.yaml")
)

#: Of each page what is stated, by words of the sentence in which it is, and the figure in it.
FIGURES: dict[str, list[tuple[str, object]]] = {
    "README.md": [
        ("Linux Python", f"{PYTHON} or newer"),
        ("`--redis-timeout`", f"{DEFAULTS.redis_timeout:g} seconds"),
        ("two cores", TESTS_TAKE),
        ("port taken", made("PORT .= (.+)")),
    ],
    "CONTRIBUTING.md": [
        ("`make test`", TESTS_TAKE),
        ("Linux Python", f"{made('needs Python ([0-9.]+)')} or newer"),
    ],
    "SECURITY.md": [
        ("image user", USER),
    ],
    "bench/README.md": [
        ("connections without", of_bench("LEVELS")),
        ("connections", f"{int(of_bench('MOST')):,}"),
        ("One run", f"{made('its peers, in ([0-9]+) minutes')} minutes"),
    ],
    "docs/guide.md": [
        (
            "adds base",
            f"{int(found('tests/container/test_image.py', r'^MOST_ADDED = (.+)$')) / 1e6:g} MB",
        ),
        ("adds base", BASE_IMAGE),
        ("pip", f"{PYTHON} or newer"),
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
        ("default", f"{DEFAULTS.idle_timeout:g}"),
        ("image", BASE_IMAGE.partition("-")[0].replace("python:", "Python ")),
        ("oldest supported Redis", figures.OLDEST),
    ],
    "docs/counting.md": [
        ("`--redis-timeout`", f"{DEFAULTS.redis_timeout:g} s"),
        ("looks for Redis", often(probing.PROBE_EVERY)),
        ("further reason", f"{number(outage.MAX_REASONS)} reasons"),
        ("another look-up", time(resolver.HANGS_AFTER)),
        ("another connection", time(connector.STUCK_AFTER)),
        ("asks them again", often(probing.PROBE_EVERY)),
        ("queue holds", f"{limits.WAITING_VISITS:,}"),
        ("no visit comes", time(probing.PROBE_EVERY)),
        ("visitor has gone", time(probing.PROBE_EVERY)),
        ("gives Redis", f"{lookout.HAND_ON_TIMEOUT:g} s"),
        ("longer", f"{lookout.HAND_ON_TIMEOUT:g} s"),
        ("counter past", f"10^{math.log10(of_lua('counter/token.lua', 'EXACT')):g}"),
        ("script again", time(delivery.REFUSED_FOR)),
        ("refusal", number(probing.TRIES)),
        ("times without Redis", number(figures.MAX_OUTAGES)),
        ("step versions", number(of_lua("replicas/figures.lua", "VERSIONS"))),
        *(("steps", steps(one)) for one in keys.HISTORIES.values()),
    ],
    "docs/systemd.md": [
        ("need", f"Python {PYTHON} or newer"),
    ],
    "docs/paths.md": [
        ("ends stream", HOUR),
        ("letters", f"1 to {found('handlers/base.py', r'{1,(.+)}')} letters"),
        ("Caches", f"{number(StaticFileHandler.CACHE_MAX_AGE / 86400 / 365)} years"),
        ("cores", MOST_CORES),
        ("memory", f"{wait.MOST_BYTES >> 30} GiB"),
        ("eaders 431", f"{int(str(limits.HTTP['max_header_size'])) >> 10} kB"),
    ],
    "docs/watching.md": [
        ("others", time(states.SILENT_AFTER)),
        ("another replica later", time(states.SILENT_AFTER)),
        ("event old", time(events.MAX_GAP)),
        ("visits second", f"{number(1000 / OF_THE_BUTTON)} visits a second"),
        ("up to old", time(SHARE_EVERY)),
        ("times a second", f"{1 / standard_error.PAUSE:g} times"),
        ("ends stream", HOUR),
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
        ("wait for Redis", number(limits.WAITING_VISITS)),
    ],
    "docs/audit.md": [
        ("waits at most", time(LAST_VISITS)),
        ("listens port", found("audit/hook.py", '"PORT", "(.+?)"')),
    ],
    "docs/names.md": [
        ("next address", time(opening.ATTEMPT_DELAY)),
        ("name of Redis", time(opening.LOOK_UP_EVERY)),
        ("answers in a row", number(opening.LOOK_UPS)),
        ("DNS has changed", time(opening.LOOK_UPS * opening.LOOK_UP_EVERY)),
        ("same name", time(resolver.HANGS_AFTER)),
        ("these threads", resolver.MAX_LOOK_UPS),
        ("at most threads", THREADS),
        ("raise limit", THREADS),
        ("limit", STACK["deploy"]["resources"]["limits"]["pids"]),
        ("descriptors", limits.RESERVE),
        ("waiting for", time(server.LEAST_STALLED)),
        ("room", time(acceptor.QUIET)),
    ],
    "docs/valkey.md": [
        ("log more than", size(keeper.LONG_LOG)),
        ("ends again", time(keeper.STEADY)),
        ("twice as long", f"{keeper.LONGEST:g} seconds"),
        ("has run for", time(keeper.STEADY)),
        ("to end", time(leftover.STOP)),
        ("keeps last", number(journal.COPIES)),
    ],
    "docs/http-server.md": [
        ("idle less than", f"{server.LEAST_IDLE:g} s"),
        ("looks again", f"{acceptor.LOOK_AGAIN:g} s"),
        ("`Host` bytes", head.MAX_HOST),
        ("headers", f"{head.MAX_FIELDS} headers"),
        ("name bytes", f"{head.MAX_NAME} bytes"),
        ("method bytes", f"{head.MAX_METHOD} bytes"),
        ("line trailer", size(body.MAX_LINE)),
        ("close_notify answer", f"{stream.TLS_CLOSE:g} s"),
        ("still reads", time(stream.LINGERING_CLOSE)),
        ("together turn", f"{outbox.SMALL >> 10} KiB"),
        ("turning", f"{1000 * busy_poll.BUSY_POLL:g} ms"),
        ("pass but", number(len(rows("tests/README.md", "test", "why")))),
    ],
    "docs/deploy.md": [
        ("port 80 user", USER),
        ("healthy after", f"{number(checked_every('Dockerfile', 'interval'))} seconds"),
        (
            "second",
            f"{number(1000 / checked_every('docker-bake.hcl', 'start-interval'))} times a second",
        ),
        ("volume claim", f"{found('deploy/kubernetes/redis.yaml', r'storage: ([0-9]+)')} GiB"),
        ("gets then all", ", then ".join(SHARES[one] for one in ROLLED_OUT)),
        ("after its end", time(int(found(AUDIT, r"ttlSecondsAfterFinished: (.+)")))),
        ("base Swarm stack", f"{min(DELAYS)} seconds"),
        ("both set", f"{min(GRACES)[:-1]} seconds"),
        ("same signal", time(signals.SAME_SIGNAL)),
        ("manifests", STACK["deploy"]["resources"]["limits"]["memory"].replace("M", " MB")),
        ("stack runs", f"{number(STACK['deploy']['replicas'])} replicas"),
        (
            "replicas",
            f"{number(SCALING['minReplicas'])} to {number(SCALING['maxReplicas'])} replicas",
        ),
        ("port-forward", f"deployment/web {ENVIRONMENT['ADMIN_PORT']}"),
        (
            "weights",
            " and ".join(
                re.findall(r"weight: (\d+)", read("deploy/kubernetes/components/canary/route.yaml"))
            ),
        ),
        ("visits count", number(argument("requests"))),
        ("for up to", f"{number(argument('wait') // 60)} minutes"),
        ("replica primary", time(int(DOWN_AFTER) / 1000)),
    ],
    "docs/design.md": [
        ("last heads", head._parse_cached.cache_info().maxsize),
        ("pieces", time(turns.TURN)),
        ("look", number(known.AGAIN)),
        ("large batch", number(batches.GATHER_TURNS)),
        ("addresses apart", time(opening.ATTEMPT_DELAY)),
        ("at most", f"{1e6 * busy_poll.BUSY_POLL:g} µs"),
        ("at most", f"{1e6 * link.BUSY_POLL:g} µs"),
        ("writes second", f"{1 / standard_error.PAUSE:g} times"),
    ],
    "tests/README.md": [
        ("clock moves", f"{1000 * patient_loops.TICK:g} ms"),
        ("More error", f"one in {number(1 / mutants.MOST_SURVIVORS)}"),
        ("two cores", TESTS_TAKE),
    ],
    "tests/faults/README.md": [
        ("soak", f"{60 * float(made('SOAK .= (.+)')):g} seconds"),
    ],
}


@cache
def sentences(page: str) -> list[str]:
    return re.split(r"(?<=[.:;?!])\s|(?<=[.:;?!]\*\*)\s|\s\|\s|\s- ", text(page))


@pytest.mark.parametrize(
    ("page", "words", "figure"),
    [(page, *one) for page, those in FIGURES.items() for one in those],
)
def test_the_figures_of_a_page_are_those_of_the_code(page: str, words: str, figure: object) -> None:
    stated = re.sub(r" s$", " s(econds)?", re.escape(f"{figure}").replace(r"\ ", " "))
    said = [one for one in sentences(page) if all(word in one for word in words.split())]
    assert said, "no sentence has these words"
    assert any(re.search(rf"(?i)(?<![\w.,]){stated}(?!\w)", one) for one in said), said


def test_the_base_and_the_stack_are_alike_and_the_page_says_both_at_once() -> None:
    assert len(DELAYS) == len(GRACES) == 1
