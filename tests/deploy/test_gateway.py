"""What the Gateway API's and Argo Rollouts' own types say, by the models that npm has of them.

The models take fields that are unknown; test_validation.py sees these refused.
"""

import json
from pathlib import Path

from tests.deploy.manifests import COMPONENTS, changed, load_all
from tests.deploy.test_validation import BACKEND, GOOD
from tests.support import ROOT
from tests.support.npm import with_npm


def test_the_resources_of_the_components_are_valid_and_a_mistake_is_refused(tmp_path: Path) -> None:
    validate = with_npm(tmp_path / "gateway", ROOT / "tests/deploy/gateway")
    for file in ("gateway/route", "canary/route", "rollouts/rollout", "rollouts/analysis"):
        resource = load_all((COMPONENTS / f"{file}.yaml").read_text())[0]
        assert json.loads(validate(json.dumps(resource))) is None, file
    weight = ("spec", "strategy", "canary", "steps", 0, "setWeight")
    for kind, path, value, said in (
        ("Rollout", weight, ["10"], "setWeight must be integer"),
        ("AnalysisTemplate", ("spec", "metrics", 0, "provider"), [], "property provider"),
        ("HTTPRoute", ("apiVersion",), ["gateway.networking.k8s.io/v2"], "must be equal to"),
        ("HTTPRoute", ("spec", "rules"), [[{}] * 17], "must NOT have more than 16 items"),
        ("HTTPRoute", (*BACKEND, "name"), [], "must have required property name"),
        ("HTTPRoute", (*BACKEND, "port"), [65536], "port must be <= 65535"),
    ):
        wrong = json.loads(validate(json.dumps(changed(GOOD[kind], path, *value))))
        assert said in (wrong or "")
