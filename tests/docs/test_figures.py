"""The figures that the pages state are those of the code.

Where one changes, the page has to say the new one: here is what it says.
"""

import re
from functools import cache

import pytest
import yaml

import limits
from counter import batches, link, opening, resolver
from embedded import journal, keeper, leftover
from http1 import acceptor, body, busy_poll, head, outbox, server, stream
from process import signals, standard_error
from replicas import known, marks, records, states, telling, turns
from tests import mutants
from tests.docs.test_docs import rows
from tests.support import ROOT, patient_loops
from watch import broadcast, events

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
    """A time, as the pages write it."""
    return TIMES.get(seconds, f"{seconds:g} s")


def number(value: float) -> str:
    """A number, as the pages write it."""
    return NUMBERS.get(round(value), f"{value:,.0f}")


def size(size: int) -> str:
    """A number of bytes, as the pages write it."""
    return f"{size >> 20} MB" if size >= 1 << 20 else f"{size >> 10} kB"


@cache
def manifest(name: str) -> str:
    return (ROOT / "deploy" / name).read_text()


def environment(name: str) -> dict[str, object]:
    """The variables of the page in the Kubernetes base."""
    [container] = deployment()["template"]["spec"]["containers"]
    return {one["name"]: one.get("value") for one in container["env"]}


def deployment() -> dict:
    return next(yaml.safe_load_all(manifest("kubernetes/web.yaml")))["spec"]


def scaling() -> dict:
    return next(yaml.safe_load_all(manifest("kubernetes/scaling.yaml")))["spec"]


def stack() -> dict:
    return yaml.safe_load(manifest("stack.yaml"))["services"]["web"]


def argument(component: str, name: str) -> int:
    """What a component's manifest gives the audit."""
    [found] = re.findall(rf"--{name}=(\d+)", manifest(f"kubernetes/components/{component}"))
    return int(found)


def weights() -> tuple[int, int]:
    old, new = re.findall(r"weight: (\d+)", manifest("kubernetes/components/canary/route.yaml"))
    return int(old), int(new)


def made(pattern: str) -> str:
    """What the Makefile says."""
    [found, *_] = re.findall(pattern, (ROOT / "Makefile").read_text(), re.M)
    return str(found).strip()


def of_bench(name: str) -> str:
    """A constant of the benchmark, which takes packages of its own to import."""
    [found] = re.findall(rf"^{name} = (.+)$", (ROOT / "bench/run.py").read_text(), re.M)
    return " and ".join(str(found).strip("()").rsplit(", ", 1))


def user_of_the_image() -> str:
    [found] = re.findall(r"^USER (\d+)", (ROOT / "Dockerfile").read_text(), re.M)
    return str(found)


def checked_every(file: str, option: str, unit: str) -> int:
    """How often an image's health check runs, in this unit."""
    [found] = re.findall(rf" --{option}=(\d+){unit} ", (ROOT / file).read_text())
    return int(found)


def of_manifest(name: str, field: str) -> list[int]:
    """The numbers that a manifest of Kubernetes has in the fields of this name."""
    found = re.findall(rf"\b{field}: (\d+)", manifest(f"kubernetes/{name}"))
    assert found, f"{name} has no {field}"
    return [int(one) for one in found]


JOB, ROLLOUT = (f"components/{one}" for one in ("audit/job.yaml", "rollouts/rollout.yaml"))

#: A share of the replicas, in percent, as the page says it.
SHARES = {10: "a tenth of the replicas", 50: "half of them"}

THREADS = resolver.MAX_LOOK_UPS + 2  # the main one, and the log's

#: A page, and what it says.
WATCHING = [
    f"nothing for {time(states.SILENT_AFTER)} while others did",
    f"was seen more than {time(states.SILENT_AFTER)} later",
    f"when the previous event is more than {time(events.MAX_GAP)} old",
    f"the newest {marks.MAX_MARKS} marks of the last day",
    f"the second report takes {time(telling.GOODBYE_TIMEOUT)} at most",
    f"at most {records.MAX_TEXT} characters of a text",
    f"asks Redis once {time(broadcast.EVERY)}",
    f"in the last {time(known.FRESH)}, and {number(known.AGAIN)} other records in turn",
    f"again after {number(broadcast.RETRY[0] / 1000)} to {time(broadcast.RETRY[1] / 1000)}",
    f"Up to {size(standard_error.MOST_WAITING)} of lines waits",
    f"it waits {time(standard_error.PATIENCE)} for standard error",
    f"{number(limits.WAITING_VISITS)} visits wait for Redis",
]

NAMES = [
    f"the next address after {time(opening.ATTEMPT_DELAY)}",
    f"Every {time(opening.LOOK_UP_EVERY)} the server looks up the name of Redis again",
    f"If {number(opening.LOOK_UPS)} answers in a row do not contain",
    f"moves within {time(opening.LOOK_UPS * opening.LOOK_UP_EVERY)} after DNS has changed",
    f"another look-up of the same name every {time(resolver.HANGS_AFTER)}.",
    f"at most {resolver.MAX_LOOK_UPS} of these threads",
    f"at most {THREADS} threads",
    f"by {THREADS} for each",
    f"fit into the limit of {stack()['deploy']['resources']['limits']['pids']}",
    f"keeps {limits.RESERVE} descriptors",
    f"kept the server waiting for {time(server.LEAST_STALLED)}",
    f"only after {time(acceptor.SPELL)} with room",
]

