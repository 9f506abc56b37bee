"""What sentinels and the nodes of a cluster tell of where Redis is, sound or not."""

import pytest

from tests.support import Caplog
from tests.support.fake_redis import FakeRedis
from tests.support.page import counters_lines, serving
from tests.support.waiting import eventually

#: Redirections, and the reason for being off that each is.
NO_ADDRESS = "redirects to no address"
MALFORMED = {
    b"MOVED": NO_ADDRESS,
    b"MOVED 6680": NO_ADDRESS,
    b"MOVED 6680 127.0.0.1": NO_ADDRESS,
    b"MOVED 6680 127.0.0.1:port": NO_ADDRESS,
    b"MOVED 6680 127.0.0.1:1 more": NO_ADDRESS,
    b"MOVED slot 127.0.0.1:1": NO_ADDRESS,
    b"MOVED 6680 127.0.0.1:99999": "tells no valid address",
    b"MOVED 6680 127.0.0.1:0": "tells no valid address",
    b"ASK 6680 127.0.0.1:-1": "tells no valid address",
    b"MOVED 6680 a..b:7001": "it is no host name",
    b"MOVED 6680 \xff:7001": "cannot resolve",
}

#: What sentinels may answer instead of a host and a port.
NO_PRIMARY = {
    "no UTF-8": b"*2\r\n$1\r\n\xff\r\n$4\r\n6379\r\n",
    "no host": b"*2\r\n$0\r\n\r\n$4\r\n6379\r\n",
    "a port out of range": b"*2\r\n$9\r\n127.0.0.1\r\n$5\r\n99999\r\n",
    "no port": b"*2\r\n$9\r\n127.0.0.1\r\n$4\r\nport\r\n",
    "numbers": b"*2\r\n:1\r\n:2\r\n",
    "one word": b"*1\r\n$9\r\n127.0.0.1\r\n",
    "a number": b":1\r\n",
}


@pytest.mark.usefixtures("often_probed")
@pytest.mark.parametrize("redirection", MALFORMED, ids=repr)
async def test_a_redirection_to_no_address_is_a_clear_reason(
    fake: FakeRedis, caplog: Caplog, redirection: bytes
) -> None:
    fake.replies["EXISTS"] = b"-%b\r\n" % redirection
    async with serving(f"redis+cluster://127.0.0.1:{fake.port}") as visitor:
        assert await visitor.visit() is None
        ((_, why),) = counters_lines(caplog)
        assert MALFORMED[redirection] in why
        made = len(fake.connections)
        await eventually(lambda: len(fake.connections) > made + 2)  # it goes on looking
        fake.replies["EXISTS"] = b":1\r\n"
        assert await visitor.counted_again() == 1


@pytest.mark.parametrize("host", ["", "?"])
@pytest.mark.parametrize("how", ["MOVED", "ASK"])
async def test_a_redirection_without_a_host_leads_to_the_one_that_was_asked(
    fake: FakeRedis, host: str, how: str
) -> None:
    with FakeRedis() as asked:
        asked.replies["EXISTS"] = f"-{how} 6680 {host}:{fake.port}\r\n".encode()
        fake.replies["EXISTS"] = b":1\r\n"
        fake.replies["ASKING"] = b"+OK\r\n"
        async with serving(f"redis+cluster://127.0.0.1:{asked.port}") as visitor:
            assert await visitor.visit() == 1
    assert fake.visits()


@pytest.mark.usefixtures("often_probed")
@pytest.mark.parametrize("answer", NO_PRIMARY.values(), ids=NO_PRIMARY)
async def test_a_sentinel_that_names_no_address_is_a_clear_reason(
    fake: FakeRedis, caplog: Caplog, answer: bytes
) -> None:
    fake.replies["SENTINEL"] = answer
    fake.replies["ROLE"] = b"*3\r\n$6\r\nmaster\r\n:0\r\n*0\r\n"
    url = f"redis+sentinel://127.0.0.1:{fake.port}/mymaster"
    async with serving(url) as visitor:
        assert await visitor.visit() is None
        ((_, why),) = counters_lines(caplog)
        assert f"127.0.0.1:{fake.port} tells no valid address: " in why
        port = str(fake.port).encode()
        fake.replies["SENTINEL"] = b"*2\r\n$9\r\n127.0.0.1\r\n$%d\r\n%b\r\n" % (len(port), port)
        assert await visitor.counted_again() == 1
