"""``check.py --wait``: the audit begins when all is ready, and says what it waits for."""

import asyncio
import json
import signal
import ssl
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import trustme

from audit.client import Target, tls_context
from audit.readiness import NotReady, Readiness
from tests.audit.auditing import Answer, SpeakingServer, check, page
from tests.support import ROOT
from tests.support.program import Program
from tests.support.valkey import Valkey
from tests.support.waiting import PATIENCE

Speaking = Callable[..., SpeakingServer]


def answer(status: int, body: str, content_type: str = "application/json") -> bytes:
    head = f"HTTP/1.1 {status} X\r\nContent-Type: {content_type}\r\nContent-Length: {len(body)}"
    return f"{head}\r\n\r\n{body}".encode()


def ready(redis: str, **more: str) -> bytes:
    return answer(200, json.dumps({"status": "ready", "redis": redis, **more}))


def greeted(number: int | None, hostname: str) -> bytes:
    return answer(*page(number, hostname))


def wait_for(
    url: str,
    said: list[str],
    *,
    replicas: int = 1,
    seconds: float = PATIENCE,
    tls: Callable[[], ssl.SSLContext] = tls_context,
) -> None:
    target = Target(url, tls=tls)
    asyncio.run(Readiness(target, replicas, seconds, PATIENCE, said.append).reached())


def test_it_waits_for_redis_and_for_each_replica_and_says_so_once(speaking: Speaking) -> None:
    up, down = ready("up"), ready("down", reason="refused\x1b")
    answers = [
        answer(503, "no healthy upstream", "text/plain"),
        answer(404, "default backend", "text/plain"),
        *(down, down),
        *(up, greeted(None, "a")),
        *(up, greeted(1, "a")),
        *(up, greeted(2, "a")),
        *(up, greeted(3, "b")),
    ]
    server = speaking(lambda n: answers[n - 1])
    said: list[str] = []
    wait_for(f"http://127.0.0.1:{server.port}/hello", said, replicas=2)
    assert said == [
        "waiting: status 503",
        "waiting: what answers is not friendlyhello: status 404",
        "waiting: Redis is down: refused\\x1b",
        "waiting: a counts no visits",
        "waiting: 1 of 2 replicas have answered",
        "ready",
    ]
    asked = [head.split()[1] for head in server.heads]
    assert asked == ["/hello/readyz"] * 4 + ["/hello/readyz", "/hello"] * 4


def test_it_says_nothing_where_all_is_ready(
    counting: Callable[..., Program], valkey: Valkey
) -> None:
    said: list[str] = []
    wait_for(counting(f"--redis-url={valkey.url}").url, said)
    assert said == []


@pytest.mark.parametrize(
    "body", ["[]", "{}", "nothing", '{"redis": "up"', '{"redis": "down", "reason": {}}']
)
def test_what_is_no_state_of_readiness_is_waited_out(body: str, speaking: Speaking) -> None:
    answers = [answer(200, body), ready("up"), greeted(1, "a")]
    said: list[str] = []
    wait_for(f"http://127.0.0.1:{speaking(lambda n: answers[n - 1]).port}", said)
    assert said[-1] == "ready"
    assert len(said) == 2


def test_when_the_time_is_over_the_line_says_what_is_missing(
    answering: Callable[[Answer], str],
) -> None:
    url = answering(lambda n: (200, '{"redis": "down", "reason": "refused"}'))
    result = check(url, "--wait=0.2")
    assert (result.returncode, result.stdout) == (1, "")
    assert result.stderr == (
        "check.py: waiting: Redis is down: refused\n"
        "check.py: FAILED: after 0.2 s still waiting: Redis is down: refused\n"
    )


@pytest.fixture
def secured(speaking: Speaking, folder: Path) -> SpeakingServer:
    """A server whose CA is written to a file when it is first asked."""
    authority = trustme.CA()
    tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority.issue_cert("127.0.0.1").configure_cert(tls)
    server = speaking(lambda n: (ready("up"), greeted(1, "a"))[n - 1], tls=tls)
    # Named by its address, no name is asked for: the file is there from the second look on.
    tls.sni_callback = lambda *_: authority.cert_pem.write_to_path(str(folder / "ca.pem"))
    return server


def test_a_certificate_that_is_refused_is_named_with_the_reason(secured: SpeakingServer) -> None:
    said: list[str] = []
    with pytest.raises(NotReady, match="certificate not trusted: unable to get local issuer"):
        wait_for(f"https://127.0.0.1:{secured.port}", said, seconds=0.01)


def test_authorities_that_come_later_are_trusted_then(
    secured: SpeakingServer, folder: Path
) -> None:
    def tls() -> ssl.SSLContext:
        file = folder / "ca.pem"
        return tls_context(str(file) if file.exists() else None)

    said: list[str] = []
    wait_for(f"https://127.0.0.1:{secured.port}", said, tls=tls)
    assert [line.partition(":")[0] for line in said] == ["waiting", "ready"]


def test_sigterm_ends_it_at_once(answering: Callable[[Answer], str]) -> None:
    url = answering(lambda n: (200, '{"redis": "down"}'))
    with subprocess.Popen(
        [sys.executable, str(ROOT / "check.py"), url, "--wait=600"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            assert process.stderr is not None
            line = process.stderr.readline()  # at once
            asked = time.monotonic()
            process.send_signal(signal.SIGTERM)
            status = process.wait(PATIENCE)
            ended = time.monotonic()
        finally:
            process.kill()
    assert line == "check.py: waiting: Redis is down: no reason yet\n"
    assert status == 128 + signal.SIGTERM
    assert ended - asked < PATIENCE / 2
