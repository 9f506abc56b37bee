"""``python -m audit.hook``: an audit for each POST, as Flagger's webhooks ask for one.

The answer is 200 when the audit holds, and 500 when not, with its report. What is audited, and how,
is said on the command line, which is that of ``check.py``: who asks cannot change it.
https://docs.flagger.app/usage/webhooks
"""

import asyncio
import logging
import os
import signal
import sys
from pathlib import Path

from tornado.httpserver import HTTPServer
from tornado.netutil import bind_sockets
from tornado.web import Application, RequestHandler

PROGRAM = Path(__file__).parent.parent / "check.py"

log = logging.getLogger("audit.hook")


class HookHandler(RequestHandler):
    """Audits for whoever asks, one after the other."""

    def initialize(self, arguments: list[str], turn: asyncio.Lock) -> None:
        """Take what is audited, and whose turn it is."""
        self._arguments, self._turn = arguments, turn

    async def post(self) -> None:
        """Audit, and answer the report."""
        async with self._turn:
            audit = await asyncio.create_subprocess_exec(
                *(sys.executable, str(PROGRAM), *self._arguments),
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.STDOUT,
            )
            report, _ = await audit.communicate()
        held = audit.returncode == 0
        log.info("%s", report.decode(errors="replace").strip())
        self.set_status(200 if held else 500)
        self.set_header("Content-Type", "text/plain; charset=utf-8")
        self.finish(report)


async def serve(port: int, arguments: list[str]) -> None:
    """Answer until SIGTERM or SIGINT.

    :arg port: 0 picks a free one, and logs it.
    :arg arguments: those of ``check.py``.
    """
    over = asyncio.Event()
    for signum in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(signum, over.set)
    options = {"arguments": arguments, "turn": asyncio.Lock()}
    server = HTTPServer(Application([(r"/", HookHandler, options)]))
    sockets = bind_sockets(port)
    server.add_sockets(sockets)
    log.info("listening on port %d", sockets[0].getsockname()[1])
    await over.wait()
    server.stop()


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    asyncio.run(serve(int(os.environ.get("PORT", "8080")), sys.argv[1:]))
