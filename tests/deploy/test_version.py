"""One place states the version."""

import re
import tomllib

import yaml

from config import VERSION
from tests.support import ROOT
from tests.support.here import run_here


def test_the_program_tells_its_version() -> None:
    told = run_here("--version")
    assert (told.returncode, told.stdout, told.stderr) == (0, f"friendlyhello {VERSION}\n", "")


def test_the_project_reads_its_version_from_the_program() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    assert project["project"]["dynamic"] == ["version"]
    assert project["tool"]["setuptools"]["dynamic"]["version"] == {"attr": "config.version.VERSION"}


def test_what_cannot_read_the_version_was_stamped_with_it() -> None:
    manifests = yaml.safe_load((ROOT / "deploy/kubernetes/kustomization.yaml").read_text())
    of_the_image = re.findall(r'image\.version="(.*)"', (ROOT / "Dockerfile").read_text())
    assert of_the_image == [VERSION], "make stamp writes it"
    assert manifests["images"][0]["newTag"] == VERSION, "make stamp writes it"
    assert manifests["labels"][0]["pairs"]["app.kubernetes.io/version"] == VERSION
