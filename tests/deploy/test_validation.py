"""The resources of the manifests are validated strictly: each mistake in one is refused."""

from collections.abc import Iterator
from typing import Any

import jsonschema
import kubernetes_validate
import pydantic
import pytest

from tests.deploy.manifests import COMPONENTS, WEB, Place, Resource, changed, load_all, places
from tests.deploy.validation import SPECS, validate

FILES = {
    "HTTPRoute": "gateway/route.yaml",
    "Certificate": "tls/certificate.yaml",
    "Rollout": "rollouts/rollout.yaml",
    "AnalysisTemplate": "rollouts/analysis.yaml",
    "Canary": "flagger/canary.yaml",
    "PrometheusRule": "monitor/rules.yaml",
    "ServiceMonitor": "monitor/monitor.yaml",
}
#: The first object of each file, and one of Kubernetes' own kinds.
GOOD = {kind: load_all((COMPONENTS / file).read_text())[0] for kind, file in FILES.items()}
GOOD |= {"Deployment": WEB}

#: Maps of text to text, whose fields are the user's.
FREE = {"labels", "annotations", "matchLabels", "requests", "limits"}

REFUSED = (
    jsonschema.ValidationError,
    pydantic.ValidationError,
    kubernetes_validate.ValidationError,
)


def may_be_a_number(kind: str, path: Place) -> bool:
    names = {"expr", "targetPort"}
    if kind == "Deployment":
        names |= {"port", "maxSurge", "maxUnavailable"}
    return path[-1] in names or bool({"requests", "limits"}.intersection(path[:-1]))


BACKEND: Place = ("spec", "rules", 0, "backendRefs", 0)

#: Places that must have a value, and values that are not allowed there.
MISTAKES: dict[str, list[tuple[Any, ...]]] = {
    "HTTPRoute": [((*BACKEND, "weight"), -1), ((*BACKEND, "name"),)],
    # The name that Python has for it.
    "Certificate": [(("spec", "issuerRef", "name"),), (("spec", "common_name"), "web")],
    "PrometheusRule": [(("spec", "groups", 0, "rules", 0, "for"), "30 seconds")],
    "ServiceMonitor": [(("spec", "endpoints", 0, "scheme"), "ftp")],
}


def mistakes(kind: str) -> Iterator[Resource]:
    """Each place with a field that is unknown, a value of another type, none, or one of these."""
    good = GOOD[kind]
    for path, value in places(good):
        if isinstance(value, dict) and not FREE.intersection(path):
            yield changed(good, (*path, "mistyped"), "text")
    for path, value in places(good["spec"], ("spec",)):
        for wrong in (["text"], *(() if may_be_a_number(kind, path) else ("1", 1))):
            if type(wrong) is not type(value):
                yield changed(good, path, wrong)
    whole = [(("spec",),), (("metadata",),), (("metadata", "name"),)] if kind in FILES else []
    for path, *given in whole + MISTAKES.get(kind, []):
        yield changed(good, path, *given)


# One shows that mistakes are seen; the models of some take seconds to import.
@pytest.mark.parametrize(
    "kind",
    [pytest.param(kind, marks=[pytest.mark.slow] if kind != "HTTPRoute" else []) for kind in GOOD],
)
def test_a_resource_is_valid_and_each_mistake_in_it_is_refused(kind: str) -> None:
    validate(GOOD[kind])
    for one in mistakes(kind):
        with pytest.raises(REFUSED):
            validate(one)
    for field, value in ("apiVersion", "example.com/v1"), ("kind", f"{kind}s"):
        with pytest.raises(kubernetes_validate.SchemaNotFoundError):
            validate(changed(GOOD[kind], (field,), value))


def test_every_kind_is_tried_and_a_mistyped_field_is_refused() -> None:
    assert {kind for _, kind in SPECS} == FILES.keys()
    with pytest.raises(kubernetes_validate.ValidationError, match="replica"):
        validate(changed(WEB, ("spec", "replica"), 5))
