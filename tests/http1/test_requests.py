"""Who asks, and for what; what is taken, what is refused, and how it is answered."""

import ipaddress
from http.client import responses

from http1.forwarded import TrustedProxies, scheme
from tests.faults.test_clients import TLS_HELLO
from tests.support import Caplog
from tests.support.served import CHUNKED, CLOSE, EXPECT, GET, Serve, get, post
from tests.support.site import MUCH

FORWARDED = (
    *("X-Forwarded-For: 6.6.6.6", "X-Real-Ip: 7.7.7.7", "X-Forwarded-Proto: ftp", "X-Scheme: ftp"),
    *("X-Forwarded-For: 4.4.4.4", "X-Forwarded-Proto: https"),
)


async def test_trusted_proxies_alone_are_believed_and_for_their_own_request(serve: Serve) -> None:
    unbelieved, believed = ("127.0.0.1", "http"), ("4.4.4.4", "https")
    for proxies, told in (
        ([], unbelieved),
        (["127.0.0.0/8"], believed),
        (["10.0.0.0/8"], unbelieved),
    ):
        client = await serve(trusted_proxies=[*map(ipaddress.ip_network, proxies)]).connect()
        forwarded = get("/", *FORWARDED)
        for request, expected in (forwarded, told), (GET, unbelieved), (forwarded, told):
            answer = (await client.ask(request)).json
            assert (answer["ip"], answer["protocol"]) == expected, proxies


PEER = "10.0.0.1"
PROXIES = TrustedProxies(
    [ipaddress.ip_network(one) for one in ("10.0.0.0/8", "192.0.2.7/32", "fd00::/8")]
)

#: What is no address, and cannot be trusted.
MALFORMED = [
    *("", ",", "unknown", "_hidden", "unix:", "1.2.3", "1.2.3.4.5", "256.1.1.1", "01.2.3.4"),
    *("1.2.3.4:", "1.2.3.4:x", "1.2.3.4:123456", "1.2.3.4/8", "٨.1.1.1", "[1.2.3.4]", "[::1"),
    *("::1]", "[::1]80", "[]", ":", ":80", "::1::", "::1%eth0", '"203.0.113.9"', "203.0.113.9 x"),
    *("203.0.113.9\x0b", "\xa0203.0.113.9", "1" * 500, "::ffff:1.2.3.4:80", "203.0.113.9;x"),
    *("for=203.0.113.9", "203.0.113.9\n"),
]

CLIENTS = dict.fromkeys(MALFORMED, PEER) | {
    # The last one that is no trusted proxy, whatever a client wrote before it.
    "1.1.1.1,203.0.113.9\t, 10.9.9.9,192.0.2.7": "203.0.113.9",
    "1.1.1.1, 10.0.0.2, 203.0.113.9, 10.0.0.3": "203.0.113.9",
    "nonsense, 203.0.113.9, 10.0.0.3": "203.0.113.9",
    # All are trusted: the first.
    "10.0.0.9, 10.0.0.2": "10.0.0.9",
    # IPv6, as it is usually written, and ports.
    "2001:DB8:0:0::1, fd00::2": "2001:db8::1",
    "::ffff:203.0.113.9, ::ffff:10.0.0.3": "203.0.113.9",
    "::FFFF:CB00:7109": "203.0.113.9",
    "203.0.113.9:567": "203.0.113.9",
    "1.1.1.1, [2001:db8::1]:80, 10.0.0.3:8, [fd00::2]:443": "2001:db8::1",
    "[2001:db8::1]": "2001:db8::1",
    "[2001:0db8:0000:0000:0000:0000:198.100.100.100]:65535": "2001:db8::c664:6464",  # the longest
    "203.0.113.9, unknown, 10.0.0.3": "10.0.0.3",
    "203.0.113.9, , 10.0.0.3": "10.0.0.3",
}

SCHEMES = {
    **dict.fromkeys(("https", "HTTPS ", "http,https"), "https"),
    **dict.fromkeys(("http", "https, http"), "http"),
    **dict.fromkeys(("", "ftp", "https,", "https, x", "httpss", "wss"), "default"),
}


