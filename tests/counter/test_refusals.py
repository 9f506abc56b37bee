"""What Redis refuses, evicts or keeps otherwise than it was left costs no visit its number."""

import asyncio

import pytest

from counter import delivery, lookout
from counter.probing import TRIES
from tests.support import Caplog, Patch
from tests.support.counting import assert_said, counting, counts_on, permit
from tests.support.fake_redis import FakeRedis
from tests.support.page import counters_lines
from tests.support.valkey import Valkey
from tests.support.waiting import PATIENCE, eventually

AT_MOST_ONCE = "counting at most once, as Redis refuses the script: "

#: What stores and proxies have been seen to say.
WORDS = [
    "NOPERM this user has no permissions to run the 'evalsha' command",
    "ERR unknown command 'EVALSHA'",
    "ERR bad lua script for redis cluster, all the keys that the script uses should be passed",
]

#: States of a server, in which no command counts.
STATES = [
    *("LOADING Redis is loading", "READONLY You can't write", "MASTERDOWN Link is down"),
    *("MISCONF Redis is configured to save", "OOM command not allowed", "BUSY Redis is busy"),
    *("CLUSTERDOWN Hash slot not served", "NOREPLICAS Not enough good replicas to write."),
    *("NOAUTH Authentication required.", "WRONGPASS invalid username-password pair"),
    # As it takes nobody, or is to be asked elsewhere.
    *("DENIED Redis is running in protected mode", "ERR max number of clients reached"),
    *("MOVED 6680 127.0.0.1:7001", "ASK 6680 127.0.0.1:7001"),
    # As Redis before 7 says them of a command in a script.
    "ERR Error running script (call to f_1): @user_script:27: -OOM command not allowed",
]


@pytest.mark.parametrize("words", WORDS)
async def test_where_scripts_are_refused_visits_count_at_most_once_until_they_run_again(
    fake: FakeRedis, caplog: Caplog, monkeypatch: Patch, words: str
) -> None:
    caplog.set_level("INFO", logger="friendlyhello.visits")
    monkeypatch.setattr(delivery, "REFUSED_FOR", PATIENCE)
    fake.scripts_refused = f"-{words}\r\n".encode()
    async with counting(fake.url) as visits:
        await visits.start(PATIENCE)
        assert [await visits.count() for _ in range(3)] == [1, 2, 3]
        assert not visits.exactly_once
        assert visits.refusal == words.removeprefix("ERR ")
        lines = [AT_MOST_ONCE + visits.refusal, "counter on", "counting exactly once"]
        fake.scripts_refused = b""
        assert await visits.count() == 4
        assert not visits.exactly_once, "it is asked again after a while"
        monkeypatch.setattr(delivery, "REFUSED_FOR", 0)
        assert [await visits.count() for _ in range(2)] == [5, 6]
        assert visits.exactly_once
    assert [text for _, text in counters_lines(caplog)] == lines


async def test_plain_commands_are_sent_once_and_their_refusal_is_not_the_scripts(
    fake: FakeRedis,
) -> None:
    fake.scripts_refused = b"-NOPERM no scripts\r\n"
    async with counting(fake.url) as visits:
        assert await visits.count() == 1
        scripts = len([one for one in fake.commands if one.token])
        with fake.held():
            visit = asyncio.create_task(visits.count())
            await eventually(lambda: fake.counter == 2)
            fake.cut()
            assert await visit is None
        await eventually(lambda: visits.up)
        fake.replies["INCR"] = b"-NOPERM nor this\r\n"
        assert await visits.count() is None
        fake.replies.clear()
        await eventually(lambda: visits.up)
        assert await visits.count() == 3
        assert len([one for one in fake.commands if one.token]) == scripts, "that was no answer"


@pytest.mark.usefixtures("often_probed")
@pytest.mark.parametrize("words", STATES)
async def test_a_store_that_cannot_count_now_is_no_such_store(fake: FakeRedis, words: str) -> None:
    async with counting(fake.url) as visits:
        assert await visits.count() == 1
        fake.scripts_refused = f"-{words}\r\n".encode()
        assert await visits.count() is None
        assert not visits.up
        looks = len(fake.commands) + 2
        await eventually(lambda: len(fake.commands) >= looks)
        fake.scripts_refused = b""
        await eventually(lambda: visits.up)
        assert await visits.count() == 2
        assert visits.exactly_once
        assert not any(one.words[0].startswith("INCR") for one in fake.commands)


