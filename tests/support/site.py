"""The application that the HTTP server's tests serve, and what its handlers do and see."""

import asyncio
import contextlib

from tornado.httputil import HTTPHeaders, ResponseStartLine
from tornado.iostream import StreamClosedError
from tornado.web import Application, RequestHandler, stream_request_body

#: More than the systems on both sides keep for a client that does not read.
MUCH = 16 << 20


class State:
    """What the handlers do and see."""

    def __init__(self) -> None:
        self.begun: list[str] = []  # the URIs of the requests
        self.left = 0  # clients that were gone before they had their answer
        self.go_on = asyncio.Event()
        self.is_over = False  # `Pieces` is
        self.written = 0  # bytes that `Pieces` did not have to wait for any more

    async def standstill(self) -> int:
        """Wait until `Pieces` waits for its client; return how much it has written."""
        written, turns = -1, 0
        while turns < 50:
            turns = turns + 1 if written == self.written > 0 else 0
            written = self.written
            await asyncio.sleep(0.002)
        return written


class Handler(RequestHandler):
    """Notes each request."""

    def prepare(self) -> None:
        self.state.begun.append(self.request.uri or "")

    @property
    def state(self) -> State:
        return self.settings["state"]

    def on_connection_close(self) -> None:
        self.state.left += 1

    def send_head(self, status: int, **headers: str) -> None:
        line = ResponseStartLine("HTTP/1.1", status, "Reason")
        self.request.connection.write_headers(line, HTTPHeaders(**headers))


class Echo(Handler):
    def get(self) -> None:
        request = self.request
        told = {"uri": request.uri, "host": request.host, "body": request.body.decode("latin1")}
        self.write(told | {"ip": request.remote_ip, "protocol": request.protocol})

    head = post = put = options = get


class Waiting(Handler):
    async def get(self) -> None:
        await self.state.go_on.wait()
        self.write("at last")


class Pieces(Handler):
    """Writes much, piece by piece, without saying how much it will be."""

    async def get(self) -> None:
        with contextlib.suppress(StreamClosedError):
            for _ in range(MUCH // 65536):
                self.write(b"x" * 65536)
                await self.flush()
                self.state.written += 65536
        self.state.is_over = True


class Whole(Handler):
    def get(self) -> None:
        self.set_header("Connection", "close")
        self.write(b"x" * MUCH)


class Bare(Handler):
    def get(self, status: str) -> None:
        self.set_status(int(status))


class Hinting(Handler):
    async def get(self) -> None:
        self.send_head(103, Link="</x>")
        self.write("hinted")


class Overlong(Handler):
    """Writes more of a body than the answer may have."""

    def get(self, status: str, length: str) -> None:
        self.send_head(int(status), **{"Content-Length": length})
        self.request.connection.write(b"two")

    head = get


@stream_request_body
class Refusing(Handler):
    def prepare(self) -> None:
        super().prepare()
        self.send_error(413)


def application(state: State) -> Application:
    routes = [
        (r"/(?:echo.*)?", Echo),
        (r"/waiting", Waiting),
        (r"/pieces", Pieces),
        (r"/whole", Whole),
        (r"/bare/(\d+)", Bare),
        (r"/hinting", Hinting),
        (r"/overlong/(\d+)/(\d+)", Overlong),
        (r"/refusing", Refusing),
    ]
    return Application(routes, state=state, log_function=lambda _: None)
