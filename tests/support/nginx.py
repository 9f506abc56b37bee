"""A real nginx of a test's own."""

import contextlib
import shutil
import socket
import subprocess
from collections.abc import Iterator
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


@contextlib.contextmanager
def nginx(folder: Path, location: str, target: str) -> Iterator[int]:
    """Pass on what comes for a path, compressed where that can be; yield the port.

    :arg folder: for its files.
    :arg location: the path.
    :arg target: the URL that takes the place of the path, or the server's alone (`proxy_pass`).
    """
    program = shutil.which("nginx") or shutil.which("nginx", path="/usr/sbin")
    if program is None:
        pytest.fail("no nginx: apt-get install nginx-light", pytrace=False)
    with held_port() as held, (folder / "nginx.log").open("w+") as log:
        port = held.getsockname()[1]
        filled = {"folder": folder, "port": port, "location": location, "target": target}
        (folder / "nginx.conf").write_text(_CONFIGURATION.format(**filled))
        command = [program, "-p", str(folder), "-e", "stderr", "-c", str(folder / "nginx.conf")]
        with subprocess.Popen(command, stdout=log, stderr=log) as process:

            def listens() -> bool:
                assert process.poll() is None, Path(log.name).read_text()
                with socket.socket() as client:
                    return client.connect_ex(("127.0.0.1", port)) == 0

            try:
                wait_until(listens)
                yield port
            finally:
                process.terminate()
