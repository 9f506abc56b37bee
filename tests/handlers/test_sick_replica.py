"""``/faults``, ``--fault-rate`` and ``--fault-wait``: a replica that is made sick, and well."""

import json
import os
import re
import signal
import socket
import threading
import time
from pathlib import Path
from typing import Any, cast

import pytest

from process.burden import LOOK_EVERY
from tests.support.here import Serve, run_here
from tests.support.page import number_on
from tests.support.ports import held_port
from tests.support.processes import children, command, used
from tests.support.program import NOWHERE, Connect, Program, Site, Start, ask, seen
from tests.support.valkey import Valkey
from tests.support.waiting import wait_until

WELL = {"rate": 0.0, "wait": "0", "ready": True, "alive": True, "cpu": 0.0, "memory": "0"}

WELL_STATES = dict.fromkeys(("sick", "unready", "dead", "busy", "heavy"), 0)


def faults(server: Site) -> dict[str, Any]:
    return dict(json.loads(server.get("/faults")[1]))


def put(server: Site, **wrong: object) -> dict[str, Any]:
    """Set what is wrong, and return what it is then."""
    status, text = server.put("/faults", json.dumps(wrong).encode())
    assert status == 200, text
    return dict(json.loads(text))


NOT_TO_BE_SET: list[object] = [
    *(b"", b"[]", b"null", b"1", b"\xff", b"[" * 4096, b'[["rate", 1]]', b'{"rate": NaN}'),
    *({"rate": 1.1}, {"rate": -0.1}, {"rate": True}, {"rate": "1"}, {"rate": None}),
    *({"wait": 1}, {"wait": "2s-1s"}, {"wait": None}, {"wait": ["1s"]}),
    *({"ready": 0}, {"ready": None}, {"alive": "no"}, {"alive": 1, "ready": True}),
    *({"cpu": -0.1}, {"cpu": 65}, {"cpu": "1"}, {"cpu": True}, {"cpu": None}),
    *({"memory": 64}, {"memory": "64"}, {"memory": "64MB"}, {"memory": "65GiB"}, {"memory": None}),
    *({"memory": "-1MiB"}, {"memory": "1.5MiB"}, {"exit": -1}, {"exit": 256}, {"exit": "1"}),
    *({"exit": True}, {"exit": 1.0}, {"exit": None}, {"for": 30}, {"for": "61m"}, {"for": None}),
    *({"burden": 1}, {"until": 1}, {"rate": 1, "colour": "blue"}, {"self": 1}, {"cls": 1}),
]


def test_put_replaces_all_or_is_400_and_changes_nothing(serve: Serve, connect: Connect) -> None:
    server = serve("--faults", FAULT_RATE=".25", FAULT_WAIT="100ms-2s")
    assert faults(server) == WELL | {"rate": 0.25, "wait": "100ms-2s"}
    all_of_them = {"rate": 1, "wait": "1500ms", "ready": False, "alive": False}
    for wrong in (all_of_them, {"wait": "0s-10s"}, {"alive": False}, {"rate": 0.125}, {}):
        assert put(server, **wrong) == faults(server) == WELL | wrong
    server.wait_for(rb'faults: {"rate": 1.0, "wait": "1500ms", "ready": false, "alive": false')
    before = put(server, rate=0.5, wait="2s-2000ms")
    assert before["wait"] == "2s"
    for body in NOT_TO_BE_SET:
        sent = body if isinstance(body, bytes) else json.dumps(body).encode()
        status, text = server.put("/faults", sent)
        assert (status, text.count("\n")) == (400, 1), body
        assert text.startswith("400 Bad Request: allowed is a JSON object of ")
    # What is longer than any that can be set is not read.
    said = "400 Bad Request: Content-Length too long: a body has at most 4096 bytes\n"
    assert server.put("/faults", b" " * 4097) == (400, said)
    # As a page of this very site sends it, which may be another's, rebound to this address.
    asking = {"Host": "evil.example", "Origin": "http://evil.example"}
    client = connect(server)
    for method in ("OPTIONS", "GET", "HEAD", "POST", "PUT"):
        client.request(method, "/faults", headers=asking, body=b'{"rate": 1}')
        answer = client.getresponse()
        answer.read()
        assert answer.status == 403
        assert "access-control" not in str(answer.headers).lower()
    assert faults(server) == before
    server.stop()


