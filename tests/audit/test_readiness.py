"""``check.py --wait``: the audit begins when all is ready, and says what it waits for."""

import asyncio
import json
import signal
import ssl
from pathlib import Path

import pytest
import trustme

from audit.client import Target
from audit.readiness import until_ready
from tests.audit.conftest import CHECK, Speaking, answer, check, page, started
from tests.support import Patch
from tests.support.ports import held_port
from tests.support.waiting import PATIENCE


def ready(redis: str, **more: str) -> tuple[int, str]:
    return 200, json.dumps({"status": "ready", "redis": redis, **more})


def wait_for(url: str, replicas: int = 1) -> list[str]:
    said: list[str] = []
    asyncio.run(until_ready(Target(url), replicas, PATIENCE, PATIENCE, said.append))
    return said


def test_it_waits_for_redis_and_for_each_replica_and_says_so_once(speaking: Speaking) -> None:
    up, down = ready("up"), ready("down", reason="refused\x1b[2J\n")
    answers = [
        answer(0, body="no healthy upstream", first="HTTP/1.1 503 X"),
        answer(0, body="default backend", first="HTTP/1.1 404 X"),
        *(down, (503, *down[1:]), ready("down", reason="für 3")),
        *(up, page(None, "a")),
        *(up, page(1, "a")),
        *(up, page(2, "a")),
        *(up, page(3, "b")),
    ]
    server = speaking(lambda n: answers[n - 1])
    assert wait_for(f"{server.url}/hello?a=1", replicas=2) == [
        "waiting: status 503",
        "waiting: what answers is not friendlyhello: status 404",
        "waiting: Redis is down: refused\\x1b[2J\\n",
        "waiting: Redis is down: für 3",
        "waiting: a counts no visits",
        "waiting: 1 of 2 replicas have answered",
        "ready",
    ]
    asked = [head.split()[1] for head in server.heads]
    assert asked == ["/hello/readyz"] * 5 + ["/hello/readyz", "/hello?a=1"] * 4


@pytest.mark.parametrize("body", ["[]", "{}", "nothing", '{"redis": "down", "reason": {}}'])
def test_what_is_no_state_of_readiness_is_waited_out(body: str, speaking: Speaking) -> None:
    answers = [answer(0, "Content-Type: application/json", body=body), ready("up"), page(1)]
    _, last = wait_for(speaking(lambda n: answers[n - 1]).url)
    assert last == "ready"


def test_when_the_time_is_over_the_line_says_what_is_missing(speaking: Speaking) -> None:
    with held_port() as nobodys:
        for url, missing in (
            (speaking(lambda n: ready("down", reason="no")).url, "Redis is down: no"),
            (f"http://127.0.0.1:{nobodys.getsockname()[1]}", "refused"),
        ):
            result = check(url, "--wait=0.2")
            assert (result.returncode, result.stdout) == (1, "")
            assert result.stderr == (
                f"check.py: waiting: {missing}\n"
                f"check.py: FAILED: after 0.2 s still waiting: {missing}\n"
            )


def test_an_authority_that_comes_later_is_trusted_then(
    speaking: Speaking, folder: Path, monkeypatch: Patch
) -> None:
    file, authority = folder / "ca.pem", trustme.CA()
    monkeypatch.setenv("SSL_CERT_FILE", str(file))
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority.issue_cert("localhost").configure_cert(context)
    url = speaking(lambda n: ready("up") if n == 1 else page(n), tls=context).url
    # At the first handshake: the file is there from the second look on.
    context.sni_callback = lambda *_: authority.cert_pem.write_to_path(str(file))
    result = check(url, f"--wait={PATIENCE}", "--requests=3")
    assert (result.returncode, result.stderr) == (
        0,
        "check.py: waiting: certificate not trusted: unable to get local issuer certificate\n"
        "check.py: ready\n",
    )


def test_sigterm_ends_it_at_once(speaking: Speaking) -> None:
    with started(*CHECK, speaking(lambda n: ready("down")).url, "--wait=600") as process:
        line = process.stderr.readline()  # at once
        process.send_signal(signal.SIGTERM)
        assert process.wait(PATIENCE / 2) == 128 + signal.SIGTERM
    assert line == "check.py: waiting: Redis is down: no reason yet\n"
