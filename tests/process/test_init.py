"""Process 1: it reaps what others leave, takes no status of the server's, and passes signals on.

The kernel makes no test the first process of anything without root. But a process may be the one
that orphans come to (PR_SET_CHILD_SUBREAPER of prctl(2)); `container/test_run.py` has the real one.
"""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from process.signals import SAME_SIGNAL
from tests.support import ROOT
from tests.support.before import run_before
from tests.support.processes import SOON, children, seconds_to_stop
from tests.support.program import Connect, Program, Start, environment, seen
from tests.support.valkey import Valkey
from tests.support.waiting import PATIENCE, wait_until

#: Makes a process believe that it is process 1, and orphans below it come to it.
PROCESS_1 = """
import ctypes, os
ctypes.CDLL(None).prctl(36, 1, 0, 0, 0)
os.getpid = lambda own=os.getpid, first=os.getpid(): 1 if own() == first else own()
"""

#: As whatever started the program may have left it.
SIGCHLD_IGNORED = "import signal; signal.signal(signal.SIGCHLD, signal.SIG_IGN)"


@pytest.fixture
def first(program: Start, valkey: Valkey, tmp_path: Path) -> Start:
    def start(*flags: str) -> Program:
        env = run_before(tmp_path, PROCESS_1 + SIGCHLD_IGNORED)
        one = program(f"--redis-url={valkey.url}", "--redis-timeout=60", *flags, **env)
        one.wait_for(b"counter on")
        return one

    return start


ORPHANS = """
import os, subprocess, sys, time
from process import leave_process_1
leave_process_1()
for _ in range(10):
    if os.fork() == 0:
        if os.fork() == 0:
            time.sleep(0.01)
        os._exit(0)
    os.wait()
for status in range(5):
    done = subprocess.run([sys.executable, "-SIc", f"raise SystemExit({status})"])
    assert done.returncode == status, done
print("asked", flush=True)
time.sleep(60)
"""


def test_orphans_are_reaped_and_no_status_that_the_server_waits_for_is_taken() -> None:
    process_1 = subprocess.Popen(
        [sys.executable, "-c", PROCESS_1 + ORPHANS], cwd=ROOT, stdout=subprocess.PIPE
    )
    with process_1:
        assert process_1.stdout
        assert process_1.stdout.readline() == b"asked\n"
        wait_until(
            lambda: len(children(process_1.pid)) == 1 and not children(process_1.pid, ended=True)
        )
        process_1.terminate()
        assert process_1.wait() == 0


def test_a_worker_that_died_is_replaced_below_process_1(first: Start) -> None:
    one = first("--processes=2")
    (server,) = children(one.process.pid)
    victim = min(children(server))
    os.kill(victim, signal.SIGKILL)
    one.wait_for(b"worker %d ended with status -9, starting another" % victim)
    assert not children(one.process.pid, ended=True)
    # Its status tells how the server has ended.
    os.kill(server, signal.SIGKILL)
    assert one.wait() == 128 + signal.SIGKILL


SIGNALS = [
    signal.SIGTERM,
    *(pytest.param(one, marks=pytest.mark.slow) for one in (signal.SIGINT, signal.SIGHUP)),
]


@pytest.mark.parametrize("signum", SIGNALS)
def test_process_1_drains_and_is_gone_within_a_second(signum: int, first: Start) -> None:
    one = first()
    assert one.visits() == 1
    assert seconds_to_stop(one, signum) < SOON
    assert b"stopping" in one.log


def test_a_second_signal_stops_at_once(first: Start, connect: Connect, valkey: Valkey) -> None:
    one = first("--grace=60")
    visitor, bystander = connect(one), connect(one)
    valkey.hang()
    visitor.request("GET", "/")
    seen(bystander)
    one.signal()
    one.wait_for(b"stopping")
    time.sleep(SAME_SIGNAL)  # else it would be the same
    assert seconds_to_stop(one, signal.SIGTERM, 128 + signal.SIGTERM) < SOON


def test_process_1_serves_where_it_may_not_fork(
    program: Start, valkey: Valkey, tmp_path: Path
) -> None:
    refuse = "\ndef fork():\n    raise BlockingIOError(11, 'no')\nos.fork = fork\n"
    one = program(f"--redis-url={valkey.url}", **run_before(tmp_path, PROCESS_1 + refuse))
    one.wait_for(b"counter on")
    assert not children(one.process.pid)
    assert seconds_to_stop(one) < SOON


@pytest.mark.parametrize("signum", SIGNALS)
@pytest.mark.parametrize("module", ["config", "handlers"])  # before its fork, and after it
def test_a_signal_during_imports_ends_process_1(module: str, signum: int, tmp_path: Path) -> None:
    importing = tmp_path / "importing"
    slow = f"""
import sys, time, pathlib
class Slow:
    def find_spec(self, name, path=None, target=None):
        if name == {module!r}:
            pathlib.Path({str(importing)!r}).touch()
            for _ in range(1000):  # a signal just before one long sleep would not end it
                time.sleep(0.05)
sys.meta_path.insert(0, Slow())
"""
    env = environment(**run_before(tmp_path, PROCESS_1 + slow))
    command = [sys.executable, "server.py", "--port=0"]
    with subprocess.Popen(command, cwd=ROOT, env=env, stderr=subprocess.PIPE) as one:
        wait_until(importing.exists)
        one.send_signal(signum)
        assert one.communicate(timeout=PATIENCE)[1] == b""
    assert one.returncode == 0