def test_the_client_is_the_last_that_is_no_proxy_and_the_scheme_the_nearest_proxys() -> None:
    ours = ["10.255.255.255", "192.0.2.7", "fdff::1", "fd00::1%eth0", "::ffff:10.0.0.1"]
    others = ["11.0.0.0", "192.0.2.8", "fe80::1%eth0", "::ffff:11.0.0.1", "::10.0.0.1", "unix", ""]
    assert [peer for peer in (*ours, *others) if PROXIES.trusts(peer)] == ours
    assert {one: PROXIES.client(one, PEER) for one in CLIENTS} == CLIENTS
    assert {one: scheme(one, "default") for one in SCHEMES} == SCHEMES


async def test_every_form_of_target_is_answered_and_absolute_form_names_host(serve: Serve) -> None:
    client = await serve().connect()
    for method, target, uri, host in (
        ("GET", "http://b/echo?x=y", "/echo?x=y", "b"),
        ("GET", "HTTP://B:80", "/", "B:80"),
        ("GET", "https://[::1]:8/", "/", "[::1]:8"),
        ("GET", "http://b?x", "/?x", "b"),
        ("OPTIONS", "http://a", "/", "a"),  # 3.2.4 has it sent on as "*", which is for proxies
    ):
        told = (await client.ask(get(target, method=method))).json
        assert (told["uri"], told["host"]) == (uri, host)
    for method, target, status in (
        ("OPTIONS", "*", 404),  # the whole server (3.2.4), which has no page
        *(("CONNECT", "a:80", 405), ("CONNECT", "/", 405), ("M-SEARCH", "/", 405)),
        ("GET", "/", 200),
    ):
        assert (await client.ask(get(target, method=method))).status == status, method


POST = b"POST / HTTP/1.1\r\nHost: a\r\n"
LONG = b"x" * 300

#: Beyond the table of ``faults/test_clients.py``.
REFUSED = [
    *(b"GET http://a/ HTTP/1.1\r\nHost: a b\r\n\r\n", get("http://:80/"), get("http:///x")),
    CHUNKED.replace(b"chunked", b"chunked, identity") + b"0\r\n\r\n",
    POST + b"content-length: 5\r\nTRANSFER-ENCODING: CHUNKED\r\n\r\n0\r\n\r\n",
    *(post("content-length: 5") + b"hello", POST + b"Content-Length: \x0c5\r\n\r\nhello"),
    # A chunk without its line end; what a size or an extension may not have.
    *(CHUNKED + b"5\r\nhello0\r\n\r\n", CHUNKED + b"5\t\r\nhello\r\n0\r\n\r\n"),
    *(CHUNKED + b"5 5\r\nhello\r\n0\r\n\r\n", CHUNKED + b"5;a\rb\r\nhello\r\n0\r\n\r\n"),
    *(CHUNKED + b"5;\0\r\nhello\r\n0\r\n\r\n", CHUNKED + b"5 ;a\r\nhello\r\n0\r\n\r\n"),
    # Trailers: without a colon, before one, NUL, a bare LF, folded, one that says a length.
    *(
        CHUNKED + b"0\r\nX\r\n\r\n",
        CHUNKED + b"0\r\nX : y\r\n\r\n",
        CHUNKED + b"0\r\nX: \0\r\n\r\n",
    ),
    *(CHUNKED + b"0\r\nX: y\n\r\n", CHUNKED + b"0\r\nX: y\r\n z\r\n\r\n"),
    CHUNKED + b"0\r\nContent-Length: 5\r\n\r\n",
]

#: What cannot become a request is refused before it ends.
AT_ONCE = [
    *(b"\x00", b" ", b"\n", b"\r\r", b"GET\t", b"GET  ", b"GET /\0", b"GET / P", b"GET / \r"),
    *(b"GET / HTTP/1.1\n", b"GET / HTTP/1.1 ", b"GET /\r\n", b"G\xc3\xa9", b"[", TLS_HELLO[:99]),
    *(b"GET / HTTP/1.1\r\nX\0", b"GET / HTTP/1.1\r\n ", b"GET / HTTP/1.1\r\nX: y\rz"),
    *(CHUNKED + b"5 ", CHUNKED + b"5\r\nhello!", CHUNKED + b"0\r\nX "),
    # So is what is too large.
    *(POST + b"Content-Length: 301\r\n\r\n", CHUNKED + b"12D\r\n" + LONG + b"x"),
    *(CHUNKED + b"5;" + LONG, CHUNKED + b"0\r\nX: " + LONG),
    *(CHUNKED + (b"1;" + LONG[:99] + b"\r\nx\r\n") * 9, CHUNKED + b"0\r\n" + b"X: y\r\n" * 60),
]

