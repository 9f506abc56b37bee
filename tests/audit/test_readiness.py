"""``check.py --wait``: the audit begins when all is ready, and says what it waits for."""

import asyncio
import json
import signal
import ssl
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import trustme

from audit.client import Target, tls_context
from audit.readiness import NotReady, Readiness
from tests.audit.auditing import Speaking, answer, check, page, started
from tests.support.here import Serve
from tests.support.waiting import PATIENCE


def ready(redis: str, **more: str) -> tuple[int, str]:
    return 200, json.dumps({"status": "ready", "redis": redis, **more})


def wait_for(
    url: str,
    *,
    replicas: int = 1,
    seconds: float = PATIENCE,
    tls: Callable[[], ssl.SSLContext] = tls_context,
) -> list[str]:
    said: list[str] = []
    target = Target(url, tls=tls)
    asyncio.run(Readiness(target, replicas, seconds, PATIENCE, said.append).reached())
    return said


def test_it_waits_for_redis_and_for_each_replica_and_says_so_once(speaking: Speaking) -> None:
    up, down = ready("up"), ready("down", reason="refused\x1b")
    answers = [
        answer(0, body="no healthy upstream", first="HTTP/1.1 503 X"),
        answer(0, body="default backend", first="HTTP/1.1 404 X"),
        *(down, (503, *down[1:])),
        *(up, page(None, "a")),
        *(up, page(1, "a")),
        *(up, page(2, "a")),
        *(up, page(3, "b")),
    ]
    server = speaking(lambda n: answers[n - 1])
    assert wait_for(f"{server.url}/hello?a=1", replicas=2) == [
        "waiting: status 503",
        "waiting: what answers is not friendlyhello: status 404",
        "waiting: Redis is down: refused\\x1b",
        "waiting: a counts no visits",
        "waiting: 1 of 2 replicas have answered",
        "ready",
    ]
    asked = [head.split()[1] for head in server.heads]
    assert asked == ["/hello/readyz"] * 4 + ["/hello/readyz", "/hello?a=1"] * 4


def test_it_says_nothing_where_all_is_ready(serve: Serve) -> None:
    assert wait_for(serve().url) == []


@pytest.mark.parametrize(
    "body", ["[]", "{}", "nothing", '{"redis": "up"', '{"redis": "down", "reason": {}}']
)
def test_what_is_no_state_of_readiness_is_waited_out(body: str, speaking: Speaking) -> None:
    answers = [answer(0, "Content-Type: application/json", body=body), ready("up"), page(1)]
    said = wait_for(speaking(lambda n: answers[n - 1]).url)
    assert said[-1] == "ready"
    assert len(said) == 2


def test_when_the_time_is_over_the_line_says_what_is_missing(speaking: Speaking) -> None:
    result = check(speaking(lambda n: ready("down", reason="refused")).url, "--wait=0.2")
    assert (result.returncode, result.stdout) == (1, "")
    assert result.stderr == (
        "check.py: waiting: Redis is down: refused\n"
        "check.py: FAILED: after 0.2 s still waiting: Redis is down: refused\n"
    )


def test_an_authority_that_comes_later_is_trusted_then(speaking: Speaking, folder: Path) -> None:
    authority = trustme.CA()
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority.issue_cert("127.0.0.1").configure_cert(context)
    server = speaking(lambda n: (ready("up"), page(1))[n - 1], tls=context)
    url = f"https://127.0.0.1:{server.port}"
    with pytest.raises(NotReady, match="certificate not trusted: unable to get local issuer"):
        wait_for(url, seconds=0.01)

    file = folder / "ca.pem"
    # Named by its address, no name is asked for: the file is there from the second look on.
    context.sni_callback = lambda *_: authority.cert_pem.write_to_path(str(file))

    def tls() -> ssl.SSLContext:
        return tls_context(str(file) if file.exists() else None)

    said = wait_for(url, tls=tls)
    assert [line.partition(":")[0] for line in said] == ["waiting", "ready"]


def test_sigterm_ends_it_at_once(speaking: Speaking) -> None:
    with started(speaking(lambda n: ready("down")).url, "--wait=600") as process:
        assert process.stderr is not None
        line = process.stderr.readline()  # at once
        asked = time.monotonic()
        process.send_signal(signal.SIGTERM)
        status = process.wait(PATIENCE)
        ended = time.monotonic()
    assert line == "check.py: waiting: Redis is down: no reason yet\n"
    assert status == 128 + signal.SIGTERM
    assert ended - asked < PATIENCE / 2
