"""``/faults``, ``--fault-rate`` and ``--fault-wait``: a replica that is made sick, and well."""

import contextlib
import errno
import json
import os
import signal
import socket
import time
from collections.abc import Callable
from http.client import HTTPConnection
from pathlib import Path
from typing import Any, cast

import pytest

from process.burden import LOOK_EVERY
from tests.support.page import number_on
from tests.support.ports import held_port
from tests.support.processes import children
from tests.support.program import Program, run_to_end
from tests.support.valkey import Valkey
from tests.support.waiting import wait_until
from tests.test_server import seen

Start = Callable[..., Program]
Connect = Callable[[Program], HTTPConnection]

WELL = {"rate": 0.0, "wait": "0", "ready": True, "alive": True, "cpu": 0.0, "memory": "0"}

STATES = dict.fromkeys(("busy", "heavy"), 0)
WELL_STATES = STATES | dict.fromkeys(("sick", "unready", "dead"), 0)


def send(client: HTTPConnection, method: str, path: str, body: object = None) -> tuple[int, str]:
    """Return the status and body of the answer; an object is sent as JSON."""
    sent = body if isinstance(body, bytes | None) else json.dumps(body)
    client.request(method, path, body=sent)
    answer = client.getresponse()
    return answer.status, answer.read().decode()


def put(client: HTTPConnection, **faults: object) -> dict[str, Any]:
    """Set what is wrong, and return what it is then."""
    status, text = send(client, "PUT", "/faults", faults)
    assert status == 200, text
    assert json.loads(text) == json.loads(send(client, "GET", "/faults")[1])
    return dict(json.loads(text))


def test_put_replaces_what_is_wrong_and_what_it_leaves_out_is_well(
    counting: Start, connect: Connect, valkey: Valkey
) -> None:
    server = counting(
        f"--redis-url={valkey.url}", "--faults", FAULT_RATE=".25", FAULT_WAIT="100ms-2s"
    )
    client = connect(server)
    text = send(client, "GET", "/faults")[1]
    assert json.loads(text) == WELL | {"rate": 0.25, "wait": "100ms-2s"}
    for faults in (
        {"rate": 1, "wait": "1500ms", "ready": False, "alive": False},
        {"wait": "0s-10s"},
        {"alive": False},
        {"rate": 0.125},
    ):
        told = WELL | faults
        assert put(client, **faults) == told
    assert put(client, wait="1.5s")["wait"] == "1500ms"
    assert put(client, wait="2s-2000ms")["wait"] == "2s"
    assert put(client) == WELL
    server.wait_for(rb'faults: {"rate": 1.0, "wait": "1500ms", "ready": false, "alive": false')


NOT_TO_BE_SET: list[object] = [
    *(None, b"", b"{", b"[]", b"null", b"1", b"\xff", b"[" * 4096, b'[["rate", 1]]'),
    *({"rate": 1.1}, {"rate": -0.1}, {"rate": True}, {"rate": "1"}, {"rate": None}),
    *(b'{"rate": NaN}', b'{"rate": 1e999}', b'{"rate": ' + b"9" * 4000 + b"}"),
    *({"wait": 1}, {"wait": "1"}, {"wait": "2s-1s"}, {"wait": "1s-2s-3s"}, {"wait": "11s"}),
    *({"wait": None}, {"wait": "-1s"}, {"wait": ["1s"]}, {"wait": "1s-"}, {"wait": ""}),
    *({"ready": 0}, {"ready": "no"}, {"alive": None}, {"alive": 1, "ready": True}),
    *({"cpu": -0.1}, {"cpu": 65}, {"cpu": "1"}, {"cpu": True}, {"cpu": None}, b'{"cpu": NaN}'),
    *({"memory": 64}, {"memory": "64"}, {"memory": "64MB"}, {"memory": "65GiB"}, {"memory": None}),
    *({"memory": "-1MiB"}, {"memory": "1.5MiB"}, {"exit": -1}, {"exit": 256}, {"exit": "1"}),
    *({"exit": True}, {"exit": 1.0}, {"for": 30}, {"for": "x"}, {"for": "61m"}, {"for": "-1s"}),
    *({"for": None}, {"exit": None}, {"ready": None}),
    *(
        {"burden": 1},
        {"until": 1},
        {"rates": 1},
        {"rate": 1, "colour": "blue"},
        {"self": 1},
        {"cls": 1},
        {"": 1},
    ),
]


