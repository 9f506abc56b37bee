"""What a process writes of itself goes with its visits, and never costs one its number."""

import asyncio
import math
import re
import socket
import time
from types import SimpleNamespace

import lupa.lua51  # type: ignore[import-untyped]
import pytest
from redis.crc import key_slot

import config
import server
from config import Settings
from counter import KEY, process_key
from replicas import Figures, figures
from replicas.keys import DAY, HISTORIES
from tests.support import Caplog, Patch
from tests.support.counting import (
    KEPT,
    assert_said,
    counts_on,
    permit,
    reading,
    replica,
    replicas_in,
    sent_by_clients,
)
from tests.support.proxy import Proxy
from tests.support.store import unpacked
from tests.support.valkey import Valkey
from tests.support.waiting import PATIENCE, eventually, within
from watch import Metrics


async def test_without_scripts_figures_go_with_a_visit(valkey: Valkey, monkeypatch: Patch) -> None:
    monkeypatch.setattr(figures, "SIGN_EVERY", math.inf)
    permit(valkey.client, "-evalsha")
    async with replica(valkey.url) as visits:
        assert await visits.count() == 1
        with valkey.client.monitor() as monitor:
            valkey.hang()
            first = asyncio.create_task(visits.count())
            await eventually(lambda: visits._link.is_busy)
            group = [asyncio.create_task(visits.count()) for _ in range(10)]
            await asyncio.sleep(0)
            valkey.go_on()
            assert await asyncio.gather(first, *group) == list(range(2, 13))
            sent = sent_by_clients(valkey, monitor)
    assert [one[:1] + one[2:] for one in sent] == [
        *(["INCR"], ["HSET", "visits", "2"]),
        *(["INCRBY", "10"], ["HSET", "visits", "12"]),
    ]


async def test_a_sign_is_one_command_more_once_a_second_and_whole_where_redis_has_lost_the_script(
    valkey: Valkey, monkeypatch: Patch, caplog: Caplog
) -> None:
    clock = SimpleNamespace(now=1000.5, time=lambda: clock.now, monotonic=time.monotonic)
    monkeypatch.setattr(figures, "time", clock)
    async with replica(valkey.url) as visits:
        await visits.start(PATIENCE)
        with valkey.client.monitor() as monitor:
            for seconds in (0, 0, 0, 1, 0, -3, 0):  # it is set back, too
                clock.now += seconds
                assert await visits.count()
            valkey.client.flushall()
            valkey.client.script_flush()
            clock.now += 1
            assert [await visits.count(), await visits.count()] == [1, 2]
            sent = [one for one in sent_by_clients(valkey, monitor) if one[0].startswith("EVAL")]
        with reading(visits) as reader:
            (one,) = replicas_in(await reader.read())
        assert (one.hostname, one.visits) == ("web-1", 9)
    signs = [one[0] for one in sent if "{counter}:processes" in one]
    # In full at first, so that it takes one try, and with the next visit once it was unknown.
    assert signs == ["EVAL", "EVALSHA", "EVALSHA", "EVALSHA", "EVAL"]
    assert len(sent) - len(signs) == 7 + 3
    assert not caplog.records


@pytest.mark.usefixtures("always_signed")  # the refused script has been a sign, too
@pytest.mark.parametrize("scripts", [True, False])
async def test_what_replicas_count_adds_up_whatever_bytes_their_names_and_labels_have(
    valkey: Valkey, monkeypatch: Patch, scripts: bool
) -> None:
    monkeypatch.setattr(socket, "gethostname", lambda: "caf\udce9")
    labels = {"zone": "eu-1", "rule": "a=b=", "place": "Köln"}
    settings = Settings(
        redis_url=valkey.url, redis_timeout=PATIENCE, version_label="\udce9", labels=labels
    )
    if not scripts:
        permit(valkey.client, "-eval", "-evalsha")
    one, name = server.new_visits(settings, Metrics()), "<b>{web}\r\n2"
    async with replica(valkey.url, name) as other, replica(valkey.url, name) as its_second_process:
        before = time.time()
        for visits, times in ((one, 30), (other, 20), (its_second_process, 5)):
            await asyncio.gather(*(visits.count() for _ in range(times)))
            await visits.count()
        with reading(one) as reader:
            shown = await reader.read()
        await one.close()
    assert one.exactly_once is scripts
    assert shown.total == valkey.counter() == 58
    own = (config.host_name().replace("\udce9", "�"), 31, labels)
    found = [(one.hostname, one.visits, one.labels) for one in replicas_in(shown)]
    assert found == [(name, 27, {}), own]
    after = time.time()
    # A replica gives a sign once a second.
    assert all(0 <= one.seen < after - before + 1.1 for one in replicas_in(shown))
    assert before - 1 < shown.time < after + 1


