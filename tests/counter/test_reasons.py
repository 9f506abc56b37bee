"""Why the counter is off: what the log and ``/readyz`` say, and what they must not.

One reason is what sentinels and the nodes of a cluster tell in place of an address.
"""

import asyncio
import json
import os
import socket
from unittest.mock import Mock

import pytest

import counter.outage
from counter import packed
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


NO_ADDRESS, INVALID = "redirects to no address", "tells no valid address: "

#: What nodes and sentinels may answer in place of an address, and the reason that each is.
MALFORMED = [
    ("cluster", b"-MOVED\r\n", NO_ADDRESS),
    ("cluster", b"-MOVED 6680 127.0.0.1:1 more\r\n", NO_ADDRESS),
    ("cluster", b"-MOVED 6680 127.0.0.1:99999\r\n", INVALID),
    ("cluster", b"-ASK 6680 127.0.0.1:0\r\n", INVALID),
    ("cluster", b"-MOVED 6680 a..b:7001\r\n", "it is no host name"),
    ("cluster", b"-MOVED 6680 \xff:7001\r\n", "cannot resolve"),
    ("sentinel", b"*2\r\n$1\r\n\xff\r\n$4\r\n6379\r\n", INVALID),
    ("sentinel", b"*2\r\n$0\r\n\r\n$4\r\n6379\r\n", INVALID),
    ("sentinel", b"*2\r\n$9\r\n127.0.0.1\r\n$5\r\n65536\r\n", INVALID),
    ("sentinel", b"*2\r\n:1\r\n:2\r\n", INVALID),
    ("sentinel", b":1\r\n", INVALID),
]


@pytest.mark.usefixtures("often_probed", "patient_probes")
@pytest.mark.parametrize(("kind", "answer", "why"), MALFORMED)
async def test_what_is_told_in_place_of_an_address_is_a_clear_reason(
    fake: FakeRedis, caplog: Caplog, kind: str, answer: bytes, why: str
) -> None:
    port = b"%d" % fake.port
    own = b"*2\r\n$9\r\n127.0.0.1\r\n$%d\r\n%b\r\n" % (len(port), port)
    command, good = ("EXISTS", b":1\r\n") if kind == "cluster" else ("SENTINEL", own)
    fake.replies = {"ROLE": b"*3\r\n$6\r\nmaster\r\n:0\r\n*0\r\n", command: answer}
    async with serving(f"redis+{kind}://127.0.0.1:{fake.port}/mymaster") as visitor:
        assert await visitor.visit() is None
        ((_, said),) = counters_lines(caplog)
        assert why in said
        assert why != INVALID or f"127.0.0.1:{fake.port} {why}" in said
        made = len(fake.connections)
        await eventually(lambda: len(fake.connections) > made + 2)  # it goes on looking
        fake.replies[command] = good
        assert await visitor.counted_again() == 1


@pytest.mark.parametrize("host", ["", "?"])
@pytest.mark.parametrize(
    ("how", "sent"),
    [
        ("MOVED", ["EXISTS", "EVALSHA", "PTTL", "WAIT", "EVAL", "WAIT"]),
        ("ASK", ["ASKING", "EVALSHA", "WAIT", "ASKING", "EVAL", "WAIT"]),
    ],
)
async def test_a_redirection_may_have_no_host_and_asking_goes_before_each_command(
    fake: FakeRedis, host: str, how: str, sent: list[str]
) -> None:
    beside = Mock(commands=lambda *_: [packed("PTTL", "counter")])
    with FakeRedis() as asked:
        asked.replies["EXISTS"] = f"-{how} 6680 {host}:{fake.port}\r\n".encode()
        replies = {"ASKING": b"+OK\r\n", "EVALSHA": b"-NOSCRIPT\r\n"}
        fake.replies = replies | dict.fromkeys(("EXISTS", "WAIT", "PTTL"), b":1\r\n")
        url = f"redis+cluster://127.0.0.1:{asked.port}"
        async with counting(url, wait=1, beside=beside) as visits:
            assert await visits.count() == 1
    assert [command.words[0] for command in fake.commands] == sent
