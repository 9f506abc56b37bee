"""The examples of the pages: each command is run, and prints what the page shows."""

import contextlib
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path

import pytest
import trustme

from tests.docs.console import Shown, blocks
from tests.support import ROOT
from tests.support.ports import held_port
from tests.support.program import environment

#: Ports of the examples: the page's, the admin port, and one that nobody listens on.
PORTS = ("4000", "9000", "6390")

#: What serves the examples that do not say how the server was started.
NORMAL = "server.py --port=4000 --name=World --redis-url=embedded:data --echo --faults"
AWAY = "server.py --port=4000 --name=World --redis-url=redis://127.0.0.1:6390"
LABELLED = f"{NORMAL} --version-label=blue"

#: What needs other tools, or shows what the other tests run.
LEFT_OUT = re.compile(r"schemathesis|^make |^docker ")

#: What is another each time, behind what it is known by.
VARIES = re.compile(
    r"("
    r"Hostname:</b> |(?:Visits:</b>|\"(?:visits|total|seen|time)\":) (?=\d)|"
    r"\"hostname\": \"|\"(?:commit|python|tornado)\": \"|\"version\": \"(?=\d)|"
    r"curl/|127\.0\.0\.1:(?=\d{5}\")|visits_total |^real |\) (?=[\d.]+ms$)"
    r")[^\"<,} ]*"
)

#: What a line of the log begins with.
LOG = r"\[[A-Z]\] "

#: Makes a script of the commands: one server at a time, which counts when it has a Redis.
SHELL = """
set -u
curl() { command curl --silent --show-error "$@"; }
stop() {
  [ -z "${server:-}" ] || { kill $server; wait $server; cat log.new >>log; }
  server=
}
serve() {
  stop
  : >log.new
  env "$@" 2>log.new & server=$!
  local last='listening on'
  case "$*" in *embedded:*) last='counter on';; esac
  until grep -q "$last" log.new; do kill -0 $server || { cat log.new; exit 1; }; sleep 0.05; done
}
trap stop EXIT
"""

#: Between what two commands print.
END = "\x1e"


def is_server(shown: Shown) -> bool:
    return "server.py" in shown.command and not shown.output.startswith("server.py:")


def name_of(block: list[Shown]) -> str:
    """Return what serves a block; its section when it starts a server itself, or needs none."""
    text = "".join(one.command + one.output for one in block)
    if any(is_server(one) for one in block) or "curl" not in text:
        return block[0].section
    if "cannot connect to Redis" in text or '"redis": "down"' in text:
        return AWAY
    return LABELLED if block[0].section == "Version label" else NORMAL


EXAMPLES: dict[tuple[str, str], list[Shown]] = {}
for page in ("docs/settings.md", "docs/paths.md"):
    for block in blocks(page):
        if not any(LEFT_OUT.search(one.command) for one in block):
            EXAMPLES.setdefault((page, name_of(block)), []).extend(block)


def script(server: str, those: list[Shown], ports: list[int]) -> str:
    lines = [SHELL, f"serve python {server}" if server.startswith("server.py") else ""]
    for shown in those:
        serve = f"serve {shown.command.removesuffix('&')}"
        lines.append(serve if is_server(shown) else f"{{ {shown.command}\n}} 2>&1")
        lines.append(f"echo; echo {END}")
    text = "\n".join(lines)
    for named, port in zip(PORTS, ports, strict=True):
        text = text.replace(named, str(port))
    text = re.sub(r"(\.venv/bin/)?python(?= (server|check)\.py)", shlex.quote(sys.executable), text)
    return re.sub(
        r"\b(server|check)\.py(?= |$)", lambda name: str(ROOT / name[0]), text, flags=re.M
    )


def lines_of(text: str, ports: Iterable[int] = ()) -> list[str]:
    """Return the lines of a text without what is another each time."""
    for port, named in zip(ports, PORTS, strict=False):
        text = text.replace(str(port), named)
    found = []
    for line in text.splitlines():
        line = re.sub(r"^\[([A-Z]) [^\]]*\]", r"[\1]", re.sub(r"\s+", " ", line).strip())
        found.append(VARIES.sub(r"\1~", line))
    return [line for line in found if line not in ("", "…")]


def assert_in_order(shown: list[str], printed: list[str]) -> None:
    rest = iter(printed)
    absent = [line for line in shown if line not in rest]
    assert not absent, f"{absent[0]}\nis not in\n" + "\n".join(printed)


def make_certificates(folder: Path) -> None:
    """Make those that the examples name and do not make."""
    authority, other = trustme.CA(), trustme.CA()
    authority.cert_pem.write_to_path(str(folder / "ca.crt"))
    ada = authority.issue_cert("ada.example")
    ada.cert_chain_pems[0].write_to_path(str(folder / "ada.crt"))
    ada.private_key_pem.write_to_path(str(folder / "ada.key"))
    other.issue_cert("localhost").private_key_pem.write_to_path(str(folder / "other.key"))


@pytest.mark.slow
@pytest.mark.skipif(
    not all(map(shutil.which, ("curl", "openssl"))),
    reason="curl or openssl is not installed: the examples were not run",
)
@pytest.mark.parametrize(("page", "name"), EXAMPLES)
def test_the_commands_of_a_page_print_what_it_shows(page: str, name: str, folder: Path) -> None:
    those = EXAMPLES[page, name]
    make_certificates(folder)
    with contextlib.ExitStack() as held:
        ports = [held.enter_context(held_port()).getsockname()[1] for _ in PORTS]
        done = subprocess.run(
            ["bash", "-c", script(name, those, ports)],
            cwd=folder,
            env=environment(no_proxy="*", NO_PROXY="*"),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=120,
        )
    *outputs, _ = done.stdout.split(END)
    assert len(outputs) == len(those), done.stdout
    logged: list[str] = []
    for shown, output in zip(those, outputs, strict=True):
        told, printed = lines_of(shown.output), lines_of(output, ports)
        if "check.py" in shown.command:
            told, printed = ([re.sub(r"[\d.]+", "~", x) for x in one] for one in (told, printed))
        logged += (line for line in told if re.match(LOG, line))
        assert_in_order([line for line in told if not re.match(LOG, line)], printed)
    if logged:
        assert_in_order(logged, lines_of((folder / "log").read_text(), ports))
