"""A store that does not run the script, in whatever words it says so: visits count at most once."""

import pytest

from counter.probing import TRIES
from tests.support import Caplog
from tests.support.counting import counting, permit
from tests.support.fake_redis import Connection, FakeRedis
from tests.support.page import counters_lines
from tests.support.valkey import Valkey
from tests.support.waiting import PATIENCE, eventually

#: What stores and proxies have been seen to say.
WORDS = [
    "NOPERM this user has no permissions to run the 'evalsha' command",
    "ERR unknown command 'EVALSHA'",
    "ERR unknown or unsupported command 'EVALSHA'",
    "ERR command eval not support for your account",
    "ERR Lua scripting is not enabled",
    "ERR bad lua script for redis cluster, all the keys that the script uses should be passed "
    "using the KEYS array",
    "ERR Could not find scripting engine 'lua'",
    "ERR unsupported",
]

#: States of a server, in which no command counts.
STATES = [
    "LOADING Redis is loading the dataset in memory",
    "READONLY You can't write against a read only replica.",
    "MASTERDOWN Link with MASTER is down",
    "MISCONF Redis is configured to save RDB snapshots",
    "OOM command not allowed when used memory > 'maxmemory'.",
    "BUSY Redis is busy running a script.",
    "CLUSTERDOWN Hash slot not served",
    "NOREPLICAS Not enough good replicas to write.",
    "NOAUTH Authentication required.",
    "WRONGPASS invalid username-password pair or user is disabled.",
    # As it takes nobody, or is to be asked elsewhere.
    "DENIED Redis is running in protected mode",
    "ERR max number of clients reached",
    "MOVED 6680 127.0.0.1:7001",
    "ASK 6680 127.0.0.1:7001",
    # As Redis before 7 says them of a command in a script.
    "ERR Error running script (call to f_1): @user_script:27: -OOM command not allowed",
]


@pytest.mark.parametrize("words", WORDS)
async def test_where_scripts_are_refused_visits_count_at_most_once(
    fake: FakeRedis, caplog: Caplog, words: str
) -> None:
    caplog.set_level("INFO", logger="friendlyhello.visits")
    fake.scripts_refused = f"-{words}\r\n".encode()
    async with counting(fake.url) as visits:
        await visits.start(PATIENCE)
        assert [await visits.count() for _ in range(3)] == [1, 2, 3]
        assert not visits.exactly_once
        text = words.removeprefix("ERR ")
        assert visits.refusal == text
    said = [text for level, text in counters_lines(caplog) if level == "WARNING"]
    assert said == [f"counting at most once, as Redis refuses the script: {text}"]


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
async def test_a_proxy_that_hangs_up_on_scripts_alone_counts_at_most_once(
    fake: FakeRedis, on: str
) -> None:
    async def hang_up(connection: Connection, sound: bytes) -> None:
        if on == "all" or sound.startswith(b"?"):
            connection.writer.close()
        else:
            connection.writer.write(sound)

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


# Eviction.


@pytest.mark.parametrize(
    ("maxmemory", "policy", "warns"),
    [
        *(("100mb", "volatile-lru", True), ("100mb", "allkeys-random", True)),
        *(("100mb", "noeviction", False), ("0", "allkeys-lru", False), ("", "", False)),
    ],
)
async def test_a_redis_that_may_evict_keys_is_warned_of(
    valkey: Valkey, caplog: Caplog, maxmemory: str, policy: str, warns: bool
) -> None:
    if policy:
        valkey.client.config_set("maxmemory", maxmemory)
        valkey.client.config_set("maxmemory-policy", policy)
    else:  # it does not tell
        permit(valkey.client, "-info")
    async with counting(valkey.url) as visits:
        await visits.start(PATIENCE)
        await eventually(lambda: visits._lookout._asking is not None)
        await visits._lookout._asking  # type: ignore[misc]
        assert await visits.count() == 1
        said = [text for level, text in counters_lines(caplog) if level == "WARNING"]
        assert said == ([visits.warning] if warns else [])
        assert bool(visits.warning) == warns
        assert (policy in visits.warning and "noeviction" in visits.warning) == warns