async def test_what_a_process_has_written_is_dropped_after_a_day(valkey: Valkey) -> None:
    names, now = "{counter}:processes", time.time()
    valkey.client.zadd(names, {f"old-{i}": now - DAY - 1 - i for i in range(5000)})
    valkey.client.zadd(names, {"of-today": now - DAY + 99})
    async with replica(valkey.url) as visits:
        await visits.count()
        key = process_key(visits.process_id)
        for one, kept_for in ((key, KEPT), (names, DAY)):
            assert kept_for - PATIENCE < valkey.client.ttl(one) <= kept_for
        kept = valkey.client.zrange(names, 0, -1)
        assert kept == [b"of-today", visits.process_id.encode()], "though nobody watches"
        assert valkey.client.ttl("counter") == -1, "the counter is never dropped"


NOT_KEPT = "Redis refuses some of the live page's figures: EVALSHA: "


def history(text: str) -> str:
    return "HSET {counter}:last:5m " + " ".join(f"{slot} '{text}'" for slot in range(150))


#: What goes wrong once a visit has counted, and how the log says so; None: it mends itself.
FAULTS = {
    "SET {counter}:processes x": "WRONGTYPE",
    "SET {counter}:last:5m x": "WRONGTYPE",
    **dict.fromkeys(map(history, ("x", "9" * 15, "1=2 3", "NOW =x =9e99"))),
    **dict.fromkeys(("HSET PROCESS marked '9 x'", "HSET PROCESS started '9 x'")),
    "ZADD {counter}:processes inf a -inf b": None,
    "ACL SETUSER default -zadd": ".*'zadd'",
    "ACL SETUSER default -time": ".*'time'",
}


@pytest.mark.usefixtures("always_signed")
@pytest.mark.parametrize(("fault", "said"), FAULTS.items(), ids=[one[:50] for one in FAULTS])
async def test_a_fault_of_the_figures_touches_no_visit_and_no_token(
    valkey: Valkey, caplog: Caplog, fault: str, said: str | None
) -> None:
    caplog.set_level("WARNING", logger="friendlyhello.visits")
    fault = fault.replace("NOW", f"{int(time.time()) // 2 * 2}")
    async with replica(valkey.url) as visits:
        assert await counts_on(visits, valkey, fault) == list(range(2, 55))
        assert visits.exactly_once
        assert valkey.client.hget(process_key(visits.process_id), "visits") == b"54"
        if said is None or ":last:" in fault:  # the rest is written all the same
            with reading(visits) as reader:
                shown = await reader.read(["1h"])
            assert ("web-1", 54) in [(one.hostname, one.visits) for one in replicas_in(shown)]
            assert sum(one[1][""] for one in shown.moments["1h"]) >= 53
            _, before = valkey.client.hget(process_key(visits.process_id), "marked").split()
            assert int(before) > 1
    assert_said(caplog, said and NOT_KEPT + said)


@pytest.mark.usefixtures("often_probed", "always_signed")
async def test_figures_that_are_not_answered_end_with_the_deadline(valkey: Valkey) -> None:
    with Proxy([valkey.path]) as proxy:
        async with replica(f"redis://127.0.0.1:{proxy.port}", timeout=1) as visits:
            assert await visits.count() == 1
            proxy.to_client.change = lambda data: data.replace(b"+OK\r\n", b"")
            assert await within(1, visits.count()) is None
            proxy.heal()
            await eventually(lambda: visits.up)
            assert await visits.count() == 2


