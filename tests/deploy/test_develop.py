"""What a developer starts it with: .devcontainer/ and compose.develop.yaml."""

import json
import re

import yaml

from tests.support import ROOT

MAKEFILE = (ROOT / "Makefile").read_text()


def test_the_dev_container_runs_the_page_on_the_port_that_it_opens() -> None:
    container = json.loads((ROOT / ".devcontainer" / "devcontainer.json").read_text())
    assert container["postAttachCommand"] == "make run"
    assert re.search(r"^run:", MAKEFILE, re.MULTILINE)
    [port] = re.findall(r"^PORT \?= (\d+)", MAKEFILE, re.MULTILINE)
    assert container["forwardPorts"] == [int(port)]
    assert list(container["portsAttributes"]) == [port]


def test_watching_builds_anew_for_requirements_and_restarts_for_the_rest() -> None:
    web = yaml.safe_load((ROOT / "compose.develop.yaml").read_text())["services"]["web"]
    rules = {rule["path"]: rule for rule in web["develop"]["watch"]}
    assert rules["requirements.txt"] == {"action": "rebuild", "path": "requirements.txt"}
    assert rules["."] == {"action": "sync+restart", "path": ".", "target": "/app"}
    [workdir] = set(re.findall(r"^WORKDIR (.*)", (ROOT / "Dockerfile").read_text(), re.MULTILINE))
    assert rules["."]["target"] == workdir


def test_make_watch_adds_watching_to_compose() -> None:
    [line] = re.findall(r"^watch:.*\n\t(.*)", MAKEFILE, re.MULTILINE)
    files = ["compose.yaml", "compose.develop.yaml"]
    assert re.findall(r"--file=(\S+)", line) == files
    assert all((ROOT / file).is_file() for file in files)
    assert line.endswith(" up --build --watch")