@pytest.mark.usefixtures("often_probed")
@pytest.mark.parametrize("on", ["scripts", "all"])
async def test_a_proxy_may_hang_up_on_scripts_alone(fake: FakeRedis, on: str) -> None:
    async def hang_up(writer: asyncio.StreamWriter, sound: bytes) -> None:
        if on == "all" or sound.startswith(b"?"):
            writer.close()
        else:
            writer.write(sound)

    async with counting(fake.url, timeout=1) as visits:
        fake.scripts_refused, fake.answer = b"?" if on == "scripts" else b"", hang_up
        await visits.start(PATIENCE)
        if on == "scripts":
            assert [await visits.count() for _ in range(3)] == [1, 2, 3]
            assert visits.refusal == "Redis closed the connection"
            assert sum(one.words[0].startswith("EVAL") for one in fake.commands) == TRIES
            return
        assert await visits.count() is None
        probes = len(fake.commands) + 2 * TRIES
        await eventually(lambda: len(fake.commands) >= probes)
        fake.heal()
        await eventually(lambda: visits.up)
        assert await visits.count() == fake.counter
        assert visits.exactly_once


@pytest.mark.usefixtures("often_probed")
@pytest.mark.parametrize(
    ("said", "reason"),
    [
        (b"-NOPERM this user has no permissions\r\n", "WAIT: NOPERM this user has no permissions"),
        (b"-UNBLOCKED by a client\r\n", "WAIT: UNBLOCKED by a client"),
        (b":0\r\n", "0 of 1 replicas acknowledged the visits"),
    ],
)
async def test_a_visit_that_no_replica_acknowledges_is_no_refusal_of_the_script(
    fake: FakeRedis, caplog: Caplog, said: bytes, reason: str
) -> None:
    fake.replies["WAIT"] = b":1\r\n"
    async with counting(fake.url, wait=1) as visits:
        assert await visits.count() == 1
        fake.replies["WAIT"] = said
        assert await visits.count() is None
        assert visits.reason == reason
        fake.replies["WAIT"] = b":1\r\n"
        await eventually(lambda: visits.up)
        assert await visits.count()
        assert visits.exactly_once
    assert not any(one.words[0].startswith("INCR") for one in fake.commands)
    assert_said(caplog, f"counter off: {reason}")


#: What goes wrong once a visit has counted, and how the log says so; None: it mends itself.
FAULTS = {
    "SET PROCESS x": AT_MOST_ONCE + "WRONGTYPE",
    "HSET PROCESS token x": None,
    "RPUSH {counter}:spares x": AT_MOST_ONCE + "WRONGTYPE",
    "ZADD {counter}:spares 1 'x y'": "spare numbers that cannot be read were dropped",
    "DEL PROCESS": None,
    "ACL SETUSER default resetkeys ~counter": AT_MOST_ONCE + "NOPERM",
}


@pytest.mark.parametrize(("fault", "said"), FAULTS.items())
async def test_a_fault_beside_costs_no_number(
    valkey: Valkey, caplog: Caplog, fault: str, said: str | None
) -> None:
    caplog.set_level("WARNING", logger="friendlyhello.visits")
    async with counting(valkey.url) as visits:
        numbers = await counts_on(visits, valkey, fault)
        if "ZADD" in fault:
            valkey.client.zadd("{counter}:spares", {"x y": 1})  # and it is not said again
        numbers.append(await visits.count() or 0)
        assert numbers == list(range(numbers[0], numbers[0] + 54))
        assert visits.exactly_once == (said is None or not said.startswith(AT_MOST_ONCE))
    assert_said(caplog, said)


@pytest.mark.usefixtures("often_probed")
async def test_a_redis_that_may_evict_keys_is_warned_of_while_it_may(
    valkey: Valkey, caplog: Caplog, monkeypatch: Patch
) -> None:
    monkeypatch.setattr(lookout, "ASK_EVERY", 0.01)
    said: list[str] = []
    valkey.client.config_set("maxmemory", "100mb")
    valkey.client.config_set("maxmemory-policy", "volatile-lru")
    permit(valkey.client, "-info")  # it does not tell
    async with counting(valkey.url) as visits:
        await visits.start(PATIENCE)
        await eventually(lambda: visits._lookout._asking.done())
        assert not visits.warning
        permit(valkey.client, "+info")
        for policy, most in (
            *(("volatile-lru", "100mb"), ("noeviction", "100mb")),
            *(("allkeys-random", "100mb"), ("allkeys-random", "0")),
        ):
            valkey.client.config_set("maxmemory-policy", policy)
            valkey.client.config_set("maxmemory", most)
            warns = policy != "noeviction" and most != "0"
            await eventually(lambda warns=warns: bool(visits.warning) is warns)
            assert await visits.count() is not None
            if warns:  # and the log says so once, however often it asks
                asked = visits._lookout._asking
                await eventually(
                    lambda asked=asked: (now := visits._lookout._asking) is not asked and now.done()
                )
                assert policy in visits.warning
                assert "use noeviction" in visits.warning
                said.append(visits.warning)
    assert counters_lines(caplog) == [("WARNING", one) for one in said]
