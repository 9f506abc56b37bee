"""``openapi.yaml``: it describes every path, and what the server answers is what it describes."""

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from config import Settings
from handlers import route_names
from server import make_app
from tests.handlers.test_stock_tornado import PATHS
from tests.support import ROOT
from tests.support.here import Serve
from tests.support.program import NOWHERE, Site

DESCRIPTION = ROOT / "openapi.yaml"


def test_every_path_is_described_and_no_other() -> None:
    described = set(yaml.safe_load(DESCRIPTION.read_text())["paths"]) - {"/{other}"}
    rules = make_app(Settings(faults=True, echo=True)).wildcard_router.rules
    assert described == set(route_names(rules).values())  # type: ignore[arg-type]
    assert described == {*PATHS} - {"other"}, "each is compared with stock Tornado's"


def test_what_a_web_page_gets_at_faults_is_described(serve: Serve) -> None:
    """Schemathesis does not find it: it sends no ``Origin``."""
    described = yaml.safe_load(DESCRIPTION.read_text())["paths"]["/faults"]
    server = serve("--faults")
    for method in ("get", "head"):
        status, _ = server.get("/faults", method.upper(), Origin="http://site.example")
        assert status == 403
        assert str(status) in described[method]["responses"]


def drive(server: Site, folder: Path, description: Path, *options: str) -> None:
    """Let schemathesis send what the description allows, and what it does not; all must hold.

    Whatever of it is random comes out the same each time.
    """
    done = subprocess.run(
        [
            *(str(Path(sys.executable).parent / "schemathesis"), "run", str(description)),
            *(f"--url={server.url}", "--seed=1", "--generation-database=none"),
            *("--request-timeout=60", "--no-color"),
            *("--exclude-path=/live/events", *options),  # it has no end
        ],
        cwd=folder,
        # To measure schemathesis's own coverage would take half as long again.
        env={name: value for name, value in os.environ.items() if not name.startswith("COV")},
        capture_output=True,
        text=True,
        timeout=150,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "Tested: " in done.stdout


def options_of_the_page() -> list[str]:
    """Return the options of the command in docs/paths.md, but for the one of each `drive`."""
    page = (ROOT / "docs/paths.md").read_text().replace("\\\n", " ")
    (command,) = re.findall(
        r"^\$ \S+schemathesis run \S+ --exclude-path /live/events (.+)$", page, re.M
    )
    return shlex.split(command)


#: A status that was asked for is no error of the server's, nor a refusal.
ASKED_FOR = "--exclude-checks=not_a_server_error,positive_data_acceptance"

AT_LENGTH = "--max-examples=12"


@pytest.fixture
def server(serve: Serve) -> Site:
    flags = ("--access-log=false", "--faults", "--echo")
    return serve(*flags, "--version-label=v1.2", "--labels=zone=eu-1,node=n7")


def test_answers_are_as_described(server: Site, folder: Path) -> None:
    assert server.get("/openapi.yaml") == (200, DESCRIPTION.read_text())
    # It ends within two seconds, half of which schemathesis takes to start.
    briefly = ("--phases=fuzzing", "--max-examples=1", ASKED_FOR, "--exclude-path=/faults")
    drive(server, folder, DESCRIPTION, *briefly)


@pytest.mark.slow
def test_answers_are_as_described_at_length(server: Site, folder: Path) -> None:
    # The page apart, and faults, which are set last, as they change the rest.
    drive(server, folder, DESCRIPTION, AT_LENGTH, "--exclude-path=/", "--exclude-path=/faults")
    changed = folder / "openapi.yaml"
    description = yaml.safe_load(DESCRIPTION.read_text())
    # The page's example is sent with each of the statuses, and need not be waited for so often.
    description["components"]["parameters"]["Wait"]["example"] = "1ms"
    # The tests go on: they neither end the server nor take this machine's cores and memory.
    for name in ("exit", "cpu", "memory"):
        del description["components"]["schemas"]["FaultsToSet"]["properties"][name]
    changed.write_text(yaml.safe_dump(description))
    phases = "--phases=examples,coverage"
    drive(server, folder, changed, AT_LENGTH, phases, "--include-path=/", ASKED_FOR)
    # A range from more to less is refused, which the description cannot say.
    ranges = "--exclude-checks=positive_data_acceptance"
    drive(server, folder, changed, AT_LENGTH, "--include-path=/faults", ranges)


@pytest.mark.slow
def test_answers_are_as_described_without_faults_and_redis(served: Serve, folder: Path) -> None:
    server = served(NOWHERE, "--access-log=false")
    # The query is ignored then, whatever it says. /faults and /echo are 404, whatever the method.
    drive(server, folder, DESCRIPTION, AT_LENGTH, *options_of_the_page())
