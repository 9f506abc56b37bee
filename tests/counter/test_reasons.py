"""Why the counter is off: what the log and ``/readyz`` say, and what they must not."""

import asyncio
import json
import os
import socket

import pytest

import counter.outage
from tests.support import Caplog, Patch
from tests.support.counting import counting
from tests.support.fake_redis import FakeRedis, reply
from tests.support.page import counters_lines, serving
from tests.support.valkey import Valkey
from tests.support.waiting import PATIENCE, eventually


@pytest.mark.usefixtures("often_probed", "patient_probes")
async def test_off_on_and_each_other_reason_are_one_line(fake: FakeRedis, caplog: Caplog) -> None:
    caplog.set_level("INFO", logger="friendlyhello.visits")
    async with serving(fake.url) as visitor:

        async def is_told(redis: str, reason: str) -> None:
            """Wait until it is; a probe that began before has a word, too."""
            found: dict[str, str] = {}
            async with asyncio.timeout(PATIENCE):
                while (found.get("redis"), found.get("reason", "")) != (redis, reason):
                    found = json.loads((await visitor.fetch("readyz")).body)

        for _ in range(2):
            assert await visitor.visit()
            await is_told("up", "")
            caplog.clear()
            fake.answer = reply(b"-NOAUTH Authentication required.\r\n")
            fake.refuse()
            await asyncio.gather(*(visitor.visit() for _ in range(50)))
            refused = visitor.visits.reason
            assert "Error 111 connecting to" in refused
            changes = (fake.refuse, refused), (fake.listen, "NOAUTH Authentication required.")
            for change, reason in changes * 3:
                change()
                await is_told("down", reason)
            fake.heal()
            await eventually(lambda: visitor.visits.up)
            first, *others, last = counters_lines(caplog)
            assert first == ("WARNING", f"counter off: {refused}")
            assert last == ("INFO", "counter on")
            # A probe that is cut on its way has another reason.
            assert ("WARNING", "counter still off: NOAUTH Authentication required.") in others
            assert len({first, *others}) == len(others) + 1 <= 3


@pytest.mark.usefixtures("often_probed")
async def test_ever_new_reasons_do_not_flood_the_log(fake: FakeRedis, caplog: Caplog) -> None:
    async with counting(fake.url) as visits:
        for number in range(2 * counter.outage.MAX_REASONS):
            fake.answer = reply(b"-ERR reason %d\r\n" % number)
            await visits.count()
            await eventually(lambda number=number: visits.reason == f"reason {number}")
    said = [text for _, text in counters_lines(caplog) if text.startswith("counter")]
    assert len(said) == counter.outage.MAX_REASONS


async def test_a_first_search_that_fails_after_a_visit_gave_up_goes_on_with_the_outage(
    fake: FakeRedis, caplog: Caplog, monkeypatch: Patch
) -> None:
    has_given_up = asyncio.Event()

    async def probe() -> None:
        await has_given_up.wait()
        raise ConnectionError("refused")

    async with counting(fake.url, timeout=0.1) as visits:
        monkeypatch.setattr(visits._lookout._prober, "probe", probe)
        starting = asyncio.create_task(visits.start(PATIENCE))
        await asyncio.sleep(0)
        assert await visits.count() is None
        has_given_up.set()
        await starting
    said = [text for _, text in counters_lines(caplog)]
    assert said == ["counter off: no answer from Redis in time", "counter still off: refused"]


async def test_no_password_gets_into_the_log(fake: FakeRedis, caplog: Caplog) -> None:
    said = b"-ERR unknown command 'AUTH', with args beginning with: 'hush' 'quiet'\r\n"
    fake.replies["AUTH"] = said
    url = fake.url.replace("//", "//user:hush@")
    async with counting(url, password=lambda: "quiet") as visits:
        assert await visits.count() is None
        reason = "unknown command 'AUTH', with args beginning with: '***' '***'"
        assert visits.reason == reason
    assert counters_lines(caplog) == [("WARNING", f"counter off: {reason}")]


async def test_a_password_that_changes_needs_no_restart(valkey: Valkey) -> None:
    passwords = ["old"]
    valkey.client.config_set("requirepass", "old")
    async with counting(valkey.url, password=lambda: passwords[-1]) as visits:
        assert await visits.count() == 1
        for new in ("new", "newest"):
            valkey.client.config_set("requirepass", new)
            passwords.append(new)
            valkey.client.client_kill_filter(_type="normal", skipme=True)
            assert await visits.count() is not None


async def test_a_hostname_or_the_path_of_a_socket_may_be_no_utf_8(
    valkey: Valkey, monkeypatch: Patch
) -> None:
    monkeypatch.setattr(socket, "gethostname", lambda: "caf\udce9")
    (valkey.folder / os.fsdecode(b"caf\xe9.sock")).symlink_to(valkey.path)
    async with serving(f"unix:{valkey.folder}/caf%E9.sock") as visitor:
        page = (await visitor.fetch()).body
    assert b"<b>Hostname:</b> caf\\xe9<br/><b>Visits:</b> 1" in page