def test_a_share_of_pages_is_answered_503_and_not_counted(
    serve: Serve, connect: Connect, valkey: Valkey
) -> None:
    client = connect(serve("--faults", "--fault-rate=0.5"))
    pages = [ask(client, "/") for _ in range(100)]
    shown = [number_on(page.encode()) for status, page in pages if status == 200]
    assert 0 < len(shown) < 100
    assert shown == list(range(1, len(shown) + 1))
    assert {page for status, page in pages if status != 200} == {"503 Service Unavailable\n"}
    assert valkey.counter() == len(shown)


def test_what_a_client_asks_for_comes_before_what_is_set(serve: Serve) -> None:
    server = serve("--faults", "--fault-rate=1", FAULT_WAIT="9s")
    begun = time.monotonic()
    for method in ("GET", "HEAD"):
        assert server.get("/?wait=0s", method)[0] == 503
    assert server.get("/?wait=0s&status=418")[0] == 418
    assert server.get("/?wait=0s&status=200")[1].endswith("<b>Visits:</b> 1")
    assert server.get("/", X_Fault_Rate="0", X_Fault_Wait="0")[0] == 200
    both = server.get("/?status=200", X_Fault_Rate="1", X_Fault_Wait="0")
    assert both[0] == 200, "the query is first"
    assert time.monotonic() - begun < 9
    put(server)
    begun = time.monotonic()
    assert server.get("/", X_Fault_Rate="1", X_Fault_Wait="300ms")[0] == 503
    assert time.monotonic() - begun >= 0.29
    assert server.get("/")[0] == 200, "for that request alone"
    for asked, said in (
        ({"X_Fault_Rate": "2"}, "X-Fault-Rate is a number from 0 to 1\n"),
        ({"X_Fault_Wait": "1m"}, "X-Fault-Wait is 0, a time up"),
    ):
        status, text = server.get("/", **asked)
        assert (status, text.startswith(f"400 Bad Request: {said}")) == (400, True)


def test_it_can_be_made_unready_and_dead_and_well_again(
    serve: Serve, connect: Connect, steps: list[threading.Event]
) -> None:
    server = serve("--faults")

    def readiness() -> tuple[int, str]:
        status, text = server.get("/readyz")
        return status, json.loads(text)["status"]

    for ready, alive in ((False, True), (True, False), (False, False), (True, True)):
        put(server, ready=ready, alive=alive)
        assert readiness() == ((200, "ready") if ready else (503, "unready"))
        told = (200, '{"status": "ok"}') if alive else (503, '{"status": "dead"}')
        assert server.get("/healthz") == told
        check = run_here("--healthcheck", f"--port={server.port}", "--address=127.0.0.1")
        assert check.returncode == (0 if alive else 1)
        assert server.get("/")[0] == 200, "whoever comes all the same is greeted"
    put(server, ready=False)
    server.signal()
    server.wait_for(b"stopping")
    assert readiness() == (503, "draining")
    for step in steps:
        step.set()


def faults_in_metrics(server: Site) -> dict[str, float]:
    found = re.findall(r'^friendlyhello_faults{kind="(.*)"} (.*)$', server.get("/metrics")[1], re.M)
    return {kind: float(number) for kind, number in found}


def wait_until_told(server: Site, *kinds: str) -> None:
    """Wait until metrics, whose text is made once a second, and the live page tell what is wrong.

    The page knows it of a replica that has counted nothing, too.
    """

    def shown() -> list[object]:
        replicas = cast("list[dict[str, object]]", server.event()["replicas"])
        return [one.get("faults") for one in replicas]

    states = WELL_STATES | dict.fromkeys(kinds, 1)
    wait_until(lambda: faults_in_metrics(server) == states, pause=0.1)
    wait_until(lambda: shown() == [[*kinds] or None], pause=0.1)