@pytest.mark.usefixtures("always_signed")
async def test_fields_have_the_names_by_which_an_older_version_reads_them(valkey: Valkey) -> None:
    async with replica(valkey.url, version="1.0", labels={"zone": "a"}) as visits:
        assert [await visits.count(), await visits.count()] == [1, 2]
        kept = valkey.client.hgetall(process_key(visits.process_id))
        now = time.time()
        slots = [valkey.client.hgetall(f"{{counter}}:last:{last}") for last in HISTORIES]
        keys = {*valkey.client.keys()}
        for _ in range(100):
            assert await visits.count()
        assert {*valkey.client.keys()} == keys, "what is written does not grow with visits"
        assert {*valkey.client.hkeys(process_key(visits.process_id))} == kept.keys()
    plain = Figures("web-1").commands(process_key("a"), 0, 1, scripts=False)
    keys |= {unpacked(one)[1] for one in plain}
    assert {key_slot(key) for key in keys} == {key_slot(KEY.encode())}  # type: ignore[arg-type]
    assert kept.pop(b"token")
    assert re.fullmatch(rb"[0-9]{10}\.[0-9]{1,6} 1", kept[b"marked"])  # type: ignore[arg-type]
    assert re.fullmatch(rb"[0-9]{10}\.[0-9]{3}", kept[b"started"])  # type: ignore[arg-type]
    for field in (b"marked", b"started"):
        assert abs(float(kept.pop(field).split()[0]) - now) < PATIENCE
    own = {b"hostname": b"web-1", b"version": b"1.0", b"labels": b"zone=a", b"visits": b"2"}
    assert kept == own
    for (step, _), found in zip(HISTORIES.values(), slots, strict=True):
        (slot,) = found.values()
        assert re.fullmatch(rb"[0-9]{10} 1\.0=1", slot)  # type: ignore[arg-type]
        assert int(slot.split()[0]) % step == 0


OLD = "Write commands not allowed after non deterministic commands"


@pytest.mark.parametrize(
    ("said", "lines"),
    [
        *(("OOM command not allowed", 0), ("ASK 6680 127.0.0.1:1", 0), ("TRYAGAIN Multiple", 0)),
        *(("NOPERM no", 1), ("", 1), (OLD, 1)),
    ],
)
def test_what_redis_refuses_is_one_line_and_a_state_that_will_pass_is_none(
    said: str, lines: int, caplog: Caplog
) -> None:
    one = Figures("web-1")
    for _ in range(2):
        one.refused(f"EVAL: {said}")
    more = f"; Redis {figures.OLDEST} is the oldest that is supported" if said == OLD else ""
    line = f"Redis refuses some of the live page's figures: EVAL: {said}{more}"
    assert caplog.messages == [line] * lines


@pytest.mark.parametrize(("has_effects", "error"), [(True, ""), (False, OLD)])
def test_from_redis_3_2_on_figures_are_written(has_effects: bool, error: str) -> None:
    """In a Lua that refuses writes after TIME, as a Redis before 5 does.

    It does so unless the script has asked before to be replicated by its effects, which it can
    from 3.2 on (https://redis.io/docs/latest/commands/eval/).
    """
    own = Figures("web-1")
    (sent,) = own.commands(process_key("P"), 0, 1, scripts=True)
    _, script, count, *words = [word.decode() for word in unpacked(sent)]
    lua, ran = lupa.lua51.LuaRuntime(unpack_returned_tuples=True), list[str]()

    def pcall(name: str, *words: object) -> object:
        ran.append(name)
        if name == "TIME":
            return lua.table_from(["1", "0"])
        if name in ("HGET", "ZREVRANGE"):
            return False
        refused = "TIME" in ran and ran[0] != "by effects"
        return lua.table_from({"err": OLD} if refused else {"ok": "OK"})

    effects = {"replicate_commands": lambda: ran.append("by effects")} if has_effects else {}
    lua.globals().redis = lua.table_from({"pcall": pcall, **effects})
    lua.globals().KEYS = lua.table_from(words[: int(count)])
    lua.globals().ARGV = lua.table_from(words[int(count) :])
    assert (lua.execute(script)["err"] or "") == error
    assert "HSET" in ran
