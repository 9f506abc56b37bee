"""A real nginx of a test's own."""

import contextlib
import shutil
import socket
import subprocess
from pathlib import Path

import pytest

from tests.support.ports import held_port
from tests.support.waiting import wait_until

_CONFIGURATION = """
daemon off;
master_process off;
pid {folder}/nginx.pid;
events {{ }}
http {{
  access_log off;
  client_body_temp_path {folder}/body;
  proxy_temp_path {folder}/proxy;
  fastcgi_temp_path {folder}/fastcgi;
  uwsgi_temp_path {folder}/uwsgi;
  scgi_temp_path {folder}/scgi;
  gzip on;
  gzip_proxied any;
  gzip_types text/event-stream text/css text/javascript;
  proxy_http_version 1.1;
  proxy_set_header Connection "";
  proxy_set_header Host $http_host;
  proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for;
  proxy_set_header X-Forwarded-Proto $scheme;
  server {{
    listen 127.0.0.1:{port};
    location {location} {{ proxy_pass {target}; }}
  }}
}}
"""


class Nginx:
    """Passes on what comes for a path; it compresses what it can. Use it as a context.

    :arg folder: for its files.
    :arg location: the path.
    :arg target: the URL that takes the place of the path, or the server's alone (`proxy_pass`).
    """

    def __init__(self, folder: Path, location: str, target: str) -> None:
        self._port = held_port()
        port = self._port.getsockname()[1]
        self.url = f"http://127.0.0.1:{port}"
        self.port: int = port
        self._errors = folder / "nginx.log"
        self._file = folder / "nginx.conf"
        self._file.write_text(
            _CONFIGURATION.format(folder=folder, port=port, location=location, target=target)
        )

    def __enter__(self) -> "Nginx":
        program = shutil.which("nginx") or shutil.which("nginx", path="/usr/sbin")
        if program is None:
            pytest.fail("no nginx: apt-get install nginx-light", pytrace=False)
        command = [program, "-p", str(self._file.parent), "-e", "stderr", "-c", str(self._file)]
        with self._errors.open("wb") as log:
            self._process = subprocess.Popen(command, stdout=log, stderr=log)
        wait_until(self._listens)
        return self

    def __exit__(self, *_: object) -> None:
        self._process.terminate()
        self._process.wait()
        self._port.close()

    def _listens(self) -> bool:
        assert self._process.poll() is None, self._errors.read_text()
        with contextlib.suppress(OSError):
            socket.create_connection(("127.0.0.1", self.port)).close()
            return True
        return False