def test_what_cannot_be_set_is_400_with_one_line_and_changes_nothing(
    counting: Start, connect: Connect, valkey: Valkey
) -> None:
    server = counting(f"--redis-url={valkey.url}", "--faults")
    client = connect(server)
    before = put(client, rate=0.5, wait="1ms")
    for body in NOT_TO_BE_SET:
        status, text = send(client, "PUT", "/faults", body)
        assert status == 400, body
        assert text.startswith("400 Bad Request: allowed is a JSON object of ")
        assert text.count("\n") == 1
    assert json.loads(send(client, "GET", "/faults")[1]) == before
    server.signal()
    assert server.wait() == 0
    assert b"Traceback" not in server.log


def test_what_is_longer_than_any_that_can_be_set_is_not_read(
    counting: Start, connect: Connect, valkey: Valkey
) -> None:
    client = connect(counting(f"--redis-url={valkey.url}", "--faults"))
    status, text = send(client, "PUT", "/faults", b" " * 4097)
    said = "400 Bad Request: Content-Length too long: a body has at most 4096 bytes\n"
    assert (status, text) == (400, said)


def test_a_share_of_pages_is_answered_503_and_not_counted(
    counting: Start, connect: Connect, valkey: Valkey
) -> None:
    server = counting(f"--redis-url={valkey.url}", "--faults", "--fault-rate=0.5")
    client = connect(server)
    pages = [send(client, "GET", "/") for _ in range(100)]
    shown = [number_on(page.encode()) for status, page in pages if status == 200]
    assert 0 < len(shown) < 100
    assert shown == list(range(1, len(shown) + 1))
    assert {page for status, page in pages if status != 200} == {"503 Service Unavailable\n"}
    assert valkey.counter() == len(shown)


def test_what_a_client_asks_for_comes_before_what_is_set(
    counting: Start, connect: Connect, valkey: Valkey
) -> None:
    server = counting(f"--redis-url={valkey.url}", "--faults", "--fault-rate=1", FAULT_WAIT="9s")
    client = connect(server)
    begun = time.monotonic()
    for method in ("GET", "HEAD"):
        assert send(client, method, "/?wait=0s")[0] == 503
    assert send(client, "GET", "/?wait=0s&status=418")[0] == 418
    assert send(client, "GET", "/?wait=0s&status=200")[1].endswith("<b>Visits:</b> 1")
    assert time.monotonic() - begun < 9
    assert valkey.counter() == 1


def test_each_page_waits_for_a_time_of_its_own(
    counting: Start, connect: Connect, valkey: Valkey
) -> None:
    server = counting(f"--redis-url={valkey.url}", "--faults", "--fault-wait=300ms-1s")
    clients = [connect(server) for _ in range(20)]
    begun = time.monotonic()
    for client in clients:
        client.request("GET", "/")
    numbers = [number_on(client.getresponse().read()) for client in clients]
    assert time.monotonic() - begun > 0.3 - 0.01
    # They are counted in the order in which they have waited, not in that of their arrival.
    assert sorted(filter(None, numbers)) == list(range(1, 21)) != numbers
    put(clients[0], wait="10s")
    clients[1].request("GET", "/")
    seen(clients[2])
    clients[1].close()
    server.wait_for(rb"400 GET / ")
    assert valkey.counter() == 20, "a client that left is not counted"


