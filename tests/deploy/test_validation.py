"""The resources of the manifests are validated strictly: each mistake in one is refused."""

from typing import Any

import jsonschema
import kubernetes_validate
import pydantic
import pytest

from tests.deploy.manifests import COMPONENTS, WEB, Place, changed, load_all, places
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

#: One shows that mistakes are seen; the models of some take seconds to import.
kinds = pytest.mark.parametrize(
    "kind",
    [pytest.param(kind, marks=[pytest.mark.slow] if kind != "HTTPRoute" else []) for kind in GOOD],
)


def test_a_mistyped_field_is_refused() -> None:
    with pytest.raises(kubernetes_validate.ValidationError, match="replica"):
        validate(changed(WEB, ("spec", "replica"), 5))


def test_every_kind_is_tried() -> None:
    assert {kind for _, kind in SPECS} == FILES.keys()
    for kind, resource in GOOD.items():
        assert resource["kind"] == kind


@kinds
def test_a_field_that_is_unknown_is_refused_anywhere(kind: str) -> None:
    validate(GOOD[kind])
    objects = [
        path
        for path, value in places(GOOD[kind])
        if isinstance(value, dict) and not FREE.intersection(path)
    ]
    assert len(objects) > 3
    for path in objects:
        with pytest.raises(REFUSED, match="mistyped"):
            validate(changed(GOOD[kind], (*path, "mistyped"), "text"))


def may_be_a_number(kind: str, path: Place) -> bool:
    names = {"expr", "targetPort"}
    if kind == "Deployment":
        names |= {"port", "maxSurge", "maxUnavailable"}
    return path[-1] in names or bool({"requests", "limits"}.intersection(path[:-1]))


@kinds
def test_a_value_of_the_wrong_type_is_refused_anywhere(kind: str) -> None:
    for path, value in places(GOOD[kind]["spec"], ("spec",)):
        for wrong in (["text"], *(() if may_be_a_number(kind, path) else ("1", 1))):
            if type(wrong) is not type(value):
                with pytest.raises(REFUSED):
                    validate(changed(GOOD[kind], path, wrong))


BACKEND: Place = ("spec", "rules", 0, "backendRefs", 0)

#: Places that must have a value, and values that are not allowed there.
MISTAKES: dict[str, list[tuple[Any, ...]]] = {
    "HTTPRoute": [((*BACKEND, "port"), 65536), ((*BACKEND, "weight"), -1), ((*BACKEND, "name"),)],
    "Certificate": [
        (("spec", "issuerRef", "name"),),
        (("spec", "privateKey", "rotationPolicy"), "Sometimes"),
        (("spec", "common_name"), "web"),  # the name that Python has for it
    ],
    "PrometheusRule": [
        (("spec", "groups", 0, "rules", 0, "expr"),),
        (("spec", "groups", 0, "rules", 0, "for"), "30 seconds"),
    ],
    "ServiceMonitor": [
        (("spec", "selector", "matchExpressions", 0, "operator"),),
        (("spec", "endpoints", 0, "scheme"), "ftp"),
        (("spec", "endpoints", 0, "interval"), "15"),
    ],
}


@kinds
def test_a_field_that_is_missing_and_a_value_that_is_not_allowed_are_refused(kind: str) -> None:
    """Each place, with no value there, or with this one."""
    whole = [(("spec",),), (("metadata",),), (("metadata", "name"),)] if kind in FILES else []
    for path, *value in whole + MISTAKES.get(kind, []):
        with pytest.raises(REFUSED):
            validate(changed(GOOD[kind], path, *value))


@kinds
def test_another_version_or_kind_is_refused(kind: str) -> None:
    api = GOOD[kind]["apiVersion"]
    for field, value in ("apiVersion", "example.com/v1"), ("kind", f"{kind}s"):
        with pytest.raises(kubernetes_validate.SchemaNotFoundError):
            validate(changed(GOOD[kind], (field,), value))
        with pytest.raises(KeyError, match=field):
            validate(changed(GOOD[kind], (field,)))
    with pytest.raises(kubernetes_validate.SchemaNotFoundError):
        validate(changed(GOOD[kind], ("apiVersion",), f"{api}beta1"))
