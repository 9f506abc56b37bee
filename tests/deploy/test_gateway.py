"""What the Gateway API's and Argo Rollouts' own types say, by the models that npm has of them.

The models take fields that are unknown; test_validation.py sees these refused.
"""

import json
import shutil
import subprocess
from collections.abc import Callable
from typing import Any

import pytest
import yaml

from tests.deploy.test_kubernetes import BASE
from tests.deploy.test_validation import GOOD, Place, changed
from tests.deploy.validation import Resource
from tests.support import ROOT

Wrong = Callable[[Resource], str | None]

ROUTE = GOOD["HTTPRoute"]
BACKEND = ("spec", "rules", 0, "backendRefs", 0)


@pytest.fixture(scope="module")
def wrong(tmp_path_factory: pytest.TempPathFactory) -> Wrong:
    """Say what is wrong with a route."""
    if shutil.which("npm") is None:
        pytest.fail("npm is missing: apt-get install npm", pytrace=False)
    folder = tmp_path_factory.mktemp("npm") / "gateway"
    shutil.copytree(ROOT / "tests/deploy/gateway", folder)

    def run(*command: str, given: str = "") -> str:
        done = subprocess.run(
            command, cwd=folder, input=given, capture_output=True, text=True, timeout=120
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    run("npm", "ci", "--no-audit", "--no-fund")
    return lambda route: json.loads(run("node", "validate.js", given=json.dumps(route)))


FILES = (
    "gateway/route.yaml",
    "canary/route.yaml",
    "rollouts/rollout.yaml",
    "rollouts/analysis.yaml",
)


@pytest.mark.parametrize("file", FILES)
def test_a_resource_of_the_components_is_valid(file: str, wrong: Wrong) -> None:
    assert wrong(next(yaml.safe_load_all((BASE / "components" / file).read_text()))) is None


STEP = ("spec", "strategy", "canary", "steps", 0)


@pytest.mark.parametrize(
    ("kind", "path", "value", "said"),
    [
        ("Rollout", (*STEP, "setWeight"), ["10"], "setWeight must be integer"),
        ("Rollout", ("spec", "workloadRef", "name"), [1], "name must be string"),
        ("AnalysisTemplate", ("spec", "metrics", 0, "provider"), [], "property provider"),
        ("AnalysisTemplate", ("spec", "args", 0, "name"), [], "property name"),
    ],
)
def test_a_mistake_in_a_rollout_is_refused(
    kind: str, path: Place, value: list[Any], said: str, wrong: Wrong
) -> None:
    assert said in (wrong(changed(GOOD[kind], path, *value)) or "")


@pytest.mark.parametrize(
    ("path", "value", "said"),
    [
        (("apiVersion",), ["gateway.networking.k8s.io/v2"], "apiVersion must be equal to"),
        (("spec", "rules"), ["text"], "rules must be array"),
        (("spec", "rules"), [[{}] * 17], "rules must NOT have more than 16 items"),
        ((*BACKEND, "name"), [], "must have required property name"),
        ((*BACKEND, "port"), ["80"], "port must be integer"),
        ((*BACKEND, "port"), [65536], "port must be <= 65535"),
        (("spec", "rules", 0, "matches"), [[{"method": "get"}]], "method must be equal to one of"),
    ],
)
def test_a_mistake_is_refused(path: Place, value: list[Any], said: str, wrong: Wrong) -> None:
    assert said in (wrong(changed(ROUTE, path, *value)) or "")