def test_it_can_be_made_unready_and_dead_and_well_again(
    counting: Start, connect: Connect, valkey: Valkey
) -> None:
    server = counting(f"--redis-url={valkey.url}", "--faults")
    client = connect(server)
    for ready, alive in ((False, True), (True, False), (False, False), (True, True)):
        put(client, ready=ready, alive=alive)
        status, text = send(client, "GET", "/readyz")
        assert (status, json.loads(text)["status"]) == (
            (200, "ready") if ready else (503, "unready")
        )
        assert send(client, "GET", "/healthz") == (
            (200, '{"status": "ok"}') if alive else (503, '{"status": "dead"}')
        )
        check = run_to_end("--healthcheck", f"--port={server.port}", "--address=127.0.0.1")
        assert check.returncode == (0 if alive else 1)
        assert send(client, "GET", "/")[0] == 200, "whoever comes all the same is greeted"
    put(client, ready=False)
    client.request("GET", "/?wait=2s")
    seen(other := connect(server))
    server.signal()
    server.wait_for(b"stopping")
    status, text = send(other, "GET", "/readyz")
    assert (status, json.loads(text)["status"]) == (503, "draining")


def faults_in_metrics(server: Program) -> dict[str, float]:
    lines = server.get("/metrics")[1].splitlines()
    prefix = 'friendlyhello_faults{kind="'
    found = [one.removeprefix(prefix).split('"} ') for one in lines if one.startswith(prefix)]
    return {kind: float(number) for kind, number in found}


def test_the_metrics_say_what_is_wrong(counting: Start, connect: Connect, valkey: Valkey) -> None:
    server = counting(f"--redis-url={valkey.url}", "--faults", "--fault-rate=0.5")
    wait_until(
        lambda: faults_in_metrics(server) == STATES | {"sick": 1, "unready": 0, "dead": 0}
    )  # a text is made once a second
    client = connect(server)
    put(client, wait="1ms", ready=False)
    wait_until(
        lambda: faults_in_metrics(server) == STATES | {"sick": 1, "unready": 1, "dead": 0}
    )  # a text is made once a second
    put(client, alive=False)
    wait_until(
        lambda: faults_in_metrics(server) == STATES | {"sick": 0, "unready": 0, "dead": 1}
    )  # a text is made once a second
    put(client)
    wait_until(
        lambda: faults_in_metrics(server) == STATES | {"sick": 0, "unready": 0, "dead": 0}
    )  # a text is made once a second


def test_every_worker_has_the_same_faults_one_that_starts_later_too(
    program: Start, connect: Connect, valkey: Valkey
) -> None:
    server = program(f"--redis-url={valkey.url}", "--processes=2", "--faults")
    wait_until(lambda: len(children(server.process.pid)) == 2)
    put(connect(server), rate=1, ready=False)

    def answers() -> set[tuple[int, int]]:
        clients = [connect(server) for _ in range(16)]  # spread over the workers
        found = {(send(one, "GET", "/")[0], send(one, "GET", "/readyz")[0]) for one in clients}
        wait_until(
            lambda: faults_in_metrics(server) == STATES | {"sick": 1, "unready": 1, "dead": 0}
        )  # a text is made once a second
        return found

    assert answers() == {(503, 503)}
    victim = min(children(server.process.pid))
    os.kill(victim, signal.SIGKILL)
    server.wait_for(b"worker %d ended" % victim)
    wait_until(lambda: len(children(server.process.pid) - {victim}) == 2)
    assert answers() == {(503, 503)}
    assert valkey.counter() == 0


def faults_in_events(server: Program) -> list[object]:
    replicas = cast("list[dict[str, object]]", server.event()["replicas"])
    return [one.get("faults") for one in replicas]


@pytest.mark.parametrize("processes", [pytest.param(1, marks=pytest.mark.slow), 2])
def test_the_live_page_knows_what_is_wrong_with_a_replica_that_counts_nothing(
    processes: int, program: Start, connect: Connect, valkey: Valkey
) -> None:
    server = program(
        f"--redis-url={valkey.url}", "--faults", "--fault-rate=1", f"--processes={processes}"
    )
    wait_until(lambda: faults_in_events(server) == [["sick"]])
    client = connect(server)
    put(client, rate=1, ready=False, alive=False)
    wait_until(lambda: faults_in_events(server) == [["sick", "unready", "dead"]])
    assert valkey.counter() == 0
    put(client)
    wait_until(lambda: faults_in_events(server) == [None])
    assert server.visits() == 1


