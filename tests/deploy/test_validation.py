"""The custom resources of the components are validated strictly: each mistake in one is refused."""

from collections.abc import Iterator
from copy import deepcopy
from typing import Any

import jsonschema
import kubernetes_validate
import pydantic
import pytest
import yaml

from tests.deploy.test_kubernetes import BASE
from tests.deploy.validation import SPECS, Resource, validate

Place = tuple[str | int, ...]

FILES = {
    "HTTPRoute": "gateway/route.yaml",
    "Certificate": "tls/certificate.yaml",
    "Rollout": "rollouts/rollout.yaml",
    "AnalysisTemplate": "rollouts/analysis.yaml",
    "Canary": "flagger/canary.yaml",
    "PrometheusRule": "monitor/rules.yaml",
    "ServiceMonitor": "monitor/monitor.yaml",
}
#: The first object of each file.
GOOD = {
    kind: next(yaml.safe_load_all((BASE / "components" / file).read_text()))
    for kind, file in FILES.items()
}

#: Maps of text to text, whose fields are the user's.
FREE = {"labels", "annotations", "matchLabels", "requests", "limits"}

REFUSED = (
    jsonschema.ValidationError,
    pydantic.ValidationError,
    kubernetes_validate.ValidationError,
)

kinds = pytest.mark.parametrize("kind", FILES)

#: These test what the manifests are tested with, which takes two seconds to import its models.
pytestmark = pytest.mark.slow


def places(value: Any, path: Place = ()) -> Iterator[tuple[Place, Any]]:
    """Every value of a resource, and the path to it."""
    yield path, value
    if isinstance(value, dict | list):
        for key, inner in value.items() if isinstance(value, dict) else enumerate(value):
            yield from places(inner, (*path, key))


def changed(resource: Resource, path: Place, *value: Any) -> Resource:
    """A copy that has this value there, or none."""
    *way, last = path
    place = copy = deepcopy(resource)
    for step in way:
        place = place[step]
    if value:
        (place[last],) = value
    else:
        del place[last]  # type: ignore[arg-type]
    return copy


def test_every_kind_is_tried() -> None:
    assert {kind for _, kind in SPECS} == FILES.keys()
    for kind, resource in GOOD.items():
        assert resource["kind"] == kind
        validate(resource)


@kinds
def test_a_field_that_is_unknown_is_refused_anywhere(kind: str) -> None:
    objects = [
        path
        for path, value in places(GOOD[kind])
        if isinstance(value, dict) and not FREE.intersection(path)
    ]
    assert len(objects) > 3
    for path in objects:
        with pytest.raises(REFUSED, match="mistyped"):
            validate(changed(GOOD[kind], (*path, "mistyped"), "text"))


def test_a_field_by_the_name_that_python_has_for_it_is_refused() -> None:
    with pytest.raises(REFUSED, match="common_name"):
        validate(changed(GOOD["Certificate"], ("spec", "common_name"), "web"))


@kinds
def test_a_value_of_the_wrong_type_is_refused_anywhere(kind: str) -> None:
    for path, value in places(GOOD[kind]["spec"], ("spec",)):
        for wrong in ("1", 1, ["text"]):
            is_quantity = {"requests", "limits"}.intersection(path[:-1])
            may_be_a_number = (path[-1] in ("expr", "targetPort") or is_quantity) and wrong in (
                1,
                "1",
            )
            if type(wrong) is not type(value) and not may_be_a_number:
                with pytest.raises(REFUSED):
                    validate(changed(GOOD[kind], path, wrong))


@pytest.mark.parametrize(
    ("kind", "path"),
    [
        *((kind, path) for kind in FILES for path in (("metadata",), ("spec",))),
        *((kind, ("metadata", "name")) for kind in FILES),
        ("HTTPRoute", ("spec", "parentRefs")),
        ("HTTPRoute", ("spec", "parentRefs", 0, "name")),
        ("HTTPRoute", ("spec", "rules")),
        ("HTTPRoute", ("spec", "rules", 0, "backendRefs", 0, "name")),
        ("HTTPRoute", ("spec", "rules", 0, "backendRefs", 0, "port")),
        ("Certificate", ("spec", "secretName")),
        ("Certificate", ("spec", "issuerRef")),
        ("Certificate", ("spec", "issuerRef", "name")),
        ("PrometheusRule", ("spec", "groups", 0, "name")),
        ("PrometheusRule", ("spec", "groups", 0, "rules", 0, "expr")),
        ("ServiceMonitor", ("spec", "selector")),
        ("ServiceMonitor", ("spec", "selector", "matchExpressions", 0, "operator")),
        ("ServiceMonitor", ("spec", "endpoints")),
    ],
)
def test_a_field_that_is_missing_is_refused(kind: str, path: Place) -> None:
    with pytest.raises(REFUSED):
        validate(changed(GOOD[kind], path))


@pytest.mark.parametrize(
    ("kind", "path", "value"),
    [
        ("HTTPRoute", ("spec", "parentRefs"), []),
        ("HTTPRoute", ("spec", "rules", 0, "backendRefs", 0, "port"), 65536),
        ("HTTPRoute", ("spec", "rules", 0, "backendRefs", 0, "weight"), -1),
        ("Certificate", ("spec", "privateKey", "rotationPolicy"), "Sometimes"),
        ("PrometheusRule", ("spec", "groups", 0, "name"), ""),
        ("PrometheusRule", ("spec", "groups", 0, "rules", 0, "for"), "30 seconds"),
        ("ServiceMonitor", ("spec", "endpoints", 0, "scheme"), "ftp"),
        ("ServiceMonitor", ("spec", "endpoints", 0, "interval"), "15"),
        ("ServiceMonitor", ("spec", "sampleLimit"), "1000"),
    ],
)
def test_a_value_that_is_not_allowed_is_refused(kind: str, path: Place, value: Any) -> None:
    with pytest.raises(REFUSED):
        validate(changed(GOOD[kind], path, value))


@kinds
def test_another_version_or_kind_is_refused(kind: str) -> None:
    for field, value in (("apiVersion", "example.com/v1"), ("kind", f"{kind}s")):
        with pytest.raises(kubernetes_validate.SchemaNotFoundError):
            validate(changed(GOOD[kind], (field,), value))
        with pytest.raises(KeyError, match=field):
            validate(changed(GOOD[kind], (field,)))
    group, version = GOOD[kind]["apiVersion"].split("/")
    with pytest.raises(kubernetes_validate.SchemaNotFoundError):
        validate(changed(GOOD[kind], ("apiVersion",), f"{group}/{version}beta1"))
