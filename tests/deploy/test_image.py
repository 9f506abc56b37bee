"""What stands beside the program says the same: image, bake, dev container, watching, version."""

import json
import re
import tomllib

import yaml

from config import VERSION
from tests.support import ROOT
from tests.support.here import run_here

DOCKERFILE, BAKE, MAKEFILE = (
    (ROOT / name).read_text() for name in ("Dockerfile", "docker-bake.hcl", "Makefile")
)


def check(text: str) -> tuple[set[str], str]:
    [(flags, command)] = re.findall(r"^HEALTHCHECK (.*) \\\n +CMD (.*)$", text, re.MULTILINE)
    return set(flags.split()), command


def test_bake_adds_to_the_check_what_older_engines_cannot_read_and_no_more() -> None:
    (flags, command), (plain, same) = check(BAKE), check(DOCKERFILE)
    assert command == same
    assert flags == plain | {"--start-period=10s", "--start-interval=200ms"}


def test_bake_names_arguments_that_the_image_takes_and_no_label_states_a_licence() -> None:
    taken = set(re.findall(r"^ARG (\w+)", DOCKERFILE, re.MULTILINE))
    [arguments] = re.findall(r"^  args = \{(.*?)\}", BAKE, re.MULTILINE | re.DOTALL)
    given = set(re.findall(r"^ +(\w+) +=", arguments, re.MULTILINE))
    assert given >= {"SOURCE", "COMMIT", "CREATED"}, "without one of them none is a label"
    assert given <= taken
    assert not re.search(r"image\.licen[cs]es?", DOCKERFILE + BAKE), "the owner has chosen none"


def test_the_dev_container_runs_the_page_on_the_port_that_it_opens() -> None:
    container = json.loads((ROOT / ".devcontainer" / "devcontainer.json").read_text())
    assert container["postAttachCommand"] == "make run"
    [port] = re.findall(r"^PORT \?= (\d+)", MAKEFILE, re.MULTILINE)
    assert container["forwardPorts"] == [int(port)]
    assert list(container["portsAttributes"]) == [port]


def test_compose_watch_builds_anew_for_requirements_and_restarts_for_the_rest() -> None:
    web = yaml.safe_load((ROOT / "compose.yaml").read_text())["services"]["web"]
    rules = {rule["path"]: rule for rule in web["develop"]["watch"]}
    [workdir] = set(re.findall(r"^WORKDIR (.*)", DOCKERFILE, re.MULTILINE))
    assert rules["requirements.txt"] == {"action": "rebuild", "path": "requirements.txt"}
    assert rules["."] == {"action": "sync+restart", "path": ".", "target": workdir}


def test_one_place_states_the_version_and_what_cannot_read_it_was_stamped_with_it() -> None:
    told = run_here("--version")
    assert (told.returncode, told.stdout, told.stderr) == (0, f"friendlyhello {VERSION}\n", "")
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    assert project["project"]["dynamic"] == ["version"]
    assert project["tool"]["setuptools"]["dynamic"]["version"] == {"attr": "config.version.VERSION"}
    manifests = yaml.safe_load((ROOT / "deploy/kubernetes/kustomization.yaml").read_text())
    assert re.findall(r'image\.version="(.*)"', DOCKERFILE) == [VERSION], "make stamp writes it"
    assert manifests["images"][0]["newTag"] == VERSION, "make stamp writes it"
    assert manifests["labels"][0]["pairs"]["app.kubernetes.io/version"] == VERSION