def test_every_worker_has_the_same_faults_one_that_starts_later_too_until_they_end(
    program: Start, connect: Connect, valkey: Valkey
) -> None:
    workers = program(f"--redis-url={valkey.url}", "--processes=2", "--faults")
    wait_until(lambda: len(children(workers.process.pid)) == 2)

    def answers() -> set[tuple[int, int]]:
        clients = [connect(workers) for _ in range(16)]  # spread over the workers
        found = {(ask(one, "/")[0], ask(one, "/readyz")[0]) for one in clients}
        for one in clients:
            one.close()
        return found

    put(workers, rate=1, ready=False, alive=False)
    assert answers() == {(503, 503)}
    wait_until_told(workers, "sick", "unready", "dead")
    victim = min(children(workers.process.pid))
    os.kill(victim, signal.SIGKILL)
    workers.wait_for(b"worker %d ended" % victim)
    wait_until(lambda: len(children(workers.process.pid) - {victim}) == 2)
    assert answers() == {(503, 503)}
    assert valkey.counter() == 0

    told = put(workers, **{"rate": 1, "cpu": 0.1, "for": "2s"})
    assert 0 < float(told.pop("for").removesuffix("s")) <= 2
    assert told == WELL | {"rate": 1.0, "cpu": 0.1}
    assert workers.get()[0] == 503
    wait_until(lambda: faults(workers) == WELL, pause=0.1)
    assert answers() == {(200, 200)}
    wait_until_told(workers)


@pytest.mark.parametrize(
    "signum", [signal.SIGKILL, pytest.param(signal.SIGTERM, marks=pytest.mark.slow)]
)
def test_cpu_is_burnt_by_processes_of_its_own_that_end_with_the_fault_or_the_replica(
    counting: Start, valkey: Valkey, signum: int
) -> None:
    server = counting(f"--redis-url={valkey.url}", "--faults")

    def burners() -> set[int]:
        return {pid for pid in children(server.process.pid) if b"burn.py" in command(pid)}

    begun = time.monotonic()
    assert put(server, cpu=1.25)["cpu"] == 1.25
    wait_until(lambda: len(burners()) == 2)
    burning = burners()
    wait_until(lambda: max(map(used, burning)) > 0.6)
    part = min(map(used, burning))
    assert part < 0.25 * (time.monotonic() - begun) + 0.2, "a quarter of a core, and its start"
    assert server.get()[0] == 200
    assert faults_in_metrics(server) == WELL_STATES | {"busy": 1}
    put(server, cpu=0.1)
    wait_until(lambda: len(burners()) == 1 and not burners() & burning)
    put(server)
    wait_until(lambda: not burners())
    wait_until(lambda: not faults_in_metrics(server)["busy"], pause=0.1)
    put(server, cpu=0.1)
    wait_until(burners)
    wait_until(lambda: faults_in_metrics(server)["busy"], pause=0.1)
    [burner] = burners()
    server.signal(signum)
    server.wait()
    wait_until(lambda: not Path(f"/proc/{burner}/cmdline").exists())


def memory(server: Program) -> list[int]:
    """Bytes that each process of the server that serves has of memory of its own; sorted."""
    pids = children(server.process.pid) or [server.process.pid]
    statuses = [Path(f"/proc/{pid}/status").read_text() for pid in pids]
    return sorted(int(one.split("RssAnon:")[1].split()[0]) * 1024 for one in statuses)


@pytest.mark.parametrize("processes", [1, 2])
def test_a_replica_takes_memory_once_and_ends_at_once_with_the_status_that_was_asked_for(
    counting: Start, connect: Connect, valkey: Valkey, processes: int
) -> None:
    patient = ("--grace=60", "--drain-delay=60", f"--processes={processes}")
    server = counting(f"--redis-url={valkey.url}", "--faults", *patient)
    before = memory(server)[-1]
    assert put(server, memory="64MiB")["memory"] == "64MiB"
    wait_until(lambda: memory(server)[-1] > before + (60 << 20))
    time.sleep(5 * LOOK_EVERY)  # in which another process would take it, too
    assert len([one for one in memory(server) if one > before + (32 << 20)]) == 1
    put(server)
    wait_until(lambda: memory(server)[-1] < before + (16 << 20))
    connect(server).request("GET", "/?wait=10s")
    seen(connect(server))
    assert put(server, exit=3)["exit"] == 3
    assert server.wait(20) == 3
    assert b"stopping" not in server.log
    assert b'faults: {"rate": 0.0' in server.log


def test_a_waiting_start_is_not_listening_and_can_be_stopped(served: Serve, program: Start) -> None:
    begun = time.monotonic()
    server = served(NOWHERE, "--faults", "--start-wait=1s")
    assert time.monotonic() - begun >= 1
    assert server.log.index(b"not listening for 1 s") < server.log.index(b"listening on")
    with held_port() as held:
        waiting = program(
            "--faults", "--start-wait=60m", f"--port={held.getsockname()[1]}", wait=False
        )
        waiting.wait_for(b"not listening for 3600 s")
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(held.getsockname())
    waiting.signal()
    assert waiting.wait() == 0