def test_no_page_in_a_browser_can_set_them_whatever_its_name_leads_to(
    counting: Start, connect: Connect, valkey: Valkey
) -> None:
    client = connect(counting(f"--redis-url={valkey.url}", "--faults"))
    # As a page of this very site sends it, which may be another's, rebound to this address.
    asking = {"Host": "evil.example", "Origin": "http://evil.example"}
    for method in ("OPTIONS", "GET", "POST", "PUT"):
        client.request(method, "/faults", headers=asking, body=b'{"rate": 1}')
        answer = client.getresponse()
        answer.read()
        assert answer.status == 403
        assert not [name for name in answer.headers if name.lower().startswith("access-control")]


def test_without_faults_there_is_no_such_path(
    counting: Start, connect: Connect, valkey: Valkey
) -> None:
    client = connect(counting(f"--redis-url={valkey.url}"))
    for method in ("GET", "PUT"):
        assert send(client, method, "/faults", {"rate": 1}) == (404, "404 Not Found\n")
    assert send(client, "GET", "/healthz")[0] == 200


def memory(server: Program) -> list[int]:
    """Bytes that each process of the server that serves has of memory of its own; sorted."""
    pids = children(server.process.pid) or [server.process.pid]
    statuses = [Path(f"/proc/{pid}/status").read_text() for pid in pids]
    return sorted(int(one.split("RssAnon:")[1].split()[0]) * 1024 for one in statuses)


def burners(server: Program) -> list[int]:
    """The processes that burn CPU for a server that is one process."""
    found = []
    for pid in children(server.process.pid):
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):  # it has just ended
            if b"burn.py" in Path(f"/proc/{pid}/cmdline").read_bytes():
                found.append(pid)
    return found


