"""One place states the version."""

import re
import tomllib

import pytest
import yaml

from config import VERSION
from tests.support import ROOT
from tests.support.program import run_to_end


def test_the_program_tells_its_version() -> None:
    told = run_to_end("--version")
    assert (told.returncode, told.stdout, told.stderr) == (0, f"friendlyhello {VERSION}\n", "")


def test_the_project_reads_its_version_from_the_program() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    assert project["project"]["dynamic"] == ["version"]
    assert project["tool"]["setuptools"]["dynamic"]["version"] == {"attr": "config.version.VERSION"}


def _of_the_image() -> str:
    [version] = re.findall(r'image\.version="(.*)"', (ROOT / "Dockerfile").read_text())
    return str(version)


def _of_the_manifests() -> str:
    path = ROOT / "deploy/kubernetes/kustomization.yaml"
    return str(yaml.safe_load(path.read_text())["images"][0]["newTag"])


def _of_the_labels() -> str:
    path = ROOT / "deploy/kubernetes/kustomization.yaml"
    pairs = yaml.safe_load(path.read_text())["labels"][0]["pairs"]
    return str(pairs["app.kubernetes.io/version"])


@pytest.mark.parametrize("stamped", [_of_the_image, _of_the_manifests, _of_the_labels])
def test_what_cannot_read_the_version_was_stamped_with_it(stamped: object) -> None:
    assert callable(stamped)
    assert stamped() == VERSION, "make stamp writes it"
