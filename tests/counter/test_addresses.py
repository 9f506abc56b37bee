"""What sentinels and the nodes of a cluster tell of where Redis is, sound or not."""

from unittest.mock import Mock

import pytest

from counter import packed
from tests.support import Caplog
from tests.support.counting import counting
from tests.support.fake_redis import FakeRedis
from tests.support.page import counters_lines, serving
from tests.support.waiting import eventually

NO_ADDRESS, INVALID = "redirects to no address", "tells no valid address: "

#: What nodes and sentinels may answer in place of an address, and the reason that each is.
MALFORMED = [
    ("cluster", b"-MOVED\r\n", NO_ADDRESS),
    ("cluster", b"-MOVED 6680\r\n", NO_ADDRESS),
    ("cluster", b"-MOVED 6680 127.0.0.1\r\n", NO_ADDRESS),
    ("cluster", b"-MOVED 6680 127.0.0.1:port\r\n", NO_ADDRESS),
    ("cluster", b"-MOVED 6680 127.0.0.1:1 more\r\n", NO_ADDRESS),
    ("cluster", b"-MOVED slot 127.0.0.1:1\r\n", NO_ADDRESS),
    ("cluster", b"-MOVED 6680 127.0.0.1:99999\r\n", INVALID),
    ("cluster", b"-MOVED 6680 127.0.0.1:0\r\n", INVALID),
    ("cluster", b"-ASK 6680 127.0.0.1:-1\r\n", INVALID),
    ("cluster", b"-MOVED 6680 a..b:7001\r\n", "it is no host name"),
    ("cluster", b"-MOVED 6680 \xff:7001\r\n", "cannot resolve"),
    ("sentinel", b"*2\r\n$1\r\n\xff\r\n$4\r\n6379\r\n", INVALID),
    ("sentinel", b"*2\r\n$0\r\n\r\n$4\r\n6379\r\n", INVALID),
    ("sentinel", b"*2\r\n$9\r\n127.0.0.1\r\n$5\r\n65536\r\n", INVALID),
    ("sentinel", b"*2\r\n$9\r\n127.0.0.1\r\n$4\r\nport\r\n", INVALID),
    ("sentinel", b"*2\r\n:1\r\n:2\r\n", INVALID),
    ("sentinel", b"*1\r\n$9\r\n127.0.0.1\r\n", INVALID),
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