TOO_LARGE = [GET[:-2] + b"X: " + LONG, b"GET /" + LONG, b"\r\n" * 150]


async def test_what_is_refused_is_refused_at_once_and_reaches_no_handler(serve: Serve) -> None:
    served = serve(max_header_size=200, max_body_size=300)
    rows = dict.fromkeys([*(one + GET for one in REFUSED), *AT_ONCE], 400)
    for sent, status in (rows | dict.fromkeys(TOO_LARGE, 431)).items():
        rest = await (await served.connect()).send(sent).rest()
        assert rest == f"HTTP/1.1 {status} {responses[status]}\r\n\r\n".encode(), sent
        assert served.state.begun == [], sent


async def test_only_a_body_that_is_waited_for_is_asked_for(serve: Serve) -> None:
    for sent, later, status in (
        (post("Expect: 100-Continue"), b"hello", 100),
        (post(EXPECT) + b"hello", b"", 200),
        (post(EXPECT, version="HTTP/1.0"), b"hello", 200),
        (post("Expect: another"), b"hello", 200),
        (post(EXPECT, path="/refusing"), b"", 413),
        (get("/", EXPECT, "Content-Length: 0", method="POST"), b"", 200),
        (get("/", EXPECT, "Content-Length: 999999", method="POST"), b"", 400),
    ):
        served = serve(max_body_size=10)
        client = (await served.connect()).send(sent)
        await served.seen()
        if status == 100:
            asked = await client.reader.readuntil(b"\r\n\r\n")
            assert asked == b"HTTP/1.1 100 Continue\r\n\r\n"
        answer = await client.ask(later)
        assert (answer.status, answer.informational) == (max(status, 200), []), sent
        assert status <= 200 or b" 100 " not in await client.rest()


async def test_answer_of_unknown_length_is_chunked_or_the_last_in_http_1_0(serve: Serve) -> None:
    client = await serve().connect()
    answer = await client.ask(get("/pieces"))
    assert (answer.headers["transfer-encoding"], answer.body) == ("chunked", b"x" * MUCH)
    client.send(get("/pieces", "Connection: keep-alive", version="HTTP/1.0") + GET)
    head, _, body = (await client.rest()).partition(b"\r\n\r\n")
    assert b"Connection" not in head
    assert body == b"x" * MUCH


async def test_more_of_a_body_than_due_is_not_sent(serve: Serve, caplog: Caplog) -> None:
    served = serve()
    for method, path in ("GET", "200/2"), ("GET", "304/3"), ("HEAD", "200/3"):
        client = await served.connect()
        client.send(get(f"/overlong/{path}", method=method) + GET)
        assert b"two" not in await client.rest(), (method, path)
    assert caplog.text.count("HTTPOutputError: Tried to write more data than Content-Length") == 3


async def test_connection_is_not_kept_without_keep_alive(serve: Serve) -> None:
    client = await serve(no_keep_alive=True).connect()
    assert (await client.ask(GET)).headers["connection"] == "close"
    assert await client.rest() == b""


async def test_pipeline_whose_answers_are_not_read_is_not_read_either(serve: Serve) -> None:
    served = serve()
    client = await served.connect(limit=1024)
    number = MUCH // 40_000
    client.send(get("/echo?" + "x" * 40_000) * number + CLOSE)
    before, begun = -1, 0
    while before != begun:
        await served.seen()
        before, begun = begun, sum(uri != "/" for uri in served.state.begun)
    assert 0 < begun < number
    assert client.writer.transport.get_write_buffer_size() > 0  # nor is it kept
    assert (await client.rest()).count(b"HTTP/1.1 200 OK\r\n") == number + 1


async def test_informational_answer_comes_before_the_other(serve: Serve) -> None:
    answer = await serve().ask(get("/hinting"))
    assert (answer.status, answer.informational, answer.body) == (200, [103], b"hinted")
    assert "link" not in answer.headers
