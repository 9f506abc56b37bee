"""What the Gateway API's and Argo Rollouts' own types say, by the models that npm has of them.

The models take fields that are unknown; test_validation.py sees these refused.
"""

import json
from collections.abc import Callable
from typing import Any

import pytest

from tests.deploy.manifests import COMPONENTS, Place, Resource, changed, load_all
from tests.deploy.test_validation import BACKEND, GOOD
from tests.support import ROOT
from tests.support.npm import with_npm

Wrong = Callable[[Resource], str | None]

STEP: Place = ("spec", "strategy", "canary", "steps", 0)


@pytest.fixture(scope="module")
def wrong(tmp_path_factory: pytest.TempPathFactory) -> Wrong:
    folder = tmp_path_factory.mktemp("npm") / "gateway"
    validate = with_npm(folder, ROOT / "tests/deploy/gateway")
    return lambda resource: json.loads(validate(json.dumps(resource)))


@pytest.mark.parametrize(
    "file",
    ["gateway/route.yaml", "canary/route.yaml", "rollouts/rollout.yaml", "rollouts/analysis.yaml"],
)
def test_a_resource_of_the_components_is_valid(file: str, wrong: Wrong) -> None:
    assert wrong(load_all((COMPONENTS / file).read_text())[0]) is None


@pytest.mark.parametrize(
    ("kind", "path", "value", "said"),
    [
        ("Rollout", (*STEP, "setWeight"), ["10"], "setWeight must be integer"),
        ("Rollout", ("spec", "workloadRef", "name"), [1], "name must be string"),
        ("AnalysisTemplate", ("spec", "metrics", 0, "provider"), [], "property provider"),
        ("AnalysisTemplate", ("spec", "args", 0, "name"), [], "property name"),
        ("HTTPRoute", ("apiVersion",), ["gateway.networking.k8s.io/v2"], "must be equal to"),
        ("HTTPRoute", ("spec", "rules"), ["text"], "rules must be array"),
        ("HTTPRoute", ("spec", "rules"), [[{}] * 17], "must NOT have more than 16 items"),
        ("HTTPRoute", (*BACKEND, "name"), [], "must have required property name"),
        ("HTTPRoute", (*BACKEND, "port"), ["80"], "port must be integer"),
        ("HTTPRoute", (*BACKEND, "port"), [65536], "port must be <= 65535"),
        ("HTTPRoute", ("spec", "rules", 0, "matches"), [[{"method": "get"}]], "must be equal to"),
    ],
)
def test_a_mistake_is_refused(
    kind: str, path: Place, value: list[Any], said: str, wrong: Wrong
) -> None:
    assert said in (wrong(changed(GOOD[kind], path, *value)) or "")
