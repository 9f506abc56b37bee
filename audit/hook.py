"""``python -m audit.hook`` runs an audit for each POST, for Flagger's webhooks.

The answer is 200 when the audit holds, else 500, with the report. The hook's command line is that
of ``check.py`` and says what to audit; a request cannot change it.
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
    """Runs an audit for each request, one after the other."""

    def initialize(self, arguments: list[str], turn: asyncio.Lock) -> None:
        """Take the arguments of ``check.py``, and the lock that lets one audit run at a time."""
        self._arguments, self._turn = arguments, turn

    async def post(self) -> None:
        """Run the audit, and answer with its report."""
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
    """Serve until SIGTERM or SIGINT.

    :arg port: where to listen; 0 picks a free port. The log names the port.
    :arg arguments: the arguments of ``check.py``.
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