VALKEY = [
    f"a log of more than {size(keeper.LONG_LOG)}",
    f"ends again within {time(keeper.STEADY)}",
    f"up to {keeper.LONGEST:g} seconds",
    f"has run for {time(keeper.STEADY)}",
    f"gives Valkey {time(leftover.STOP)}",
    f"keeps the last {number(journal.COPIES)}",
]

HTTP_SERVER = [
    f"idle for less than {server.LEAST_IDLE:g} s",
    f"kept it waiting for {time(server.LEAST_STALLED)}",
    f"looks again every {acceptor.LOOK_AGAIN:g} s",
    f"has more than {head.MAX_HOST} bytes",
    f"at most {head.MAX_FIELDS} headers, each with a name of at most {head.MAX_NAME} bytes",
    f"a method of at most {head.MAX_METHOD} bytes",
    f"has at most {size(body.MAX_LINE)}",
    f"has {stream.TLS_CLOSE:g} s to answer it",
    f"reads for up to {time(stream.LINGERING_CLOSE)}",
    f"those of up to {outbox.SMALL >> 10} KiB leave together",
    f"turning for {1000 * busy_poll.BUSY_POLL:g} ms",
    f"All pass but {number(len(rows('tests/README.md', 'test', 'why')))},",
]

DEPLOY = [
    f"is healthy after {number(checked_every('Dockerfile', 'interval', 's'))} seconds",
    f"{number(1000 / checked_every('docker-bake.hcl', 'start-interval', 'ms'))} times a second",
    f"base and the Swarm stack set {environment('web')['DRAIN_DELAY']} seconds",
    f"base and the Swarm stack set {stack()['environment']['DRAIN_DELAY']} seconds",
    f"both set {deployment()['template']['spec']['terminationGracePeriodSeconds']} seconds",
    f"both set {stack()['stop_grace_period'].rstrip('s')} seconds",
    f"The same signal within {time(signals.SAME_SIGNAL)}",
    f"The manifests allow {stack()['deploy']['resources']['limits']['memory'].rstrip('M')} MB",
    f"runs {number(stack()['deploy']['replicas'])} replicas",
    f"{number(scaling()['minReplicas'])} to {number(scaling()['maxReplicas'])} replicas",
    f"deployment/web {environment('web')['ADMIN_PORT']}`",
    "The weights, {} and {},".format(*weights()),
    f"makes {number(argument('audit/job.yaml', 'requests'))} visits",
    f"for up to {number(argument('audit/job.yaml', 'wait') // 60)} minutes",
    f"volume claim of {of_manifest('redis.yaml', 'storage')[0]} GiB",
    "gets {}, then {}, then all".format(
        *(SHARES[one] for one in of_manifest(ROLLOUT, "setWeight"))
    ),
    f"deletes it {time(of_manifest(JOB, 'ttlSecondsAfterFinished')[0])} after its end",
    "after five seconds. The page shows a number only after a replica has it",
]

DESIGN = [
    f"keeps the last {head._parse_cached.cache_info().maxsize} heads",
    f"pieces of {time(turns.TURN)}",
    f"idle, each look reads {number(known.AGAIN)}, in turn",
    f"{number(batches.GATHER_TURNS)} turns after a large batch",
    f"addresses {time(opening.ATTEMPT_DELAY)} apart",
    f"for {1e6 * busy_poll.BUSY_POLL:g} µs at most",
    f"for {1e6 * link.BUSY_POLL:g} µs at most",
    f"writes at most {1 / standard_error.PAUSE:g} times a second",
]

TESTS = [
    f"moves by {1000 * patient_loops.TICK:g} ms at most",
    f"More than one in {number(1 / mutants.MOST_SURVIVORS)} is an error",
    f"It takes {made('real Valkey, in ([a-z ]+) *$')} on two cores",
]

FAULTS = [f"takes {60 * float(made('SOAK .= (.+)')):g} seconds"]

FIGURES = [
    *(("docs/design.md", said) for said in DESIGN),
    *(("tests/README.md", said) for said in TESTS),
    *(("tests/faults/README.md", said) for said in FAULTS),
    ("CONTRIBUTING.md", f"takes {made('real Valkey, in ([a-z ]+) *$')}"),
    ("CONTRIBUTING.md", f"Python {made('needs Python ([0-9.]+)')} or newer"),
    ("bench/README.md", f"with {of_bench('LEVELS')} connections"),
    ("bench/README.md", f"| {int(of_bench('MOST')):,} connections |"),
    ("bench/README.md", f"about {made('its peers, in ([0-9]+) minutes')} minutes"),
    ("SECURITY.md", f"as user {user_of_the_image()}"),
    ("docs/deploy.md", f"as user {user_of_the_image()}"),
    *(("docs/watching.md", said) for said in WATCHING),
    *(("docs/names.md", said) for said in NAMES),
    *(("docs/valkey.md", said) for said in VALKEY),
    *(("docs/http-server.md", said) for said in HTTP_SERVER),
    *(("docs/deploy.md", said) for said in DEPLOY),
]


def text(page: str) -> str:
    """A page on one line."""
    return " ".join((ROOT / page).read_text("utf-8").split())


@pytest.mark.parametrize(("page", "said"), FIGURES)
def test_the_figures_of_a_page_are_those_of_the_code(page: str, said: str) -> None:
    assert said in text(page)


def test_the_sentinels_wait_as_long_as_the_page_says() -> None:
    found = re.search(
        r"down-after-milliseconds friendlyhello (\d+)",
        manifest("kubernetes/components/sentinel/sentinel.sh"),
    )
    assert found
    assert f"the primary, after {time(int(found[1]) / 1000)}." in text("docs/deploy.md")
