"""``GET /echo``: the request as it arrived, to see what proxies have changed."""

import ssl
from collections.abc import Mapping
from typing import Any, ClassVar

from handlers.accept import preferred
from handlers.base import BaseHandler


class EchoHandler(BaseHandler):
    """Answers with the request itself, and with nothing about the server."""

    HEADERS: ClassVar[Mapping[str, str]] = {**BaseHandler.HEADERS, "Vary": "Accept"}

    def get(self) -> None:
        """Answer with the request, as JSON, or as text for a browser."""
        echoed = self._echoed()
        accept = self.request.headers.get("Accept", "")
        if preferred(accept, ("application/json", "text/html")) == "application/json":
            self.finish_json(echoed)
            return
        headers = echoed.pop("headers")
        lines = [f"{name}: {value}" for name, value in headers]
        about = [f"{name}: {value}" for name, value in echoed.items() if value is not None]
        self.set_header("Content-Type", "text/plain; charset=utf-8")
        self.finish("\n".join([*about, "", *lines, ""]))

    head = get

    def _echoed(self) -> dict[str, Any]:
        request = self.request
        connection: Any = request.connection
        address = connection.context.address
        peer = f"{address[0]}:{address[1]}" if isinstance(address, tuple) else "unix"
        sock = connection.stream.socket
        tls = sock if isinstance(sock, ssl.SSLSocket | ssl.SSLObject) else None
        return {
            "method": request.method,
            "path": request.uri,
            "version": request.version,
            "scheme": request.protocol,
            "client": request.remote_ip,
            "peer": peer,
            "tls": tls and tls.version(),
            "client_certificate": tls and _subject(tls.getpeercert()),
            "headers": list(request.headers.get_all()),
        }


def _subject(certificate: Mapping[str, Any] | None) -> str | None:
    """Return a certificate's subject in the form of RFC 4514, but in the certificate's order."""
    names = [pair for part in (certificate or {}).get("subject", ()) for pair in part]
    return ", ".join(f"{name}={value}" for name, value in names) or None