def used(pid: int) -> float:
    """Seconds of CPU that a process has used (proc_pid_stat(5))."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def test_cpu_is_burnt_by_processes_of_its_own_that_end_with_the_fault(
    counting: Start, connect: Connect, valkey: Valkey
) -> None:
    server = counting(f"--redis-url={valkey.url}", "--faults")
    client, begun = connect(server), time.monotonic()
    assert put(client, cpu=1.25)["cpu"] == 1.25
    wait_until(lambda: len(burners(server)) == 2)
    burning = burners(server)
    wait_until(lambda: max(map(used, burning)) > 1)
    part = min(map(used, burning))
    assert part < 0.25 * (time.monotonic() - begun) + 0.2, "a quarter of a core, and its start"
    assert send(client, "GET", "/")[0] == 200
    assert faults_in_metrics(server) == WELL_STATES | {"busy": 1}
    put(client, cpu=1)
    wait_until(lambda: len(burners(server)) == 1 and not {*burners(server)} & {*burning})
    put(client)
    wait_until(lambda: not burners(server))


@pytest.mark.parametrize("signum", [signal.SIGTERM, signal.SIGKILL])
def test_a_replica_that_is_stopped_leaves_nothing_that_burns(
    counting: Start, connect: Connect, valkey: Valkey, signum: int
) -> None:
    server = counting(f"--redis-url={valkey.url}", "--faults")
    put(connect(server), cpu=0.1)
    wait_until(lambda: burners(server))
    [burner] = burners(server)
    server.signal(signum)
    server.wait()
    wait_until(lambda: not Path(f"/proc/{burner}/cmdline").exists())


@pytest.mark.parametrize("processes", [1, 2])
def test_memory_is_taken_once_for_a_replica_and_given_back(
    counting: Start, connect: Connect, valkey: Valkey, processes: int
) -> None:
    server = counting(f"--redis-url={valkey.url}", "--faults", f"--processes={processes}")
    before = memory(server)[-1]
    assert put(connect(server), memory="64MiB")["memory"] == "64MiB"
    wait_until(lambda: memory(server)[-1] > before + (60 << 20))
    time.sleep(5 * LOOK_EVERY)  # in which another process would take it, too
    assert len([one for one in memory(server) if one > before + (32 << 20)]) == 1
    put(connect(server))
    wait_until(lambda: memory(server)[-1] < before + (16 << 20))


@pytest.mark.parametrize("processes", [1, 2])
def test_a_replica_ends_at_once_with_the_status_that_was_asked_for(
    counting: Start, connect: Connect, valkey: Valkey, processes: int
) -> None:
    server = counting(
        *(f"--redis-url={valkey.url}", "--faults", "--grace=60"),
        *("--drain-delay=60", f"--processes={processes}"),
    )
    client, other = connect(server), connect(server)
    other.request("GET", "/?wait=10s")
    seen(connect(server))
    status, text = send(client, "PUT", "/faults", {"exit": 3})
    assert (status, json.loads(text)["exit"]) == (200, 3)
    assert server.wait(20) == 3
    assert b"stopping" not in server.log
    assert b'faults: {"rate": 0.0' in server.log


def test_a_fault_ends_by_itself_in_every_worker(
    counting: Start, connect: Connect, valkey: Valkey
) -> None:
    server = counting(f"--redis-url={valkey.url}", "--faults", "--processes=2")
    text = send(connect(server), "PUT", "/faults", {"rate": 1, "cpu": 0.1, "for": "3s"})[1]
    told = json.loads(text)
    assert 0 < float(told.pop("for").removesuffix("s")) <= 3
    assert told == WELL | {"rate": 1.0, "cpu": 0.1}
    assert send(connect(server), "GET", "/")[0] == 503
    wait_until(lambda: json.loads(send(connect(server), "GET", "/faults")[1]) == WELL)
    assert {send(connect(server), "GET", "/")[0] for _ in range(16)} == {200}
    assert faults_in_metrics(server) == WELL_STATES


def test_a_client_asks_for_faults_of_its_own(
    counting: Start, connect: Connect, valkey: Valkey
) -> None:
    server = counting(f"--redis-url={valkey.url}", "--faults")
    client = connect(server)

    def asked(path: str = "/", **headers: str) -> tuple[int, str]:
        names = {name.replace("_", "-"): value for name, value in headers.items()}
        client.request("GET", path, headers=names)
        answer = client.getresponse()
        return answer.status, answer.read().decode()

    assert asked(X_Fault_Rate="1")[0] == 503
    assert asked()[0] == 200, "for that request alone"
    begun = time.monotonic()
    assert asked(X_Fault_Wait="300ms")[0] == 200
    assert time.monotonic() - begun >= 0.29
    put(client, rate=1)
    assert asked(X_Fault_Rate="0")[0] == 200
    assert asked("/?status=200", X_Fault_Rate="1")[0] == 200, "the query comes first"
    assert asked(X_Fault_Rate="2") == (
        *(400, "400 Bad Request: X-Fault-Rate is a number from 0 to 1\n"),
    )
    assert asked(X_Fault_Wait="1m")[1].startswith("400 Bad Request: X-Fault-Wait is 0, a time up")


def test_headers_ask_for_nothing_where_faults_are_not_allowed(
    counting: Start, valkey: Valkey
) -> None:
    server = counting(f"--redis-url={valkey.url}")
    assert server.get("/", X_Fault_Rate="1")[0] == 200


def test_a_start_that_waits_is_not_listening_and_can_be_stopped(
    program: Start, valkey: Valkey
) -> None:
    begun = time.monotonic()
    server = program(f"--redis-url={valkey.url}", "--faults", "--start-wait=1s")
    assert time.monotonic() - begun >= 1
    assert server.log.index(b"not listening for 1 s") < server.log.index(b"listening on")
    with held_port() as held, socket.socket() as client:
        port = held.getsockname()[1]
        waiting = program("--faults", "--start-wait=60m", f"--port={port}", wait=False)
        waiting.wait_for(b"not listening for 3600 s")
        assert client.connect_ex(("127.0.0.1", port)) == errno.ECONNREFUSED
    waiting.signal()
    assert waiting.wait() == 0
